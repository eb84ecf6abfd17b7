// Package amiimport is the post-processor amazon-import: it makes an AMI from a disk
// image among the artifact's files.
package amiimport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/hostpath"
	"bake/postprocessor"
	"bake/step"
)

// builderID is the builder ID in the artifacts of this post-processor.
const builderID = "packer.post-processor.amazon-import"

// Factory returns the factory of the post-processor. cloud replaces AWS.
func Factory(cloud access.Cloud) component.Factory[postprocessor.PostProcessor] {
	return component.Define("amazon-import", defaults,
		func(o *Options, src *schema.Source) postprocessor.PostProcessor {
			return &importer{Options: o, src: src, cloud: cloud}
		})
}

type importer struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
}

// run is one import.
type run struct {
	*importer
	session *access.Session
	owner   *ownership.Owner
	scope   *step.Scope
	ec2     *ec2.Client
}

// Process implements [postprocessor.PostProcessor].
func (p *importer) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	out, err := p.process(ctx, s, in)
	return out, postprocessor.Discard, err
}

func (p *importer) process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, error) {
	file := ""
	for _, f := range in.Files {
		if strings.HasSuffix(f, "."+p.Format) {
			file = f
			break
		}
	}
	if file == "" {
		return nil, p.src.Errorf(&p.Format, "No disk image", "None of the artifact's files is named *.%s: %s.", p.Format, strings.Join(in.Files, ", "))
	}
	session, err := step.Do(ctx, s, "connect to AWS", func(ctx context.Context) (*access.Session, error) {
		cloud := p.cloud
		cloud.Warn = s.Warn
		return access.Open(ctx, &p.Options.Options, p.src, cloud, s.Run.Env)
	})
	if err != nil {
		return nil, err
	}
	s.Handle(ownership.Prefix, destroy.For(session))
	r := &run{
		importer: p, session: session, scope: s, ec2: session.EC2(session.Region),
		owner: &ownership.Owner{Session: session, Run: s.Run.ID, ID: ownership.NewID()},
	}
	return r.run(ctx, file)
}

func (r *run) run(ctx context.Context, file string) (*builder.Artifact, error) {
	t := gotemplate.Context{BuildName: r.scope.SourceName, BuildType: r.scope.SourceType, Start: r.scope.Run.Start, Version: r.scope.Run.Version}
	key, err := t.Render(r.key(), nil)
	if err != nil {
		return nil, r.src.Errorf(&r.Key, "Invalid s3_key_name", "%s.", err)
	}
	if key == "" {
		return nil, r.src.Errorf(&r.Key, "Invalid s3_key_name", "The template makes an empty key of it; an object needs one.")
	}
	if err := r.checkSource(ctx); err != nil {
		return nil, err
	}
	object, err := r.upload(ctx, file, key)
	if err != nil {
		return nil, err
	}
	image, err := r.importImage(ctx, key)
	if err != nil {
		return nil, err
	}
	if r.Name != "" {
		if image, err = r.rename(ctx, image); err != nil {
			return nil, err
		}
	}
	if err := r.label(ctx, image); err != nil {
		return nil, err
	}
	if err := r.share(ctx, image); err != nil {
		return nil, err
	}
	if r.SkipClean {
		err = r.scope.Keep(ctx, object.Key)
	} else {
		err = r.scope.Destroy(ctx, object.Key)
	}
	if err != nil {
		return nil, err
	}
	if err := r.finalize(ctx, image); err != nil {
		return nil, err
	}
	id := r.session.Region + ":" + image.id
	return &builder.Artifact{
		BuilderID: builderID, ID: id, Text: fmt.Sprintf("AMIs were created:\n%s: %s\n", r.session.Region, image.id),
		Images: map[string]string{r.session.Region: image.id}, Resources: []step.Resource{image.artifact(r.owner)},
	}, nil
}

// checkSource returns an error for an image that could not be shared because it would be
// encrypted with the account's default key: either because the options name no key, or
// because the account encrypts everything. Without permission to query that, EC2 reports
// the problem when the image is shared.
func (r *run) checkSource(ctx context.Context) error {
	if r.kmsKey() != "" || len(r.Users)+len(r.Groups)+len(r.OrgARNs)+len(r.OUARNs) == 0 {
		return nil
	}
	why := "ami_encrypt is set"
	if !r.Encrypt {
		var err error
		if why, err = r.session.EncryptsAll(ctx, r.session.Region); why == "" {
			return err
		}
	}
	key, err := r.session.DefaultKey(ctx, r.session.Region)
	if err != nil {
		return err
	}
	var errs []error
	r.cannotShare(why, key, func(ptr any, summary, format string, args ...any) {
		errs = append(errs, r.src.Errorf(ptr, summary, format, args...))
	})
	return errors.Join(errs...)
}

// made is an image that is available.
type made struct {
	id        string
	snapshots []string
	task      string        // the import that made it; empty if it is a copy
	resource  step.Resource // by which the scope owns it
}

// artifact returns the image as the resource that is deleted with the artifact.
func (m made) artifact(owner *ownership.Owner) step.Resource {
	r := owner.Resource(ownership.Image, m.id, owner.Session.Region)
	r.ID = m.id
	return r
}

// importImage imports the object and waits for the image.
func (r *run) importImage(ctx context.Context, key string) (made, error) {
	in := &ec2.ImportImageInput{
		Architecture: &r.Architecture, BootMode: types.BootModeValues(r.bootMode()), Encrypted: &r.Encrypt, KmsKeyId: access.Optional(r.kmsKey()),
		LicenseType: access.Optional(r.LicenseType), Platform: access.Optional(r.Platform), RoleName: access.Optional(r.RoleName), ClientToken: new(uuid.NewString()),
		DiskContainers:    []types.ImageDiskContainer{{Format: &r.Format, UserBucket: &types.UserBucket{S3Bucket: &r.Bucket, S3Key: &key}}},
		TagSpecifications: r.owner.Specs(nil, types.ResourceTypeImportImageTask),
	}
	want := r.owner.Resource(ownership.ImportTask, "import "+r.owner.ID, r.session.Region)
	id, err := ownership.Acquire(ctx, r.scope, "import the disk image", want, func(ctx context.Context) (string, string, error) {
		id := ""
		// A new role or object may not have reached all of EC2 yet.
		known := r.session.Pace.Known
		watch := wait.Watch{Delay: 30 * time.Second, Limit: known}
		err := watch.Until(ctx, "the import to begin", func(ctx context.Context) (bool, error) {
			out, err := access.Finish(ctx, r.ec2.ImportImage, in)
			if access.Is(err, "InvalidParameter") && known > 0 {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			id = aws.ToString(out.ImportTaskId)
			return true, nil
		})
		return id, id, err
	})
	if err != nil {
		return made{}, err
	}
	r.scope.Say(ctx, "Import task %s", id)
	want.ID = id
	return step.Do(ctx, r.scope, "wait for the import", func(ctx context.Context) (made, error) {
		m := made{task: id, resource: want}
		err := r.session.Watch(5*time.Second, time.Hour).Until(ctx, "import task "+id+" to be completed", func(ctx context.Context) (bool, error) {
			out, err := access.Call(ctx, r.ec2.DescribeImportImageTasks, &ec2.DescribeImportImageTasksInput{ImportTaskIds: []string{id}})
			if err != nil || len(out.ImportImageTasks) == 0 {
				return false, err
			}
			task := out.ImportImageTasks[0]
			switch aws.ToString(task.Status) {
			case "completed":
				m.id = aws.ToString(task.ImageId)
				return true, nil
			case "deleted", "deleting", "cancelled", "failed":
				return false, fmt.Errorf("import %s failed: %s", id, aws.ToString(task.StatusMessage))
			}
			if percent := 0; task.Progress != nil {
				_, _ = fmt.Sscan(*task.Progress, &percent) // only for display
				r.scope.Progress(ctx, step.Progress{Done: int64(percent), Total: 100, Unit: "%"})
			}
			return false, nil
		})
		if err != nil {
			return made{}, err
		}
		m.snapshots, err = r.available(ctx, m.id)
		return m, err
	})
}

// rename copies the imported image under the name in the options, and deletes the imported
// one: an import cannot set the name of its image.
func (r *run) rename(ctx context.Context, from made) (made, error) {
	in := &ec2.CopyImageInput{
		Name: &r.Name, SourceImageId: &from.id, SourceRegion: &r.session.Region, ClientToken: new(uuid.NewString()), Description: access.Optional(r.Description),
		TagSpecifications: r.owner.Specs(r.Tags, types.ResourceTypeImage, types.ResourceTypeSnapshot),
	}
	if r.Encrypt {
		in.Encrypted, in.KmsKeyId = &r.Encrypt, access.Optional(r.KMSKey)
	}
	want := r.owner.Resource(ownership.Image, r.Name+" "+r.owner.ID, r.session.Region, ownership.WithName, r.Name)
	id, err := ownership.Acquire(ctx, r.scope, "copy the imported image to its final name", want, func(ctx context.Context) (string, string, error) {
		out, err := access.Finish(ctx, r.ec2.CopyImage, in)
		if access.Is(err, "InvalidAMIName.Duplicate", "InvalidAMIName.Malformed") {
			return "", "", access.Blame(err, r.src.Errorf(&r.Name, "The image cannot have this name", "%s.", err))
		}
		if err != nil {
			return "", "", err
		}
		return aws.ToString(out.ImageId), aws.ToString(out.ImageId), nil
	})
	if err != nil {
		return made{}, err
	}
	want.ID = id
	m, err := step.Do(ctx, r.scope, "wait for the copy", func(ctx context.Context) (made, error) {
		snapshots, err := r.available(ctx, id)
		return made{id: id, snapshots: snapshots, resource: want}, err
	})
	if err != nil {
		return made{}, err
	}
	return m, r.scope.Destroy(ctx, from.resource.Key)
}

// available waits until an image is available and returns its snapshots.
func (r *run) available(ctx context.Context, id string) (snapshots []string, err error) {
	err = r.session.Watch(5*time.Second, 30*time.Minute).Until(ctx, "image "+id+" to become available", func(ctx context.Context) (bool, error) {
		out, err := access.Call(ctx, r.ec2.DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{id}})
		if access.NotFound(err) || err == nil && len(out.Images) == 0 {
			return false, nil // not visible in all of EC2 yet
		}
		if err != nil {
			return false, err
		}
		switch image := out.Images[0]; image.State {
		case types.ImageStateAvailable:
			snapshots = destroy.SnapshotIDs(image)
			return true, nil
		case types.ImageStatePending, types.ImageStateTransient:
			return false, nil
		default:
			return false, fmt.Errorf("image %s is %s", id, image.State)
		}
	})
	return snapshots, err
}

// label tags an image that was not tagged when it was made.
func (r *run) label(ctx context.Context, m made) error {
	if m.task == "" || len(r.Tags) == 0 {
		return nil
	}
	_, err := step.Do(ctx, r.scope, "tag the image", func(ctx context.Context) (*ec2.CreateTagsOutput, error) {
		return access.Call(ctx, r.ec2.CreateTags, &ec2.CreateTagsInput{Resources: append([]string{m.id}, m.snapshots...), Tags: ownership.Tags(r.Tags)})
	})
	return err
}

// share shares the image, and sets its other attributes.
func (r *run) share(ctx context.Context, m made) error {
	var changes []*ec2.ModifyImageAttributeInput
	if r.Description != "" && m.task != "" {
		changes = append(changes, &ec2.ModifyImageAttributeInput{ImageId: &m.id, Description: &types.AttributeValue{Value: &r.Description}})
	}
	var add []types.LaunchPermission
	for _, u := range names.Given(r.Users) {
		add = append(add, types.LaunchPermission{UserId: &u})
	}
	for _, g := range names.Given(r.Groups) {
		add = append(add, types.LaunchPermission{Group: types.PermissionGroup(g)})
	}
	for _, arn := range names.Given(r.OrgARNs) {
		add = append(add, types.LaunchPermission{OrganizationArn: &arn})
	}
	for _, arn := range names.Given(r.OUARNs) {
		add = append(add, types.LaunchPermission{OrganizationalUnitArn: &arn})
	}
	if len(add) > 0 {
		changes = append(changes, &ec2.ModifyImageAttributeInput{ImageId: &m.id, LaunchPermission: &types.LaunchPermissionModifications{Add: add}})
	}
	if r.IMDSSupport != "" {
		changes = append(changes, &ec2.ModifyImageAttributeInput{ImageId: &m.id, ImdsSupport: &types.AttributeValue{Value: &r.IMDSSupport}})
	}
	if len(changes) == 0 {
		return nil
	}
	return step.Run(ctx, r.scope, "share the image", func(ctx context.Context) error {
		for _, in := range changes {
			if _, err := access.Call(ctx, r.ec2.ModifyImageAttribute, in); err != nil {
				if in.LaunchPermission != nil && len(r.Users) > 0 && access.Is(err, "InvalidAMIAttributeItemValue", "InvalidUserID.Malformed") {
					err = access.Blame(err, r.src.Errorf(&r.Users, "Invalid account ID", "%s.", err))
				}
				return err
			}
		}
		return nil
	})
}

// finalize hands the image over to the user: the tags of the build are removed from it, or
// from the task that made it, and the scope no longer owns it.
func (r *run) finalize(ctx context.Context, m made) error {
	return step.Run(ctx, r.scope, "remove bake's tags from the image", func(ctx context.Context) error {
		resources := append([]string{m.id}, m.snapshots...)
		if m.task != "" {
			resources = []string{m.task}
		}
		_, err := access.Call(ctx, r.ec2.DeleteTags, &ec2.DeleteTagsInput{
			Resources: resources, Tags: []types.Tag{{Key: new(ownership.RunTag)}, {Key: new(ownership.BuildTag)}},
		})
		if err != nil {
			return err
		}
		return r.scope.Keep(ctx, m.resource.Key)
	})
}

// upload uploads the file to the bucket and returns the resource by which the scope owns
// it.
func (r *run) upload(ctx context.Context, file, key string) (step.Resource, error) {
	f, err := hostpath.Open(file)
	if err != nil {
		return step.Resource{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return step.Resource{}, err
	}
	up := &uploader{
		bucket: r.session.S3(r.session.Region, r.Bucket), key: key, encryption: r.Encryption, kmsKey: r.EncryptionKey,
		progress: func(ctx context.Context, done int64) {
			r.scope.Progress(ctx, step.Progress{Done: done, Total: info.Size(), Unit: "B"})
		},
	}
	want := r.owner.Resource(ownership.Object, r.Bucket+"/"+key+" "+r.owner.ID, r.session.Region, ownership.WithBucket, r.Bucket, ownership.WithKey, key)
	_, err = ownership.Acquire(ctx, r.scope, fmt.Sprintf("upload %s to s3://%s/%s", file, r.Bucket, key), want, func(ctx context.Context) (string, struct{}, error) {
		return "s3://" + r.Bucket + "/" + key, struct{}{}, up.upload(ctx, f, info.Size())
	})
	if access.Is(err, "NoSuchBucket", "PermanentRedirect", "AccessDenied", "AuthorizationHeaderMalformed") {
		err = access.Blame(err, r.src.Errorf(&r.Bucket, "The bucket cannot be used", "%s. The bucket must exist in %s, and these credentials must be allowed to write to it.", err, r.session.Region))
	}
	return want, err
}
