package ssm

import (
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// actions are those that the service answers; wire/genmodel reads them from here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"DeleteParameter":         wire.Answer(durable.Action(s.guarded, (*state).DeleteParameter)),
		"DescribeParameters":      wire.Answer(durable.Action(s.guarded, (*state).DescribeParameters)),
		"GetParameter":            wire.Answer(s.GetParameter),
		"GetParameterHistory":     wire.Answer(durable.Action(s.guarded, (*state).GetParameterHistory)),
		"GetParameters":           wire.Answer(s.GetParameters),
		"GetParametersByPath":     wire.Answer(s.GetParametersByPath),
		"LabelParameterVersion":   wire.Answer(durable.Action(s.guarded, (*state).LabelParameterVersion)),
		"PutParameter":            wire.Answer(durable.Action(s.guarded, (*state).PutParameter)),
		"ResumeSession":           wire.Answer(durable.Action(s.guarded, (*state).ResumeSession)),
		"StartSession":            wire.Answer(s.StartSession),
		"TerminateSession":        wire.Answer(s.TerminateSession),
		"UnlabelParameterVersion": wire.Answer(durable.Action(s.guarded, (*state).UnlabelParameterVersion)),
	}
}
