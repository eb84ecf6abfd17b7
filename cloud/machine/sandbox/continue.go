package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bake/cloud/machine/layer"
)

// maxInstanceID limits how much of the file with an instance's id is read.
const maxInstanceID = 256

// continueCloudInit makes cloud-init treat this instance as the one whose state is in root. It
// reports whether cloud-init has nothing left to do: the steps for a new instance and for a start
// are done, and the state says so. If cloud-init is not there, or had not finished when the disk
// was copied, it has to run as for a new instance.
//
// The image controls what is in root, so nothing outside of cloud-init's directory is opened.
func (b *bootSpec) continueCloudInit(root string) (done bool, err error) {
	dir, err := os.OpenRoot(filepath.Join(root, "var/lib/cloud"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	has := func(name string) bool {
		_, err := dir.Lstat(name)
		return err == nil
	}
	if has("data/status.json") && !has("data/result.json") {
		return false, nil
	}
	// After "cloud-init clean" it knows no instance.
	if earlier := earlierInstance(dir); earlier != "" {
		if err := renameInstance(dir, earlier, b.ID, b.Mode == ModeSingle); err != nil {
			return false, err
		}
	}
	return true, markDone(filepath.Join(root, runCloudInit))
}

// earlierInstance returns the id of the instance that cloud-init, whose directory is dir, has run
// in, or "" if it cannot be determined.
func earlierInstance(dir *os.Root) string {
	text, err := readStart(dir.OpenFile, "data/instance-id", maxInstanceID)
	id := strings.TrimSpace(string(text))
	if err != nil || !filepath.IsLocal(id) || filepath.Base(id) != id || id == "." {
		return "" // not created by cloud-init
	}
	return id
}

// readStart returns up to limit bytes of a regular file that is the machine's.
func readStart(open func(string, int, fs.FileMode) (*os.File, error), name string, limit int64) ([]byte, error) {
	f, err := open(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // O_NONBLOCK, because a FIFO would block
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// renameInstance changes the instance id in cloud-init's directory dir. Later boots then count as
// further boots of that instance.
func renameInstance(dir *os.Root, earlier, id string, ignoreOwner bool) error {
	old, instance := filepath.Join("instances", earlier), filepath.Join("instances", id)
	if info, err := dir.Lstat(old); err != nil || !info.IsDir() {
		return nil // not created by cloud-init either
	}
	from, err := dir.Open(old)
	if err != nil {
		return err
	}
	defer from.Close()
	// A directory of a lower layer cannot be renamed, so its content is moved.
	if err := dir.Mkdir(instance, 0o755); err != nil {
		return err
	}
	to, err := dir.Open(instance)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := layer.Clone(from, to, layer.Options{IgnoreOwner: ignoreOwner}); err != nil {
		return err
	}
	if err := dir.RemoveAll(old); err != nil {
		return err
	}
	if err := dir.Remove("instance"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := dir.Symlink("/var/lib/cloud/instances/"+id, "instance"); err != nil {
		return err
	}
	if err := dir.Remove("data/instance-id"); err != nil {
		return err
	}
	return dir.WriteFile("data/instance-id", []byte(id+"\n"), 0o644)
}

// markDone records in dir, as cloud-init and its generator do at a boot, that cloud-init has
// finished.
func markDone(dir string) error {
	if err := markCloudInit(dir); err != nil {
		return err
	}
	for _, name := range []string{"result.json", "status.json"} {
		if err := os.Symlink("../../var/lib/cloud/data/"+name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
