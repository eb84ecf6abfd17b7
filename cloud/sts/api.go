package sts

import "bake/cloud/wire"

// actions returns the actions that the service answers; wire/genmodel reads them from
// here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"AssumeRole":                 wire.Answer(s.AssumeRole),
		"AssumeRoleWithWebIdentity":  wire.Answer(s.AssumeRoleWithWebIdentity),
		"DecodeAuthorizationMessage": wire.Answer(s.DecodeAuthorizationMessage),
		"GetCallerIdentity":          wire.Answer(s.GetCallerIdentity),
	}
}
