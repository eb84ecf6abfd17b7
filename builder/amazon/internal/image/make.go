package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/internal/delay"
	"bake/step"
)

// Made is an image that is available.
type Made struct {
	Region, ID string
	Snapshots  []string
	Resource   step.Resource // by which the scope owns it

	// Parts are the keys under which the scope owns the snapshots of the image, in addition
	// to the image itself. They are released with it.
	Parts []string
}

// Labels are the rendered texts of an image.
type Labels struct {
	Description string
	RunTags     map[string]string
	Tags        map[string]string
	Snapshot    map[string]string
	ImageTags   map[string]string `json:"Marks"` // of images only, in addition to their Tags; the state of waiting runs uses this name
}

// Create makes the image of a stopped instance in the build region, under the name in the
// options or, for a temporary image, a generated one.
func (m *Maker) Create(ctx context.Context, instance string, labels Labels) (Made, error) {
	region := m.Session.Region
	name, err := m.firstName(ctx)
	if err != nil {
		return Made{}, err
	}
	run := m.runTags(labels)
	in := &ec2.CreateImageInput{
		InstanceId:          &instance,
		Name:                &name,
		Description:         access.Optional(labels.Description),
		BlockDeviceMappings: device.EC2(m.Devices()),
	}
	t := &tagging{image: m.Owner.Tags(merge(run, labels.Tags)), snapshots: m.Owner.Tags(merge(run, labels.Tags, labels.Snapshot))}
	key := fmt.Sprintf("%s@%s %s", name, region, m.Owner.ID)
	return m.acquire(ctx, "create the image", "image", region, name, key, t, func(ctx context.Context) (string, error) {
		return m.making(ctx, t, t.specs(), func(specs []types.TagSpecification) (string, error) {
			in.TagSpecifications = specs
			return m.createImage(ctx, in)
		})
	})
}

// firstName returns the name of the image in the build region, after it has ensured that
// the name is free.
func (m *Maker) firstName(ctx context.Context) (string, error) {
	if m.temporary() {
		return step.Memo(ctx, m.Scope, "temporary name", func(context.Context) (string, error) { return randomName(), nil })
	}
	return m.Name, m.replaceExisting(ctx, m.Session.Region)
}

func (m *Maker) runTags(labels Labels) map[string]string {
	if m.SkipRunTags || separatePartition(m.Session.Region) {
		return nil
	}
	return labels.RunTags
}

// createImage makes an image. It retries until the stop of the instance is visible in all
// of EC2.
func (m *Maker) createImage(ctx context.Context, in *ec2.CreateImageInput) (string, error) {
	var id string
	watch := wait.Watch{Delay: 30 * time.Second, Limit: 15 * time.Minute}
	err := watch.Until(ctx, "instance "+*in.InstanceId+" to be ready for an image", func(ctx context.Context) (bool, error) {
		out, err := access.Finish(ctx, m.Session.EC2(m.Session.Region).CreateImage, in)
		if access.Is(err, "IncorrectState", "IncorrectInstanceState") && strings.Contains(err.Error(), "not in state") {
			return false, nil
		}
		if err != nil {
			id, err = m.lost(ctx, *in.Name, err)
			return err == nil, err
		}
		id = aws.ToString(out.ImageId)
		return true, nil
	})
	return id, err
}

// lost finds the image that an earlier attempt of a call has made although its response was
// lost. If there is none, it returns err, the error of the call.
func (m *Maker) lost(ctx context.Context, name string, err error) (string, error) {
	if access.Is(err, "InvalidAMIName.Duplicate") && !access.Refused(err) {
		image, lost := destroy.FindImage(ctx, m.Session.EC2(m.Session.Region), name, m.Owner.ID)
		if lost == nil && image != nil {
			return aws.ToString(image.ImageId), nil
		}
	}
	return "", m.blameName(err, m.Session.Region)
}

func (m *Maker) blameName(err error, region string) error {
	if access.Is(err, "InvalidAMIName.Duplicate") {
		return access.Blame(err, m.nameTaken(region, "Another image"))
	}
	if access.Is(err, "InvalidAMIName.Malformed") {
		return access.Blame(err, m.Src.Errorf(&m.Name, "Invalid image name", "%s.", err))
	}
	return err
}

// copyWithRetries makes a copy of an image, under the name in the options. It retries a copy
// that EC2 gives up, a few times.
func (m *Maker) copyWithRetries(ctx context.Context, from Made, region string, labels Labels) (Made, error) {
	return step.Do(ctx, m.Scope, "copy the image to "+region, func(ctx context.Context) (Made, error) {
		unknown, err := m.unknown(ctx, region)
		if err != nil {
			return Made{}, err
		}
		if err := m.replaceExisting(ctx, region); err != nil {
			return Made{}, err
		}
		retries := access.Copying{Pace: m.Session.Pace}
		once := *m
		once.Scope = m.Scope.Unattended() // -on-error=ask offers to retry the whole copy, not only the failed part
		for try := 1; ; try++ {
			made, err := once.copy(ctx, from, region, m.attempt(region, unknown || try > 1), labels)
			if err == nil || context.Cause(ctx) != nil {
				return made, cause(err)
			}
			pause, again, ok := retries.Again(err)
			if !ok {
				return made, cause(err)
			}
			m.Scope.Warn(ctx, "%s; %s", cause(err), again)
			if err := once.Scope.Discard(ctx, func(r step.Resource) bool { return m.owns(r, region, m.Name) }); err != nil {
				return Made{}, cause(err)
			}
			if err := delay.For(ctx, pause); err != nil {
				return Made{}, err
			}
		}
	})
}

// unknown reports whether an attempt to copy to a region is known to have begun, but not
// which image it made. Such an image is deleted, and copying starts again.
func (m *Maker) unknown(ctx context.Context, region string) (found bool, err error) {
	_, err = m.Scope.Made(ctx, func(r step.Resource) bool {
		found = found || r.ID == "" && m.owns(r, region, m.Name)
		return false
	})
	return found, err
}

// attempt returns the key of an attempt to copy to a region: that of the last attempt, or
// of a new one if another is set. A resumed run that does not know the result of the
// attempt uses the same key, so that EC2 returns the image that it has made already.
// Without a journal the run cannot be resumed, and each attempt gets a new key.
func (m *Maker) attempt(region string, another bool) string {
	remembered := "attempts to copy to " + region
	n, _ := step.Recall[int](m.Scope, remembered)
	if another || n == 0 {
		n++
	}
	step.Record(m.Scope, remembered, n)
	nth := fmt.Sprint(n)
	if _, ok := step.Recall[int](m.Scope, remembered); !ok {
		nth = uuid.NewString()
	}
	return fmt.Sprintf("%s@%s %s %s", m.Name, region, m.Owner.ID, nth)
}

// token returns the client token of a request about the resource with a key. EC2 refuses a
// different request with the same token.
func (m *Maker) token(key string, tagged bool) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(fmt.Sprint(m.Owner.Run, " ", key, " ", tagged))).String()
}

// cause returns the error of a step without the name of the step.
func cause(err error) error {
	var s *step.Error
	if errors.As(err, &s) {
		return s.Err
	}
	return err
}

func (m *Maker) copy(ctx context.Context, from Made, region, key string, labels Labels) (Made, error) {
	in := &ec2.CopyImageInput{
		Name:          &m.Name,
		SourceImageId: &from.ID,
		SourceRegion:  &from.Region,
		Description:   access.Optional(labels.Description),
		CopyImageTags: new(true), // including the tags that identify the owner
		Encrypted:     m.EncryptBoot,
	}
	if kms := m.key(region); kms != "" {
		in.KmsKeyId, in.Encrypted = &kms, new(true)
	}
	if n := m.SnapshotCopyDurationMinutes; n > 0 {
		in.SnapshotCopyCompletionDurationMinutes = new(int64(n))
	}
	t := &tagging{image: m.Owner.Tags(merge(m.runTags(labels), labels.Tags, labels.ImageTags)), snapshots: m.Owner.Tags(merge(labels.Tags, labels.Snapshot))}
	// EC2 copies only the tags of the image.
	specs := m.Owner.Specs(merge(labels.Tags, labels.Snapshot), types.ResourceTypeSnapshot)
	return m.acquire(ctx, "start the copy", "copy to "+region, region, m.Name, key, t, func(ctx context.Context) (string, error) {
		return m.making(ctx, t, specs, func(specs []types.TagSpecification) (string, error) {
			in.TagSpecifications, in.ClientToken = specs, new(m.token(key, len(specs) > 0))
			out, err := access.Finish(ctx, m.Session.EC2(region).CopyImage, in)
			if err != nil {
				return "", m.blameName(err, region)
			}
			return aws.ToString(out.ImageId), nil
		})
	})
}

// key returns the KMS key that a copy is encrypted with, or "".
func (m *Maker) key(region string) string {
	if key, ok := m.RegionKMSKeyIDs[region]; ok {
		return key
	}
	if region == m.Session.Region {
		return m.KMSKeyID
	}
	return ""
}

// acquire makes an image with create and waits until it is available and tagged. kind is as
// for await; key is the key of the resource.
func (m *Maker) acquire(ctx context.Context, what, kind, region, name, key string, t *tagging, create func(context.Context) (string, error)) (Made, error) {
	want, err := m.begun(ctx, region, name)
	if err != nil {
		return Made{}, err
	}
	id := want.ID
	if id != "" {
		m.Scope.Say(ctx, "Going on with image %s (%s) in %s", id, name, region)
	} else {
		want = m.Owner.Resource(ownership.Image, key, region, ownership.WithName, name)
		id, err = ownership.Acquire(ctx, m.Scope, what, want, func(ctx context.Context) (string, string, error) {
			id, err := create(ctx)
			if err == nil {
				m.Scope.Say(ctx, "Image %s (%s) in %s", id, name, region)
			}
			return id, id, err
		})
	}
	if err != nil {
		return Made{}, err
	}
	want.ID = id
	if err := m.tagNew(ctx, region, id, t); err != nil {
		return Made{}, err
	}
	if err := step.EndStage(ctx, m.Scope, step.Boundary{Next: step.StageWait, Region: region, Image: id}); err != nil {
		return Made{}, err
	}
	image, err := step.Do(ctx, m.Scope, "wait for the image in "+region, func(ctx context.Context) (types.Image, error) {
		return m.await(ctx, region, id, kind)
	})
	if err != nil {
		return Made{}, err
	}
	made := Made{Region: region, ID: id, Snapshots: destroy.SnapshotIDs(image), Resource: want}
	return made, m.retag(ctx, made, image, t)
}

// begun returns the image with that name that an earlier process of the run has begun to
// make in a region; its ID is empty if there is none.
func (m *Maker) begun(ctx context.Context, region, name string) (step.Resource, error) {
	return m.Scope.Made(ctx, func(r step.Resource) bool { return m.owns(r, region, name) })
}

func (m *Maker) owns(r step.Resource, region, name string) bool {
	return r.Kind == ownership.Image && r.Where == region && r.With[ownership.WithName] == name && r.With[ownership.WithBuild] == m.Owner.ID
}

// replaceExisting removes an existing image with the name, if the user requests that.
func (m *Maker) replaceExisting(ctx context.Context, region string) error {
	if !m.force() {
		return nil
	}
	if own, err := m.begun(ctx, region, m.Name); err != nil || own.ID != "" {
		return err
	}
	return step.Run(ctx, m.Scope, "deregister any old image in "+region, func(ctx context.Context) error {
		images, err := m.named(ctx, region)
		if err != nil {
			return err
		}
		images = slices.DeleteFunc(images, func(i types.Image) bool { // an earlier process of this run made it and ended before it could record that
			return ownership.Value(i.Tags, ownership.BuildTag) == m.Owner.ID
		})
		if len(images) == 0 {
			return nil
		}
		if err := m.checkQuarantine(region, images); err != nil {
			return err
		}
		if err := m.checkUse(ctx, region, images, true); err != nil { // it may have been tagged or promoted since the launch
			return err
		}
		client := m.Session.EC2(region)
		for _, image := range images {
			id := aws.ToString(image.ImageId)
			m.Scope.Say(ctx, "Deregistering image %s in %s, which already has this name", id, region)
			if _, err := access.Call(ctx, client.DeregisterImage, &ec2.DeregisterImageInput{ImageId: &id}); err != nil && !access.NotFound(err) {
				return err
			}
			if !m.ForceDeleteSnapshot {
				continue
			}
			for _, snapshot := range destroy.SnapshotIDs(image) {
				err := destroy.Snapshot(ctx, client, snapshot)
				if access.Is(err, "InvalidSnapshot.InUse") {
					m.Scope.Warn(ctx, "Keeping snapshot %s: another image uses it", snapshot)
				} else if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// separatePartition reports whether a region is one of GovCloud or China, where images do not
// get the run_tags.
func separatePartition(region string) bool {
	return strings.HasPrefix(region, "us-gov-") || strings.HasPrefix(region, "cn-")
}

func merge(maps ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

func randomName() string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	name := make([]byte, 7)
	for i := range name {
		name[i] = letters[rand.N(len(letters))] // need not be unpredictable, only unlikely to be taken
	}
	return string(name)
}
