package destroy

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
)

// role deletes the role of a temporary instance profile: it, its policy and the
// profile bear the same name, which nobody else has.
func (j *job) role(ctx context.Context) error {
	client, name := j.session.IAM(), j.r.With[ownership.WithName]
	return j.settle(ctx, func(ctx context.Context) (bool, error) {
		_, err := access.Call(ctx, client.RemoveRoleFromInstanceProfile, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: &name, RoleName: &name})
		if err := notFound(err); err != nil {
			return false, err
		}
		_, err = access.Call(ctx, client.DeleteRolePolicy, &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: &name})
		if err := notFound(err); err != nil {
			return false, err
		}
		err = j.busy(ctx, "role "+name, func(ctx context.Context) error {
			_, err := access.Call(ctx, client.DeleteRole, &iam.DeleteRoleInput{RoleName: &name})
			return err
		}, "DeleteConflict", "ConcurrentModification")
		return err == nil, notFound(err)
	})
}

func (j *job) instanceProfile(ctx context.Context) error {
	client, name := j.session.IAM(), j.r.With[ownership.WithName]
	return j.settle(ctx, func(ctx context.Context) (bool, error) {
		err := j.busy(ctx, "instance profile "+name, func(ctx context.Context) error {
			_, err := access.Call(ctx, client.DeleteInstanceProfile, &iam.DeleteInstanceProfileInput{InstanceProfileName: &name})
			return err
		}, "DeleteConflict", "ConcurrentModification")
		return err == nil, notFound(err)
	})
}

// profilePrefix is what the names of temporary profiles and roles begin with. IAM
// lists no tags, so each candidate has to be asked for its own.
const profilePrefix = "packer-"

// profiles lists temporary roles and instance profiles, roles first. IAM is
// global: they are found from every region. Who may not list them cannot have
// made them.
func (f *finder) profiles(ctx context.Context) error {
	client := f.session.IAM()
	err := f.roles(ctx, client)
	if err == nil {
		err = f.instanceProfiles(ctx, client)
	}
	if access.Is(err, "AccessDenied", "UnknownService", "InvalidAction") {
		return nil
	}
	return err
}

func (f *finder) roles(ctx context.Context, client *iam.Client) error {
	in := &iam.ListRolesInput{MaxItems: aws.Int32(1000)}
	for {
		out, err := access.Call(ctx, client.ListRoles, in)
		if err != nil {
			return err
		}
		for _, r := range out.Roles {
			if !strings.HasPrefix(aws.ToString(r.RoleName), profilePrefix) {
				continue
			}
			tags, err := access.Call(ctx, client.ListRoleTags, &iam.ListRoleTagsInput{RoleName: r.RoleName})
			if err != nil {
				return err
			}
			f.addIAM(ownership.Role, r.RoleName, tags.Tags, r.CreateDate)
		}
		if in.Marker = out.Marker; !out.IsTruncated {
			return nil
		}
	}
}

func (f *finder) instanceProfiles(ctx context.Context, client *iam.Client) error {
	in := &iam.ListInstanceProfilesInput{MaxItems: aws.Int32(1000)}
	for {
		out, err := access.Call(ctx, client.ListInstanceProfiles, in)
		if err != nil {
			return err
		}
		for _, p := range out.InstanceProfiles {
			if !strings.HasPrefix(aws.ToString(p.InstanceProfileName), profilePrefix) {
				continue
			}
			tags, err := access.Call(ctx, client.ListInstanceProfileTags, &iam.ListInstanceProfileTagsInput{InstanceProfileName: p.InstanceProfileName})
			if err != nil {
				return err
			}
			f.addIAM(ownership.InstanceProfile, p.InstanceProfileName, tags.Tags, p.CreateDate)
		}
		if in.Marker = out.Marker; !out.IsTruncated {
			return nil
		}
	}
}

// addIAM adds what carries the tag of the run that is looked for.
func (f *finder) addIAM(kind string, name *string, tags []iamtypes.Tag, created *time.Time) {
	var all []types.Tag
	for _, t := range tags {
		all = append(all, types.Tag{Key: t.Key, Value: t.Value})
	}
	run := ownership.Value(all, ownership.RunTag)
	if run == "" || f.run != "" && run != f.run {
		return
	}
	f.add(kind, name, all, name, created)
	last := &f.found[len(f.found)-1]
	last.Key = kind + " " + last.Key // a profile and its role have one name
}
