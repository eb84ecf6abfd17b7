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
	"strings"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// A volume is a directory on the host with three things in it:
//
//   - device, a sparse file of the volume's size. In the machine /dev/NAME leads
//     to it, and whatever works on a disk image works on it: mkfs, blkid, parted.
//     It is no block device: a user namespace may neither make one nor mount one.
//   - content, the tree of the file system, which mount shows; see mount.go. It
//     can become a layer.
//   - filesystem, the UUID of the file system on the device that the tree is of.
//
// There is one tree for a volume: partitions can be made on the device but have
// no devices of their own, and nothing starts from a boot loader on it.
const (
	volumeDevice     = "device"
	volumeFilesystem = "filesystem"

	volumesPath = "/run/bake/volumes" // where a machine sees its volumes
	prefilled   = "prefilled"         // in place of a UUID: the tree came with the volume
)

func (d *Driver) makeVolume(ctx context.Context, dir string, layers []string, size int64) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
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

// bindVolumes shows the machine its volumes. The working directory is its root,
// which is mounted beside them.
func bindVolumes() error {
	target := strings.TrimPrefix(volumesPath, "/")
	if err := makeDir(target, 0o755); err != nil {
		return err
	}
	return mount{source: "../" + machine.VolumesDir, target: target, flags: unix.MS_BIND}.do()
}

// plugAll makes the volumes that a machine begins with appear.
func plugAll() error {
	entries, err := os.ReadDir(volumesPath)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := plug(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// plug makes a volume appear, under the names that it may have on EC2: xvdf is
// also sdf, and the first NVMe disk that is free. It runs in the machine.
func plug(name string) error {
	if err := installMount(); err != nil {
		return err
	}
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

// unplug takes a volume's names away. It runs in the machine.
func unplug(name string) error {
	places, err := mountPoints("/proc/1/mountinfo", name) // the shim has no /proc/self in the machine
	if err != nil {
		return err
	}
	if len(places) > 0 {
		return fmt.Errorf("the volume %s is mounted at %s: %w", name, strings.Join(places, " and "), unix.EBUSY)
	}
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := "/dev/" + e.Name()
		if target, err := os.Readlink(path); err == nil && (target == name || volumeOf(target) == name) {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// volumeOf is the name of the volume whose device a path leads to, or "".
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

// mountPoints lists where the volume's file system is mounted, from a file of the
// form that proc_pid_mountinfo(5) describes. Mounts of it are binds of a directory
// below what is mounted at volumesPath.
func mountPoints(file, name string) ([]string, error) {
	table, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return placesOf(string(table), name), nil
}

func placesOf(table, name string) (places []string) {
	type entry struct{ device, root, place string }
	var all []entry
	base := entry{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		e := entry{device: f[2], root: unescape(f[3]), place: unescape(f[4])}
		if e.place == volumesPath {
			base = e
		}
		all = append(all, e)
	}
	for _, e := range all {
		if e.device == base.device && e.root == filepath.Join(base.root, name, machine.VolumeContent) {
			places = append(places, e.place)
		}
	}
	slices.Reverse(places) // the newest first, as they have to be unmounted
	return places
}

// unescape undoes the escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// inMachine runs do on a thread that sees the machine's files.
func (s *shim) inMachine(do func() error) error {
	view, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", s.init.Process.Pid))
	if err != nil {
		return err
	}
	defer view.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		// A thread that shares its root with others cannot move.
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
