package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bake/cloud/machine/layer"
)

// continueCloudInit makes the instance whose cloud-init has been in root this one, and
// reports whether cloud-init has nothing to do then: what it does once for an instance is done, as
// is what it does at each start, and it is as after that. It has to run, as for a new instance, where
// it is not there or had not finished when the disk was copied.
func (b *bootSpec) continueCloudInit(root string) (done bool, err error) {
	dir := filepath.Join(root, "var/lib/cloud")
	data := filepath.Join(dir, "data")
	if !exists(dir) || exists(filepath.Join(data, "status.json")) && !exists(filepath.Join(data, "result.json")) {
		return false, nil
	}
	// After cloud-init clean there is no instance that it knows.
	if earlier, err := os.ReadFile(filepath.Join(data, "instance-id")); err == nil {
		if err := renameInstance(dir, strings.TrimSpace(string(earlier)), b.ID, b.Mode == ModeSingle); err != nil {
			return false, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, markDone(filepath.Join(root, "run/cloud-init"))
}

// renameInstance has cloud-init, whose directory is dir, know an instance by another id. Later starts
// are then its next ones.
func renameInstance(dir, earlier, id string, ignoreOwner bool) error {
	instances, link := filepath.Join(dir, "instances"), filepath.Join(dir, "instance")
	if !filepath.IsLocal(earlier) || filepath.Base(earlier) != earlier {
		return nil // cloud-init has not made it
	}
	from, err := os.Open(filepath.Join(instances, earlier))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	// A directory of a lower layer cannot be renamed.
	if err := os.Mkdir(filepath.Join(instances, id), 0o755); err != nil {
		return err
	}
	to, err := os.Open(filepath.Join(instances, id))
	if err != nil {
		return err
	}
	defer to.Close()
	if err := layer.Clone(from, to, layer.Options{IgnoreOwner: ignoreOwner}); err != nil {
		return err
	}
	if err := os.RemoveAll(from.Name()); err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Join("/var/lib/cloud/instances", id), link); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "data/instance-id"), []byte(id+"\n"), 0o644)
}

// markDone says in dir, where cloud-init and its generator do so at a start, that cloud-init has
// finished.
func markDone(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "enabled"), nil, 0o644); err != nil {
		return err
	}
	for _, name := range []string{"result.json", "status.json"} {
		if err := os.Symlink("../../var/lib/cloud/data/"+name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
