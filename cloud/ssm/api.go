package ssm

import (
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// actions are those that the service answers; wire/genmodel reads them from here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"DeleteParameter":     wire.Answer(durable.Action(s.guarded, (*state).DeleteParameter)),
		"DescribeParameters":  wire.Answer(durable.Action(s.guarded, (*state).DescribeParameters)),
		"GetParameter":        wire.Answer(s.GetParameter),
		"GetParameters":       wire.Answer(s.GetParameters),
		"GetParametersByPath": wire.Answer(s.GetParametersByPath),
		"PutParameter":        wire.Answer(durable.Action(s.guarded, (*state).PutParameter)),
		"ResumeSession":       wire.Answer(durable.Action(s.guarded, (*state).ResumeSession)),
		"StartSession":        wire.Answer(s.StartSession),
		"TerminateSession":    wire.Answer(s.TerminateSession),
	}
}
