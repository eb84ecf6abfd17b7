package image

import (
	"cmp"
	"context"
	"io"
	"os"
	"strings"

	"bake/cloud/image/disk"
	"bake/cloud/pipe"
)

// ImportDisk makes a layer from the root file system on a disk. user is its login user: the first
// regular user, or root.
func (s *Store) ImportDisk(ctx context.Context, d disk.Disk) (id LayerID, user string, err error) {
	id, user, err = s.importDisk(ctx, d, nil)
	return id, user, s.explain("import a disk", err)
}

// ImportDiskBase makes a base from the root file system on a disk. The root volume of its images
// has the size of the disk.
func (s *Store) ImportDiskBase(ctx context.Context, d disk.Disk, o ImportOptions) (Base, error) {
	if err := checkBaseName(o.Name); err != nil {
		return Base{}, err
	}
	id, user, err := s.importDisk(ctx, d, o.Progress)
	if err != nil {
		return Base{}, s.explain("import base "+o.Name, err)
	}
	const gib = 1 << 30
	return s.baseOf(ctx, id, o, cmp.Or(o.User, user), int32((d.Size+gib-1)/gib))
}

// importDisk is ImportDisk with progress reports if report is not nil.
func (s *Store) importDisk(ctx context.Context, d disk.Disk, report func(Progress)) (id LayerID, user string, err error) {
	root, err := d.Root()
	if err != nil {
		return "", "", err
	}
	write := func(_ context.Context, w io.Writer) error { return root.WriteTar(w) }
	err = pipe.Through(ctx, write, func(archive io.Reader) (err error) {
		file := &countingReader{}
		file.n.Store(d.File)
		archive = &bombGuard{ReadCloser: io.NopCloser(archive), in: file}
		archive = &progressReader{r: archive, report: report, p: Progress{Phase: "copy the files on the disk", Total: root.Used()}}
		id, err = s.importLayer(ctx, archive, layerRecord{}, func(dir string) error {
			user = firstUser(dir)
			return checkRoot(dir)
		})
		return err
	})
	return id, user, err
}

// firstUser returns the name of the user with id 1000 in the system in dir, or root.
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
