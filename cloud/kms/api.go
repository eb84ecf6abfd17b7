package kms

import (
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// actions returns the actions that the service answers; wire/genmodel reads them from
// here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"CreateAlias":         wire.Answer(durable.Action(s.guarded, (*state).CreateAlias)),
		"CreateKey":           wire.Answer(durable.Action(s.guarded, (*state).CreateKey)),
		"DeleteAlias":         wire.Answer(durable.Action(s.guarded, (*state).DeleteAlias)),
		"DescribeKey":         wire.Answer(durable.Action(s.guarded, (*state).DescribeKey)),
		"GetPublicKey":        wire.Answer(durable.Action(s.guarded, (*state).GetPublicKey)),
		"ListAliases":         wire.Answer(durable.Action(s.guarded, (*state).ListAliases)),
		"ListKeys":            wire.Answer(durable.Action(s.guarded, (*state).ListKeys)),
		"ScheduleKeyDeletion": wire.Answer(durable.Action(s.guarded, (*state).ScheduleKeyDeletion)),
		"Sign":                wire.Answer(durable.Action(s.guarded, (*state).Sign)),
		"Verify":              wire.Answer(durable.Action(s.guarded, (*state).Verify)),
	}
}
