package builder_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/communicator/none"
	"bake/communicator/ssh"
)

// What an artifact says of its machine has neither secrets nor stand-ins.
func TestPublicData(t *testing.T) {
	o := ssh.Defaults()
	data := ssh.Data(&o, none.Communicator{}, ssh.Facts{RunID: "run"})
	data["Password"], data["SSHPrivateKey"], data["WinRMPassword"] = "hunter2", "-----BEGIN", "hunter3"
	data["SourceAMI"], data["Port"] = "ami-1", 22
	want := map[string]any{"PackerRunUUID": "run", "SourceAMI": "ami-1", "Port": 22}
	if diff := cmp.Diff(want, builder.PublicData(data)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if data["Password"] != "hunter2" {
		t.Error("the machine's own data have changed")
	}
}
