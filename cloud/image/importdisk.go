package image

import (
	"context"
	"io"
	"os"
	"strings"

	"bake/cloud/image/disk"
	"bake/cloud/pipe"
)

// ImportDisk makes a layer of the root file system on a disk. user is who logs in
// to it: the system's first ordinary user, or root.
func (s *Store) ImportDisk(ctx context.Context, d disk.Disk) (id LayerID, user string, err error) {
	root, err := d.Root()
	if err != nil {
		return "", "", err
	}
	write := func(_ context.Context, w io.Writer) error { return root.WriteTar(w) }
	err = pipe.Through(ctx, write, func(archive io.Reader) (err error) {
		id, err = s.importLayer(ctx, archive, layerRecord{}, func(dir string) error {
			user = firstUser(dir)
			return checkRoot(dir)
		})
		return err
	})
	if err != nil {
		return "", "", s.explain("import a disk", err)
	}
	return id, user, nil
}

// firstUser is the user with the id 1000 of the system in a directory, or root.
func firstUser(dir string) string {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "root"
	}
	defer root.Close()
	passwd, err := root.ReadFile("etc/passwd")
	if err != nil {
		return "root"
	}
	for line := range strings.Lines(string(passwd)) {
		if fields := strings.Split(line, ":"); len(fields) > 2 && fields[2] == "1000" {
			return fields[0]
		}
	}
	return "root"
}
