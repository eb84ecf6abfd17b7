package host

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/communicator"
)

// Limits on the values of build.* that a plugin gives.
const (
	maxValues = 1000
	maxValue  = 1 << 20
)

// secretValues are the values of build.* that must not be shown.
var secretValues = []string{"Password", "SSHPrivateKey", "WinRMPassword"}

// buildData makes the values of build.* from the data that a plugin's builder reports about
// its machine.
func buildData(run string, said map[string]any) builder.Data {
	d := builder.MachineData(nil, builder.Facts{RunID: run})
	for i, name := range slices.Sorted(maps.Keys(said)) {
		if i >= maxValues || !hclsyntax.ValidIdentifier(name) || len(name) > maxComponentName {
			continue
		}
		v := builder.Value{}
		switch said := said[name].(type) {
		case nil:
			continue
		case string:
			v.Text = said
		case []byte:
			v.Text = string(said)
		case int64, uint64:
			v = builder.Value{Text: fmt.Sprint(said), Number: true}
		case bool, float64:
			v.Text = fmt.Sprint(said)
		default:
			text, err := json.Marshal(said)
			if err != nil {
				continue
			}
			v.Text = string(text)
		}
		v.Text = clip(v.Text, maxValue)
		v.Secret = slices.Contains(secretValues, name)
		d[name] = v
	}
	return d
}

// generatedData returns the values of build.* in the form for plugins' provisioners,
// with all names and types that these expect.
func generatedData(m builder.Machine, run string) map[string]any {
	out := map[string]any{
		"ID": "", "PackerRunUUID": run, "PackerHTTPIP": "", "PackerHTTPPort": "", "PackerHTTPAddr": "",
		"Host": "", "Port": 0, "User": "", "Password": "", "ConnType": "none", "SSHPublicKey": "", "SSHPrivateKey": "",
		"SSHPrivateKeyFile": "", "SSHAgentAuth": false, "WinRMPassword": "",
	}
	for _, name := range []string{"ID", "PackerHTTPIP", "PackerHTTPPort", "PackerHTTPAddr"} {
		out[name] = builder.Absent(name).Text
	}
	if a, ok := m.Communicator.(communicator.Accessible); ok {
		access := a.Access()
		out["SSHPrivateKeyFile"], out["SSHAgentAuth"] = access.KeyFile, access.Agent
	}
	for name, v := range m.Data {
		old, known := out[name]
		if known && v.Absent {
			continue
		}
		switch old.(type) {
		case int:
			if n, err := strconv.Atoi(v.Text); err == nil {
				out[name] = n
			}
		case bool:
			out[name] = v.Text == "true"
		case string:
			out[name] = v.Text
		default:
			out[name] = v.Plain()
		}
	}
	return out
}
