package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/crypto/ssh"

	"bake/builtin"
	"bake/builtin/reference"
)

// notTogether are groups of options of which an example may contain only one.
var notTogether = [][]string{
	{"source_ami", "source_ami_filter"}, {"inline", "script", "scripts"}, {"source", "content"},
	{"instance_type", "spot_instance_types"}, {"ssh_private_key_file", "ssh_password"},
}

// without returns a block's text without the arguments that an example sets, or that conflict with
// them.
func without(t *testing.T, block, example string) string {
	t.Helper()
	var given []string
	for name := range arguments(t, example) {
		given = append(given, name)
		for _, set := range notTogether {
			if slices.Contains(set, name) {
				given = append(given, set...)
			}
		}
	}
	f, diags := hclsyntax.ParseConfig([]byte(block), "block", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %s", block, diags)
	}
	body := f.Body.(*hclsyntax.Body).Blocks[0].Body
	text := []byte(block)
	for name, rng := range ranges(body) {
		if slices.Contains(given, name) {
			copy(text[rng.Start.Byte:rng.End.Byte], bytes.Repeat([]byte(" "), rng.End.Byte-rng.Start.Byte))
		}
	}
	end := bytes.LastIndexByte(text, '}')
	return string(text[:end]) + example + string(text[end:])
}

func arguments(t *testing.T, body string) map[string]hcl.Range {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "example", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %s", body, diags)
	}
	return ranges(f.Body.(*hclsyntax.Body))
}

func ranges(body *hclsyntax.Body) map[string]hcl.Range {
	all := map[string]hcl.Range{}
	for name, a := range body.Attributes {
		all[name] = a.SrcRange
	}
	for _, b := range body.Blocks {
		all[b.Type] = hcl.RangeBetween(b.TypeRange, b.CloseBraceRange)
	}
	return all
}

// template writes a template with a block of a component. It is valid if the block is.
func template(t *testing.T, kind, block string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"install.sh", "harden.sh", "install.ps1", "site.yml", "requirements.yml", "site/index.html", "roles/web/tasks/main.yml",
		"x509.cert", "x509.key", "cloud-init.yaml",
	} {
		write(name, "")
	}
	write("web.yaml", "file:\n  /etc/hostname:\n    exists: true\n")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	write("id_ed25519", string(pem.EncodeToMemory(key)))
	const source = "source \"null\" \"web\" {\n  communicator = \"none\"\n}\n"
	const image = "source \"amazon-ebs\" \"web\" {\n  region = \"us-east-1\"\n  instance_type = \"t3.micro\"\n  ssh_username = \"admin\"\n  ami_name = \"web-1\"\n  source_ami = \"ami-0123456789abcdef0\"\n}\n"
	const build = "build {\n  name    = \"web\"\n  sources = [\"null.web\"]\n"
	switch kind {
	case "builder":
		source, _ := hclsyntax.ParseConfig([]byte(block), "block", hcl.InitialPos)
		b := source.Body.(*hclsyntax.Body).Blocks[0]
		write("t.pkr.hcl", block+fmt.Sprintf("build {\n  sources = [%q]\n}\n", strings.Join(b.Labels, ".")))
	case "provisioner", "post-processor":
		write("t.pkr.hcl", source+build+block+"}\n")
	case "bake-file":
		write("t.pkr.hcl", image+strings.Replace(build, "null", "amazon-ebs", 1)+"}\n")
		write("t.bake.hcl", block)
	case "block provisioner", "block post-processor":
		write("t.pkr.hcl", image+strings.Replace(build, "null", "amazon-ebs", 1)+block+"}\n")
	case "block build":
		write("t.pkr.hcl", image+block)
	default:
		write("t.pkr.hcl", block+source+build+"}\n")
	}
	return dir
}

// TestExamplesOfOptions: every example of the reference is valid in a template, every
// component has one, and so has every group of options.
func TestExamplesOfOptions(t *testing.T) {
	refs, err := reference.Of(builtin.Parts{}.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, kind, block string) {
		t.Run(name, func(t *testing.T) {
			t.Chdir(template(t, kind, block))
			var out, errOut bytes.Buffer
			env := []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
			if code := bake([]string{"bake", "validate", "."}, env, strings.NewReader(""), &out, &errOut); code != 0 || strings.Contains(errOut.String(), "Warning") {
				t.Errorf("exit code %d\n%s%s\n%s", code, &out, &errOut, block)
			}
		})
	}
	for _, r := range refs {
		name := r.Kind + " " + r.Name
		if r.Text == "" || r.Example == "" {
			t.Errorf("docs/reference has no text or no example for %s", name)
			continue
		}
		kind := r.Kind
		if kind == "block" {
			kind = "block " + r.Name
		}
		check(name, kind, r.Example)
		for _, g := range r.Groups {
			switch {
			case g.Name == "":
			case g.Example == "" || g.Text == "":
				t.Errorf("docs/reference has no text or no example that fits %s: %s", name, g.Name)
			default:
				check(name+" "+g.Name, r.Kind, without(t, r.Example, g.Example))
			}
		}
	}
}

// TestArgumentsOfBlocks: the reference lists every argument and block of templates.
func TestArgumentsOfBlocks(t *testing.T) {
	refs, err := reference.Of(builtin.Parts{}.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	files, err := filepath.Glob(filepath.Join("..", "..", "config", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(text)
	}
	for variable, block := range map[string]string{
		"packerSchema": "packer", "variableSchema": "variable", "validationSchema": "variable", "localSchema": "local",
		"buildSchema": "build", "provisionerSchema": "provisioner", "postProcessorSchema": "post-processor",
	} {
		body := regexp.MustCompile(`(?s)var ` + variable + ` = .*?\n}`).FindString(source.String())
		names := regexp.MustCompile(`(?:Name|Type): "([^"]+)"`).FindAllStringSubmatch(body, -1)
		if len(names) == 0 {
			t.Errorf("package config has no %s", variable)
		}
		of := slices.DeleteFunc(reference.Named(refs, block), func(r reference.Component) bool { return r.Kind != "block" })
		for _, m := range names {
			if m[1] == "from" { // without effect
				continue
			}
			if _, err := reference.Narrow(of, m[1]); err != nil {
				t.Errorf("docs/reference/blocks.txt: %v", err)
			}
		}
	}
}

// TestSchema: for templates in JSON, the schema for editors agrees with bake, and it rejects a
// wrong option.
func TestSchema(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := bake([]string{"bake", "docs", "-schema"}, nil, strings.NewReader(""), &out, &errOut); code != 0 {
		t.Fatalf("bake docs -schema ends with %d: %s", code, errOut.String())
	}
	parsed, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("template.json", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("template.json")
	if err != nil {
		t.Fatal(err)
	}
	valid := func(text string) error {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(v)
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "valid", "*.pkr.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("there are no templates in JSON", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const template = `{
		"source": {"amazon-ebs": {"web": {"ami_name": "web", "%s": ["987654321098"], "ssh_timeout": "5m", "source_ami_filter": [{"owners": ["self"], "most_recent": true}]}}},
		"variable": {"size": {"type": "number", "default": 8}},
		"build": [{"sources": ["source.amazon-ebs.web"], "provisioner": [{"shell": {"inline": ["true"], "%s": "10s", "override": {"web": {"inline": ["false"]}}}}]}]
	}`
	for _, test := range []struct {
		option, argument string
		ok               bool
	}{
		{"ami_users", "pause_before", true}, {"ami_user", "pause_before", false}, {"ami_users", "pause", false}, {"ami_name", "pause_before", false},
	} {
		if err := valid(fmt.Sprintf(template, test.option, test.argument)); (err == nil) != test.ok {
			t.Errorf("%s, %s: %v", test.option, test.argument, err)
		}
	}
}
