package temporal

import (
	common "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
)

// quiet is a logger of the SDK that logs nothing.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

func decode(p *common.Payloads, to any) error {
	return converter.GetDefaultDataConverter().FromPayloads(p, to)
}
