package organizations

import "bake/cloud/wire"

// actions returns the actions that the service answers; wire/genmodel reads them from here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"DescribeOrganization":             wire.Answer(s.DescribeOrganization),
		"ListAccounts":                     wire.Answer(s.ListAccounts),
		"ListAccountsForParent":            wire.Answer(s.ListAccountsForParent),
		"ListOrganizationalUnitsForParent": wire.Answer(s.ListOrganizationalUnitsForParent),
		"ListRoots":                        wire.Answer(s.ListRoots),
	}
}
