package null_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/builder/buildertest"
	"bake/builder/null"
	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/winrm/winrmtest"
	"bake/config/schema"
	"bake/step"
)

func input(t *testing.T, body string) schema.Input {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return schema.Input{Body: f.Body, Context: &hcl.EvalContext{}}
}

func build(t *testing.T, body string, provision builder.Provision) (*builder.Artifact, error) {
	t.Helper()
	b, diags := null.Factory().New(input(t, body))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	s := step.NewScope(step.Scope{Run: step.Invocation{ID: "run"}, Build: "null.x", Emit: func(step.Event) {}})
	return b.Build(t.Context(), s, builder.Hooks{Provision: provision})
}

func TestSSH(t *testing.T) {
	key, err := commtest.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key.PrivateKey), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := commtest.Serve(t, t.TempDir(), commtest.Login{User: "me", Key: key.Signer.PublicKey(), HostKey: key.Signer})
	body := fmt.Sprintf("ssh_host = %q\nssh_port = %d\nssh_username = \"me\"\nssh_private_key_file = %q", srv.Host, srv.Port, keyFile)
	a, err := build(t, body, func(ctx context.Context, m builder.Machine) error {
		var out bytes.Buffer
		if _, err := m.Run(ctx, communicator.Command{Line: "echo hi", Stdout: &out}); err != nil || out.String() != "hi\n" {
			t.Errorf("got %q, %v", &out, err)
		}
		for k, want := range map[string]any{"ID": "Null", "Host": srv.Host, "Port": srv.Port, "User": "me", "ConnType": "ssh", "PackerRunUUID": "run"} {
			if m.Data[k].Plain() != want {
				t.Errorf("build.%s = %v, want %v", k, m.Data[k], want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &builder.Artifact{
		BuilderID: "fnoeding.null", ID: "Null", Text: "Did not export anything. This is the null builder",
		Data: builder.Data{"ID": builder.Text("Null")},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	failed := errors.New("failed")
	if _, err := build(t, body, func(context.Context, builder.Machine) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

func TestWinRM(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	body := fmt.Sprintf("communicator = \"winrm\"\nwinrm_host = %q\nwinrm_port = %d\nwinrm_username = %q\nwinrm_password = %q", srv.Host, srv.Port, srv.User, srv.Password)
	_, err := build(t, body, func(ctx context.Context, m builder.Machine) error {
		if st, err := m.Run(ctx, communicator.Command{Line: "exit 3"}); err != nil || st.Code != 3 {
			t.Errorf("got %+v, %v", st, err)
		}
		for k, want := range map[string]any{"Host": srv.Host, "Port": srv.Port, "User": srv.User, "WinRMPassword": srv.Password, "ConnType": "winrm"} {
			if m.Data[k].Plain() != want {
				t.Errorf("build.%s = %v, want %v", k, m.Data[k], want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNone(t *testing.T) {
	_, err := build(t, `communicator = "none"`, func(ctx context.Context, m builder.Machine) error {
		if st, err := m.Run(ctx, communicator.Command{Line: "exit 1"}); err != nil || st.Code != 0 {
			t.Errorf("got %v, %v", st, err)
		}
		if err := m.Put(ctx, "/tmp", nil); !errors.Is(err, communicator.ErrNoMachine) {
			t.Errorf("got %v", err)
		}
		if m.Data["Host"].Text != "<unknown>" {
			t.Errorf("Host is %v", m.Data["Host"])
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		"ssh_username = \"me\"\nssh_password = \"x\"":                                                                            "Missing ssh_host",
		"ssh_host = \"h\"\nssh_password = \"x\"":                                                                                 "Missing ssh_username",
		"ssh_host = \"h\"\nssh_username = \"me\"":                                                                                "No way to log in",
		"ssh_host = \"h\"\nssh_username = \"me\"\nssh_password = \"x\"\nssh_agent_auth = true":                                   "Several ways to log in",
		"communicator = \"winrm\"":                                                                                               "Missing winrm_username",
		"communicator = \"winrm\"\nwinrm_username = \"me\"":                                                                      "Missing winrm_host",
		"communicator = \"winrm\"\nwinrm_username = \"me\"\nwinrm_host = \"h\"":                                                  "Missing winrm_password",
		"communicator = \"winrm\"\nwinrm_username = \"me\"\nwinrm_password = \"p\"\nwinrm_host = \"h\"\nwinrm_port = 70000":      "Not a TCP port",
		"communicator = \"winrm\"\nwinrm_username = \"me\"\nwinrm_password = \"p\"\nwinrm_host = \"h\"\nwinrm_timeout = \"-1s\"": "Negative duration",
	} {
		if diags := null.Factory().Check(input(t, body)); !diags.HasErrors() || !strings.Contains(diags.Error(), want) {
			t.Errorf("%s\ngot %v, want %q", body, diags, want)
		}
	}
	if _, err := null.Factory().Docs(); err != nil {
		t.Error(err)
	}
}

// Empty strings, 0 and false mean that an option is not set.
func TestWaysToLogIn(t *testing.T) {
	key, err := commtest.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key.PrivateKey), 0o600); err != nil {
		t.Fatal(err)
	}
	withKey := fmt.Sprintf("ssh_private_key_file = %q\n", keyFile)
	for body, want := range map[string]string{
		withKey + `ssh_password = ""`:      "",
		withKey + `ssh_agent_auth = false`: "",
		`ssh_password = "x"
		 ssh_private_key_file = ""`: "",
		`ssh_password = ""`:            "No way to log in",
		`ssh_private_key_file = ""`:    "No way to log in",
		`ssh_agent_auth = false`:       "No way to log in",
		withKey + `ssh_password = "x"`: "Several ways to log in",
	} {
		diags := null.Factory().Check(input(t, "ssh_host = \"h\"\nssh_username = \"me\"\n"+body))
		got := ""
		if diags.HasErrors() {
			d, _ := errors.AsType[*hcl.Diagnostic](diags.Errs()[0])
			got = d.Summary
		}
		if got != want {
			t.Errorf("%s:\ngot %q, want %q", body, got, want)
		}
	}
}

// The options for key pairs, common to all builders, have no effect here. Only those that are set
// cause a warning.
func TestKeyPairOptions(t *testing.T) {
	const auth = "ssh_host = \"h\"\nssh_username = \"me\"\nssh_password = \"x\"\n"
	for body, want := range map[string]int{
		`ssh_keypair_name = "k"
		 temporary_key_pair_name = "t"
		 temporary_key_pair_type = "dsa"
		 temporary_key_pair_bits = 4096
		 ssh_clear_authorized_keys = true`: 5,
		`ssh_keypair_name = ""
		 temporary_key_pair_name = ""
		 temporary_key_pair_bits = 0
		 ssh_clear_authorized_keys = false`: 0,
	} {
		diags := null.Factory().Check(input(t, auth+body))
		if diags.HasErrors() || len(diags) != want {
			t.Errorf("%s:\ngot %v, want %d warnings", body, diags, want)
		}
	}
}

func TestConformance(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	for _, body := range []string{
		`communicator = "none"`,
		fmt.Sprintf("communicator = \"winrm\"\nwinrm_host = %q\nwinrm_port = %d\nwinrm_username = %q\nwinrm_password = %q", srv.Host, srv.Port, srv.User, srv.Password),
	} {
		buildertest.Suite{Factory: null.Factory(), Body: body, Dir: t.TempDir()}.Run(t)
	}
}
