package ssh_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	gossh "golang.org/x/crypto/ssh"

	"bake/communicator/ssh"
	"bake/config/schema"
	"bake/docs"
)

func decode(t *testing.T, body string) (ssh.Options, hcl.Diagnostics) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "test.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	o := ssh.Defaults()
	_, diags = schema.Decode(schema.Input{Body: f.Body, Context: &hcl.EvalContext{}}, &o)
	return o, diags
}

func TestOptions(t *testing.T) {
	key, other := newKey(t), newKey(t)
	keyFile := writeKey(t, key)
	otherCert := certificate(t, other, newKey(t), "me", nil)
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	const user = "ssh_username = \"me\"\n"
	tests := []struct{ body, at, want string }{
		{``, ``, "name of the user"},
		{`communicator = "telnet"`, `communicator`, `"telnet" is not one of "ssh", "winrm", "none"`},
		{user + `ssh_port = 70000`, `ssh_port`, "1 to 65535"},
		{user + `ssh_timeout = "-1s"`, `ssh_timeout`, "negative"},
		{user + `ssh_timeout = "soon"`, `ssh_timeout`, "duration"},
		{user + `ssh_handshake_attempts = -1`, `ssh_handshake_attempts`, "negative"},
		{user + `ssh_private_key_file = "/no/such/key"`, `ssh_private_key_file`, "no such file"},
		{user + fmt.Sprintf("ssh_private_key_file = %q", junk), `ssh_private_key_file`, "not a private key"},
		{user + fmt.Sprintf("ssh_private_key_file = %q\nssh_certificate_file = %q", keyFile, junk), `ssh_certificate_file`, "not an OpenSSH certificate"},
		{user + fmt.Sprintf("ssh_private_key_file = %q\nssh_certificate_file = %q", keyFile, otherCert), `ssh_certificate_file`, "a different key"},
		{user + fmt.Sprintf("ssh_certificate_file = %q", otherCert), `ssh_certificate_file`, "needs ssh_private_key_file"},
		{user + `ssh_host_keys = ["ssh-ed25519 ???"]`, `ssh_host_keys`, "not a public key"},
		{user + `ssh_known_hosts_file = "/no/such/file"`, `ssh_known_hosts_file`, "no such file"},
		{user + `ssh_host_key_check = "never"`, `ssh_host_key_check`, `"pin", "strict", "off"`},
		{user + `ssh_ciphers = ["rot13"]`, `ssh_ciphers`, "not a supported cipher"},
		{user + `ssh_key_exchange_algorithms = ["rot13"]`, `ssh_key_exchange`, "not a supported key exchange algorithm"},
		{user + `ssh_file_transfer_method = "ftp"`, `ssh_file_transfer_method`, `"scp", "sftp"`},
		{user + `ssh_local_tunnels = ["80"]`, `ssh_local_tunnels`, "port:host:hostport"},
		{user + `ssh_remote_tunnels = ["80:host:x"]`, `ssh_remote_tunnels`, `"x" is not a TCP port`},
		{user + `ssh_bastion_host = "b"`, ``, "ssh_bastion_username"},
		{user + "ssh_bastion_host = \"b\"\nssh_bastion_username = \"u\"\nssh_bastion_private_key_file = \"/no/such/key\"", `ssh_bastion_private_key_file`, "no such file"},
		{user + "ssh_bastion_host = \"b\"\nssh_bastion_username = \"u\"\nssh_bastion_port = 70000", `ssh_bastion_port`, "1 to 65535"},
		{user + "ssh_proxy_host = \"p\"\nssh_proxy_port = -1", `ssh_proxy_port`, "1 to 65535"},
		{user + "ssh_bastion_host = \"b\"\nssh_bastion_username = \"u\"", `ssh_bastion_host`, "No way to log in"},
		{user + `ssh_proxy_host = "ftp://p:21"`, `ssh_proxy_host`, "use socks5, http or https"},
		{user + `ssh_proxy_host = "http://u:p@h"`, `ssh_proxy_host`, "ssh_proxy_username"},
		{user + `ssh_proxy_host = "http://h/path"`, `ssh_proxy_host`, "not the URL of a proxy"},
		{user + "ssh_bastion_host = \"b\"\nssh_bastion_username = \"u\"\nssh_bastion_agent_auth = true\nssh_proxy_host = \"p\"", `ssh_proxy_host`, "one or the other"},
	}
	for _, tt := range tests {
		_, diags := decode(t, tt.body)
		if !diags.HasErrors() {
			t.Errorf("accepted: %s", tt.body)
			continue
		}
		d, _ := errors.AsType[*hcl.Diagnostic](diags.Errs()[0])
		line := strings.Split(tt.body, "\n")[d.Subject.Start.Line-1]
		if text := d.Summary + ": " + d.Detail; !strings.Contains(text, tt.want) || !strings.Contains(line, tt.at) {
			t.Errorf("got %q at %q, want %q at %q", text, line, tt.want, tt.at)
		}
	}
}

func TestGoodOptions(t *testing.T) {
	for _, body := range []string{
		`communicator = "none"`,
		"ssh_username = \"me\"\nssh_local_tunnels = [\"8080:example.org:80\", \"1:[::1]:2\"]",
		"ssh_username = \"me\"\nssh_bastion_host = \"b\"\nssh_bastion_username = \"u\"\nssh_bastion_password = \"p\"",
		// Options for a bastion host or a proxy are not checked if there is none.
		"ssh_username = \"me\"\nssh_bastion_private_key_file = \"/no/such/key\"\nssh_bastion_certificate_file = \"/no/such/cert\"",
		"ssh_username = \"me\"\nssh_bastion_port = 0\nssh_proxy_port = 0",
		"ssh_username = \"me\"\nssh_bastion_port = 70000\nssh_proxy_port = -1",
		"ssh_username = \"me\"\nssh_bastion_host = \"\"\nssh_proxy_host = \"\"",
		"ssh_username = \"me\"\nssh_ciphers = [\"aes128-ctr\", \"3des-cbc\"]",
	} {
		if _, diags := decode(t, body); diags.HasErrors() {
			t.Errorf("%s: %v", body, diags)
		}
	}
	if _, diags := decode(t, "ssh_username = \"me\"\nssh_wait_timeout = \"1m\""); len(diags) != 1 || diags[0].Severity != hcl.DiagWarning {
		t.Errorf("ssh_wait_timeout: %v", diags)
	}
}

// A certificate that is not valid now is only a warning, because it may have been renewed when the
// build runs.
func TestDoubtfulCertificate(t *testing.T) {
	key, authority := newKey(t), newKey(t)
	for wanted, cert := range map[string]string{
		"expired on":             certificate(t, key, authority, "me", func(c *gossh.Certificate) { c.ValidBefore = 1 }),
		"is for you, not for me": certificate(t, key, authority, "you", nil),
		"is one of a host":       certificate(t, key, authority, "me", func(c *gossh.Certificate) { c.CertType = gossh.HostCert }),
		"":                       certificate(t, key, authority, "me", nil),
	} {
		body := fmt.Sprintf("ssh_username = \"me\"\nssh_private_key_file = %q\nssh_certificate_file = %q", writeKey(t, key), cert)
		_, diags := decode(t, body)
		if wanted == "" && len(diags) > 0 || wanted != "" && (len(diags) != 1 || diags[0].Severity != hcl.DiagWarning || !strings.Contains(diags[0].Detail, wanted)) {
			t.Errorf("%q: %v", wanted, diags)
		}
	}
}

// 0 means that an option is not set.
func TestZeroIsNotSet(t *testing.T) {
	body := "ssh_username = \"me\"\nssh_port = 0\nssh_bastion_port = 0\nssh_proxy_port = 0\nssh_keep_alive_interval = \"0s\""
	o, diags := decode(t, body)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d := ssh.Defaults()
	if o.Port != d.Port || o.BastionPort != d.BastionPort || o.ProxyPort != d.ProxyPort || o.KeepAliveInterval != d.KeepAliveInterval {
		t.Errorf("got %+v, want the defaults", o)
	}
}

func TestDocs(t *testing.T) {
	if _, err := docs.Options(ssh.Defaults()); err != nil {
		t.Error(err)
	}
}
