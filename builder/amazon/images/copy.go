package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/internal/delay"
	"bake/step"
)

// CopyOptions define how an image is copied.
type CopyOptions struct {
	To          []string          // regions
	Name        string            // empty: that of the image
	Description string            // empty: that of the image
	Encrypt     bool              // also with Keys
	Keys        map[string]string // KMS keys by region, "" for all that are not named; none: the default key of each region
	Tags        map[string]string // in addition to those of the image
}

// Check returns an error if the options themselves are invalid.
func (o CopyOptions) Check() error {
	if len(o.To) == 0 {
		return errors.New("say where to, with -to REGION,REGION")
	}
	for _, r := range o.To {
		if !names.IsRegion(r) {
			return fmt.Errorf("-to=%s: it is not the name of a region, such as eu-west-1", r)
		}
	}
	if o.Name != "" && !names.IsImage(o.Name) {
		return fmt.Errorf("-name=%s: an image name has 3 to 128 letters, digits, blanks and ()[]./-'@_", o.Name)
	}
	for region, key := range o.Keys {
		parts := strings.Split(key, ":")
		switch {
		case region != "" && !slices.Contains(o.To, region):
			return fmt.Errorf("-kms-key=%s=%s: the image is not copied to %s", region, key, region)
		case !names.IsKMSKey(key):
			return fmt.Errorf("-kms-key=%s: it is not a key ID, an alias (alias/...) or an ARN of either", key)
		case len(parts) > 3 && slices.ContainsFunc(o.To, func(r string) bool { return r != parts[3] && (region == "" && o.Keys[r] == "" || region == r) }):
			return fmt.Errorf("-kms-key=%s: it is a key in %s, and cannot encrypt anything in other regions; give each region its own: -kms-key REGION=KEY", key, parts[3])
		}
	}
	for k := range o.Tags {
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return fmt.Errorf("-tag=%s: keys that begin with aws: are reserved for AWS", k)
		}
	}
	return nil
}

// key returns the KMS key for a region, "" for the default one.
func (o CopyOptions) key(region string) string {
	if key, ok := o.Keys[region]; ok {
		return key
	}
	return o.Keys[""]
}

// Copied is a copy that is available.
type Copied struct {
	Image
	Existing bool `json:"existing"` // it was there before
}

// copier copies one image.
type copier struct {
	*Account
	CopyOptions
	scope *step.Scope
	owner *ownership.Owner
	from  Image

	tags, snapshotTags map[string]string
	unnamed            string // advice for a name that is taken, instead of -name
}

// Copy copies the image that ref names to other regions concurrently, as a task: until a
// copy is available it belongs to the scope, which deletes it on failure. A copy gets the
// tags of the image and its snapshots and, for an image of the account, its deprecation;
// launch permissions are not copied. If the same image was copied under the same name
// before, Copy returns that copy. It detects predictable failures before it copies
// anything. With a later error, which joins a *[RegionError] for each region without a
// copy, it returns the other copies.
func (a *Account) Copy(ctx context.Context, scope *step.Scope, ref string, o CopyOptions) ([]Copied, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	c := &copier{Account: a, CopyOptions: o, scope: scope}
	c.To = slices.Compact(slices.Sorted(slices.Values(o.To)))
	c.owner = &ownership.Owner{Session: a.session, Run: scope.Run.ID, ID: ownership.NewID()}
	scope.Handle(ownership.Prefix, destroy.For(a.session))
	var err error
	if c.from, err = a.One(ctx, ref); err != nil {
		return nil, err
	}
	existing, err := c.check(ctx)
	if err != nil {
		return nil, err
	}
	return c.each(ctx, existing)
}

// check returns an error if the image cannot be copied, and otherwise the copies that
// already exist.
func (c *copier) check(ctx context.Context) (existing []Image, err error) {
	i := c.from
	switch {
	case i.State != string(types.ImageStateAvailable):
		return nil, fmt.Errorf("image %s in %s is %s; only images that are available can be copied", i.ID, i.Region, i.State)
	case i.Owner != c.ID && len(i.ProductCodes) > 0:
		return nil, fmt.Errorf("image %s belongs to account %s and has the product code %s of AWS Marketplace: AWS does not let others copy it", i.ID, i.Owner, strings.Join(i.ProductCodes, ", "))
	}
	if c.Name == "" {
		c.Name = i.Name
	}
	if c.Description == "" {
		c.Description = i.Description
	}
	enabled, err := c.enabled(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range c.To {
		if !slices.Contains(enabled, r) {
			return nil, fmt.Errorf("-to=%s: the account has no such region, or has not enabled it; its regions are %s", r, strings.Join(enabled, ", "))
		}
	}
	if err := c.collectTags(ctx); err != nil {
		return nil, err
	}
	return inRegions(ctx, c.To, c.taken)
}

// collectTags determines the tags of the copies. For an image of another account, these
// are only the tags that its owner has shared.
func (c *copier) collectTags(ctx context.Context) error {
	c.tags, c.snapshotTags = plainTags(c.from.Tags), map[string]string{}
	if c.from.Owner == c.ID {
		parts, err := c.snapshots(ctx, c.from)
		if err != nil {
			return err
		}
		for _, s := range parts { // a request gives all snapshots the same
			if s.Device == c.from.RootDevice || len(parts) == 1 {
				c.snapshotTags = plainTags(s.Tags)
			}
		}
	}
	maps.Copy(c.tags, c.Tags)
	maps.Copy(c.snapshotTags, c.Tags)
	for what, tags := range map[string]map[string]string{"image": c.tags, "snapshots": c.snapshotTags} {
		if most := ownership.MostTags - ownership.Tagged; len(tags) > most {
			return fmt.Errorf("a copy of image %s would have %d tags on its %s; EC2 allows %d, and bake needs %d of them until the copy is done. Leave out -tag, or remove tags of the image",
				c.from.ID, len(tags), what, ownership.MostTags, ownership.Tagged)
		}
	}
	return nil
}

// plainTags returns the tags of an image that its copies have too.
func plainTags(tags map[string]string) map[string]string {
	// These tags concern only this one image.
	own := []string{KeyTag, ownership.RunTag, ownership.BuildTag, ownership.RejectedTag, ownership.QuarantineTag, HoldTag}
	tags = maps.Clone(tags)
	maps.DeleteFunc(tags, func(k, _ string) bool {
		return strings.HasPrefix(k, "aws:") || slices.Contains(own, k)
	})
	return tags
}

// KeyTag is the tag of copies that records the key they were encrypted with, in the form in
// which the user named it.
const KeyTag = "bake:kms-key"

// taken returns the copy that a region already has. It returns an error if something else
// prevents the use of the name there.
func (c *copier) taken(ctx context.Context, region string) ([]Image, error) {
	found, err := c.listIn(ctx, []string{region}, Query{Name: exactly(c.Name)})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	i := found[0]
	same := i.SourceImage == c.from.ID && i.isCopy() && i.State == string(types.ImageStateAvailable) && i.Tags[ownership.RunTag] == ""
	if same && (c.key(region) == "" && (!c.Encrypt || i.encrypted()) || c.key(region) != "" && i.Tags[KeyTag] == c.key(region)) {
		return found, nil
	}
	why := cmp.Or(c.unnamed, "choose another name with -name")
	switch {
	case i.Tags[ownership.RunTag] != "":
		why = "run " + i.Tags[ownership.RunTag] + " of bake is making it; wait for that or, if it was killed, clean up with bake sweep"
	case same:
		why = "it is a copy of this image, but it may not be encrypted as requested; remove it, or " + why
	}
	return nil, fmt.Errorf("image %s in %s, which is %s, already has the name %q: %s", i.ID, region, i.State, c.Name, why)
}

// each makes the copies that do not exist.
func (c *copier) each(ctx context.Context, existing []Image) ([]Copied, error) {
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		done []Copied
		errs []error
	)
	for _, region := range c.To {
		if i := slices.IndexFunc(existing, func(i Image) bool { return i.Region == region }); i >= 0 {
			mu.Lock()
			done = append(done, Copied{existing[i], true})
			mu.Unlock()
			c.scope.Say(ctx, "Image %s in %s is already a copy of it", existing[i].ID, region)
			continue
		}
		all.Go(func() {
			image, err := step.Do(ctx, c.scope, "copy the image to "+region, func(ctx context.Context) (Image, error) { return c.copy(ctx, region) })
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, &RegionError{region, cause(err)})
				return
			}
			done = append(done, Copied{image, false})
		})
	}
	all.Wait()
	sort.Slice(done, func(i, j int) bool { return done[i].Region < done[j].Region })
	if err := context.Cause(ctx); err != nil {
		return done, err
	}
	return done, errors.Join(errs...)
}

// cause returns the error of a step without the name of the step.
func cause(err error) error {
	var s *step.Error
	if errors.As(err, &s) {
		return cause(s.Err)
	}
	return err
}

// copy makes one copy, which belongs to the user when copy returns. It retries a copy that
// EC2 gives up, a few times.
func (c *copier) copy(ctx context.Context, region string) (Image, error) {
	retries := access.Copying{Pace: c.session.Pace}
	for {
		key := fmt.Sprintf("%s@%s %s %s", c.Name, region, c.owner.ID, uuid.NewString())
		image, err := c.once(ctx, region, key)
		if err == nil || context.Cause(ctx) != nil {
			return image, err
		}
		pause, again, ok := retries.Again(err)
		if !ok {
			return image, err
		}
		c.scope.Warn(ctx, "%s; %s", cause(err), again)
		if err := c.scope.Destroy(ctx, key); err != nil {
			return Image{}, err
		}
		if err := delay.For(ctx, pause); err != nil {
			return Image{}, err
		}
	}
}

// once begins one copy, waits until it is available, and hands it over.
func (c *copier) once(ctx context.Context, region, key string) (Image, error) {
	client := c.session.EC2(region)
	in := &ec2.CopyImageInput{
		Name: &c.Name, SourceImageId: &c.from.ID, SourceRegion: &c.from.Region, Description: access.Optional(c.Description),
		TagSpecifications: append(c.owner.Specs(c.tagsIn(region), types.ResourceTypeImage), c.owner.Specs(c.snapshotTags, types.ResourceTypeSnapshot)...),
		ClientToken:       aws.String(uuid.NewString()),
	}
	if c.Encrypt || len(c.Keys) > 0 {
		in.Encrypted, in.KmsKeyId = aws.Bool(true), access.Optional(c.key(region))
	}
	want := c.owner.Resource(ownership.Image, key, region, ownership.WithName, c.Name)
	id, err := ownership.Acquire(ctx, c.scope, "start the copy", want, func(ctx context.Context) (string, string, error) {
		out, err := access.Finish(ctx, client.CopyImage, in)
		if err != nil {
			return "", "", c.explain(err)
		}
		return aws.ToString(out.ImageId), aws.ToString(out.ImageId), nil
	})
	if err != nil {
		return Image{}, err
	}
	image, err := c.await(ctx, region, id)
	if err != nil {
		return Image{}, err
	}
	if image.encrypted() && in.KmsKeyId == nil && c.unnamed == "" {
		used, err := c.session.DefaultKey(ctx, region)
		if err != nil {
			return Image{}, err
		}
		if used == "" || access.ManagedKey(used) {
			c.scope.Warn(ctx, "Image %s in %s is encrypted with the account's default key for EBS there (%s), and cannot be shared; -kms-key chooses another.", id, region, cmp.Or(used, "that of AWS, as far as is known"))
		}
	}
	return c.finalize(ctx, image, key)
}

// explain adds advice to an error of CopyImage.
func (c *copier) explain(err error) error {
	if c.from.Owner == c.ID || !access.Is(err, "InvalidRequest", "InvalidAMIID.Unavailable", "InvalidSnapshot.NotFound", "AuthFailure", "UnauthorizedOperation") {
		return err
	}
	return fmt.Errorf("%w. To let others copy an image, its owner, account %s, has to share its snapshots and, if it is encrypted, its key too: bake images share %s -with %s -snapshots", err, c.from.Owner, c.from.ID, c.ID)
}

// tagsIn returns the tags of the copy in a region.
func (c *copier) tagsIn(region string) map[string]string {
	if c.key(region) == "" {
		return c.tags
	}
	tags := maps.Clone(c.tags)
	tags[KeyTag] = c.key(region)
	return tags
}

// await waits until a copy is available.
func (c *copier) await(ctx context.Context, region, id string) (Image, error) {
	image, err := access.Watch(c.session, region).Images.Until(ctx, wait.Wait[types.Image]{
		ID: id, What: "image " + id + " in " + region + " to become available", Watch: c.session.Watch(15*time.Second, 2*time.Hour),
		Kind: "copy to " + region, Usual: wait.Span{Soonest: time.Minute, Latest: 10 * time.Minute}, Voice: c.session.Voice(ctx),
		Judge: access.Available(region, id),
	})
	return imageOf(region, image), err
}

// finalize sets the attributes that EC2 does not copy on an available copy, removes bake's
// tags, and hands the copy over to the user. Until the last moment the ledger owns it.
func (c *copier) finalize(ctx context.Context, image Image, key string) (Image, error) {
	client := c.session.EC2(image.Region)
	if at := c.from.Deprecated; at != nil && c.from.Owner == c.ID && at.After(time.Now().Add(time.Minute)) {
		if _, err := access.Call(ctx, client.EnableImageDeprecation, &ec2.EnableImageDeprecationInput{ImageId: &image.ID, DeprecateAt: at}); err != nil {
			return Image{}, err
		}
		image.Deprecated = at
	}
	_, err := access.Call(ctx, client.DeleteTags, &ec2.DeleteTagsInput{
		Resources: append([]string{image.ID}, image.Snapshots()...),
		Tags:      []types.Tag{{Key: aws.String(ownership.RunTag)}, {Key: aws.String(ownership.BuildTag)}},
	})
	if err != nil {
		return Image{}, err
	}
	delete(image.Tags, ownership.RunTag)
	delete(image.Tags, ownership.BuildTag)
	if err := context.Cause(ctx); err != nil {
		return Image{}, err
	}
	if err := c.scope.Keep(ctx, key); err != nil {
		return Image{}, err
	}
	return image, nil
}
