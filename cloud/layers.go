package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"bake/cloud/confined"
	"bake/cloud/image"
	"bake/cloud/image/disk"
)

// Layers adapts an image store to the cloud. No other cloud may have layers in the store. ensure is
// the configuration for making bases; its Progress is ignored.
func Layers(store *image.Store, ensure image.EnsureOptions) Images {
	return layers{store, ensure}
}

type layers struct {
	store  *image.Store
	ensure image.EnsureOptions
}

func (l layers) Publications() ([]Publication, error) {
	all, err := l.store.Publications()
	var out []Publication
	for _, p := range all {
		out = append(out, Publication{
			ID: p.ID, Owner: p.Owner, OwnerAlias: p.OwnerAlias, Name: p.Name, Description: p.Description, Architecture: p.Architecture,
			Created: p.CreationDate, Deprecated: p.Deprecated, Base: p.Base, User: p.LoginUser, RootDevice: p.RootDeviceName,
			VolumeType: p.VolumeType, Size: p.Size, Ephemeral: p.Ephemeral, BootMode: p.BootMode, ImdsSupport: p.ImdsSupport, Parameters: p.Parameters,
		})
	}
	return out, err
}

func (l layers) Recall(name string) (note string, err error) {
	p, fresh, err := l.store.Recall(name)
	if errors.Is(err, image.ErrNotFound) {
		return "", nil
	}
	if fresh && err == nil {
		note = fmt.Sprintf("%s stands for an image of %s: the local one has the packages of the day it was made.", name, p.CreationDate.Format(time.DateOnly))
	}
	return note, err
}

func (l layers) Ensure(ctx context.Context, base string, progress func(Progress)) ([]string, error) {
	ensure, told := l.ensure, false
	ensure.Progress = func(p image.Progress) {
		told = true
		progress(Progress{Base: base, Phase: p.Phase, Done: p.Done, Total: p.Total, Note: p.Note})
	}
	made, err := l.store.Ensure(ctx, base, ensure)
	if told {
		progress(Progress{Base: base})
	}
	var ids []string
	for _, id := range made.Layers {
		ids = append(ids, string(id))
	}
	return ids, err
}

func (l layers) NewID() string { return string(image.NewLayerID()) }

func (l layers) Freeze(ctx context.Context, id string, dir confined.Dir) error {
	return l.store.Freeze(ctx, image.LayerID(id), dir)
}

func (l layers) Clone(ctx context.Context, dir confined.Dir) (string, error) {
	id, err := l.store.Clone(ctx, dir)
	return string(id), err
}

func (l layers) Hold(ctx context.Context) (release func(), err error) { return l.store.Hold(ctx) }

func (l layers) Flush() error { return l.store.Flush() }

func (l layers) ImportDisk(ctx context.Context, file *os.File, format string) (ImportedDisk, error) {
	info, err := file.Stat()
	if err != nil {
		return ImportedDisk{}, err
	}
	d, err := disk.Open(file, info.Size(), format)
	if err != nil {
		return ImportedDisk{}, err
	}
	id, user, err := l.store.ImportDisk(ctx, d)
	return ImportedDisk{Layer: string(id), User: user, Size: d.Size}, err
}

func (l layers) ExportDisk(ctx context.Context, ids []string, size int64, report func(done, of int64), use func(*os.File) error) error {
	return l.store.ExportDisk(ctx, layerIDs(ids), size, report, use)
}

func (l layers) StoreImage(ctx context.Context, w io.Writer, about []byte, ids []string, report func(done, of int64)) error {
	return l.store.StoreImage(ctx, w, about, layerIDs(ids), report)
}

func (l layers) About(r io.Reader) ([]byte, error) { return image.ReadAbout(r) }

func (l layers) RestoreImage(ctx context.Context, r io.Reader) (ids []string, err error) {
	made, err := l.store.RestoreImage(ctx, r)
	for _, id := range made {
		ids = append(ids, string(id))
	}
	return ids, err
}

func (l layers) Paths(ids []string) ([]string, error) {
	for _, id := range ids {
		if !l.store.Has(image.LayerID(id)) {
			return nil, fmt.Errorf("layer %s: %w", id, image.ErrNotFound)
		}
	}
	return l.store.Paths(layerIDs(ids))
}

func (l layers) Size(ctx context.Context, id string) (int64, error) {
	n, err := l.store.Size(ctx, image.LayerID(id))
	if errors.Is(err, image.ErrNotFound) {
		return 0, nil
	}
	return n, err
}

func (l layers) InBases(ids []string) (map[string]bool, error) {
	bases, err := l.store.Bases()
	if err != nil {
		return nil, err
	}
	of := map[string]bool{}
	for _, b := range bases {
		for _, id := range b.Layers {
			of[string(id)] = true
		}
	}
	in := map[string]bool{}
	for _, id := range ids {
		in[id] = of[id]
	}
	return in, nil
}

func (l layers) Collect(ctx context.Context, inUse func() (layers, bases []string)) error {
	_, err := l.store.Collect(ctx, func() ([]image.LayerID, []string) {
		layers, bases := inUse()
		return layerIDs(layers), bases
	})
	return err
}

func layerIDs(ids []string) []image.LayerID {
	out := make([]image.LayerID, len(ids))
	for i, id := range ids {
		out[i] = image.LayerID(id)
	}
	return out
}
