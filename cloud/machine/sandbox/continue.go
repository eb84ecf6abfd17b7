package sandbox

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bake/cloud/machine/layer"
)

// maxInstanceID is how much of the file with an instance's id is read.
const maxInstanceID = 256

// continueCloudInit makes the instance whose cloud-init has been in root this one, and
// reports whether cloud-init has nothing to do then: what it does once for an instance is done, as
// is what it does at each start, and it is as after that. It has to run, as for a new instance, where
// it is not there or had not finished when the disk was copied.
//
// What is in root is the image's, and nothing outside of cloud-init's directory is opened for it.
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
	// After cloud-init clean there is no instance that it knows.
	if earlier := earlierInstance(dir); earlier != "" {
		if err := renameInstance(dir, earlier, b.ID, b.Mode == ModeSingle); err != nil {
			return false, err
		}
	}
	return true, markDone(filepath.Join(root, runCloudInit))
}

// earlierInstance is the id of the instance that cloud-init, whose directory is dir, has been in, or
// nothing where that cannot be known.
func earlierInstance(dir *os.Root) string {
	f, err := dir.OpenFile("data/instance-id", os.O_RDONLY|unix.O_NONBLOCK, 0) // which a FIFO would block
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, maxInstanceID))
	id := strings.TrimSpace(string(text))
	if err != nil || !filepath.IsLocal(id) || filepath.Base(id) != id || id == "." {
		return "" // cloud-init has not made it
	}
	return id
}

// renameInstance has cloud-init, whose directory is dir, know an instance by another id. Later starts
// are then its next ones.
func renameInstance(dir *os.Root, earlier, id string, ignoreOwner bool) error {
	old, instance := filepath.Join("instances", earlier), filepath.Join("instances", id)
	if info, err := dir.Lstat(old); err != nil || !info.IsDir() {
		return nil // nor has it made this
	}
	from, err := dir.Open(old)
	if err != nil {
		return err
	}
	defer from.Close()
	// A directory of a lower layer cannot be renamed.
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

// markDone says in dir, where cloud-init and its generator do so at a start, that cloud-init has
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
