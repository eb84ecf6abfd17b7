package ebs_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
	"bake/communicator"
	"bake/communicator/winrm/winrmtest"
)

// windows is the body of a source block for a machine that is reached over WinRM.
func windows(more string) string {
	body := strings.Replace(plain(`ami_name = "web"`), `temporary_key_pair_type = "ed25519"`, "", 1)
	return body + "\ncommunicator = \"winrm\"\nwinrm_username = \"Administrator\"\n" + more
}

func TestValidateWindows(t *testing.T) {
	for _, tt := range []struct{ option, summary, at string }{
		{`winrm_port = 70000`, "Not a TCP port", `70000`},
		{`winrm_timeout = "-1s"`, "Negative duration", `"-1s"`},
		{`ssh_keypair_name = "mine"`, "Key pair without its private key", `"mine"`},
		{`ssh_private_key_file = "/a"`, "Private key without its key pair", `"/a"`},
		{`temporary_key_pair_type = "ed25519"`, "Wrong type of key pair", `"ed25519"`},
		{`windows_password_timeout = "-1s"`, "Negative duration", `"-1s"`},
	} {
		body := windows(tt.option)
		wantDiagnostic(t, ebs.Factory(amazon.Cloud{}).Check(input(body)), body, tt.summary, tt.at)
	}
	for _, option := range []string{``, `winrm_password = "p"` + "\n" + `temporary_key_pair_type = "ed25519"`, `winrm_password = "p"` + "\n" + `ssh_keypair_name = "mine"`, "winrm_use_ssl = true\nwinrm_insecure = true"} {
		if diags := ebs.Factory(amazon.Cloud{}).Check(input(windows(option))); len(diags) > 0 {
			t.Errorf("%s: %v", option, diags)
		}
	}
}

// windowsCloud makes the world's machines Windows machines, whose password is available
// at the third request, encrypted with the newest key pair.
func windowsCloud(t *testing.T, w *world) (asked *int) {
	asked = new(int)
	var key *rsa.PrivateKey
	w.WinRM = winrmtest.Serve(t, t.TempDir(), false)
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		rec := httptest.NewRecorder()
		serve(rec)
		text := rec.Body.String()
		switch c.Action {
		case "CreateKeyPair":
			var out struct {
				KeyMaterial string `xml:"keyMaterial"`
			}
			if err := xml.Unmarshal([]byte(text), &out); err != nil {
				t.Error(err)
			}
			raw, err := gossh.ParseRawPrivateKey([]byte(out.KeyMaterial))
			if err != nil {
				t.Error(err)
			}
			key = raw.(*rsa.PrivateKey)
		case "RunInstances", "DescribeInstances":
			text = strings.ReplaceAll(text, "<instanceId>", "<platform>windows</platform><instanceId>")
		case "GetPasswordData":
			if *asked++; *asked >= 3 {
				data, err := rsa.EncryptPKCS1v15(rand.Reader, &key.PublicKey, []byte(w.WinRM.Password)) //nolint:staticcheck // what GetPasswordData answers with
				if err != nil {
					t.Error(err)
				}
				text = strings.Replace(text, "<passwordData></passwordData>", "<passwordData>\n"+base64.StdEncoding.EncodeToString(data)+"\n</passwordData>", 1)
			}
		}
		rw.WriteHeader(rec.Code)
		fmt.Fprint(rw, text)
	}
	return asked
}

func TestWindows(t *testing.T) {
	w := newWorld(t)
	asked := windowsCloud(t, w)
	b := w.Bake(t)
	b.Provision = func(ctx context.Context, m builder.Machine) error {
		if st, err := m.Run(ctx, communicator.Command{Line: "exit 3"}); err != nil || st.Code != 3 {
			t.Errorf("got %+v, %v", st, err)
		}
		for k, want := range map[string]any{"ConnType": "winrm", "User": "Administrator", "WinRMPassword": w.WinRM.Password, "Port": 5985} {
			if m.Data[k].Plain() != want {
				t.Errorf("build.%s is %v, want %v", k, m.Data[k], want)
			}
		}
		return nil
	}
	a, err := b.Build(t.Context(), windows(``))
	if err != nil {
		t.Fatal(err)
	}
	if *asked != 3 {
		t.Errorf("the password was asked for %d times", *asked)
	}
	if port := w.Sent("AuthorizeSecurityGroupIngress")["IpPermissions.1.FromPort"]; port != "5985" {
		t.Errorf("the security group lets in port %s", port)
	}
	if _, leaked := a.Data["WinRMPassword"]; leaked {
		t.Error("the artifact holds the password")
	}
	if strings.Contains(b.Said(), w.WinRM.Password) {
		t.Error("the log holds the password")
	}
}

// TestWindowsGivenPassword needs no key pair and asks for no password.
func TestWindowsGivenPassword(t *testing.T) {
	w := newWorld(t)
	asked := windowsCloud(t, w)
	if _, err := w.Bake(t).Build(t.Context(), windows(fmt.Sprintf("winrm_password = %q", w.WinRM.Password))); err != nil {
		t.Fatal(err)
	}
	if *asked != 0 {
		t.Error("the password was asked for")
	}
	for _, c := range w.Calls {
		if c.Action == "CreateKeyPair" {
			t.Error("a key pair was made")
		}
	}
}

func TestWindowsPasswordNeverComes(t *testing.T) {
	w := newWorld(t)
	*windowsCloud(t, w) = -1 << 30
	_, err := w.Bake(t).Build(t.Context(), windows(`windows_password_timeout = "300ms"`))
	if err == nil || !strings.Contains(err.Error(), "windows_password_timeout") {
		t.Errorf("got %v", err)
	}
}

// TestNotWindows uses a machine for which EC2 has no password.
func TestNotWindows(t *testing.T) {
	body := windows(``)
	_, err := newWorld(t).Bake(t).Build(t.Context(), body)
	wantDiagnostic(t, err, body, "No Windows password", `"winrm"`)
}
