package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/wait"
)

// Watcher waits for changes in one account and region, on behalf of all builds of the
// process.
type Watcher struct {
	Instances *wait.Poll[types.Instance]
	Images    *wait.Poll[types.Image]
	Snapshots *wait.Poll[types.Snapshot]

	// Parts are the snapshots that a build has made so far, by its [BuildTag].
	Parts *wait.Poll[[]types.Snapshot]
}

// BuildTag is the key of the tag that records which build a resource belongs to.
const BuildTag = "bake:build"

// Watchers are the watchers of a process. The zero value is empty.
type Watchers struct {
	mu      sync.Mutex
	m       map[string]*Watcher
	claims  map[string]string // who claims a name, by account and name
	senders []sender
	slow    map[string]bool // endpoints of which the user knows that they are slow to answer
}

// Claim reserves a name in the account for one build of the process, and returns
// which other build has it, or "".
func Claim(s *Session, name, build string) (other string) {
	s.watchers.mu.Lock()
	defer s.watchers.mu.Unlock()
	if s.watchers.claims == nil {
		s.watchers.claims = map[string]string{}
	}
	key := s.Cloud.Name + " " + cmp.Or(s.Account, s.identity) + " " + name
	if other = s.watchers.claims[key]; other == build {
		return ""
	}
	if other == "" {
		s.watchers.claims[key] = build
	}
	return other
}

// batch is the maximum number of ids in one call. EC2 accepts up to 1000, but then its
// answers are slow and need pages.
const batch = 100

// Watch returns the watcher of a region.
func Watch(s *Session, region string) *Watcher {
	s.watchers.mu.Lock()
	defer s.watchers.mu.Unlock()
	key := s.identity + " " + region
	w := s.watchers.m[key]
	if w == nil {
		if s.watchers.m == nil {
			s.watchers.m = map[string]*Watcher{}
		}
		w = newWatcher(s, region)
		s.watchers.m[key] = w
	}
	return w
}

func newWatcher(s *Session, region string) *Watcher {
	// The next poll is a better retry.
	client := ec2.New(s.EC2(region).Options(), func(o *ec2.Options) { o.RetryMaxAttempts = 2 })
	tempo := wait.Tempo{Fast: 750 * time.Millisecond, Early: s.Pace.Early}
	w := &Watcher{
		Instances: &wait.Poll[types.Instance]{Passes: passes, Batch: batch, Tempo: tempo},
		Images:    &wait.Poll[types.Image]{Passes: passes, Batch: batch, Tempo: tempo},
		Snapshots: &wait.Poll[types.Snapshot]{Passes: passes, Batch: batch, Tempo: tempo},
		Parts:     &wait.Poll[[]types.Snapshot]{Passes: passes, Batch: batch, Tempo: wait.Tempo{Fast: 5 * time.Second}},
	}
	w.Instances.Look = func(ctx context.Context, ids []string) (map[string]types.Instance, error) {
		out, err := someMissing(ctx, client.DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: ids},
			&ec2.DescribeInstancesInput{Filters: by("instance-id", ids)})
		if err != nil {
			return nil, err
		}
		var all []types.Instance
		for _, r := range out.Reservations {
			all = append(all, r.Instances...)
		}
		return byID(all, func(i *types.Instance) *string { return i.InstanceId }), nil
	}
	w.Images.Look = func(ctx context.Context, ids []string) (map[string]types.Image, error) {
		out, err := someMissing(ctx, client.DescribeImages, &ec2.DescribeImagesInput{ImageIds: ids},
			&ec2.DescribeImagesInput{Filters: by("image-id", ids), IncludeDeprecated: new(true)})
		if err != nil {
			return nil, err
		}
		return byID(out.Images, func(i *types.Image) *string { return i.ImageId }), nil
	}
	w.Snapshots.Look = func(ctx context.Context, ids []string) (map[string]types.Snapshot, error) {
		out, err := someMissing(ctx, client.DescribeSnapshots, &ec2.DescribeSnapshotsInput{SnapshotIds: ids},
			&ec2.DescribeSnapshotsInput{Filters: by("snapshot-id", ids)})
		if err != nil {
			return nil, err
		}
		return byID(out.Snapshots, func(v *types.Snapshot) *string { return v.SnapshotId }), nil
	}
	w.Parts.Look = func(ctx context.Context, values []string) (map[string][]types.Snapshot, error) {
		out, err := Call(ctx, client.DescribeSnapshots, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: by("tag:"+BuildTag, values)})
		if err != nil {
			return nil, err
		}
		found := map[string][]types.Snapshot{}
		for _, v := range out.Snapshots {
			for _, t := range v.Tags {
				if aws.ToString(t.Key) == BuildTag {
					found[aws.ToString(t.Value)] = append(found[aws.ToString(t.Value)], v)
				}
			}
		}
		return found, nil
	}
	return w
}

func byID[T any](all []T, id func(*T) *string) map[string]T {
	found := map[string]T{}
	for i := range all {
		found[aws.ToString(id(&all[i]))] = all[i]
	}
	return found
}

func by(filter string, values []string) []types.Filter {
	return []types.Filter{{Name: &filter, Values: values}}
}

// someMissing describes resources by their ids. If one does not exist, the whole call
// fails; it then repeats the call with a filter, which finds the others.
func someMissing[I, O, Opt any](ctx context.Context, op func(context.Context, *I, ...func(*Opt)) (*O, error), byID, byFilter *I) (*O, error) {
	out, err := Call(ctx, op, byID)
	if NotFound(err) {
		return Call(ctx, op, byFilter)
	}
	return out, err
}

// passes reports whether an error is caused by load or the network, so that the same call
// may succeed later.
func passes(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	if e.Code == "" {
		var network net.Error
		return e.status/100 == 5 || errors.As(err, &network)
	}
	return e.status/100 == 5 || slices.Contains([]string{"RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled", "Client.RequestLimitExceeded"}, e.Code)
}

// Available is the [wait.Wait.Judge] of a wait until an image in a region is available.
func Available(region, id string) func(types.Image, bool) (bool, error) {
	seen := false
	return func(image types.Image, found bool) (bool, error) {
		switch {
		case seen && !found:
			return false, fmt.Errorf("image %s in %s has disappeared", id, region)
		case !found:
			return false, nil // not visible in all of EC2 yet
		}
		seen = true
		switch image.State {
		case types.ImageStateAvailable:
			return true, nil
		case types.ImageStatePending, types.ImageStateTransient:
			return false, nil
		}
		return false, &ImageError{id, region, image}
	}
}

// ImageError is the error of an image that EC2 began to make and did not finish.
type ImageError struct {
	id, region string
	image      types.Image
}

func (e *ImageError) Error() string {
	why := StateReason(e.image.StateReason)
	if why == "" {
		why = "EC2 gave no reason"
	}
	return fmt.Sprintf("image %s in %s is %s: %s", e.id, e.region, e.image.State, why)
}

// StateReason formats a reason as one text. Its code is included once, although EC2 often
// repeats it in the message.
func StateReason(r *types.StateReason) string {
	if r == nil {
		return ""
	}
	code := aws.ToString(r.Code)
	return strings.Trim(code+": "+strings.TrimPrefix(aws.ToString(r.Message), code+": "), ": ")
}
