package amazonbuild

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/internal/delay"
	"bake/step"
)

// Snapshot is a snapshot that is complete.
type Snapshot struct {
	ID       string
	Resource step.Resource // by which the scope owns it
}

// Snapshot makes a snapshot of a volume and waits until it is complete. The messages of
// steps call the volume by its device name dev.
func (b *Build) Snapshot(ctx context.Context, volume, dev, description string, tags map[string]string) (Snapshot, error) {
	return step.Memo(ctx, b.Scope, "snapshot of "+dev, func(ctx context.Context) (Snapshot, error) {
		return b.snapshot(ctx, volume, dev, description, tags)
	})
}

func (b *Build) snapshot(ctx context.Context, volume, dev, description string, tags map[string]string) (Snapshot, error) {
	region := b.Session.Region
	in := &ec2.CreateSnapshotInput{
		VolumeId: &volume, Description: &description,
		TagSpecifications: b.Owner.Specs(tags, types.ResourceTypeSnapshot),
	}
	want := b.Owner.Resource(ownership.Snapshot, "snapshot of "+volume+" "+b.Owner.ID, region, ownership.WithVolume, volume)
	begun, err := b.Scope.Made(ctx, func(r step.Resource) bool { return r.Key == want.Key })
	if err != nil {
		return Snapshot{}, err
	}
	id := begun.ID
	if id == "" {
		id, err = ownership.Acquire(ctx, b.Scope, "snapshot "+dev, want, func(ctx context.Context) (string, string, error) {
			id, err := b.createSnapshot(ctx, in)
			if err == nil {
				b.Scope.Say(ctx, "Snapshot %s of %s (%s)", id, volume, dev)
			}
			return id, id, err
		})
	}
	if err != nil {
		return Snapshot{}, err
	}
	want.ID = id
	err = step.Run(ctx, b.Scope, "wait for the snapshot of "+dev, func(ctx context.Context) error {
		return b.awaitSnapshot(ctx, id)
	})
	return Snapshot{ID: id, Resource: want}, err
}

// createSnapshot retries the call without the SDK's retries: EC2 has no client token for
// it, so an attempt whose response was lost may have made the snapshot.
func (b *Build) createSnapshot(ctx context.Context, in *ec2.CreateSnapshotInput) (string, error) {
	client := b.Session.EC2(b.Session.Region)
	once := ec2.New(client.Options(), func(o *ec2.Options) { o.RetryMaxAttempts = 1 })
	for try := 1; ; try++ {
		out, err := access.Finish(ctx, once.CreateSnapshot, in)
		if err == nil {
			return aws.ToString(out.SnapshotId), nil
		}
		switch {
		case access.Refused(err), try == 5:
			return "", err
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		}
		ids, lost := destroy.FindSnapshots(ctx, client, *in.VolumeId, b.Owner.ID)
		if lost == nil && len(ids) > 0 {
			return ids[0], nil
		}
		if err := delay.For(ctx, time.Duration(try)*wait.First); err != nil {
			return "", err
		}
	}
}

func (b *Build) awaitSnapshot(ctx context.Context, id string) error {
	_, err := access.Watch(b.Session, b.Session.Region).Snapshots.Until(ctx, wait.Wait[types.Snapshot]{
		ID: id, What: "snapshot " + id + " to be completed", Watch: b.Session.Watch(15*time.Second, 30*time.Minute),
		Kind: "snapshot", Usual: wait.Span{Soonest: 20 * time.Second, Latest: 2 * time.Minute},
		Voice: b.Session.Voice(ctx),
		Judge: func(s types.Snapshot, found bool) (bool, error) {
			switch {
			case !found: // not visible in all of EC2 yet
				return false, nil
			case s.State == types.SnapshotStateError:
				return false, fmt.Errorf("snapshot %s failed: %s", id, aws.ToString(s.StateMessage))
			}
			return s.State == types.SnapshotStateCompleted, nil
		},
	})
	return err
}
