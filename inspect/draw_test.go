package inspect_test

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/config"
	"bake/inspect"
)

const drawn = `
variable "secret" {
  default   = "hunter2 and Hunter3"
  sensitive = true
}
variable "accounts" { type = list(string) }
variable "from" { default = "" }
data "amazon-ami" "base" { owners = ["self"] }
locals { image = data.amazon-ami.base.id }
source "amazon-ebs" "base" { source_ami = local.image }
source "null" "b" { communicator = "none" }
build {
  name    = "base"
  sources = ["amazon-ebs.base", "null.b"]
  provisioner "shell" {
    name = "</text><script>\u001b[2J\u202e&'\""
    only = ["null.b"]
  }
  provisioner "file" {}
  error-cleanup-provisioner "shell-local" {}
  post-processors {
    post-processor "checksum" { name = "hunter2 and Hunter3" }
    post-processor "manifest" {}
  }
  post-processor "compress" {}
}
build { sources = ["null.b"] }
`

const drawnImages = `
image "web" {
  for_each = toset(["x", "y"])
  sources  = ["null.b"]
  vars     = { from = image.base.id }
  distribute {
    regions  = ["eu-west-1", each.key]
    accounts = var.accounts
  }
}
image "base" {
  build = "base"
  channel "candidate" {}
  channel "stable" { from = "candidate" }
  distribute { accounts = [var.secret] }
}
`

// draw returns the picture of a template as text and as SVG.
func draw(t *testing.T, only []string) (text, svg string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "t.pkr.hcl")
	for name, content := range map[string]string{path: drawn, filepath.Join(dir, "t.bake.hcl"): drawnImages} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := config.Options{Path: path, Cwd: dir}
	outline, diags := config.ReadOutline(t.Context(), o)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	images, diags := config.ReadImages(t.Context(), o)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	inspected, diags := inspect.Of(outline, only, nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	p := inspect.Draw(t.Context(), outline, inspected, images.All)
	var a, b strings.Builder
	p.Text(&a)
	if err := p.SVG(&b, "<"+filepath.Base(path)+">"); err != nil {
		t.Fatal(err)
	}
	return a.String(), b.String()
}

func TestDraw(t *testing.T) {
	text, svg := draw(t, nil)
	want := `data sources
└── amazon-ami.base

build base
├── source amazon-ebs.base ← data.amazon-ami.base
├── source null.b
├── provisioner shell.</text><script>�[2J�&'" (only base.null.b)
├── provisioner file
├── post-processor checksum.<sensitive>
│   └── post-processor manifest
├── post-processor compress
└── error-cleanup-provisioner shell-local

build <unnamed build 1>
└── source null.b

image base
├── build base.amazon-ebs.base
├── build base.null.b
├── account <sensitive>
├── channel candidate
└── channel stable ← candidate

image web/x
├── build null.b
├── needs image base
├── region eu-west-1
├── region x
└── account <unknown>

image web/y
├── build null.b
├── needs image base
├── region eu-west-1
├── region y
└── account <unknown>
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for range 5 {
		if again, same := draw(t, nil); again != text || same != svg {
			t.Fatal("the same template is drawn in two ways")
		}
	}
	if text, _ := draw(t, []string{"null.b"}); strings.Contains(text, "\nimage base\n") || !strings.Contains(text, "\nimage web/x\n") {
		t.Errorf("with -only=null.b:\n%s", text)
	}
}

// TestDrawSVG reads the SVG as a browser would: names are text, and nothing else.
func TestDrawSVG(t *testing.T) {
	_, svg := draw(t, nil)
	elements := map[string]int{}
	var texts []string
	for dec := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in:\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			elements[token.Name.Local]++
		case xml.CharData:
			texts = append(texts, string(token))
		}
	}
	want := map[string]int{"svg": 1, "style": 1, "defs": 1, "marker": 1, "title": 25, "g": 24, "rect": 24, "text": 48, "path": 25}
	if diff := cmp.Diff(want, elements); diff != "" {
		t.Errorf("elements, -want +got:\n%s\n%s", diff, svg)
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"<t.pkr.hcl>", "shell.</text><script>", "web/x", "<unknown>", "prefers-color-scheme: dark"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in the text:\n%s", want, all)
		}
	}
	if !strings.Contains(svg, `role="img"`) || strings.Contains(svg, "hunter2") || strings.ContainsAny(svg, "\x1b\u202e") {
		t.Errorf("the SVG is:\n%s", svg)
	}
}
