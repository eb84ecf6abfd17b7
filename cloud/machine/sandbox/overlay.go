package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// overlay is a root file system made of layers. Paths are relative to the working directory.
type overlay struct {
	lower       []string // topmost first
	upper, work string   // empty means read-only
}

// mount mounts the overlay at target. The overlay keeps its metadata in user.* attributes,
// also for root, so that layers have a single format. Kernels before 6.5 do not accept
// layers one by one; for them all layers are in one string.
func (o overlay) mount(target string, old bool) error {
	if !old {
		err := o.mountNew(target)
		if err == nil || !errors.Is(err, errNoLayerOption) {
			return err
		}
	}
	return o.mountOld(target)
}

var errNoLayerOption = errors.New("this kernel does not accept layers one by one")

func (o overlay) mountNew(target string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return errNoLayerOption
	}
	if err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	defer unix.Close(fd)
	for _, dir := range o.lower {
		if err := unix.FsconfigSetString(fd, "lowerdir+", dir); err != nil {
			if err == unix.EINVAL && dir == o.lower[0] && !exists(dir) {
				err = unix.ENOENT
			} else if err == unix.EINVAL && dir == o.lower[0] {
				return errNoLayerOption
			}
			return overlayError(fd, "layer "+dir, err)
		}
	}
	for _, option := range [][2]string{{"upperdir", o.upper}, {"workdir", o.work}} {
		if o.upper == "" {
			break
		}
		if err := unix.FsconfigSetString(fd, option[0], option[1]); err != nil {
			return overlayError(fd, option[0]+" "+option[1], err)
		}
	}
	if err := unix.FsconfigSetFlag(fd, "userxattr"); err != nil {
		return overlayError(fd, "userxattr", err)
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return overlayError(fd, "create", err)
	}
	tree, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return overlayError(fd, "mount", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("overlay: mount at %s: %w", target, err)
	}
	return nil
}

// overlayError adds the kernel's own message, which is read from the file descriptor.
func overlayError(fd int, what string, err error) error {
	b := make([]byte, 1024)
	n, _ := unix.Read(fd, b)
	if text := strings.TrimSpace(strings.TrimPrefix(string(b[:max(n, 0)]), "e ")); text != "" {
		return fmt.Errorf("overlay: %s: %w: %s", what, err, text)
	}
	return fmt.Errorf("overlay: %s: %w", what, err)
}

// mountOld passes all options in the single page that mount(2) accepts; the kernel silently
// truncates longer ones.
func (o overlay) mountOld(target string) error {
	escaped := make([]string, len(o.lower))
	for i, dir := range o.lower {
		escaped[i] = escapeOption(dir)
	}
	options := "lowerdir=" + strings.Join(escaped, ":") + ",userxattr"
	if o.upper != "" {
		options += ",upperdir=" + escapeOption(o.upper) + ",workdir=" + escapeOption(o.work)
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("overlay: the names of %d layers do not fit into %d bytes; flatten the image or use Linux 6.5 or later", len(o.lower), os.Getpagesize())
	}
	if err := unix.Mount("overlay", target, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay: mount at %s with %s: %w", target, options, err)
	}
	return nil
}

func escapeOption(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(path)
}
