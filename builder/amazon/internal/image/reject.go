package image

import (
	"context"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/step"
)

// WithoutUserTags returns the labels without the tags of the template, for an image that
// must not be found yet by users who look for finished images.
func (l Labels) WithoutUserTags() Labels {
	l.Tags, l.Snapshot = nil, nil
	return l
}

// explains is the key prefix of tags that only explain another tag, whose value is a
// digest.
const explains = "bake:inputs."

// AddImageTags adds the tags. It leaves out those that only explain another tag if the
// image would exceed EC2's limit on tags.
func (l *Labels) AddImageTags(marks map[string]string) {
	if len(merge(l.RunTags, l.Tags, marks)) > ownership.MostTags-ownership.Tagged {
		marks = maps.Clone(marks)
		maps.DeleteFunc(marks, func(key, _ string) bool { return strings.HasPrefix(key, explains) })
	}
	l.ImageTags = marks
}

// Label adds the marks to a finished image, and the tags that were withheld from it. It may
// be called again.
func (m *Maker) Label(ctx context.Context, made Made, labels Labels) error {
	if len(labels.Tags)+len(labels.Snapshot)+len(labels.ImageTags) == 0 {
		return nil
	}
	return step.Run(ctx, m.Scope, "tag the image in "+made.Region, func(ctx context.Context) error {
		client := m.Session.EC2(made.Region)
		for _, tags := range []struct {
			of []string
			m  map[string]string
		}{{[]string{made.ID}, merge(labels.Tags, labels.ImageTags)}, {made.Snapshots, SnapshotTags(labels)}} {
			if len(tags.of) == 0 || len(tags.m) == 0 {
				continue
			}
			if _, err := access.Call(ctx, client.CreateTags, &ec2.CreateTagsInput{Resources: tags.of, Tags: ownership.Tags(tags.m)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Reject hands over an image that must not be distributed: the image is tagged and not
// shared. With quarantine it is also disabled, so that it cannot be launched by mistake;
// it has no launch permissions to lose at that point, because they come later. The calls
// stop when ctx ends, since the run deletes an image that was not handed over.
func (m *Maker) Reject(ctx context.Context, made Made, quarantine bool) error {
	what, tag := "keep the image in "+made.Region, ownership.RejectedTag
	if quarantine {
		what, tag = "quarantine the image in "+made.Region, ownership.QuarantineTag
	}
	return step.Run(ctx, m.Scope, what, func(ctx context.Context) error {
		client := m.Session.EC2(made.Region)
		_, err := access.Call(ctx, client.CreateTags, &ec2.CreateTagsInput{
			Resources: []string{made.ID}, Tags: ownership.Tags(map[string]string{tag: m.Owner.Run}),
		})
		if err == nil && quarantine {
			_, err = access.Call(ctx, client.DisableImage, &ec2.DisableImageInput{ImageId: &made.ID})
		}
		if err == nil {
			once := *m
			unprotected := *m.Options
			unprotected.DeregistrationProtection = nil
			once.Options = &unprotected
			err = once.release(ctx, made)
		}
		if err == nil {
			err = m.Scope.Keep(ctx, append(append([]string(nil), made.Parts...), made.Resource.Key)...)
		}
		if err == nil {
			m.Scope.Warn(ctx, "Image %s in %s is kept with the tag %s; it was not copied, shared or tagged as the template says.", made.ID, made.Region, tag)
		}
		return err
	})
}
