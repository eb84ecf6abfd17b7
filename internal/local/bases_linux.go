package local

import (
	"context"
	"log/slog"

	"bake/cloud/image"
)

// Releases returns the names of the releases that the cloud offers.
func Releases() (names []string) {
	for _, r := range image.Releases() {
		names = append(names, r.ID)
	}
	return names
}

// Bases returns the bases of the cloud in dir: those of releases, whether made or not, and
// those of imported images.
func Bases(ctx context.Context, dir string, log *slog.Logger) ([]Base, error) {
	_, store, err := open(dir, log)
	if err != nil {
		return nil, err
	}
	made, err := store.Bases()
	if err != nil {
		return nil, err
	}
	there := map[string]image.Base{}
	for _, b := range made {
		there[b.Name] = b
	}
	var out []Base
	for _, r := range image.Releases() {
		out = append(out, Base{Name: r.ID, Publisher: r.Publisher, Owner: r.Owner, User: r.User})
	}
	for _, b := range out {
		delete(there, b.Name)
	}
	for _, b := range made {
		if _, ok := there[b.Name]; ok {
			out = append(out, Base{Name: b.Name})
		}
		for i := range out {
			if out[i].Name != b.Name {
				continue
			}
			out[i].Made, out[i].User, out[i].Source, out[i].Created = true, b.User, b.Source, &b.Created
			for _, id := range b.Layers {
				size, err := store.Size(ctx, id)
				if err != nil {
					return nil, err
				}
				out[i].Size += size
			}
		}
	}
	return out, nil
}

// MakeBase makes the base of a release from packages, before the first launch.
func MakeBase(ctx context.Context, o Options, want BaseOptions) error {
	_, store, err := open(o.Dir, o.Log)
	if err != nil {
		return err
	}
	mirrors, err := image.MirrorsFor(want.Release, o.Mirror, want.Mirror)
	if err != nil {
		return err
	}
	ensure := image.EnsureOptions{Mirrors: mirrors, Keyring: want.Keyring}
	ensure.Progress = func(p image.Progress) {
		want.Progress(Progress{Base: want.Release, Phase: p.Phase, Note: p.Note, Done: p.Done, Total: p.Total})
	}
	_, err = store.Make(ctx, want.Release, want.Replace, ensure)
	return err
}

// Alias makes an AWS image id refer to the images of a release.
func Alias(dir string, log *slog.Logger, id, release string) error {
	_, store, err := open(dir, log)
	if err != nil {
		return err
	}
	return store.Alias(id, release)
}
