// Package amazon provides commands with access to the Amazon components: their account
// and regions, and how to find and delete their resources.
package amazon

import (
	"context"
	"errors"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/step"
)

// Cloud replaces AWS. The zero value is AWS itself.
type Cloud = access.Cloud

// Within is an account and region that components are restricted to.
type Within = access.Within

// Watchers wait for changes in AWS for all builds that share them.
type Watchers = access.Watchers

// Prefix is the prefix of the kinds of resource of these components, up to the colon: the
// key of their destroyer in [step.Destroyers].
const Prefix = ownership.Prefix

// The entries of [step.Resource.With] in the results of FindTagged.
const (
	WithRun     = ownership.WithRun     // the run that made it
	WithCreated = ownership.WithCreated // when it was made, in RFC 3339; absent if unknown
)

// CacheTag is the tag of images of machines that are kept so that later builds can
// start from them.
const CacheTag = ownership.CacheTag

// Destroyer deletes resources of finished builds, as recorded with the resources. cloud
// opens the cloud with a name, which is empty for AWS; it may be nil if all clouds are
// open. It is called again for each region.
func Destroyer(cloud func(ctx context.Context, name string) (Cloud, error)) step.Destroyer {
	return destroy.Reopening(cloud)
}

// Place is the location in which FindTagged searches.
type Place struct {
	Region  string // empty: as the AWS configuration says
	Profile string // empty: as the AWS configuration says
	Cloud   Cloud
}

// FindTagged lists all resources in one region that carry the tag of the run, or of any run
// if run is empty, in the order in which they can be deleted. This includes resources of
// builds in progress.
func FindTagged(ctx context.Context, p Place, run string) ([]step.Resource, error) {
	session, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	return destroy.Tagged(ctx, session, run)
}

// Regions lists the regions that are enabled for the account, in order.
func Regions(ctx context.Context, p Place) ([]string, error) {
	session, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	return session.Regions(ctx, false)
}

func (p Place) open(ctx context.Context) (*access.Session, error) {
	o := access.Defaults()
	o.Region, o.Profile = p.Region, p.Profile
	session, err := access.Open(ctx, &o, nil, p.Cloud, nil)
	if err == nil && session.Account == "" {
		err = errors.New("AWS did not return the account of these credentials")
	}
	return session, err
}

// ImageStates returns the states of images, such as "pending" and "available", by id.
// Images that do not exist are left out.
func ImageStates(ctx context.Context, p Place, ids []string) (map[string]string, error) {
	session, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	filter := "image-id" // unlike a list of ids, a filter does not fail for one that does not exist yet
	states := map[string]string{}
	for some := range slices.Chunk(ids, 200) {
		out, err := access.Call(ctx, session.EC2(session.Region).DescribeImages, &ec2.DescribeImagesInput{
			Filters: []types.Filter{{Name: &filter, Values: some}},
		})
		if err != nil {
			return nil, err
		}
		for _, i := range out.Images {
			states[aws.ToString(i.ImageId)] = string(i.State)
		}
	}
	return states, nil
}
