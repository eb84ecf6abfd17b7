package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// A volume is a directory on the host with four entries:
//
//   - device, a sparse file of the volume's size. In the machine /dev/NAME leads
//     to it, and tools for disk images work on it: mkfs, blkid, parted. It is not
//     a block device: a user namespace can neither create one nor mount one.
//   - content, the tree of the file system, which mount shows; see mount.go. It
//     can become a layer.
//   - filesystem, the UUID of the file system on the device that the tree belongs to.
//   - size, the size of the volume in bytes, because the machine may change the size
//     of the device. The directory of a machine has one for its root, which may be
//     larger than the largest possible file.
//
// The first three are bound into the machine's /run, but not their directory: the
// machine's root can change their content but cannot replace them.
//
// A volume has one tree: partitions can be created on the device but have no
// devices of their own, and no boot loader on it is ever run.
const (
	volumeDevice     = "device"
	volumeFilesystem = "filesystem"
	volumeSize       = "size"

	volumesPath = "/run/bake/volumes" // where a machine sees its volumes
	prefilled   = "prefilled"         // in place of a UUID: the tree came with the volume
)

// writeSize records the size of the volume in dir. It replaces the file atomically, because the
// file may be read at any time.
func writeSize(dir string, size int64) error {
	path := filepath.Join(dir, volumeSize)
	if err := os.WriteFile(path+".new", strconv.AppendInt(nil, size, 10), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(path+".new", 0o644); err != nil { // whatever the umask, because the machines' root reads it
		return err
	}
	return os.Rename(path+".new", path)
}

// readSize returns the size of the volume in dir. For a volume without a recorded size, as older
// versions made, it is the size of the device.
func readSize(dir string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(dir, volumeSize))
	if errors.Is(err, fs.ErrNotExist) {
		device, err := os.Lstat(filepath.Join(dir, volumeDevice))
		if err != nil {
			return 0, err
		}
		return device.Size(), nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, 64)
}

// growVolume grows the volume in dir. A root has no device.
func growVolume(dir string, size int64) error {
	if err := os.Truncate(filepath.Join(dir, volumeDevice), size); err != nil {
		if _, sized := readSize(dir); sized != nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return writeSize(dir, size)
}

func (d *Driver) makeVolume(ctx context.Context, dir string, layers []string, size int64) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := d.Private(dir); err != nil {
		return err
	}
	state := ""
	if len(layers) > 0 {
		state = prefilled
	}
	for name, text := range map[string]string{volumeDevice: "", volumeFilesystem: state} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		if err := d.ids.give(path); err != nil {
			return err
		}
	}
	if err := os.Truncate(filepath.Join(dir, volumeDevice), size); err != nil {
		return err
	}
	if err := writeSize(dir, size); err != nil {
		return err
	}
	content := filepath.Join(dir, machine.VolumeContent)
	if err := d.makeLayerDir(content); err != nil || len(layers) == 0 {
		return err
	}
	job := filesJob{op: "merge"}
	for _, path := range append([]string{content}, layers...) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		job.dirs = append(job.dirs, f)
	}
	return d.inNamespace(ctx, job)
}

// volumeParts are the files and the directory of a volume, in the order in which they are bound.
func volumeParts() []string { return []string{volumeDevice, volumeFilesystem, machine.VolumeContent} }

// volumeTrees are the parts of a volume, copied from the host's mount namespace as mounts that are
// not attached yet.
type volumeTrees struct {
	name  string
	parts []*os.File
}

// openVolume opens the volume name of the machine whose directory is dir, below the working
// directory. The caller may only have the right to walk there, not to read.
func openVolume(dir, name string) (*volumeTrees, error) {
	v := &volumeTrees{name: name}
	for _, part := range volumeParts() {
		at, err := unix.Openat2(unix.AT_FDCWD, filepath.Join(dir, machine.VolumesDir, name, part), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if err == nil {
			var tree int
			tree, err = unix.OpenTree(at, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			unix.Close(at)
			if err == nil {
				v.parts = append(v.parts, os.NewFile(uintptr(tree), part))
			}
		}
		if err != nil {
			v.close()
			return nil, fmt.Errorf("volume %s: %s: %w", name, part, err)
		}
	}
	return v, nil
}

func (v *volumeTrees) close() {
	for _, f := range v.parts {
		f.Close()
	}
}

// openVolumes opens volumes of the machine whose directory is dir.
func openVolumes(dir string, names []string) (all []*volumeTrees, err error) {
	for _, name := range names {
		v, err := openVolume(dir, name)
		if err != nil {
			for _, v := range all {
				v.close()
			}
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// bind mounts the parts of the volume in the machine and closes v. It runs in the machine.
func (v *volumeTrees) bind() (err error) {
	defer v.close()
	dir := filepath.Join(volumesPath, v.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unbindVolume(v.name))
		}
	}()
	for _, part := range v.parts {
		target := filepath.Join(dir, part.Name())
		if part.Name() == machine.VolumeContent {
			err = os.Mkdir(target, 0o755)
		} else {
			err = os.WriteFile(target, nil, 0o644)
		}
		if err == nil {
			err = unix.MoveMount(int(part.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err != nil {
			return fmt.Errorf("volume %s: mount %s: %w", v.name, part.Name(), err)
		}
	}
	return nil
}

// unbindVolume undoes bind. If a process of the machine uses the volume, it fails and changes
// nothing. It runs in the machine.
func unbindVolume(name string) error {
	dir := filepath.Join(volumesPath, name)
	// With MNT_EXPIRE the kernel reports whether a mount is in use, without unmounting it.
	for _, part := range volumeParts() {
		if unix.Unmount(filepath.Join(dir, part), unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW) == unix.EBUSY {
			return fmt.Errorf("a process uses the volume %s: %w", name, unix.EBUSY)
		}
	}
	for _, part := range volumeParts() {
		path := filepath.Join(dir, part)
		if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT { // EINVAL, ENOENT: it is not mounted
			return fmt.Errorf("volume %s: unmount %s: %w", name, part, err)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(dir)
}

// plug makes a volume visible under the names that it may have on EC2: xvdf is also sdf, and the
// first free NVMe disk. It runs in the machine.
func plug(v *volumeTrees) error {
	if err := v.bind(); err != nil {
		return err
	}
	if err := installMount(); err != nil {
		return err
	}
	name := v.name
	if err := os.Symlink(filepath.Join(volumesPath, name, volumeDevice), "/dev/"+name); err != nil {
		return err
	}
	if letters, ok := strings.CutPrefix(name, "xvd"); ok {
		if err := os.Symlink(name, "/dev/sd"+letters); err != nil {
			return err
		}
	}
	for n := 1; ; n++ { // nvme0n1 is the root's
		err := os.Symlink(name, fmt.Sprintf("/dev/nvme%dn1", n))
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// unplug removes a volume's devices. places are the mount points of its file system. It runs in the
// machine.
func unplug(name string, places []string) error {
	if len(places) > 0 {
		return fmt.Errorf("the volume %s is mounted at %s: %w", name, strings.Join(places, " and "), unix.EBUSY)
	}
	if err := unbindVolume(name); err != nil {
		return err
	}
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := "/dev/" + e.Name()
		if target, err := os.Readlink(path); err == nil && (target == name || target == filepath.Join(volumesPath, name, volumeDevice)) {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// volumeOf returns the name of the volume whose device a path leads to, or "".
func volumeOf(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		real = path
	}
	name, file := filepath.Split(strings.TrimPrefix(real, volumesPath+"/"))
	if !strings.HasPrefix(real, volumesPath+"/") || file != volumeDevice {
		return ""
	}
	return strings.TrimSuffix(name, "/")
}

// mountPoints returns the mount points of the volume's file system from a file in the format of
// proc_pid_mountinfo(5). They are bind mounts of the volume's tree below volumesPath.
func mountPoints(file, name string) ([]string, error) {
	table, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return placesOf(string(table), name), nil
}

func placesOf(table, name string) (places []string) {
	type entry struct{ device, root, place string }
	tree := filepath.Join(volumesPath, name, machine.VolumeContent)
	var all []entry
	base := entry{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		e := entry{device: f[2], root: unescape(f[3]), place: unescape(f[4])}
		if e.place == tree {
			base = e
		}
		all = append(all, e)
	}
	for _, e := range all {
		if e.device == base.device && e.root == base.root && e.place != tree {
			places = append(places, e.place)
		}
	}
	slices.Reverse(places) // newest first, the order for unmounting
	return places
}

// unescape decodes the escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// inMachine runs do on a thread in the machine's mount namespace.
func (s *shim) inMachine(do func() error) error {
	view, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", s.init.Process.Pid))
	if err != nil {
		return err
	}
	defer view.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		// A thread that shares its root with others cannot enter a mount namespace.
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(view.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = do()
		}
		result <- err
	}()
	return <-result
}
