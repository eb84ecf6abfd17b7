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
	"slices"
	"strings"

	"bake/cloud"
	"bake/cloud/image"
	"bake/cloud/image/disk"
)

// ImportImage makes an image of the cloud in dir, and publishes it in every region under
// its name and owner. If the image is a published release, it makes the base of that
// release instead. lacks names what the image lacks although scripts usually rely on it.
func ImportImage(ctx context.Context, dir string, log *slog.Logger, in Import) (lacks []string, err error) {
	_, store, err := open(dir, log)
	if err != nil {
		return nil, err
	}
	var base image.Base
	if in.As != "" {
		base, err = store.FillRelease(ctx, in.As, in.Replace, func(o image.ImportOptions) (image.Base, error) { return importRelease(ctx, store, in, o) })
	} else {
		base, err = importNew(ctx, store, in)
	}
	if err != nil {
		return nil, err
	}
	return store.Lacks(base)
}

// importRelease makes the base of a release. If the release is made from a container image,
// the package manager of the image installs what is missing.
func importRelease(ctx context.Context, store *image.Store, in Import, o image.ImportOptions) (_ image.Base, err error) {
	name := o.Name
	fromImage := slices.ContainsFunc(image.Releases(), func(r image.ReleaseInfo) bool { return r.ID == name && r.FromImage })
	if fromImage {
		o.Name += "-image" // the base does not exist before it is complete
	}
	base, err := importBase(ctx, store, in, o)
	if err != nil || !fromImage {
		return base, err
	}
	defer func() { err = errors.Join(err, store.RemoveBase(o.Name)) }()
	lacks, err := store.Lacks(base)
	if err != nil {
		return image.Base{}, err
	}
	if base.Name = name; len(lacks) == 0 {
		return base, store.SaveBase(base)
	}
	reach, err := reach(in.Options, nil, store)
	if err != nil {
		return image.Base{}, err
	}
	return store.Install(ctx, base, reach, func(r image.Progress) { in.Progress(r.Phase, r.Done, r.Total) })
}

// importNew makes an image that no publisher has.
func importNew(ctx context.Context, store *image.Store, in Import) (image.Base, error) {
	// Checked early, because the rest takes long.
	if err := image.CheckNames(in.Owner, in.Name); err != nil {
		return image.Base{}, err
	}
	taken := store.CheckNew(in.Owner, in.Name)
	if taken != nil && !in.Replace {
		return image.Base{}, taken
	}
	if taken != nil {
		if err := store.CheckAdded(in.Owner, in.Name); err != nil {
			return image.Base{}, err
		}
	}
	slug := strings.Trim(regexp.MustCompile(`[^a-z0-9._-]+`).ReplaceAllString(strings.ToLower(in.Name), "-"), "-._")
	base, err := importBase(ctx, store, in, image.ImportOptions{Name: fmt.Sprintf("%s%d-%s", image.ImportPrefix, in.Now.UnixMilli(), slug), User: in.User, Arch: in.Arch})
	if err != nil {
		return image.Base{}, err
	}
	if taken != nil {
		err = store.Unpublish(in.Owner, in.Name)
	}
	if err == nil {
		err = store.Publish(image.Publication{
			Owner: in.Owner, Name: in.Name, Description: "imported from " + in.Source,
			LoginUser: in.User, Base: base.Name, CreationDate: in.Now,
		})
	}
	if err != nil {
		return image.Base{}, errors.Join(err, store.RemoveBase(base.Name))
	}
	return base, nil
}

// importBase makes a base from the source in in.
func importBase(ctx context.Context, store *image.Store, in Import, o image.ImportOptions) (image.Base, error) {
	if IsImageID(in.Source) {
		return importAMI(ctx, store, in, o)
	}
	o.Source, o.Progress = in.Source, func(r image.Progress) { in.Progress(r.Phase, r.Done, r.Total) }
	info, err := os.Stat(in.Source)
	if err != nil || info.IsDir() {
		return store.ImportOCI(ctx, in.Source, o)
	}
	if !info.Mode().IsRegular() { // reading a pipe may never begin
		return image.Base{}, fmt.Errorf("%s is not a regular file", in.Source)
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
		return store.ImportOCI(ctx, in.Source, o)
	}
	content := f
	if plain, err := store.UnpackDisk(ctx, f, o.Progress); err != nil {
		return image.Base{}, fmt.Errorf("%s: %w", in.Source, err)
	} else if plain != nil {
		defer plain.Close()
		content = plain
		if info, err = plain.Stat(); err != nil {
			return image.Base{}, err
		}
	}
	if format := disk.Detect(content, info.Size()); format != "" {
		d, err := disk.Open(content, info.Size(), format)
		if err != nil {
			return image.Base{}, fmt.Errorf("%s: %w", in.Source, err)
		}
		return store.ImportDiskBase(ctx, d, o)
	}
	o.Size = info.Size()
	return store.ImportTar(ctx, f, o)
}

// importAMI makes a base from an image of the local cloud. The base has the image's
// layers; the image can be deregistered afterwards.
func importAMI(ctx context.Context, store *image.Store, in Import, o image.ImportOptions) (image.Base, error) {
	o.Source = in.Source
	return store.ImportLayers(ctx, o, func() (b image.Base, err error) {
		var from cloud.Contents
		if err := contents(ctx, in.Endpoint, in.Region, in.Source, in.Key, &from); err != nil {
			return b, fmt.Errorf("%s: %w. The local cloud does not download AWS images: map the id to a release with bake cloud alias %s RELEASE, "+
				"or bake its template with -local", in.Region, err, in.Source)
		}
		if o.Arch != "" && from.Arch != "" && o.Arch != from.Arch {
			return b, fmt.Errorf("%s is for %s, and not for %s", in.Source, from.Arch, o.Arch)
		}
		b.User, b.Arch, b.RootDevice, b.Size = from.User, from.Arch, from.RootDevice, from.Size
		for _, id := range from.Layers {
			b.Layers = append(b.Layers, image.LayerID(id))
		}
		if from.Base != "" {
			made, err := store.Base(from.Base)
			if err != nil {
				return b, fmt.Errorf("%w: make it first, with bake cloud base %s", err, from.Base)
			}
			b.Layers, b.Mirrors = made.Layers, made.Mirrors
		}
		return b, nil
	})
}

// isSavedImage reports whether f is an image archive written by "docker save", and not an
// archive of a file system. It leaves f at its beginning.
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
