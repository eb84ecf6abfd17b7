package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/config"
)

const template = `
variable "tier" { default = "web" }
source "null" "base" { communicator = "none" }
source "null" "web" { communicator = "none" }
build {
  sources = ["null.base", "null.web"]
}
`

func load(t *testing.T, bakeFile string) (*Template, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"web.pkr.hcl": template, "x.bake.hcl": bakeFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded, diags := Load(t.Context(), config.Options{Path: ".", Cwd: dir})
	var said []string
	for _, d := range diags {
		said = append(said, d.Error())
	}
	return loaded, strings.Join(said, "\n")
}

const images = `
image "base" {
  sources  = ["null.base"]
}
image "web" {
  sources  = ["null.web"]
  for_each = toset(["a", "b"])
  vars     = { tier = image.base.id }
}
`

func TestLoad(t *testing.T) {
	loaded, said := load(t, images+`
fleet "nightly" {
  images = [image.web["b"], image.base]
  matrix {
    account = ["111111111111", "222222222222"]
    region  = ["eu-west-1", "eu-central-1"]
  }
  role = "arn:aws:iam::${each.account}:role/bake"
}
engine "temporal" {
  address = "localhost:7233"
}
`)
	if said != "" {
		t.Fatalf("diagnostics = %q, want none", said)
	}
	f, err := loaded.Fleet("")
	if err != nil || len(f.Cells) != 8 || f.Engine == nil || f.Engine.Namespace != "default" || f.Limits.Parallel != 10 {
		t.Fatalf("%+v, %v", f, err)
	}
	c := f.Cells[6]
	if c.ID() != "bake/nightly/web/b/222222222222/eu-west-1" || c.Role != "arn:aws:iam::222222222222:role/bake" || strings.Join(c.Needs, " ") != "bake/nightly/base/222222222222/eu-west-1" {
		t.Errorf("%+v", c)
	}
	if same, ok := f.Cell(c.ID()); !ok || same.Short() != c.Short() {
		t.Errorf("the cell of the ID is %+v", same)
	}
	i, err := loaded.Instance(c, []Outcome{{Cell: f.Cells[2], Image: Image{ID: "ami-1"}}})
	if err != nil || i.Key != "b" || i.Known["base"].ID != "ami-1" || i.Each.AsString() != "b" {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := NewOrder(f.Cells, f.Limits, false, nil); err != nil {
		t.Error(err)
	}
	if _, err := loaded.Fleet("weekly"); err == nil || !strings.Contains(err.Error(), "it has: nightly") {
		t.Error(err)
	}
}

func TestLoadComplains(t *testing.T) {
	const matrix = "\n  matrix {\n    account = [\"111111111111\"]\n    region = [\"eu-west-1\"]\n  }\n}\n"
	for _, test := range []struct{ text, want string }{
		{"fleet \"a\" {\n  images = [image.web]" + matrix, "x.bake.hcl:11,13-22: Missing parent; The image web[\"a\"] refers to base, which the fleet does not have. Add image.base to images."},
		{"fleet \"a\" {\n  images = [image.base, image.web[\"c\"]]" + matrix, "x.bake.hcl:11,25-39: No such image; There is no image.web[\"c\"]. There are: image.web[\"a\"], image.web[\"b\"]."},
		{"fleet \"a\" {\n  images = [image.base]\n  matrix {\n    account = [var.account]\n    region = [\"eu-west-1\"]\n  }\n}\n", "account"},
	} {
		if _, said := load(t, images+test.text); !strings.Contains(said, test.want) {
			t.Errorf("%s\n%q is not %q", test.text, said, test.want)
		}
	}
}

// TestLoadTwice: a fleet must not bake an image in a region to which the image is also
// copied or distributed. Each such region is reported once.
func TestLoadTwice(t *testing.T) {
	const sources = "source \"amazon-ebs\" \"web\" {\n  ami_regions = [\"eu-west-1\", \"us-west-2\"]\n}\nbuild {\n  sources = [\"amazon-ebs.web\"]\n}\n"
	const web = "image \"web\" {\n  sources = [\"amazon-ebs.web\"]\n  for_each = toset([\"a\", \"b\"])\n DISTRIBUTE\n}\n"
	for _, test := range []struct{ distribute, regions, want string }{
		{"", `"eu-west-1", "us-east-1"`, "x.pkr.hcl:2,17-43: Baked and copied there; The image \"web\" is copied to eu-west-1"},
		{`distribute { regions = ["us-east-1"] }`, `"us-east-1", "sa-east-1"`, "Baked and distributed there; The image \"web\" is distributed to us-east-1"},
		{`distribute { regions = ["eu-north-1"] }`, `"us-east-1", "sa-east-1"`, ""},
		{"", `"eu-west-1"`, ""}, // that of the cell itself
	} {
		dir := t.TempDir()
		files := map[string]string{"x.pkr.hcl": sources, "x.bake.hcl": strings.Replace(web, "DISTRIBUTE", test.distribute, 1) +
			"fleet \"f\" {\n  images = [image.web]\n  matrix {\n    account = [\"111111111111\"]\n    region = [" + test.regions + "]\n  }\n}\n"}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, diags := Load(t.Context(), config.Options{Path: ".", Cwd: dir})
		if diags.HasErrors() != (test.want != "") || len(diags) > 1 || test.want != "" && !strings.Contains(diags[0].Error(), test.want) {
			t.Errorf("%s in %s: %v", test.distribute, test.regions, diags)
		}
	}
}
