package sandbox

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// realPrograms contains the image's own mount and umount in machines that have volumes.
const realPrograms = "/run/bake/real"

func isMountName(name string) bool { return name == "mount" || name == "umount" }

// installMount puts this program in place of the image's mount and umount. The kernel does not
// mount disks in a user namespace, so a volume's device is mounted by binding its tree. The image's
// files are not changed.
func installMount() error {
	if exists(realPrograms) {
		return nil
	}
	if err := os.Mkdir(realPrograms, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"mount", "umount"} {
		for _, dir := range []string{"/usr/bin", "/bin"} {
			path, err := filepath.EvalSymlinks(filepath.Join(dir, name))
			if err != nil || filepath.Base(path) != name {
				continue // missing, or a file that implements many programs
			}
			if err := bind(path, filepath.Join(realPrograms, name)); err != nil {
				return err
			}
			if err := unix.Mount(programPath, path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("bind %s: %w", path, err)
			}
			break
		}
	}
	return nil
}

// mountMain is mount(8) and umount(8) for the devices of volumes; it runs the image's own
// programs for everything else.
func mountMain(name string, args []string) int {
	var err error
	if name == "mount" {
		if call := parseMount(args); call.volume != "" {
			if err = call.do(); err == nil {
				return 0
			}
			fmt.Fprintf(os.Stderr, "mount: %s: %s.\n", call.dir, err)
			return 32
		}
	} else {
		args, err = unmountArgs(args)
	}
	if err == nil {
		program := filepath.Join(realPrograms, name)
		err = syscall.Exec(program, append([]string{name}, args...), os.Environ())
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
	return 1
}

// mountCall is one call of mount(8).
type mountCall struct {
	volume      string // empty if the device is not a volume's
	device, dir string
	kind        string
	options     []string
}

// optionsWithValue are the options of mount(8) and umount(8) that take a value.
var optionsWithValue = []string{"-t", "--types", "-o", "--options", "-O", "--test-opts", "-T", "--fstab", "-N", "--namespace", "-L", "--label", "-U", "--uuid",
	"--source", "--target", "--target-prefix", "--options-mode", "--options-source", "--map-users", "--map-groups"}

// parseMount parses `mount [-t TYPE] [-o OPTIONS] DEVICE DIR`.
func parseMount(args []string) (c mountCall) {
	var places []string
	for i := 0; i < len(args); i++ {
		arg, value := args[i], ""
		switch {
		case !strings.HasPrefix(arg, "-"):
			places = append(places, arg)
			continue
		case arg == "-r", arg == "--read-only":
			c.options = append(c.options, "ro")
			continue
		case slices.Contains(optionsWithValue, arg) && i+1 < len(args):
			i++
			value = args[i]
		case strings.HasPrefix(arg, "--"):
			arg, value, _ = strings.Cut(arg, "=")
		case len(arg) > 2 && slices.Contains(optionsWithValue, arg[:2]):
			arg, value = arg[:2], arg[2:]
		}
		switch arg {
		case "-t", "--types":
			c.kind = value
		case "-o", "--options":
			c.options = append(c.options, strings.Split(value, ",")...)
		case "--bind", "-B", "--move", "-M", "--rbind", "-R":
			return mountCall{}
		}
	}
	if len(places) == 2 && !slices.Contains(c.options, "bind") {
		c.device, c.dir = places[0], places[1]
		c.volume = volumeOf(c.device)
	}
	return c
}

// mountFlags are the options that also apply to a bind mount. Other options concern the file system
// itself, which is the host's here, or how it records access times, which a machine cannot change.
var mountFlags = map[string]uintptr{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC}

// do mounts the volume's tree at the directory. If the device has no file system, it fails like the
// kernel. A new file system starts with an empty tree.
func (c mountCall) do() error {
	device, err := os.Open(c.device)
	if err != nil {
		return err
	}
	defer device.Close()
	content := filepath.Join(volumesPath, c.volume, machine.VolumeContent)
	state := filepath.Join(volumesPath, c.volume, volumeFilesystem)
	had, err := os.ReadFile(state)
	if err != nil {
		return err
	}
	kind, id, err := readFilesystem(device)
	switch {
	case err != nil:
		return err
	case kind == "" && string(had) == prefilled:
	case kind == "" || !sameKind(c.kind, kind):
		return fmt.Errorf("wrong fs type, bad option, bad superblock on %s, missing codepage or helper program, or other error", c.device)
	case id != string(had):
		if err := startTree(content); err != nil {
			return err
		}
		if err := os.WriteFile(state, []byte(id), 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount(content, c.dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	flags := uintptr(0)
	for _, option := range c.options {
		flags |= mountFlags[option]
	}
	if flags == 0 {
		return nil
	}
	// The flags of the host's file system must be kept. statfs(2) and mount(2) use the same
	// numbers.
	var st unix.Statfs_t
	err = unix.Statfs(c.dir, &st)
	if err == nil {
		kept := uintptr(st.Flags) & (unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		err = unix.Mount("", c.dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags|kept, "")
	}
	if err != nil {
		return errors.Join(err, unix.Unmount(c.dir, 0))
	}
	return nil
}

// startTree makes the tree that of a new, empty file system.
func startTree(content string) error {
	dir, err := os.Open(content)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := empty(dir); err != nil {
		return err
	}
	return errors.Join(os.Chown(content, 0, 0), os.Chmod(content, 0o755))
}

// sameKind reports whether a file system of that kind may be mounted as the type wanted.
func sameKind(wanted, kind string) bool {
	return wanted == "" || wanted == "auto" || slices.Contains(strings.Split(wanted, ","), kind) ||
		kind == "ext" && slices.Contains([]string{"ext2", "ext3", "ext4"}, wanted)
}

// readFilesystem returns the kind and the UUID of the file system on a device. The kind is
// empty if there is no known file system. The magic numbers and offsets are those of the
// superblocks.
func readFilesystem(device io.ReaderAt) (kind, id string, err error) {
	head := make([]byte, 0x10048)
	n, err := device.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", "", err
	}
	for i := range head[n:] {
		head[n+i] = 0
	}
	at := func(offset int, magic string) bool { return bytes.HasPrefix(head[offset:], []byte(magic)) }
	uuid := func(offset int) string { return hex.EncodeToString(head[offset : offset+16]) }
	switch {
	case at(0x438, "\x53\xef"):
		return "ext", uuid(0x468), nil
	case at(0, "XFSB"):
		return "xfs", uuid(0x20), nil
	case at(0x10040, "_BHRfS_M"):
		return "btrfs", uuid(0x10020), nil
	case at(0x52, "FAT32"):
		return "vfat", hex.EncodeToString(head[0x43:0x47]), nil
	case at(0x36, "FAT1"):
		return "vfat", hex.EncodeToString(head[0x27:0x2b]), nil
	}
	return "", "", nil
}

// unmountArgs replaces a volume's device in args with its mount point.
func unmountArgs(args []string) ([]string, error) {
	var out []string
	for _, arg := range args {
		name := volumeOf(arg)
		if name == "" || strings.HasPrefix(arg, "-") {
			out = append(out, arg)
			continue
		}
		places, err := mountPoints("/proc/self/mountinfo", name)
		if err != nil {
			return nil, err
		}
		if len(places) == 0 {
			return nil, &fs.PathError{Op: "umount", Path: arg, Err: errors.New("not mounted")}
		}
		out = append(out, places[0])
	}
	return out, nil
}
