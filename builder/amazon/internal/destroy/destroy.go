// Package destroy deletes the resources of builds, during the build or later.
package destroy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/internal/delay"
	"bake/step"
)

// Destroyer is the [step.Destroyer] of all resources in EC2.
type Destroyer struct {
	// Open returns the session for access to a resource.
	Open func(ctx context.Context, r step.Resource) (*access.Session, error)
}

// For returns a destroyer that uses one session, and the roles that it assumes in other
// accounts.
func For(s *access.Session) *Destroyer {
	return &Destroyer{
		Open: func(ctx context.Context, r step.Resource) (*access.Session, error) { return s.For(ctx, r.With) },
	}
}

// Reopening returns a destroyer that opens sessions as recorded with the resources, one
// for all resources with the same settings. cloud opens the cloud with a name, which is
// empty for AWS.
func Reopening(cloud func(ctx context.Context, name string) (access.Cloud, error)) *Destroyer {
	var mu sync.Mutex
	sessions := map[string]*access.Session{}
	open := func(ctx context.Context, r step.Resource) (*access.Session, error) {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(r.Where, r.With["cloud"], r.With["account"], r.With["profile"], r.With["endpoint"], r.With["role_arn"], r.With["target_role_arn"])
		if s := sessions[key]; s != nil {
			return s, nil
		}
		var c access.Cloud
		switch name := r.With["cloud"]; {
		case cloud != nil: // calls to AWS may be rate-limited, too
			var err error
			if c, err = cloud(ctx, name); err != nil {
				return nil, err
			}
		case name != "":
			return nil, fmt.Errorf("it is in the cloud %q, which cannot be reached from here", name)
		}
		s, err := access.Reopen(ctx, r.With, r.Where, c)
		if err == nil {
			sessions[key] = s
		}
		return s, err
	}
	return &Destroyer{Open: open}
}

// Destroy implements [step.Destroyer].
func (d *Destroyer) Destroy(ctx context.Context, r step.Resource) error {
	session, err := d.Open(ctx, r)
	if err != nil {
		return err
	}
	j := &job{session: session, client: session.EC2(r.Where), r: r}
	switch r.Kind {
	case ownership.KeyPair:
		return j.keyPair(ctx)
	case ownership.SecurityGroup:
		return j.securityGroup(ctx)
	case ownership.Instance:
		return j.instance(ctx)
	case ownership.Image:
		return j.image(ctx)
	case ownership.Snapshot:
		return j.snapshot(ctx)
	case ownership.ImageSnapshots:
		return j.imageSnapshots(ctx)
	case ownership.Volume:
		return j.ownVolume(ctx)
	case ownership.NetworkInterface:
		return j.networkInterface(ctx)
	case ownership.ImportTask:
		return j.importTask(ctx)
	case ownership.Object:
		return j.object(ctx)
	case ownership.LaunchTemplate:
		return j.launchTemplate(ctx)
	case ownership.Permission:
		return j.permission(ctx)
	case ownership.Lock:
		return j.lock(ctx)
	case ownership.Role:
		return j.role(ctx)
	case ownership.InstanceProfile:
		return j.instanceProfile(ctx)
	}
	return fmt.Errorf("bake does not know how to delete a resource of kind %q", r.Kind)
}

// job is the deletion of one resource.
type job struct {
	session *access.Session
	client  *ec2.Client
	r       step.Resource
}

// settle polls until find reports success, or until enough time has passed to conclude that
// the resource does not exist.
func (j *job) settle(ctx context.Context, find func(context.Context) (bool, error)) error {
	start := time.Now()
	for pause := wait.First; ; pause *= 2 {
		found, err := find(ctx)
		if err != nil || found || time.Since(start) >= j.session.Pace.Visible {
			return err
		}
		if err := delay.For(ctx, min(pause, j.session.Pace.Visible)); err != nil {
			return err
		}
	}
}

// busy deletes a resource, and retries while EC2 returns one of the codes.
func (j *job) busy(ctx context.Context, what string, del func(context.Context) error, codes ...string) error {
	start := time.Now()
	for pause := wait.First; ; pause = min(2*pause, 5*time.Second) {
		err := del(ctx)
		if !access.Is(err, codes...) || time.Since(start)+pause > j.session.Pace.Released {
			return err
		}
		if err := delay.For(ctx, pause); err != nil {
			return fmt.Errorf("%s is still in use: %w", what, err)
		}
	}
}

func (j *job) build() string { return j.r.With[ownership.WithBuild] }

// ours returns filters that match the tag of the build that owns the resource.
func (j *job) ours(more ...types.Filter) []types.Filter {
	return append(more, types.Filter{Name: new("tag:" + ownership.BuildTag), Values: []string{j.build()}})
}

func (j *job) keyPair(ctx context.Context) error {
	id := j.r.ID
	err := j.settle(ctx, func(ctx context.Context) (bool, error) {
		if id != "" {
			// Deleting a key pair that does not exist is not an error, so query first.
			out, err := access.Call(ctx, j.client.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{KeyPairIds: []string{id}})
			return err == nil && len(out.KeyPairs) > 0, notFound(err)
		}
		// A key pair of that name may be the user's: only the tag distinguishes it.
		out, err := access.Call(ctx, j.client.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{
			Filters: j.ours(types.Filter{Name: new("key-name"), Values: []string{j.r.With[ownership.WithName]}}),
		})
		if err != nil || len(out.KeyPairs) == 0 {
			return false, notFound(err)
		}
		id = aws.ToString(out.KeyPairs[0].KeyPairId)
		return true, nil
	})
	if err != nil || id == "" {
		return err
	}
	return deleteKeyPair(ctx, j.client, id, j.r.With[ownership.WithName])
}

// deleteKeyPair deletes a key pair by its id, which is unique. An endpoint that knows key
// pairs only by name then does nothing, but reports success; EC2 reports which one it has
// deleted.
func deleteKeyPair(ctx context.Context, client *ec2.Client, id, name string) error {
	out, err := access.Call(ctx, client.DeleteKeyPair, &ec2.DeleteKeyPairInput{KeyPairId: &id})
	switch {
	case err == nil && (aws.ToString(out.KeyPairId) == id || name == ""):
		return nil
	case err != nil && (name == "" || !access.Is(err, "MissingParameter", "UnknownParameter")):
		return notFound(err)
	}
	exists := func() (bool, error) {
		out, err := access.Call(ctx, client.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{Filters: []types.Filter{{Name: new("key-name"), Values: []string{name}}}})
		if err != nil {
			return false, notFound(err)
		}
		return slices.ContainsFunc(out.KeyPairs, func(k types.KeyPairInfo) bool { return aws.ToString(k.KeyPairId) == id }), nil
	}
	if left, err := exists(); err != nil || !left {
		return err
	}
	if _, err := access.Call(ctx, client.DeleteKeyPair, &ec2.DeleteKeyPairInput{KeyName: &name}); err != nil {
		return notFound(err)
	}
	left, err := exists()
	if left {
		return fmt.Errorf("the endpoint says that key pair %s (%s) is deleted, but still lists it", name, id)
	}
	return err
}

// OwnKeyPair deletes the key pair of that name that carries the tag of a build, and
// reports whether there was one. A key pair without the tag belongs to someone else.
func OwnKeyPair(ctx context.Context, client *ec2.Client, name, build string) (bool, error) {
	out, err := access.Call(ctx, client.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{Filters: []types.Filter{
		{Name: new("key-name"), Values: []string{name}}, {Name: new("tag:" + ownership.BuildTag), Values: []string{build}},
	}})
	if err != nil || len(out.KeyPairs) == 0 {
		return false, notFound(err)
	}
	err = deleteKeyPair(ctx, client, aws.ToString(out.KeyPairs[0].KeyPairId), name)
	return err == nil, err
}

// FindGroup returns the id of the security group of that name that carries the tag
// of a build, or "".
func FindGroup(ctx context.Context, client *ec2.Client, name, build string) string {
	out, err := access.Call(ctx, client.DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{
		{Name: new("group-name"), Values: []string{name}}, {Name: new("tag:" + ownership.BuildTag), Values: []string{build}},
	}})
	if err != nil || len(out.SecurityGroups) == 0 {
		return ""
	}
	return aws.ToString(out.SecurityGroups[0].GroupId)
}

func (j *job) securityGroup(ctx context.Context) error {
	id := j.r.ID
	return j.settle(ctx, func(ctx context.Context) (bool, error) {
		if id == "" {
			out, err := access.Call(ctx, j.client.DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{
				Filters: j.ours(types.Filter{Name: new("group-name"), Values: []string{j.r.With[ownership.WithName]}}),
			})
			if err != nil || len(out.SecurityGroups) == 0 {
				return false, notFound(err)
			}
			id = aws.ToString(out.SecurityGroups[0].GroupId)
		}
		err := j.busy(ctx, "security group "+id, func(ctx context.Context) error {
			_, err := access.Call(ctx, j.client.DeleteSecurityGroup, &ec2.DeleteSecurityGroupInput{GroupId: &id})
			return err
		}, "DependencyViolation", "InvalidGroup.InUse")
		return err == nil, notFound(err)
	})
}

func (j *job) instance(ctx context.Context) error {
	in := &ec2.DescribeInstancesInput{}
	if j.r.ID != "" {
		in.InstanceIds = []string{j.r.ID}
	} else {
		in.Filters = j.ours()
	}
	var found []types.Instance
	err := j.settle(ctx, func(ctx context.Context) (bool, error) {
		out, err := access.Call(ctx, j.client.DescribeInstances, in)
		if err != nil {
			return false, notFound(err)
		}
		for _, r := range out.Reservations {
			found = append(found, r.Instances...)
		}
		return len(found) > 0, nil
	})
	if err != nil {
		return err
	}
	for _, i := range found {
		if err := j.terminate(ctx, i); err != nil {
			return err
		}
	}
	return j.volumes(ctx)
}

// terminate terminates an instance and waits for that. Volumes that the user keeps first
// lose the tags of the build.
func (j *job) terminate(ctx context.Context, i types.Instance) error {
	id := aws.ToString(i.InstanceId)
	if err := j.keepVolumes(ctx, i); err != nil {
		return err
	}
	if _, err := access.Call(ctx, j.client.TerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
		return notFound(err)
	}
	_, err := access.Watch(j.session, j.r.Where).Instances.Until(ctx, wait.Wait[types.Instance]{
		ID: id, What: "instance " + id + " to be terminated", Watch: j.session.Watch(15*time.Second, 10*time.Minute),
		Kind: "terminated", Usual: wait.Span{Soonest: 10 * time.Second, Latest: time.Minute},
		Voice: j.session.Voice(ctx),
		Judge: func(i types.Instance, found bool) (bool, error) {
			return !found || i.State != nil && i.State.Name == types.InstanceStateNameTerminated, nil
		},
	})
	return err
}

func (j *job) keepVolumes(ctx context.Context, i types.Instance) error {
	keep := strings.Split(j.r.With[ownership.WithKeep], ",")
	var ids []string
	for _, bdm := range i.BlockDeviceMappings {
		if bdm.Ebs != nil && slices.Contains(keep, aws.ToString(bdm.DeviceName)) {
			ids = append(ids, aws.ToString(bdm.Ebs.VolumeId))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := access.Call(ctx, j.client.DeleteTags, &ec2.DeleteTagsInput{
		Resources: ids, Tags: []types.Tag{{Key: new(ownership.RunTag)}, {Key: new(ownership.BuildTag)}},
	})
	return notFound(err)
}

// volumes deletes the build's volumes that remain after its instance was terminated.
func (j *job) volumes(ctx context.Context) error {
	out, err := access.Call(ctx, j.client.DescribeVolumes, &ec2.DescribeVolumesInput{Filters: j.ours()})
	if err != nil {
		return err
	}
	for _, v := range out.Volumes {
		if v.State == types.VolumeStateDeleting || v.State == types.VolumeStateDeleted {
			continue
		}
		if err := j.volume(ctx, aws.ToString(v.VolumeId)); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) volume(ctx context.Context, id string) error {
	return j.busy(ctx, "volume "+id, func(ctx context.Context) error {
		_, err := access.Call(ctx, j.client.DeleteVolume, &ec2.DeleteVolumeInput{VolumeId: &id})
		return notFound(err)
	}, "VolumeInUse", "IncorrectState")
}

// ownVolume deletes a volume, after detaching it from its instance.
func (j *job) ownVolume(ctx context.Context) error {
	id := cmp.Or(j.r.ID, j.r.With[ownership.WithVolume])
	in := &ec2.DescribeVolumesInput{VolumeIds: []string{id}}
	if id == "" {
		in = &ec2.DescribeVolumesInput{Filters: j.ours()}
	}
	var found []types.Volume
	err := j.settle(ctx, func(ctx context.Context) (bool, error) {
		out, err := access.Call(ctx, j.client.DescribeVolumes, in)
		if err != nil {
			return false, notFound(err)
		}
		found = out.Volumes
		return len(found) > 0, nil
	})
	if err != nil {
		return err
	}
	for _, v := range found {
		if len(v.Attachments) > 0 && v.Attachments[0].State != types.VolumeAttachmentStateDetaching {
			_, err := access.Call(ctx, j.client.DetachVolume, &ec2.DetachVolumeInput{VolumeId: v.VolumeId})
			if err != nil && !access.NotFound(err) && !access.Is(err, "IncorrectState") {
				return err
			}
		}
		if err := j.volume(ctx, aws.ToString(v.VolumeId)); err != nil {
			return err
		}
	}
	return nil
}

// snapshot deletes a snapshot. If its ID is not known, it deletes the build's snapshots of
// the volume.
func (j *job) snapshot(ctx context.Context) error {
	ids := []string{j.r.ID}
	if j.r.ID == "" {
		ids = nil
		err := j.settle(ctx, func(ctx context.Context) (bool, error) {
			var err error
			ids, err = FindSnapshots(ctx, j.client, j.r.With[ownership.WithVolume], j.build())
			return len(ids) > 0, err
		})
		if err != nil {
			return err
		}
	}
	for _, id := range ids {
		err := j.busy(ctx, "snapshot "+id, func(ctx context.Context) error { return Snapshot(ctx, j.client, id) }, "InvalidSnapshot.InUse")
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *job) networkInterface(ctx context.Context) error {
	return j.busy(ctx, "network interface "+j.r.ID, func(ctx context.Context) error {
		_, err := access.Call(ctx, j.client.DeleteNetworkInterface, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &j.r.ID})
		return notFound(err)
	}, "InvalidNetworkInterface.InUse", "InvalidParameterValue")
}

func (j *job) launchTemplate(ctx context.Context) error {
	in := &ec2.DeleteLaunchTemplateInput{LaunchTemplateId: &j.r.ID}
	if j.r.ID == "" {
		name := j.r.With[ownership.WithName]
		in = &ec2.DeleteLaunchTemplateInput{LaunchTemplateName: &name}
	}
	return j.settle(ctx, func(ctx context.Context) (bool, error) {
		_, err := access.Call(ctx, j.client.DeleteLaunchTemplate, in)
		return err == nil, notFound(err)
	})
}

func (j *job) image(ctx context.Context) error {
	var image *types.Image
	err := j.settle(ctx, func(ctx context.Context) (found bool, err error) {
		if j.r.ID == "" {
			image, err = FindImage(ctx, j.client, j.r.With[ownership.WithName], j.build())
			return image != nil, err
		}
		out, err := access.Call(ctx, j.client.DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{j.r.ID}})
		if err != nil || len(out.Images) == 0 {
			return false, notFound(err)
		}
		image = &out.Images[0]
		return true, nil
	})
	if err != nil {
		return err
	}
	var snapshots []string
	if image != nil {
		snapshots = SnapshotIDs(*image)
		if err := j.deregister(ctx, image, snapshots); err != nil {
			return err
		}
	}
	return j.snapshots(ctx, snapshots)
}

// deregister removes an image. If the image no longer has the tags of the build,
// deregister first restores them on it and its snapshots: if this process ends after the
// image is removed, the next one finds the snapshots by the tags. If the tags cannot be
// set, the image is removed without them.
func (j *job) deregister(ctx context.Context, image *types.Image, snapshots []string) error {
	id := image.ImageId
	if ownership.Value(image.Tags, ownership.BuildTag) == "" && len(snapshots) > 0 && j.build() != "" {
		_, err := access.Call(ctx, j.client.CreateTags, &ec2.CreateTagsInput{
			Resources: append([]string{*id}, snapshots...),
			Tags:      ownership.Tags(map[string]string{ownership.RunTag: j.r.With[ownership.WithRun], ownership.BuildTag: j.build()}),
		})
		if err != nil && ctx.Err() != nil {
			return err
		}
	}
	if strings.HasPrefix(aws.ToString(image.DeregistrationProtection), "enabled") {
		if _, err := access.Call(ctx, j.client.DisableImageDeregistrationProtection, &ec2.DisableImageDeregistrationProtectionInput{ImageId: id}); err != nil {
			return err
		}
	}
	_, err := access.Call(ctx, j.client.DeregisterImage, &ec2.DeregisterImageInput{ImageId: id})
	return notFound(err)
}

// snapshots deletes the snapshots of an image: the known ones, and those that carry the
// tag of its build. It leaves snapshots that belong to another image of the build.
func (j *job) snapshots(ctx context.Context, known []string) error {
	all := slices.Clone(known)
	if j.build() != "" {
		out, err := access.Call(ctx, j.client.DescribeSnapshots, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: j.ours()})
		if err != nil {
			return err
		}
		for _, s := range out.Snapshots {
			if id := aws.ToString(s.SnapshotId); !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	for _, id := range all {
		if slices.Contains(known, id) {
			err := j.busy(ctx, "snapshot "+id, func(ctx context.Context) error { return Snapshot(ctx, j.client, id) }, "InvalidSnapshot.InUse")
			if err != nil {
				return err
			}
			continue
		}
		if err := Snapshot(ctx, j.client, id); err != nil && !access.Is(err, "InvalidSnapshot.InUse") {
			return err
		}
	}
	return nil
}

// FindImage returns the account's image of that name that carries the tag of a
// build, or nil.
func FindImage(ctx context.Context, client *ec2.Client, name, build string) (*types.Image, error) {
	out, err := access.Call(ctx, client.DescribeImages, &ec2.DescribeImagesInput{
		Owners: []string{"self"},
		Filters: []types.Filter{
			{Name: new("name"), Values: []string{name}},
			{Name: new("tag:" + ownership.BuildTag), Values: []string{build}},
		},
	})
	if err != nil || len(out.Images) == 0 {
		return nil, notFound(err)
	}
	return &out.Images[0], nil
}

// FindSnapshots returns the snapshots of a volume that carry the tag of a build.
func FindSnapshots(ctx context.Context, client *ec2.Client, volume, build string) (ids []string, err error) {
	out, err := access.Call(ctx, client.DescribeSnapshots, &ec2.DescribeSnapshotsInput{
		OwnerIds: []string{"self"},
		Filters: []types.Filter{
			{Name: new("volume-id"), Values: []string{volume}},
			{Name: new("tag:" + ownership.BuildTag), Values: []string{build}},
		},
	})
	if err != nil {
		return nil, err
	}
	for _, s := range out.Snapshots {
		ids = append(ids, aws.ToString(s.SnapshotId))
	}
	return ids, nil
}

// Snapshot deletes a snapshot. It is no error if there is none.
func Snapshot(ctx context.Context, client *ec2.Client, id string) error {
	_, err := access.Call(ctx, client.DeleteSnapshot, &ec2.DeleteSnapshotInput{SnapshotId: &id})
	return notFound(err)
}

// SnapshotIDs returns the snapshots that an image consists of.
func SnapshotIDs(image types.Image) (ids []string) {
	for _, bdm := range image.BlockDeviceMappings {
		if bdm.Ebs != nil && aws.ToString(bdm.Ebs.SnapshotId) != "" {
			ids = append(ids, *bdm.Ebs.SnapshotId)
		}
	}
	return ids
}

// notFound returns err, or nil if err means that the resource does not exist.
func notFound(err error) error {
	if access.NotFound(err) {
		return nil
	}
	return err
}
