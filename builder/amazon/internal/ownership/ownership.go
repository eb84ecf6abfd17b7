// Package ownership names, tags and records the resources of a build, so that another
// process can find and delete them.
package ownership

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"

	"bake/builder/amazon/internal/access"
	"bake/internal/imagetag"
	"bake/step"
)

// The kinds of resource for [step.Resource]. Their prefix, Prefix, selects their destroyer.
const (
	Prefix           = "ec2"
	KeyPair          = "ec2:key-pair"
	SecurityGroup    = "ec2:security-group"
	Instance         = "ec2:instance"
	Image            = "ec2:image"
	Snapshot         = "ec2:snapshot"
	Volume           = "ec2:volume"
	NetworkInterface = "ec2:network-interface"
	ImportTask       = "ec2:import-task"      // and the image that it has made
	Object           = "ec2:s3-object"        // and the parts of its upload
	InstanceProfile  = "ec2:instance-profile" // of IAM, like the next kind
	Role             = "ec2:role"
	LaunchTemplate   = "ec2:launch-template"
	Permission       = "ec2:permission"      // of WithGrantee, to copy the image WithName and its snapshots
	Lock             = "ec2:channel-lock"    // a parameter of Systems Manager, if it holds WithKey
	ImageSnapshots   = "ec2:image-snapshots" // of the image WithName, which is about to be deregistered
)

// The tags of everything that a build owns. A kept image loses them.
const (
	RunTag   = imagetag.Run    // the run's id
	BuildTag = access.BuildTag // the builder's id, unique among all builds of all runs: see NewID
)

// The tags of an image that was kept although its verification has failed. Their value is
// the run's id.
const (
	RejectedTag   = imagetag.Rejected
	QuarantineTag = imagetag.Quarantine // the image cannot be launched
)

// CacheTag is the tag of images of machines that later builds start from. They are not
// images of a build, and are found only by code that looks for them.
const CacheTag = "bake:cache"

// ContinuesTag is the tag of instances that are launched from such an image. It makes the
// local cloud present them to cloud-init as the instance that was kept in the image.
const ContinuesTag = "bake:continues"

// Cached reports whether t is [CacheTag].
func Cached(t types.Tag) bool { return t.Key != nil && *t.Key == CacheTag }

// MostTags is the maximum number of tags of a resource in EC2, and Tagged is the number of
// those that the owner uses.
const (
	MostTags = 50
	Tagged   = 2
)

// NewID returns the ID of a new [Owner]. It contains the time of its creation; see [Since].
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// Since returns when the owner with this ID was created. It returns the zero time for IDs
// of older versions, which do not contain it.
func Since(id string) time.Time {
	u, err := uuid.Parse(id)
	if err != nil || u.Version() != 7 {
		return time.Time{}
	}
	return time.Unix(u.Time().UnixTime()).UTC()
}

// The keys of [step.Resource.With], in addition to those of [access.Session.With].
const (
	WithRun       = "run"
	WithBuild     = "build"
	WithName      = "name"      // of a key pair, security group or image; an image ID for the resource of its snapshots
	WithBucket    = "bucket"    // of an object
	WithKey       = "key"       // of an object; the text of a lock
	WithGrantee   = "grantee"   // account that has a permission
	WithVolume    = "volume"    // the volume of a snapshot, or the volume to keep
	WithSnapshots = "snapshots" // of an image, separated by commas
	WithKeep      = "keep"      // device names of an instance's volumes that outlive it, separated by commas

	WithCreated = "created" // the creation time, in RFC 3339, of a resource found by its tags; absent if unknown
)

// Owner is one build as the owner of resources.
type Owner struct {
	Session *access.Session
	Run     string
	ID      string // of [NewID]
}

// Resource describes a resource that is about to be made. with contains further entries for
// its destroyer, as pairs of key and value.
func (o *Owner) Resource(kind, key, region string, with ...string) step.Resource {
	w := o.Session.With(region)
	w[WithRun], w[WithBuild] = o.Run, o.ID
	for i := 0; i < len(with); i += 2 {
		if with[i+1] != "" {
			w[with[i]] = with[i+1]
		}
	}
	return step.Resource{Kind: kind, Key: key, Where: region, With: w}
}

// Tags returns the owner's tags and the user's, in order.
func (o *Owner) Tags(user map[string]string) []types.Tag {
	all := map[string]string{}
	maps.Copy(all, user)
	all[RunTag], all[BuildTag] = o.Run, o.ID
	return Tags(all)
}

// Specs returns the tag specification that gives resources of these types the
// owner's tags and the user's when they are made.
func (o *Owner) Specs(user map[string]string, kinds ...types.ResourceType) []types.TagSpecification {
	var specs []types.TagSpecification
	for _, k := range kinds {
		specs = append(specs, types.TagSpecification{ResourceType: k, Tags: o.Tags(user)})
	}
	return specs
}

// Tags returns a map as tags, in order.
func Tags(m map[string]string) []types.Tag {
	var tags []types.Tag
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		tags = append(tags, types.Tag{Key: &k, Value: &v})
	}
	return tags
}

// IAMTags is [Owner.Tags] as parameters of calls of IAM.
func (o *Owner) IAMTags(user map[string]string) url.Values {
	params := url.Values{}
	for i, t := range o.Tags(user) {
		params.Set(fmt.Sprintf("Tags.member.%d.Key", i+1), *t.Key)
		params.Set(fmt.Sprintf("Tags.member.%d.Value", i+1), *t.Value)
	}
	return params
}

// Value returns the value of a tag, or "".
func Value(tags []types.Tag, key string) string {
	for _, t := range tags {
		if t.Key != nil && t.Value != nil && *t.Key == key {
			return *t.Value
		}
	}
	return ""
}

// Acquire is [step.Acquire], but it withdraws the intent if the cloud has refused to make
// the resource, so that no search for it is needed.
func Acquire[T any](ctx context.Context, s *step.Scope, name string, want step.Resource, create func(context.Context) (id string, v T, err error)) (T, error) {
	return step.Acquire(ctx, s, name, want, func(ctx context.Context) (string, T, error) {
		id, v, err := create(ctx)
		if err != nil && access.Refused(err) {
			err = errors.Join(err, s.Ledger.Gone(want.Key))
		}
		return id, v, err
	})
}
