package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"bake/cloud/image/ext4"
	"bake/cloud/pipe"
)

// ExportDisk makes a raw disk of size bytes, with a file system that has the merged content of
// layers, topmost first, and calls use with its file, which is deleted afterwards. The disk has no
// partition table, and no boot loader or kernel other than those in the layers. ExportDisk calls
// report with its progress until use is called.
func (s *Store) ExportDisk(ctx context.Context, layers []LayerID, size int64, report func(done, of int64), use func(*os.File) error) error {
	return s.explain("export a disk", s.work(ctx, func(dir string) (err error) {
		paths, err := s.Paths(layers)
		if err != nil {
			return err
		}
		total := int64(0)
		for _, id := range layers {
			n, err := s.Size(ctx, id)
			if err != nil {
				return err
			}
			total += n
		}
		disk, err := os.OpenFile(filepath.Join(dir, "disk"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, disk.Close()) }()
		if err := disk.Truncate(size); err != nil {
			return err
		}
		pack := func(ctx context.Context, w io.Writer) error {
			return s.driver.PackMerged(ctx, paths, &reporting{w, func(n int64) { report(n, total) }, 0})
		}
		if err := pipe.Through(ctx, pack, func(archive io.Reader) error { return ext4.Write(ctx, disk, size, archive) }); err != nil {
			return err
		}
		return use(disk)
	}))
}
