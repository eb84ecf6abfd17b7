package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/golden/attest"
)

// TestJSONIsDocumented runs commands with -json. Every line of output is an object with the
// header, the last one is the result with the exit code, and docs/json.md describes every field.
func TestJSONIsDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	template := filepath.Join(dir, "t.pkr.hcl")
	text := `
variable "a" {
  default     = "x"
  description = "An a."
}
source "null" "x" { communicator = "none" }
build {
  description = "All."
  sources     = ["null.x"]
  provisioner "shell-local" { inline = ["echo hello"] }
  error-cleanup-provisioner "shell-local" { inline = ["true"] }
  post-processors {
    post-processor "shell-local" { inline = ["exit 3"] }
  }
}
`
	if err := os.WriteFile(template, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	untidy := filepath.Join(dir, "untidy.pkr.hcl")
	if err := os.WriteFile(untidy, []byte("locals {\na   = 1\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(dir, "plugins.pkr.hcl")
	text = "packer {\n  required_plugins {\n    aws = {\n      source  = \"github.com/hashicorp/amazon\"\n      version = \"~> 1\"\n    }\n    x = {\n      source  = \"github.com/x/y\"\n      version = \"~> 1\"\n    }\n  }\n}\n"
	if err := os.WriteFile(plugins, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	attestation, key := attestation(t, dir)
	env := []string{"BAKE_STATE_DIR=" + filepath.Join(dir, "state"), "BAKE_CLOUD_DIR=" + filepath.Join(dir, "cloud"), "PATH=" + os.Getenv("PATH")}
	for _, test := range []struct {
		args string
		in   string
		exit int
	}{
		{"version", "", 0}, {"version extra", "", 1}, {"nosuch", "", 127}, {"validate -var a", "", 1},
		{"validate " + template, "", 0}, {"validate -var b=1 " + template, "", 1}, {"validate " + dir + "/none", "", 1},
		{"inspect " + template, "", 0}, {"console " + template, "var.a\nvariables\nhelp\n", 0}, {"console", "1 +\n", 1},
		{"build " + template, "", 1}, {"sweep", "", 0}, {"docs", "", 0}, {"docs amazon-ebs", "", 0},
		{"docs functions upper", "", 0}, {"docs guide 1", "", 0}, {"docs -search ledger", "", 0}, {"docs -search xylophone", "", 1},
		{"fmt -check -diff " + untidy, "", 3}, {"fmt -", "a=1\n", 0},
		{"init " + plugins, "", 1}, {"plugins required " + plugins, "", 0}, {"plugins installed", "", 0}, {"fix " + template, "", 1},
		{"verify-attestation -key " + key + " " + attestation, "", 0}, {"verify-attestation -key " + key + " " + template, "", 1},
	} {
		var out, errOut bytes.Buffer
		code := bake(append(append([]string{"bake"}, strings.Fields(test.args)...), "-json"), env, strings.NewReader(test.in), &out, &errOut)
		if code != test.exit {
			t.Errorf("%s: exit code %d, want %d: %s", test.args, code, test.exit, &out)
		}
		if errOut.Len() > 0 {
			t.Errorf("%s: standard error has %q", test.args, &errOut)
		}
		last := map[string]any{}
		lines := bufio.NewReader(&out)
		for {
			line, err := lines.ReadString('\n')
			if err == io.EOF && line == "" {
				break
			}
			object := map[string]any{}
			if err := json.Unmarshal([]byte(line), &object); err != nil {
				t.Fatalf("%s: %q: %v", test.args, line, err)
			}
			if !strings.HasPrefix(line, `{"schema":1,"command":"`) {
				t.Errorf("%s: an object starts with %.40q", test.args, line)
			}
			undocumented(t, string(doc), object)
			last = object
		}
		if last["kind"] != "result" || last["exit_code"] != float64(code) || last["ok"] != (code == 0) {
			t.Errorf("%s: the last object is %v", test.args, last)
		}
	}
}

// attestation makes an attestation in dir, and the key that it is signed with.
func attestation(t *testing.T, dir string) (file, key string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := attest.New([]attest.Resource{attest.Image("eu-west-1", "ami-1")}, attest.CycloneDX, map[string]any{})
	if err == nil {
		text, err = attest.Sign(text, private)
	}
	if err != nil {
		t.Fatal(err)
	}
	file, key = filepath.Join(dir, "att.json"), filepath.Join(dir, "key.pem")
	err = errors.Join(os.WriteFile(file, text, 0o600), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return file, key
}

// undocumented reports fields of v that doc does not name. The names within values,
// and of maps, are not fields.
func undocumented(t *testing.T, doc string, v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			undocumented(t, doc, e)
		}
	case map[string]any:
		for name, e := range v {
			if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, "."+name+"`") {
				t.Errorf("docs/json.md says nothing of %q", name)
			}
			switch name {
			case "value", "values", "data", "images", "with", "environment", "tags":
			default:
				undocumented(t, doc, e)
			}
		}
	}
}

// full is an output on which every write fails.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestLostOutput: a command whose output cannot be written fails and says why.
func TestLostOutput(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, args := range [][]string{{"runs"}, {"version"}, {"runs", "-json"}, {"validate", "-json", "missing.pkr.hcl"}} {
		var stderr bytes.Buffer
		code := bake(append([]string{"bake"}, args...), os.Environ(), strings.NewReader(""), full{}, &stderr)
		if code != 1 || !strings.Contains(stderr.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%s: %d, %q", args, code, stderr.String())
		}
	}
}
