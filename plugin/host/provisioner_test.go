package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/builder"
	"bake/communicator"
	"bake/communicator/none"
	"bake/component"
	"bake/config/schema"
	"bake/provisioner"
	"bake/provisioner/provisionertest"
	"bake/step"

	"github.com/hashicorp/hcl/v2"
)

func terminal(input string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(input)), nil }
}

// about is a factory whose components get information about their build.
type about struct {
	component.Factory[provisioner.Provisioner]
}

func (f about) New(in schema.Input) (provisioner.Provisioner, hcl.Diagnostics) {
	in.Build = schema.Build{Name: "web", Type: "fake"}
	return f.Factory.New(in)
}

func TestProvisionerConforms(t *testing.T) {
	p := newProbe(t)
	dir := t.TempDir()
	provisionertest.Run(t, about{p.Provisioners[0]}, "commands = [\"true\", \"cat /dev/null\"]", dir)
}

func TestProvision(t *testing.T) {
	p := newProbe(t)
	s, log := scope(t)
	m := provisionertest.NewMachine(t)
	m.Data = builder.Data{"Host": builder.Text("192.0.2.1"), "Port": builder.Number(2222), "ID": builder.Absent("ID"), "Colour": builder.Text("red"), "Password": builder.Secret("hunter2")}
	local := t.TempDir()
	from, tree := filepath.Join(local, "from"), filepath.Join(local, "tree")
	os.WriteFile(from, []byte("up"), 0o750)
	os.MkdirAll(filepath.Join(tree, "sub"), 0o755)
	os.WriteFile(filepath.Join(tree, "sub/f"), []byte("f"), 0o600)
	body := fmt.Sprintf("upload = [%q, \"there\"]\nupdir = [%q, \".\"]\ncommands = [\"echo from the machine; cp there back\"]\ndownload = [\"back\", %q]\nmessage = \"hi\"",
		from, tree, filepath.Join(local, "down"))
	if err := made(t, p.Provisioners[0], p.input(t, body, nil)).Provision(t.Context(), s, m.Builder()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		filepath.Join(m.Home, "there"): "up", filepath.Join(m.Home, "tree/sub/f"): "f", filepath.Join(local, "down"): "up",
	} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if info, err := os.Stat(filepath.Join(m.Home, "there")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	want := "Colour=string:red ConnType=string:none Host=string:192.0.2.1 ID=string:ERR_ID_NOT_IMPLEMENTED_BY_BUILDER PackerHTTPAddr=string:ERR_HTTP_ADDR_NOT_IMPLEMENTED_BY_BUILDER " +
		"PackerHTTPIP=string:ERR_HTTP_IP_NOT_IMPLEMENTED_BY_BUILDER PackerHTTPPort=string:ERR_HTTP_PORT_NOT_IMPLEMENTED_BY_BUILDER PackerRunUUID=string:run Password=string Port=int64:2222 " +
		"SSHAgentAuth=bool:false SSHPrivateKey=string SSHPrivateKeyFile=string: SSHPublicKey=string: User=string: WinRMPassword=string"
	if got := p.notes(t, "data: "); len(got) != 1 || got[0] != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := log.Texts(step.Output); strings.Join(got, "|") != "hi|from the machine" {
		t.Errorf("output: %q", got)
	}
}

// Without a machine, commands do nothing, and files cannot be transferred.
func TestProvisionNothing(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	m := builder.Machine{Communicator: none.Communicator{}, Data: builder.MachineData(none.Communicator{}, builder.Facts{RunID: "run"})}
	if err := made(t, p.Provisioners[0], p.input(t, `commands = ["false"]`, nil)).Provision(t.Context(), s, m); err != nil {
		t.Error(err)
	}
	self, _ := os.Executable()
	err := made(t, p.Provisioners[0], p.input(t, fmt.Sprintf("upload = [%q, \"x\"]", self), nil)).Provision(t.Context(), s, m)
	if !errors.Is(err, communicator.ErrNoMachine) || strings.Count(err.Error(), communicator.ErrNoMachine.Error()) != 1 {
		t.Errorf("got %v", err)
	}
}

// A cancelled provisioner's command ends, and the plugin can still tidy up.
func TestCancelProvision(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	m := provisionertest.NewMachine(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	m.Fault = func(n int, call string) error {
		if n == 0 {
			cancel(why)
		}
		return nil
	}
	body := "commands = [\"sleep 60\", \"touch never\"]\nlate = [\"touch tidied\"]"
	err := made(t, p.Provisioners[0], p.input(t, body, nil)).Provision(ctx, s, m.Builder())
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(m.Home, "tidied")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(m.Home, "never")); err == nil {
		t.Error("it went on")
	}
}

// A provisioner that the user does not wait for is killed: it has nothing to tear down, and must
// not continue to work on the machine.
func TestImpatientProvision(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	m := provisionertest.NewMachine(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	l := &ledger{owned: map[string]step.Resource{}}
	stop, stopNow := context.WithCancel(context.Background())
	s.Stop, s.Ledger = stop, l
	m.Fault = func(int, string) error {
		cancel(why)
		stopNow()
		return nil
	}
	body := "commands = [\"sleep 60\", \"touch never\"]"
	err := made(t, p.Provisioners[0], p.input(t, body, nil)).Provision(ctx, s, m.Builder())
	if !errors.Is(err, why) || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v", err)
	}
	if owned, _ := l.Owned(); len(owned) != 0 {
		t.Errorf("in the ledger: %v", owned)
	}
}
