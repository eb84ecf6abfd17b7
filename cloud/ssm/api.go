package ssm

import "bake/cloud/wire"

// actions are those that the service answers; wire/genmodel reads them from here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"DeleteParameter":     wire.Answer(s.DeleteParameter),
		"DescribeParameters":  wire.Answer(s.DescribeParameters),
		"GetParameter":        wire.Answer(s.GetParameter),
		"GetParameters":       wire.Answer(s.GetParameters),
		"GetParametersByPath": wire.Answer(s.GetParametersByPath),
		"PutParameter":        wire.Answer(s.PutParameter),
		"ResumeSession":       wire.Answer(s.ResumeSession),
		"StartSession":        wire.Answer(s.StartSession),
		"TerminateSession":    wire.Answer(s.TerminateSession),
	}
}
