package ssm

import (
	"context"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// public returns the public parameters of the caller's region, by name, if name can be a
// public parameter or a path of some. Their values are the ids of the images that
// publishers offer.
func (s *Service) public(ctx context.Context, name string) (map[string]*parameter, error) {
	if !strings.HasPrefix(name, "/aws/service") {
		return nil, nil
	}
	images, err := s.opts.Images.PublicParameters(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]*parameter{}
	for name, image := range images {
		created, err := time.Parse(time.RFC3339, aws.ToString(image.CreationDate))
		if err != nil {
			return nil, err
		}
		kind := "text"
		if strings.HasPrefix(name, "/aws/service/canonical/") {
			kind = imageType
		}
		found[name] = &parameter{Region: wire.CallerFrom(ctx).Region, Name: name, Type: ssm.ParameterTypeString, Tier: ssm.ParameterTierStandard,
			Versions: []version{{Number: 1, Value: *image.ImageId, Modified: created, DataType: kind}}}
	}
	return found, nil
}

// unknownPublic adds, to the error for a public parameter that does not exist, the names
// most similar to it.
func unknownPublic(err error, name string, public map[string]*parameter) error {
	e := wire.AsError(err)
	if len(public) == 0 || e.Code != "ParameterNotFound" {
		return err
	}
	shared := func(other string) (n int) {
		for n < min(len(name), len(other)) && name[n] == other[n] {
			n++
		}
		return n
	}
	near := slices.Sorted(maps.Keys(public))
	sort.SliceStable(near, func(i, j int) bool { return shared(near[i]) > shared(near[j]) })
	return wire.Errorf(e.Code, "The local cloud has no parameter %s. Similar public parameters are %s.", name, strings.Join(near[:min(3, len(near))], ", "))
}

// Images returns the current image ids in the caller's parameters of the data type
// aws:ec2:image, keyed by the parameters' ARNs.
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
