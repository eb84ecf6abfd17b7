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

// WithoutUserTags are the labels of an image that is not to be found yet by those who look for
// what is ready: without the tags that the template gives it.
func (l Labels) WithoutUserTags() Labels {
	l.Tags, l.Snapshot = nil, nil
	return l
}

// explains begins the keys of marks that only explain what another one, which is a digest,
// stands for.
const explains = "bake:inputs."

// AddImageTags sets the tags. Those that only explain another one are left out if the image would
// have more tags than EC2 takes.
func (l *Labels) AddImageTags(marks map[string]string) {
	if len(merge(l.RunTags, l.Tags, marks)) > ownership.MostTags-ownership.Tagged {
		marks = maps.Clone(marks)
		maps.DeleteFunc(marks, func(key, _ string) bool { return strings.HasPrefix(key, explains) })
	}
	l.ImageTags = marks
}

// Label gives a finished image its marks, and the tags that were withheld from it. It may
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

// Reject hands over an image that is not to be handed out: it is marked and shared with
// nobody. With quarantine it is disabled too, so that nobody can launch it by mistake; it
// has no launch permissions to lose then, because they come later. Its calls are cut off with ctx, since
// the image goes with its run as long as it was not handed over.
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
