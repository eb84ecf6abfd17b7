package amazonbuild

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/ownership"
	"bake/step"
)

// incidental are the options that do not affect the content of an image: its name and
// texts, access to the account, and timeouts.
var incidental = []string{
	"ami_name", "ami_description", "tags", "tag", "snapshot_tags", "snapshot_tag", "run_tags", "run_tag", "run_volume_tags", "run_volume_tag",
	"volume_tags", "volume_tag", "spot_tags", "spot_tag", "fleet_tags", "fleet_tag", "temporary_key_pair_name", "deprecate_at",
	"snapshot_description", "bundle_prefix",
	"access_key", "secret_key", "token", "profile", "assume_role", "mfa_code", "shared_credentials_file", "vault_aws_engine",
	"decode_authorization_messages", "skip_credential_validation", "skip_metadata_api_check", "insecure_skip_tls_verify", "max_retries", "aws_polling",
	"skip_region_validation", "force_deregister", "force_delete_snapshot", "ssh_timeout", "ssh_handshake_attempts", "ssh_keep_alive_interval",
	"ssh_read_write_timeout", "winrm_timeout", "pause_before_connecting", "pause_before_ssm", "shutdown_timeout",
}

// Incidental implements [builder.Reusable].
func (q *sequence) Incidental() []string { return incidental }

// Lookup implements [builder.Reusable].
func (q *sequence) Lookup(ctx context.Context, s *step.Scope, tag, value string, also []string) (before builder.LookupResult, err error) {
	if q.Image == nil {
		return before, nil
	}
	b, _, err := q.begin(ctx, s)
	if err != nil {
		return before, err
	}
	before.Region, before.Regions = b.Session.Region, b.Images.Targets()
	regions := slices.Clone(before.Regions)
	for _, region := range also {
		if !slices.Contains(regions, region) {
			regions = append(regions, region)
		}
	}
	found := make([][]builder.ExistingImage, len(regions))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return q.source(ctx, b) })
	for i, region := range regions {
		g.Go(func() (err error) {
			found[i], err = b.tagged(ctx, region, tag, value)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return before, err
	}
	for i, images := range found {
		if i < len(before.Regions) {
			before.Images = append(before.Images, images...)
		} else {
			before.Copies = append(before.Copies, images...)
		}
	}
	before.Source, before.SourceName = aws.ToString(b.Source.ImageId), aws.ToString(b.Source.Name)
	before.Flaw = b.Images.Flaw
	before.Artifact = func(images []builder.ExistingImage) *builder.Artifact { return q.existing(b, images) }
	return before, nil
}

// source finds the image that the build starts from.
func (q *sequence) source(ctx context.Context, b *Build) (err error) {
	switch {
	case b.Source.ImageId != nil:
	case b.Machines != nil:
		b.Source, err = b.Machines.SourceImage(ctx)
	case q.Selection != nil:
		b.Source, err = q.Selection.Find(ctx, b.Scope, b.Session, q.src, types.DeviceTypeEbs)
	}
	return err
}

// tagged lists the available images of the account in a region that have a tag.
func (b *Build) tagged(ctx context.Context, region, tag, value string) (all []builder.ExistingImage, err error) {
	value = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(value) // which are wildcards in filters
	out, err := access.Call(ctx, b.Session.EC2(region).DescribeImages, &ec2.DescribeImagesInput{
		Owners: []string{"self"},
		Filters: []types.Filter{
			{Name: new("tag:" + tag), Values: []string{value}},
			{Name: new("state"), Values: []string{string(types.ImageStateAvailable)}},
		},
	})
	if err != nil {
		return nil, err
	}
	for _, i := range out.Images {
		one := builder.ExistingImage{ID: aws.ToString(i.ImageId), Region: region, Name: aws.ToString(i.Name), Tags: map[string]string{}}
		one.Created, _ = time.Parse(time.RFC3339, aws.ToString(i.CreationDate)) // an image without a date counts as the oldest
		for _, t := range i.Tags {
			one.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
		}
		for _, d := range i.BlockDeviceMappings {
			if d.Ebs != nil && d.Ebs.SnapshotId != nil {
				one.Snapshots = append(one.Snapshots, *d.Ebs.SnapshotId)
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// existing returns the artifact of a build that has made images before.
func (q *sequence) existing(b *Build, images []builder.ExistingImage) *builder.Artifact {
	var made []image.Made
	for _, i := range images {
		r := b.Owner.Resource(ownership.Image, i.Name+"@"+i.Region, i.Region, ownership.WithName, i.Name, ownership.WithSnapshots, strings.Join(i.Snapshots, ","))
		r.ID = i.ID
		made = append(made, image.Made{Region: i.Region, ID: i.ID, Snapshots: i.Snapshots, Resource: r})
	}
	a := image.Artifact(q.id, made, builder.Data{"BuildRegion": builder.Text(b.Session.Region), "SourceAMI": builder.Text(aws.ToString(b.Source.ImageId))})
	a.Text = strings.Replace(a.Text, "were created", "were reused", 1)
	return a
}
