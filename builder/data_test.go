package builder_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/communicator"
	"bake/communicator/none"
)

// The artifact's data about its machine contains neither secrets nor placeholders.
func TestPublicData(t *testing.T) {
	data := builder.MachineData(none.Communicator{}, builder.Facts{RunID: "run"})
	data["Password"], data["SSHPrivateKey"], data["WinRMPassword"] = builder.Secret("hunter2"), builder.Secret("-----BEGIN"), builder.Secret("hunter3")
	data["SourceAMI"], data["Port"] = builder.Text("ami-1"), builder.Number(22)
	want := map[string]any{"PackerRunUUID": "run", "SourceAMI": "ami-1", "Port": 22}
	if diff := cmp.Diff(want, data.Public().Plain()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if data["Password"].Text != "hunter2" {
		t.Error("the machine's own data have changed")
	}
	secrets := data.Secrets()
	slices.Sort(secrets)
	if want := []string{"-----BEGIN", "hunter2", "hunter3"}; !slices.Equal(secrets, want) {
		t.Errorf("secrets are %q, want %q", secrets, want)
	}
}

// reached is a connection that knows how it reached the machine.
type reached struct {
	none.Communicator
	communicator.Connection
}

func (r reached) Describe() communicator.Connection { return r.Connection }

// The credentials for a machine are secret under every name that they have in build.*, and are
// never shown.
func TestSecretsOfAMachine(t *testing.T) {
	conn := reached{Connection: communicator.Connection{Host: "h", Port: 5986, User: "u", Password: "p", WinRM: true}}
	data := builder.MachineData(conn, builder.Facts{RunID: "run", ID: "i-1", Communicator: "winrm", PublicKey: "pub", PrivateKey: "key"})
	want := map[string]any{"PackerRunUUID": "run", "ID": "i-1", "Host": "h", "Port": 5986, "User": "u", "ConnType": "winrm", "SSHPublicKey": "pub"}
	if diff := cmp.Diff(want, data.Public().Plain()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	text, err := json.Marshal(data["SSHPrivateKey"])
	if err != nil || string(text) != `"\u003csensitive\u003e"` || fmt.Sprint(data["WinRMPassword"]) != "<sensitive>" {
		t.Errorf("a secret is shown: %s, %v, %v", text, data["WinRMPassword"], err)
	}
}

// Values are unchanged after writing and reading.
func TestValueInJSON(t *testing.T) {
	for _, want := range []builder.Value{builder.Text("22"), builder.Text(""), builder.Text("a\"b"), builder.Number(22), builder.Number(-1)} {
		var got builder.Value
		text, err := json.Marshal(want)
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if err != nil || got != want {
			t.Errorf("%s: %+v, want %+v, %v", text, got, want, err)
		}
	}
}
