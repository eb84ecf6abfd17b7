package local

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"strings"

	"bake/cloud/image"
)

// ImportImage makes an image of the cloud in dir, and publishes it in every region
// under its name and owner.
func ImportImage(ctx context.Context, dir string, log *slog.Logger, in Import) error {
	_, store, err := open(dir, log)
	if err != nil {
		return err
	}
	base, err := importBase(ctx, store, in)
	if err != nil {
		return err
	}
	err = store.Publish(image.Publication{
		Owner: in.Owner, Name: in.Name, Description: "imported from " + in.Source, Architecture: image.EC2Arch(runtime.GOARCH),
		LoginUser: in.User, Base: base.Name, CreationDate: in.Now,
	})
	if err != nil {
		return errors.Join(err, store.RemoveBase(base.Name))
	}
	return nil
}

// importBase makes a base of what in names as source, under a name of its own.
func importBase(ctx context.Context, store *image.Store, in Import) (image.Base, error) {
	slug := strings.Trim(regexp.MustCompile(`[^a-z0-9._-]+`).ReplaceAllString(strings.ToLower(in.Name), "-"), "-._")
	options := image.ImportOptions{
		Name: fmt.Sprintf("import-%d-%s", in.Now.UnixMilli(), slug), User: in.User, Source: in.Source,
		Progress: func(r image.Progress) { in.Progress(r.Phase, r.Done, r.Total) },
	}
	info, err := os.Stat(in.Source)
	if err != nil || info.IsDir() {
		return store.ImportOCI(ctx, in.Source, options)
	}
	f, err := os.Open(in.Source)
	if err != nil {
		return image.Base{}, err
	}
	defer f.Close()
	saved, err := isSavedImage(f)
	if err != nil {
		return image.Base{}, fmt.Errorf("%s: %w", in.Source, err)
	}
	if saved {
		return store.ImportOCI(ctx, in.Source, options)
	}
	options.Size = info.Size()
	return store.ImportTar(ctx, f, options)
}

// isSavedImage says whether f is an archive of an image, as "docker save" writes
// it, and not of a file system. It leaves f at its beginning.
func isSavedImage(f io.ReadSeeker) (bool, error) {
	found := false
	archive := tar.NewReader(f)
	for !found {
		h, err := archive.Next()
		if err != nil {
			break // the end; or compressed, and then no saved image
		}
		found = h.Name == "manifest.json" || h.Name == "oci-layout"
	}
	_, err := f.Seek(0, io.SeekStart)
	return found, err
}
