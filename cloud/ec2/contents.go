package ec2

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/wire"
)

// Contents are what the root of an image is made of, and what else an image of the same
// needs.
type Contents struct {
	Layers []string // of the image store, topmost first
	Base   string   // in their place, if they are yet to come from it: see [Images].Ensure
	Own    []Layer  // those of the layers that no base is made of, if they are asked for

	Name       string
	Arch       string // in Go's words; empty if nothing is known of it
	User       string // who logs in
	RootDevice string
	Size       int32 // of the root volume, GiB
}

// Layer is a layer of an image.
type Layer struct {
	ID    string
	Bytes int64 // as a tar
}

// Own returns the layers of an image that no base is made of, with their sizes.
func (s *Service) Own(ctx context.Context, of Contents) (own []Layer, err error) {
	based, err := s.opts.Images.InBases(of.Layers)
	if err != nil {
		return nil, err
	}
	layers := slices.DeleteFunc(slices.Clone(of.Layers), func(id string) bool { return based[id] })
	sizes, err := s.sizes(ctx, layers)
	if err != nil {
		return nil, err
	}
	for i, id := range layers {
		own = append(own, Layer{id, sizes[i]})
	}
	return own, nil
}

// Contents returns what an image is made of that the caller may launch. It is an error if
// other volumes of it hold anything.
func (s *Service) Contents(ctx context.Context, id string) (Contents, error) {
	return try(s, func(st *state) (Contents, error) {
		img, err := st.usableImage(wire.CallerFrom(ctx), &id)
		if err != nil {
			return Contents{}, err
		}
		out := Contents{Name: aws.ToString(img.Name), Arch: processorOf(img.Architecture), User: img.LoginUser, RootDevice: aws.ToString(img.RootDeviceName)}
		out.Layers, out.Base = st.content(img)
		var further []string
		for _, b := range img.BlockDeviceMappings {
			switch {
			case b.Ebs == nil:
			case aws.ToString(b.DeviceName) == out.RootDevice:
				out.Size = aws.ToInt32(b.Ebs.VolumeSize)
			case b.Ebs.SnapshotId != nil:
				further = append(further, aws.ToString(b.DeviceName))
			}
		}
		if len(further) > 0 {
			return Contents{}, wire.Errorf("Unsupported", "The image %s has volumes besides its root, from snapshots: %s.", id, strings.Join(further, ", "))
		}
		return out, nil
	})
}
