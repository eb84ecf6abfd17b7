package destroy

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
)

// role deletes the role of a temporary instance profile. The role, its policy and the
// profile have the same unique name.
func (j *job) role(ctx context.Context) error {
	client, name := j.session.IAM(), j.r.With[ownership.WithName]
	return j.settle(ctx, func(ctx context.Context) (bool, error) {
		err := client.Do(ctx, "RemoveRoleFromInstanceProfile", url.Values{"InstanceProfileName": {name}, "RoleName": {name}}, nil)
		if err := notFound(err); err != nil {
			return false, err
		}
		err = client.Do(ctx, "DeleteRolePolicy", url.Values{"RoleName": {name}, "PolicyName": {name}}, nil)
		if err := notFound(err); err != nil {
			return false, err
		}
		err = j.busy(ctx, "role "+name, func(ctx context.Context) error {
			return client.Do(ctx, "DeleteRole", url.Values{"RoleName": {name}}, nil)
		}, "DeleteConflict", "ConcurrentModification")
		return err == nil, notFound(err)
	})
}

func (j *job) instanceProfile(ctx context.Context) error {
	client, name := j.session.IAM(), j.r.With[ownership.WithName]
	return j.settle(ctx, func(ctx context.Context) (bool, error) {
		err := j.busy(ctx, "instance profile "+name, func(ctx context.Context) error {
			return client.Do(ctx, "DeleteInstanceProfile", url.Values{"InstanceProfileName": {name}}, nil)
		}, "DeleteConflict", "ConcurrentModification")
		return err == nil, notFound(err)
	})
}

// profilePrefix is the prefix of the names of temporary profiles and roles. Listings of
// IAM have no tags, so the tags of each candidate have to be requested.
const profilePrefix = "packer-"

// profiles lists temporary roles and instance profiles, roles first. IAM is global, so they
// are found from every region. An account without permission to list them cannot have made
// them.
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

func (f *finder) roles(ctx context.Context, client *access.Query) error {
	params := url.Values{"MaxItems": {"1000"}}
	for {
		var page struct {
			Roles []struct {
				RoleName   string
				CreateDate *time.Time
			} `xml:"ListRolesResult>Roles>member"`
			More   bool   `xml:"ListRolesResult>IsTruncated"`
			Marker string `xml:"ListRolesResult>Marker"`
		}
		if err := client.Do(ctx, "ListRoles", params, &page); err != nil {
			return err
		}
		for _, r := range page.Roles {
			if !strings.HasPrefix(r.RoleName, profilePrefix) {
				continue
			}
			var tags struct {
				Tags []types.Tag `xml:"ListRoleTagsResult>Tags>member"`
			}
			if err := client.Do(ctx, "ListRoleTags", url.Values{"RoleName": {r.RoleName}}, &tags); err != nil {
				return err
			}
			f.addIAM(ownership.Role, r.RoleName, tags.Tags, r.CreateDate)
		}
		if !page.More {
			return nil
		}
		params.Set("Marker", page.Marker)
	}
}

func (f *finder) instanceProfiles(ctx context.Context, client *access.Query) error {
	params := url.Values{"MaxItems": {"1000"}}
	for {
		var page struct {
			Profiles []struct {
				InstanceProfileName string
				CreateDate          *time.Time
			} `xml:"ListInstanceProfilesResult>InstanceProfiles>member"`
			More   bool   `xml:"ListInstanceProfilesResult>IsTruncated"`
			Marker string `xml:"ListInstanceProfilesResult>Marker"`
		}
		if err := client.Do(ctx, "ListInstanceProfiles", params, &page); err != nil {
			return err
		}
		for _, p := range page.Profiles {
			if !strings.HasPrefix(p.InstanceProfileName, profilePrefix) {
				continue
			}
			var tags struct {
				Tags []types.Tag `xml:"ListInstanceProfileTagsResult>Tags>member"`
			}
			if err := client.Do(ctx, "ListInstanceProfileTags", url.Values{"InstanceProfileName": {p.InstanceProfileName}}, &tags); err != nil {
				return err
			}
			f.addIAM(ownership.InstanceProfile, p.InstanceProfileName, tags.Tags, p.CreateDate)
		}
		if !page.More {
			return nil
		}
		params.Set("Marker", page.Marker)
	}
}

// addIAM adds a resource that carries the tag of the requested run.
func (f *finder) addIAM(kind, name string, tags []types.Tag, created *time.Time) {
	run := ownership.Value(tags, ownership.RunTag)
	if run == "" || f.run != "" && run != f.run {
		return
	}
	f.add(kind, &name, tags, &name, created)
	last := &f.found[len(f.found)-1]
	last.Key = kind + " " + last.Key // a profile and its role have the same name
}
