package iam

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/iam"
	"bake/cloud/wire"
)

func (s *Service) CreateRole(ctx context.Context, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	if err := checkName("roleName", in.RoleName); err != nil {
		return nil, err
	}
	path, err := checkPath(in.Path)
	if err != nil {
		return nil, err
	}
	if err := checkDocument(in.AssumeRolePolicyDocument, true); err != nil {
		return nil, err
	}
	if d := in.MaxSessionDuration; d != nil && (*d < 3600 || *d > 43200) {
		return nil, wire.Errorf("ValidationError", "1 validation error detected: Value '%d' at 'maxSessionDuration' failed to satisfy constraint: it must be from 3600 to 43200", *d)
	}
	owner := wire.CallerFrom(ctx).Account
	r := &role{Role: iam.Role{
		Path: &path, RoleName: in.RoleName, RoleId: newID("AROA"), Arn: aws.String("arn:aws:iam::" + owner + ":role" + path + *in.RoleName),
		CreateDate: aws.Time(s.now().UTC()), AssumeRolePolicyDocument: in.AssumeRolePolicyDocument, Description: in.Description,
		MaxSessionDuration: cmp.Or(in.MaxSessionDuration, aws.Int32(3600)),
	}}
	if r.Tags, err = merged(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.change(owner, func(a *account) error {
		if a.Roles[*in.RoleName] != nil {
			return exists("Role with name %s already exists.", *in.RoleName)
		}
		a.Roles[*in.RoleName] = r
		return nil
	})
	return &iam.CreateRoleOutput{Role: r.shown()}, err
}

// shown returns the role as IAM shows it: documents are URL-encoded.
func (r *role) shown() *iam.Role {
	out := r.Role
	out.AssumeRolePolicyDocument = encoded(aws.ToString(r.AssumeRolePolicyDocument))
	return &out
}

func encoded(document string) *string {
	return aws.String(strings.ReplaceAll(url.QueryEscape(document), "+", "%20"))
}

func (s *Service) GetRole(ctx context.Context, in *iam.GetRoleInput) (*iam.GetRoleOutput, error) {
	out := &iam.GetRoleOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err == nil {
			out.Role = r.shown()
		}
		return err
	})
}

func (s *Service) ListRoles(ctx context.Context, in *iam.ListRolesInput) (*iam.ListRolesOutput, error) {
	out := &iam.ListRolesOutput{Roles: []iam.Role{}}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) (err error) {
		names := slices.Sorted(maps.Keys(a.Roles))
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(*a.Roles[n].Path, aws.ToString(in.PathPrefix)) })
		names, out.IsTruncated, out.Marker, err = pageOfNames("roles", names, in.MaxItems, in.Marker)
		for _, n := range names {
			shown := a.Roles[n].shown()
			shown.Tags = nil // lists do not contain them
			out.Roles = append(out.Roles, *shown)
		}
		return err
	})
}

func (s *Service) DeleteRole(ctx context.Context, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	return &iam.DeleteRoleOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err != nil {
			return err
		}
		if len(r.Policies) > 0 {
			return conflict("Cannot delete entity, must delete policies first.")
		}
		for _, p := range a.Profiles {
			if p.RoleName == *in.RoleName {
				return conflict("Cannot delete entity, must remove roles from instance profile first.")
			}
		}
		delete(a.Roles, *in.RoleName)
		return nil
	})
}

func (s *Service) PutRolePolicy(ctx context.Context, in *iam.PutRolePolicyInput) (*iam.PutRolePolicyOutput, error) {
	if err := checkName("policyName", in.PolicyName); err != nil {
		return nil, err
	}
	if err := checkDocument(in.PolicyDocument, false); err != nil {
		return nil, err
	}
	return &iam.PutRolePolicyOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err != nil {
			return err
		}
		if r.Policies == nil {
			r.Policies = map[string]string{}
		}
		r.Policies[*in.PolicyName] = *in.PolicyDocument
		return nil
	})
}

func (s *Service) GetRolePolicy(ctx context.Context, in *iam.GetRolePolicyInput) (*iam.GetRolePolicyOutput, error) {
	out := &iam.GetRolePolicyOutput{RoleName: in.RoleName, PolicyName: in.PolicyName}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err != nil {
			return err
		}
		document, ok := r.Policies[aws.ToString(in.PolicyName)]
		if !ok {
			return noSuch("role policy", aws.ToString(in.PolicyName))
		}
		out.PolicyDocument = encoded(document)
		return nil
	})
}

func (s *Service) ListRolePolicies(ctx context.Context, in *iam.ListRolePoliciesInput) (*iam.ListRolePoliciesOutput, error) {
	out := &iam.ListRolePoliciesOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err != nil {
			return err
		}
		out.PolicyNames, out.IsTruncated, out.Marker, err = pageOfNames("policies", slices.Sorted(maps.Keys(r.Policies)), in.MaxItems, in.Marker)
		return err
	})
}

func (s *Service) DeleteRolePolicy(ctx context.Context, in *iam.DeleteRolePolicyInput) (*iam.DeleteRolePolicyOutput, error) {
	return &iam.DeleteRolePolicyOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err != nil {
			return err
		}
		if _, ok := r.Policies[aws.ToString(in.PolicyName)]; !ok {
			return noSuch("role policy", aws.ToString(in.PolicyName))
		}
		delete(r.Policies, *in.PolicyName)
		return nil
	})
}

func (s *Service) TagRole(ctx context.Context, in *iam.TagRoleInput) (*iam.TagRoleOutput, error) {
	return &iam.TagRoleOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err == nil {
			r.Tags, err = merged(r.Tags, in.Tags)
		}
		return err
	})
}

func (s *Service) UntagRole(ctx context.Context, in *iam.UntagRoleInput) (*iam.UntagRoleOutput, error) {
	return &iam.UntagRoleOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err == nil {
			r.Tags = without(r.Tags, in.TagKeys)
		}
		return err
	})
}

func (s *Service) ListRoleTags(ctx context.Context, in *iam.ListRoleTagsInput) (*iam.ListRoleTagsOutput, error) {
	out := &iam.ListRoleTagsOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		r, err := a.role(in.RoleName)
		if err == nil {
			out.Tags, out.IsTruncated, out.Marker, err = pageOfTags(r.Tags, in.MaxItems, in.Marker)
		}
		return err
	})
}
