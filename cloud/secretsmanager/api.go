package secretsmanager

import "bake/cloud/wire"

// actions are those that the service answers; wire/genmodel reads them from here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"CreateSecret":   wire.Answer(s.CreateSecret),
		"DeleteSecret":   wire.Answer(s.DeleteSecret),
		"DescribeSecret": wire.Answer(s.DescribeSecret),
		"GetSecretValue": wire.Answer(s.GetSecretValue),
		"ListSecrets":    wire.Answer(s.ListSecrets),
		"PutSecretValue": wire.Answer(s.PutSecretValue),
		"UpdateSecret":   wire.Answer(s.UpdateSecret),
	}
}
