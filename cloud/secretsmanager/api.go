package secretsmanager

import (
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// actions returns the actions that the service answers; wire/genmodel reads them from
// here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"BatchGetSecretValue": wire.Answer(durable.Action(s.guarded, (*state).BatchGetSecretValue)),
		"CreateSecret":        wire.Answer(durable.Action(s.guarded, (*state).CreateSecret)),
		"DeleteSecret":        wire.Answer(durable.Action(s.guarded, (*state).DeleteSecret)),
		"DescribeSecret":      wire.Answer(durable.Action(s.guarded, (*state).DescribeSecret)),
		"GetRandomPassword":   wire.Answer(durable.Action(s.guarded, (*state).GetRandomPassword)),
		"GetSecretValue":      wire.Answer(durable.Action(s.guarded, (*state).GetSecretValue)),
		"ListSecrets":         wire.Answer(durable.Action(s.guarded, (*state).ListSecrets)),
		"PutSecretValue":      wire.Answer(durable.Action(s.guarded, (*state).PutSecretValue)),
		"RestoreSecret":       wire.Answer(durable.Action(s.guarded, (*state).RestoreSecret)),
		"UpdateSecret":        wire.Answer(durable.Action(s.guarded, (*state).UpdateSecret)),
	}
}
