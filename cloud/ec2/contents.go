package ec2

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/wire"
)

// Contents describe the root of an image, and what a copy of the image needs to be made
// elsewhere.
type Contents struct {
	Layers []string // ids in the image store, topmost first
	Base   string   // in place of Layers, if they have not been made from it yet: see [Images].Ensure
	Own    []Layer  // the layers that no base consists of, if requested

	Name       string
	Arch       string // as in GOARCH; empty if unknown
	User       string // login user
	RootDevice string
	Size       int32 // of the root volume, in GiB
}

// Layer is a layer of an image.
type Layer struct {
	ID    string
	Bytes int64 // size as a tar
}

// Own returns the layers of an image that no base consists of, with their sizes.
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

// Contents returns the contents of an image that the caller may launch. It fails if the
// image has other volumes that are not empty.
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
