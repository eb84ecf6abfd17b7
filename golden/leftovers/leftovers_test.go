package leftovers

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/golden/findings"
)

// A value is found at any position in an encoded text.
func TestPatterns(t *testing.T) {
	const secret = "correct horse battery"
	all := patterns([]string{secret, "short", "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\n-----END KEY-----\n"})
	for _, text := range []string{secret, "user:" + secret, "pw=" + secret + "\n", "x" + secret + "yz"} {
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			code := e.EncodeToString([]byte(text))
			if !slices.ContainsFunc(all, func(p string) bool { return strings.Contains(code, p) }) {
				t.Errorf("%q in base64, %s, is not found", text, code)
			}
		}
	}
	for _, p := range all {
		if len(p) < Shortest || p == "short" || strings.HasPrefix(p, "-----") {
			t.Errorf("%q is looked for", p)
		}
	}
	if !slices.Contains(all, "MIIEpAIBAAKCAQEA") {
		t.Error("a line of a text of several lines is not looked for")
	}
}

// A value is also found in the notation of other formats.
func TestPatternsOfOtherFormats(t *testing.T) {
	const secret = `pa/ss "word" <&>+ä`
	all := patterns([]string{secret})
	for name, text := range map[string]string{
		"hex":       hex.EncodeToString([]byte("password=" + secret)),
		"upper hex": strings.ToUpper(hex.EncodeToString([]byte(secret + "\n"))),
		"query":     "https://example.com/?x=1&" + url.Values{"password": {secret}}.Encode(),
		"path":      "https://example.com/" + url.PathEscape(secret) + "/",
		"JSON":      `{"password":"pa/ss \"word\" <&>+ä"}`,
		"HTML-safe": `{"password":"pa/ss \"word\" \u003c\u0026\u003e+ä"}`,
	} {
		if !slices.ContainsFunc(all, func(p string) bool { return strings.Contains(text, p) }) {
			t.Errorf("%s: not found in %s", name, text)
		}
	}
}

// Base64 has line breaks, wherever they split the value.
func TestPatternsInLines(t *testing.T) {
	for _, secret := range []string{"correct horse battery staple", strings.Repeat("correct horse battery staple ", 9)} {
		all := patterns([]string{secret})
		for _, width := range []int{64, 76} {
			for before := range width {
				code, lines := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before)+secret)), []string(nil)
				for len(code) > width {
					lines, code = append(lines, code[:width]), code[width:]
				}
				text := strings.Join(append(lines, code), "\n")
				if !slices.ContainsFunc(all, func(p string) bool { return strings.Contains(text, p) }) {
					t.Errorf("%q is not found in\n%s", secret, text)
				}
			}
		}
	}
}

func TestJudge(t *testing.T) {
	found := []line{{"found", "private-keys", "/root/.ssh/id\x1b[31m"}, {"removed", "histories", "/root/.bash_history"}, {"stuck", "caches", "/var/cache/yum/x"}}
	want := map[string]findings.Result{"leftovers-private-keys": findings.Fail, "leftovers-histories": findings.Fixed, "leftovers-caches": findings.Fail}
	for _, f := range judge(found, kinds()) {
		expected := want[f.ID]
		if expected == "" {
			expected = findings.Pass
		}
		if f.Result != expected || strings.Contains(f.Evidence, "\x1b") {
			t.Errorf("%s: %s, %q", f.ID, f.Result, f.Evidence)
		}
	}
}

func TestAllows(t *testing.T) {
	p := Plan{Allow: []string{"/opt/app/", "/etc/key.pem"}}
	for file, want := range map[string]bool{"/opt/app": true, "/opt/app/key": true, "/opt/application": false, "/etc/key.pem": true, "/etc/key.pem2": false} {
		if p.allows(file) != want {
			t.Errorf("%s: %v", file, !want)
		}
	}
}

func TestScriptsAreShell(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	c := exec.CommandContext(t.Context(), sh, "-n")
	c.Stdin = strings.NewReader(hostKeys + settled + search + remove)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%s: %s", err, out)
	}
}

// Leftovers that disappear by themselves close no gate, whatever they contain.
func TestWithout(t *testing.T) {
	found := []line{
		{"found", "secrets", "/var/lib/cloud/instances/i-1/user-data.txt"}, {"found", "private-keys", "/tmp/bake-1"}, {"found", "secrets", "/tmp/bake-10"},
		{"goes", "instance-data", "/var/lib/cloud/instances/i-1"}, {"goes", "scripts", "/tmp/bake-1"},
	}
	if got, want := without(slices.Clone(found), "goes"), found[2:]; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := without(slices.Clone(found), "removed"); !slices.Equal(got, found) {
		t.Errorf("nothing was removed: %v", got)
	}
}

func TestHolders(t *testing.T) {
	for said, want := range map[string]string{
		"status 1\n":                       "",
		"/etc/a\r\n/opt/b\r\nstatus 0\r\n": "/etc/a /opt/b ",
		"Welcome.\nstatus 2\n":             "",
		"/etc/a\nstatus 2\n":               "/etc/a ",
		"":                                 "error",
		"/etc/a\n":                         "error",
		"/etc/status 0":                    "error",
		"status 127\n":                     "error",
		"grep: unrecognized option: s\nstatus 2\n": "error",
	} {
		found, err := holders(said)
		got := ""
		for _, l := range found {
			got += l.path + " "
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %q, %v", said, got, err)
		}
	}
}

// Keys in the user data are not the instance's own keys, wherever cloud-init has written them.
func TestLogins(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	key := func(c string) string { return "AAAAC3NzaC1lZDI1NTE5AAAAI" + strings.Repeat(c, 44) }
	data := filepath.Join(t.TempDir(), "instance-data.json")
	text := `{
 "ds": {
  "meta_data": {
   "public-keys": {
    "build": ["ssh-ed25519 ` + key("A") + ` build"]
   },
   "tags": "\n \"public_ssh_keys\": [\"ssh-ed25519 ` + key("B") + `\"]"
  }
 },
 "merged_cfg": {
  "ssh_authorized_keys": [
   "ssh-ed25519 ` + key("C") + ` mine"
  ]
 },
 "userdata": "#cloud-config\nssh_authorized_keys: [ssh-ed25519 ` + key("D") + `]",
 "v1": {
  "public_ssh_keys": [
   "ssh-ed25519 ` + key("A") + ` build"
  ],
  "region": "us-east-1"
 }
}
`
	if err := os.WriteFile(data, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	functions, _, _ := strings.Cut(search, "# others prints")
	c := exec.CommandContext(t.Context(), sh, "-c", "KEYS='(none)'\n"+strings.ReplaceAll(functions, "/run/cloud-init/instance-data.json", data)+"\nlogins")
	out, err := c.Output()
	if want := "(none)\n" + key("A") + "\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

// TestSettled: a running cloud-init closes the gate. Its result is a dangling link after
// cloud-init clean, and after Remove has run once.
func TestSettled(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	for name, c := range map[string]struct {
		files []string
		link  bool
		want  string
	}{
		"not there":  {},
		"turned off": {files: []string{"enabled", "disabled"}},
		"done":       {files: []string{"enabled", "result.json"}},
		"cleaned":    {files: []string{"enabled"}, link: true},
		"at work":    {files: []string{"enabled"}, want: "found cloud-init /run/cloud-init\n"},
	} {
		dir := t.TempDir()
		for _, f := range c.files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.link {
			if err := os.Symlink("../../var/lib/cloud/data/result.json", filepath.Join(dir, "result.json")); err != nil {
				t.Fatal(err)
			}
		}
		script := "say() { echo \"$@\"; }\n" + strings.ReplaceAll(settled, "/run/cloud-init/", dir+"/")
		cmd := exec.CommandContext(t.Context(), sh)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != c.want {
			t.Errorf("%s: %q, %v, want %q", name, out, err, c.want)
		}
	}
}
