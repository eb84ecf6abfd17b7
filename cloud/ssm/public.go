package ssm

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"bake/cloud/durable"
	"bake/cloud/wire"
)

// debianOwner is the account that publishes Debian's images.
const debianOwner = "136693071363"

var debianName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^debian-([0-9]+)-(amd64|arm64)-([0-9]{8}-[0-9]+)$`) })

// public returns the public parameters of the caller's region, by name, if name
// can be one or a path to some: /aws/service/debian/release/12/latest/amd64 and
// the same with an image's own version in the place of latest. They hold the ids
// of the images that the Debian project publishes.
func (s *Service) public(ctx context.Context, name string) (map[string]*parameter, error) {
	if !strings.HasPrefix(name, "/aws/service") {
		return nil, nil
	}
	images, err := s.opts.Images.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{debianOwner}})
	if err != nil {
		return nil, err
	}
	newest := map[string]ec2types.Image{}
	found := map[string]*parameter{}
	add := func(name string, image ec2types.Image) error {
		created, err := time.Parse(time.RFC3339, aws.ToString(image.CreationDate))
		found[name] = &parameter{Region: wire.CallerFrom(ctx).Region, Name: name, Type: types.ParameterTypeString, Tier: types.ParameterTierStandard,
			Versions: []version{{Number: 1, Value: *image.ImageId, Modified: created, DataType: "text"}}}
		return err
	}
	for _, image := range images.Images {
		m := debianName().FindStringSubmatch(aws.ToString(image.Name))
		if m == nil {
			continue
		}
		path, arch := "/aws/service/debian/release/"+m[1]+"/", "/"+m[2]
		if err := add(path+m[3]+arch, image); err != nil {
			return nil, err
		}
		latest := path + "latest" + arch
		if old, ok := newest[latest]; !ok || *old.CreationDate < *image.CreationDate {
			newest[latest] = image
		}
	}
	for name, image := range newest {
		if err := add(name, image); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Images returns the ids of images that the caller's parameters of the data type
// aws:ec2:image have now, by the ARNs of the parameters.
func (s *Service) Images(ctx context.Context) (map[string]string, error) {
	if err := s.validate(ctx); err != nil {
		return nil, err
	}
	c := wire.CallerFrom(ctx)
	return durable.View(s.guarded, func(st *state) map[string]string {
		out := map[string]string{}
		for _, p := range st.parameters.Rows {
			if v := p.latest(); p.Account == c.Account && p.Region == c.Region && v.DataType == imageType {
				out[p.arn()] = v.Value
			}
		}
		return out
	}), nil
}
