package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/step"
)

// Retire carries out a retention in the account where images were just made, in all its
// regions, and in the accounts that hold copies. made are the resources of those images;
// without one there is nothing to do. These images and their copies stay, even if one was
// reused and is older than others. Images in use stay, which is reported.
func Retire(ctx context.Context, s *step.Scope, made []step.Resource, cloud amazon.Cloud, r builder.Retention, now func() time.Time) error {
	n := slices.IndexFunc(made, func(m step.Resource) bool { return m.Kind == ownership.Image })
	if n < 0 {
		return nil
	}
	cloud.Warn = s.Warn
	session, err := access.Reopen(ctx, made[n].With, made[n].Where, cloud)
	if err != nil {
		return err
	}
	a := accountOf(session)
	a.place.Say, a.place.All = s.Say, true
	if a.Regions, err = a.enabled(ctx); err != nil {
		return err
	}
	o := Retained(r, Share{20, true}, Guards{Reports: true, Now: now, Role: roleOf(r.To, s.Run.ID)})
	o.Spare = spare(made)
	err = a.PlanEach(ctx, o, s.Run.ID, func(in *Account, g Guards, plan *Plan, _ bool) error { return a.retire(ctx, s, in, g, plan) })
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// spare returns the names and IDs of the images among made.
func spare(made []step.Resource) (all []string) {
	for _, m := range made {
		if m.Kind != ownership.Image {
			continue
		}
		all = append(all, m.ID)
		if name := m.With[ownership.WithName]; name != "" { // which its copies have too
			all = append(all, name)
		}
	}
	return all
}

// retire carries out a plan in an account, which may be another one.
func (a *Account) retire(ctx context.Context, s *step.Scope, in *Account, g Guards, plan *Plan) error {
	for _, i := range plan.Images {
		if i.Action == PlanUsed {
			s.Say(ctx, "Image %s (%s) in %s would be %s, but is in use: %s", i.Image.ID, i.Image.Name, i.Image.Region, participle(i.want), firstUse(i.Uses))
		}
	}
	remover := Remover{Account: in, Scope: s, Guards: g, home: a, tolerant: true, OnRemoval: func(done Removal) {
		if done.Error == "" {
			s.Say(ctx, "Image %s (%s) in %s is %s", done.Image.ID, done.Image.Name, done.Image.Region, done.Outcome)
		}
	}}
	return remover.Prune(ctx, plan)
}

// firstUse returns the first use that is not a warning.
func firstUse(uses []Use) string {
	n := slices.IndexFunc(uses, func(u Use) bool { return !u.Warning })
	if n < 0 {
		return ""
	}
	return uses[n].String()
}

// deprecate deprecates an image from a whole minute on, which is the resolution of EC2. The
// call is cancelled with ctx: nothing reverts it, and it does no harm if it takes effect
// after all.
func (r *Remover) deprecate(ctx context.Context, i Image) error {
	at := r.Guards.now().UTC().Add(2 * time.Minute).Truncate(time.Minute)
	_, err := access.Call(ctx, r.Account.session.EC2(i.Region).EnableImageDeprecation, &ec2.EnableImageDeprecationInput{ImageId: &i.ID, DeprecateAt: &at})
	return err
}

// disable disables an image. EC2 permanently forgets whom a disabled image was shared with,
// so disable first records that in tags. It is no error if the image is already disabled.
func (r *Remover) disable(ctx context.Context, done *Removal, i Image) error {
	client := r.Account.session.EC2(i.Region)
	tags := map[string]string{DisabledTag: r.Guards.now().UTC().Format(time.RFC3339)}
	disabled := i.State == string(types.ImageStateDisabled)
	if !disabled { // a disabled image is not shared, and its tags may record the previous sharing
		with, err := r.Account.Sharing(ctx, i)
		if err != nil {
			return err
		}
		done.Shared = with.all()
		if tags, err = i.record(tags, with); err != nil {
			return err
		}
	}
	if _, err := access.Call(ctx, client.CreateTags, &ec2.CreateTagsInput{Resources: []string{i.ID}, Tags: ownership.Tags(tags)}); err != nil {
		return fmt.Errorf("recording in its tags how the image is shared: %w", err)
	}
	if err := r.forget(ctx, i, tags, disabled); err != nil {
		return err
	}
	if disabled {
		return nil
	}
	_, err := access.Finish(ctx, client.DisableImage, &ec2.DisableImageInput{ImageId: &i.ID})
	if !access.Refused(err) || context.Cause(ctx) != nil {
		return err
	}
	var keys []types.Tag
	for key := range tags {
		keys = append(keys, types.Tag{Key: aws.String(key)})
	}
	if _, failed := access.Call(ctx, client.DeleteTags, &ec2.DeleteTagsInput{Resources: []string{i.ID}, Tags: keys}); failed != nil {
		err = errors.Join(err, fmt.Errorf("removing the tags that say how it was shared: %w", failed))
	}
	return err
}

// forget removes the tags in which an earlier disabling recorded whom the image was shared
// with, except those that the new tags replace.
func (r *Remover) forget(ctx context.Context, i Image, tags map[string]string, disabled bool) error {
	_, keys := i.recorded()
	keys = slices.DeleteFunc(keys, func(key string) bool { _, fresh := tags[key]; return fresh })
	if disabled || len(keys) == 0 { // then the tags describe the current sharing
		return nil
	}
	var old []types.Tag
	for _, key := range keys {
		old = append(old, types.Tag{Key: aws.String(key)})
	}
	if _, err := access.Call(ctx, r.Account.session.EC2(i.Region).DeleteTags, &ec2.DeleteTagsInput{Resources: []string{i.ID}, Tags: old}); err != nil {
		return fmt.Errorf("removing the tags that say how the image was shared before: %w", err)
	}
	return nil
}

// tagValue is the maximum length of a tag value, in characters.
const tagValue = 256

// record adds the tags that record whom an image is shared with.
func (i Image) record(tags map[string]string, with Sharing) (map[string]string, error) {
	n, value := 1, ""
	put := func() {
		key := SharedTag
		if n > 1 {
			key = fmt.Sprintf("%s-%d", SharedTag, n)
		}
		tags[key], value = value, ""
		n++
	}
	for _, who := range with.all() {
		if value != "" && len(value)+len(",")+len(who) > tagValue {
			put()
		}
		value = strings.TrimPrefix(value+","+who, ",")
	}
	if value != "" {
		put()
	}
	all := len(tags)
	for key := range i.Tags {
		if _, ok := tags[key]; !ok && !strings.HasPrefix(key, "aws:") {
			all++
		}
	}
	if all > ownership.MostTags {
		return nil, fmt.Errorf("image %s in %s is shared with %d others, which EC2 forgets when an image is disabled, and which does not fit into its tags: it would have %d, and EC2 allows %d. Take it back from them first: bake images unshare %s -region %s -all",
			i.ID, i.Region, len(with.all()), all, ownership.MostTags, i.ID, i.Region)
	}
	return tags, nil
}

// recorded returns the accounts that a disabled image was shared with, according to its
// tags, and the keys of these tags.
func (i Image) recorded() (with, keys []string) {
	for key, value := range i.Tags {
		if key != SharedTag && !strings.HasPrefix(key, SharedTag+"-") {
			continue
		}
		keys = append(keys, key)
		with = append(with, strings.Split(value, ",")...)
	}
	slices.Sort(with)
	slices.Sort(keys)
	return with, keys
}

// EnabledImage is an image that can be launched again.
type EnabledImage struct {
	Image  Image    `json:"image"`
	Shared []string `json:"shared"` // with whom, as before it was disabled
}

// Enable enables the disabled images that ref names, and restores the sharing that each
// had before bake disabled it. It may be repeated: existing sharing stays. With an error,
// it returns the images that were enabled.
func (a *Account) Enable(ctx context.Context, ref string) (done []EnabledImage, err error) {
	found, err := a.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		if err := a.owns(i); err != nil {
			return nil, err
		}
	}
	for _, i := range found {
		one, err := a.enable(ctx, i)
		if err != nil {
			return done, fmt.Errorf("image %s in %s: %w", i.ID, i.Region, err)
		}
		done = append(done, one)
	}
	return done, nil
}

func (a *Account) enable(ctx context.Context, i Image) (EnabledImage, error) {
	client := a.session.EC2(i.Region)
	with, keys := i.recorded()
	if i.State == string(types.ImageStateDisabled) {
		if _, err := access.Finish(ctx, client.EnableImage, &ec2.EnableImageInput{ImageId: &i.ID}); err != nil {
			return EnabledImage{}, err
		}
		i.State = string(types.ImageStateAvailable)
	}
	if len(with) > 0 {
		if err := a.modifyImage(ctx, i, with, nil); err != nil {
			return EnabledImage{}, fmt.Errorf("it is enabled, but not shared again with %s: %w", strings.Join(with, ", "), err)
		}
	}
	keys = append(keys, DisabledTag)
	var tags []types.Tag
	for _, key := range keys {
		tags = append(tags, types.Tag{Key: aws.String(key)})
	}
	_, err := access.Call(ctx, client.DeleteTags, &ec2.DeleteTagsInput{Resources: []string{i.ID}, Tags: tags})
	return EnabledImage{i, append([]string{}, with...)}, err
}
