package iam

import "bake/cloud/wire"

// actions returns the actions that the service answers; wire/genmodel reads them from
// here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"AddRoleToInstanceProfile":      wire.Answer(s.AddRoleToInstanceProfile),
		"CreateInstanceProfile":         wire.Answer(s.CreateInstanceProfile),
		"CreateOpenIDConnectProvider":   wire.Answer(s.CreateOpenIDConnectProvider),
		"CreateRole":                    wire.Answer(s.CreateRole),
		"DeleteInstanceProfile":         wire.Answer(s.DeleteInstanceProfile),
		"DeleteOpenIDConnectProvider":   wire.Answer(s.DeleteOpenIDConnectProvider),
		"DeleteRole":                    wire.Answer(s.DeleteRole),
		"DeleteRolePolicy":              wire.Answer(s.DeleteRolePolicy),
		"GetInstanceProfile":            wire.Answer(s.GetInstanceProfile),
		"GetOpenIDConnectProvider":      wire.Answer(s.GetOpenIDConnectProvider),
		"GetRole":                       wire.Answer(s.GetRole),
		"GetRolePolicy":                 wire.Answer(s.GetRolePolicy),
		"ListInstanceProfileTags":       wire.Answer(s.ListInstanceProfileTags),
		"ListInstanceProfiles":          wire.Answer(s.ListInstanceProfiles),
		"ListInstanceProfilesForRole":   wire.Answer(s.ListInstanceProfilesForRole),
		"ListOpenIDConnectProviders":    wire.Answer(s.ListOpenIDConnectProviders),
		"ListRolePolicies":              wire.Answer(s.ListRolePolicies),
		"ListRoleTags":                  wire.Answer(s.ListRoleTags),
		"ListRoles":                     wire.Answer(s.ListRoles),
		"PutRolePolicy":                 wire.Answer(s.PutRolePolicy),
		"RemoveRoleFromInstanceProfile": wire.Answer(s.RemoveRoleFromInstanceProfile),
		"TagInstanceProfile":            wire.Answer(s.TagInstanceProfile),
		"TagRole":                       wire.Answer(s.TagRole),
		"UntagInstanceProfile":          wire.Answer(s.UntagInstanceProfile),
		"UntagRole":                     wire.Answer(s.UntagRole),
	}
}
