package ssm

import (
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// actions returns the actions that the service answers; wire/genmodel reads them from
// here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"AddTagsToResource":           wire.Answer(validated(s, (*state).AddTagsToResource)),
		"CancelCommand":               wire.Answer(durable.Action(s.guarded, (*state).CancelCommand)),
		"DeleteParameter":             wire.Answer(validated(s, (*state).DeleteParameter)),
		"DeleteParameters":            wire.Answer(validated(s, (*state).DeleteParameters)),
		"DescribeInstanceInformation": wire.Answer(s.DescribeInstanceInformation),
		"DescribeParameters":          wire.Answer(validated(s, (*state).DescribeParameters)),
		"GetCommandInvocation":        wire.Answer(durable.Action(s.guarded, (*state).GetCommandInvocation)),
		"GetConnectionStatus":         wire.Answer(s.GetConnectionStatus),
		"GetParameter":                wire.Answer(s.GetParameter),
		"GetParameterHistory":         wire.Answer(validated(s, (*state).GetParameterHistory)),
		"GetParameters":               wire.Answer(s.GetParameters),
		"GetParametersByPath":         wire.Answer(s.GetParametersByPath),
		"LabelParameterVersion":       wire.Answer(validated(s, (*state).LabelParameterVersion)),
		"ListCommandInvocations":      wire.Answer(durable.Action(s.guarded, (*state).ListCommandInvocations)),
		"ListCommands":                wire.Answer(durable.Action(s.guarded, (*state).ListCommands)),
		"ListTagsForResource":         wire.Answer(validated(s, (*state).ListTagsForResource)),
		"PutParameter":                wire.Answer(validated(s, (*state).PutParameter)),
		"RemoveTagsFromResource":      wire.Answer(validated(s, (*state).RemoveTagsFromResource)),
		"ResumeSession":               wire.Answer(durable.Action(s.guarded, (*state).ResumeSession)),
		"SendCommand":                 wire.Answer(s.SendCommand),
		"StartSession":                wire.Answer(s.StartSession),
		"TerminateSession":            wire.Answer(s.TerminateSession),
		"UnlabelParameterVersion":     wire.Answer(validated(s, (*state).UnlabelParameterVersion)),
	}
}
