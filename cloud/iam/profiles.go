package iam

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/iam"
	"bake/cloud/wire"
)

func (s *Service) CreateInstanceProfile(ctx context.Context, in *iam.CreateInstanceProfileInput) (*iam.CreateInstanceProfileOutput, error) {
	if err := checkName("instanceProfileName", in.InstanceProfileName); err != nil {
		return nil, err
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	owner := wire.CallerFrom(ctx).Account
	p := &profile{InstanceProfile: iam.InstanceProfile{
		Path: &path, InstanceProfileName: in.InstanceProfileName, InstanceProfileId: newID("AIPA"),
		Arn: aws.String("arn:aws:iam::" + owner + ":instance-profile" + path + *in.InstanceProfileName), CreateDate: aws.Time(s.now().UTC()),
	}}
	if p.Tags, err = merged(nil, in.Tags); err != nil {
		return nil, err
	}
	out := &iam.CreateInstanceProfileOutput{}
	return out, s.change(owner, func(a *account) error {
		if a.Profiles[*in.InstanceProfileName] != nil {
			return exists("Instance Profile %s already exists.", *in.InstanceProfileName)
		}
		a.Profiles[*in.InstanceProfileName] = p
		out.InstanceProfile = a.shown(p)
		return nil
	})
}

// shown returns the profile as IAM shows it, with its role.
func (a *account) shown(p *profile) *iam.InstanceProfile {
	out := p.InstanceProfile
	out.Roles = []iam.Role{}
	if r := a.Roles[p.RoleName]; r != nil {
		out.Roles = append(out.Roles, *r.shown())
	}
	return &out
}

func (s *Service) GetInstanceProfile(ctx context.Context, in *iam.GetInstanceProfileInput) (*iam.GetInstanceProfileOutput, error) {
	out := &iam.GetInstanceProfileOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.profile(in.InstanceProfileName)
		if err == nil {
			out.InstanceProfile = a.shown(p)
		}
		return err
	})
}

func (s *Service) ListInstanceProfiles(ctx context.Context, in *iam.ListInstanceProfilesInput) (*iam.ListInstanceProfilesOutput, error) {
	out := &iam.ListInstanceProfilesOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) (err error) {
		all := a.list(func(p *profile) bool { return strings.HasPrefix(*p.Path, aws.ToString(in.PathPrefix)) })
		out.InstanceProfiles, out.IsTruncated, out.Marker, err = page("profiles", all, profileName, in.MaxItems, in.Marker)
		return err
	})
}

func (s *Service) ListInstanceProfilesForRole(ctx context.Context, in *iam.ListInstanceProfilesForRoleInput) (*iam.ListInstanceProfilesForRoleOutput, error) {
	out := &iam.ListInstanceProfilesForRoleOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		_, err := a.role(in.RoleName)
		if err != nil {
			return err
		}
		out.InstanceProfiles, out.IsTruncated, out.Marker, err = page("profiles of "+*in.RoleName, a.list(func(p *profile) bool { return p.RoleName == *in.RoleName }), profileName, in.MaxItems, in.Marker)
		return err
	})
}

func profileName(p iam.InstanceProfile) string { return *p.InstanceProfileName }

// list returns the profiles for which want returns true, without tags: lists do not
// contain them.
func (a *account) list(want func(*profile) bool) []iam.InstanceProfile {
	out := []iam.InstanceProfile{}
	for _, name := range slices.Sorted(maps.Keys(a.Profiles)) {
		if p := a.Profiles[name]; want(p) {
			shown := a.shown(p)
			shown.Tags = nil
			out = append(out, *shown)
		}
	}
	return out
}

func (s *Service) DeleteInstanceProfile(ctx context.Context, in *iam.DeleteInstanceProfileInput) (*iam.DeleteInstanceProfileOutput, error) {
	return &iam.DeleteInstanceProfileOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.profile(in.InstanceProfileName)
		if err != nil {
			return err
		}
		if p.RoleName != "" {
			return conflict("Cannot delete entity, must remove roles from instance profile first.")
		}
		delete(a.Profiles, *in.InstanceProfileName)
		return nil
	})
}

func (s *Service) AddRoleToInstanceProfile(ctx context.Context, in *iam.AddRoleToInstanceProfileInput) (*iam.AddRoleToInstanceProfileOutput, error) {
	return &iam.AddRoleToInstanceProfileOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.profile(in.InstanceProfileName)
		if err != nil {
			return err
		}
		if _, err := a.role(in.RoleName); err != nil {
			return err
		}
		if p.RoleName != "" {
			return &wire.Error{Code: "LimitExceeded", Message: "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1", Status: 409}
		}
		p.RoleName = *in.RoleName
		return nil
	})
}

func (s *Service) RemoveRoleFromInstanceProfile(ctx context.Context, in *iam.RemoveRoleFromInstanceProfileInput) (*iam.RemoveRoleFromInstanceProfileOutput, error) {
	return &iam.RemoveRoleFromInstanceProfileOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.profile(in.InstanceProfileName)
		if err != nil {
			return err
		}
		if p.RoleName != aws.ToString(in.RoleName) {
			return noSuch("role", aws.ToString(in.RoleName))
		}
		p.RoleName = ""
		return nil
	})
}

func (s *Service) TagInstanceProfile(ctx context.Context, in *iam.TagInstanceProfileInput) (*iam.TagInstanceProfileOutput, error) {
	return &iam.TagInstanceProfileOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.profile(in.InstanceProfileName)
		if err == nil {
			p.Tags, err = merged(p.Tags, in.Tags)
		}
		return err
	})
}

func (s *Service) UntagInstanceProfile(ctx context.Context, in *iam.UntagInstanceProfileInput) (*iam.UntagInstanceProfileOutput, error) {
	return &iam.UntagInstanceProfileOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.profile(in.InstanceProfileName)
		if err == nil {
			p.Tags = without(p.Tags, in.TagKeys)
		}
		return err
	})
}

func (s *Service) ListInstanceProfileTags(ctx context.Context, in *iam.ListInstanceProfileTagsInput) (*iam.ListInstanceProfileTagsOutput, error) {
	out := &iam.ListInstanceProfileTagsOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.profile(in.InstanceProfileName)
		if err == nil {
			out.Tags, out.IsTruncated, out.Marker, err = pageOfTags(p.Tags, in.MaxItems, in.Marker)
		}
		return err
	})
}

// Profile is an instance profile as EC2 needs it.
type Profile struct {
	ARN, ID, Name string
	Role          Role // the zero value if the profile has no role
}

// Role is a role as the services that issue its credentials need it.
type Role struct {
	ARN, ID, Name string
	Trust         string // the trust policy: who may assume the role
	MaxSession    int    // seconds
}

// Profile returns an account's instance profile by its name or, if the name is empty, by
// its ARN.
func (s *Service) Profile(owner, name, arn string) (Profile, bool) {
	var found Profile
	err := s.read(owner, func(a *account) error {
		for _, p := range a.Profiles {
			if name != "" && *p.InstanceProfileName == name || name == "" && *p.Arn == arn {
				found = Profile{ARN: *p.Arn, ID: *p.InstanceProfileId, Name: *p.InstanceProfileName}
				if r := a.Roles[p.RoleName]; r != nil {
					found.Role = r.shared()
				}
				return nil
			}
		}
		return noInstanceProfile(name)
	})
	return found, err == nil
}

// Role returns a role of any account by its ARN.
func (s *Service) Role(arn string) (Role, bool) {
	parts := strings.Split(arn, ":")
	if len(parts) != 6 {
		return Role{}, false
	}
	var found Role
	err := s.read(parts[4], func(a *account) error {
		for _, r := range a.Roles {
			if *r.Arn == arn {
				found = r.shared()
				return nil
			}
		}
		return noSuch("role", arn)
	})
	return found, err == nil
}

func (r *role) shared() Role {
	return Role{ARN: *r.Arn, ID: *r.RoleId, Name: *r.RoleName, Trust: aws.ToString(r.AssumeRolePolicyDocument), MaxSession: int(aws.ToInt32(r.MaxSessionDuration))}
}
