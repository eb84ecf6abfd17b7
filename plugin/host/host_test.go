package host

import (
	"bake/builder"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config/schema"
	"bake/plugin/keeper"
	"bake/plugin/plugintest"
	"bake/provisioner/provisionertest"
	"bake/step"
)

func TestMain(m *testing.M) {
	if code, ran := plugintest.Main(os.Args, os.Environ()); ran {
		os.Exit(code)
	}
	if ran, code := keeper.Child(os.Args); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// probe is the plugin of the tests, installed, with a journal.
type probe struct {
	*Plugin
	Components
	journal string
}

func newProbe(t *testing.T, env ...string) *probe {
	t.Helper()
	root := t.TempDir()
	plugintest.Install(t, root)
	set := Installed(Options{Dirs: []string{root}, Env: append(os.Environ(), env...), Keeper: keeper.Command()})
	p, err := set.Require(t.Context(), Requirement{Source: plugintest.Source})
	if err != nil {
		t.Fatal(err)
	}
	return &probe{p, p.Components(t.Context(), "probe"), filepath.Join(root, "journal")}
}

// notes returns the lines of the journal that begin with a word.
func (p *probe) notes(t *testing.T, word string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile(p.journal)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			lines = append(lines, strings.TrimSpace(rest))
		}
	}
	return lines
}

// input is a body as components get it, with the journal in its first line.
func (p *probe) input(t *testing.T, body string, vars map[string]cty.Value) schema.Input {
	t.Helper()
	in := provisionertest.Input(t, fmt.Sprintf("journal = %q\n%s", p.journal, body), vars)
	in.Build = schema.Build{Name: "web", Type: "fake", OnError: "cleanup"}
	return in
}

func text(diags hcl.Diagnostics) (out string) {
	for _, d := range diags {
		severity := "error"
		if d.Severity == hcl.DiagWarning {
			severity = "warning"
		}
		out += fmt.Sprintf("%s at %d:%d: %s: %s\n", severity, d.Subject.Start.Line, d.Subject.Start.Column, d.Summary, d.Detail)
	}
	return out
}

// made returns what a factory makes of a valid body.
func made[C any](t *testing.T, f component.Factory[C], in schema.Input) C {
	t.Helper()
	c, diags := f.New(in)
	if diags.HasErrors() {
		t.Fatal(text(diags))
	}
	return c
}

func scope(t *testing.T) (*step.Scope, *provisionertest.Log) { return provisionertest.Scope(t) }

func TestCheck(t *testing.T) {
	p := newProbe(t)
	b := p.Builders[0]
	unknown := map[string]cty.Value{"later": cty.UnknownVal(cty.String), "list": cty.UnknownVal(cty.List(cty.String)), "n": cty.UnknownVal(cty.Number)}
	for _, tt := range []struct{ name, body, want string }{
		{"fine", `text = "a"`, ""},
		{"unknown argument", "textt = 1", `error at 2:1: Unsupported argument: An argument named "textt" is not expected here. Did you mean "text"?`},
		{"unknown block", "dsk {\n}", `error at 2:1: Unsupported block type: Blocks of type "dsk" are not expected here. Did you mean "disk"?`},
		{"in a block", "disk {\n siz = 1\n}", `error at 3:2: Unsupported argument: An argument named "siz" is not expected here. Did you mean "size"?`},
		{"wrong type", "number = \"many\"", "error at 2:10: Incorrect attribute value type: Inappropriate value for attribute \"number\": a number is required."},
		{"one complaint", "errors = [\"text is not nice\"]\ntext = \"x\"", "error at 3:8: Not accepted by the plugin: probe: text is not nice"},
		{"many complaints", "errors = [\"number: too small\", \"nothing fits\", \"tags and text exclude each other\"]\nnumber = 3\ntext = \"x\"\ntags = {}",
			"error at 3:10: Not accepted by the plugin: probe: number: too small\n" +
				"error at 1:1: Not accepted by the plugin: probe: nothing fits\n" +
				"error at 5:8: Not accepted by the plugin: probe: tags and text exclude each other"},
		{"in a nested block", "errors = [\"bad bridge\"]\nnet {\n bridge = \"b\"\n}", "error at 4:11: Not accepted by the plugin: probe: bad bridge"},
		{"in several blocks", "errors = [\"bad size\"]\ndisk {\n size = \"1\"\n}\ndisk {\n size = \"2\"\n}", "error at 1:1: Not accepted by the plugin: probe: bad size"},
		{"warning", `warnings = ["flag is old"]`, "warning at 1:1: Message from the plugin: probe: flag is old"},
		{"of what is unknown", "errors = [\"text must be short\", \"number must be set\"]\ntext = var.later", "error at 1:1: Not accepted by the plugin: probe: number must be set"},
		{"of an unknown value", "errors = [\"<unknown> is no path\"]\ntags = { a = var.later }", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.TrimSpace(text(b.Check(p.input(t, tt.body, unknown)))); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
	in := p.input(t, "text = \"a ${var.later}\"\nnumber = var.n\ncommands = var.list\nupload = [\"x\", var.later]\n", unknown)
	if diags := b.Check(in); diags.HasErrors() {
		t.Fatal(text(diags))
	}
	notes := p.notes(t, "configured: ")
	if last := notes[len(notes)-1]; !strings.Contains(last, `text="<unknown>" number=0`) {
		t.Errorf("what is not known is handed over as %s", last)
	}
	_, diags := b.New(in)
	if got := strings.Count(text(diags), "Value not known"); got != 4 {
		t.Errorf("unknown values when the builder is made:\n%s", text(diags))
	}
}

// A plugin gets the same information as from Packer.
func TestConfigs(t *testing.T) {
	p := newProbe(t)
	body := "text = \"{{ user `x` }}\"\ntags = { a = \"b\" }\ndisk {\n name = \"d\"\n}"
	for _, tt := range []struct {
		kind  string
		check func(schema.Input) hcl.Diagnostics
		want  string
	}{
		{"builder", p.Builders[0].Check, `packer_build_name="web" packer_builder_type="fake" packer_core_version="1.16.0" packer_debug="true" packer_force="false" packer_on_error="abort"; text="{{ user ` + "`x`" + ` }}" number=0 flag=false tags=map[a:b] disks=[{d }] attributes=34`},
		{"provisioner", p.Provisioners[0].Check, `packer_build_name="web" packer_builder_type="fake" packer_core_version="1.16.0" packer_debug="true" packer_force="false" packer_on_error="abort" packer_sensitive_variables=["secret"]; text="{{ user ` + "`x`" + ` }}" number=0 flag=false tags=map[a:b] disks=[{d }] attributes=34; nil`},
		{"post-processor", p.PostProcessors[0].Check, `packer_sensitive_variables=["secret"]; text=`},
		{"data source", p.DataSources[0].Check, `text="{{ user`},
	} {
		os.Remove(p.journal)
		in := p.input(t, body, nil)
		in.Build.Debug, in.Build.OnError, in.Build.Sensitive = true, "abort", []string{"secret"}
		if diags := tt.check(in); diags.HasErrors() {
			t.Fatal(text(diags))
		}
		notes := p.notes(t, "configured: ")
		if len(notes) != 1 || !strings.Contains(notes[0], tt.want) {
			t.Errorf("%s: got %q, want %s", tt.kind, notes, tt.want)
		}
	}
}

func TestExports(t *testing.T) {
	p := newProbe(t)
	b := p.Builders[0]
	in := p.input(t, `generated = ["Colour", "not a name"]`, nil)
	if diags := b.Check(in); diags.HasErrors() {
		t.Fatal(text(diags))
	}
	e := b.Exports(in)
	if len(e.Types) != 1 || e.Types["Colour"] != cty.DynamicPseudoType || e.Open {
		t.Errorf("got %v", e)
	}
	if n := len(p.notes(t, "configured: ")); n != 1 {
		t.Errorf("the plugin was prepared %d times for the same options", n)
	}
	if !b.Exports(p.input(t, `errors = ["no"]`, nil)).Open || !b.Exports(schema.Input{}).Open {
		t.Error("a builder that could not be prepared exports nothing")
	}
	if e := p.DataSources[0].Exports(schema.Input{}); e.Open || e.Types["text"] != cty.String || !e.Types["list"].Equals(cty.List(cty.Number)) {
		t.Errorf("got %v", e)
	}
	if e := p.Provisioners[0].Exports(in); e.Open || len(e.Types) > 0 {
		t.Errorf("got %v", e)
	}
}

func TestDocs(t *testing.T) {
	docs, err := newProbe(t).Builders[0].Docs()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]schema.Doc{}
	for _, d := range docs {
		got[d.Name] = d
	}
	if got["tags"].Type != "map of string" || got["disk"].Type != "blocks" || len(got["disk"].Block) != 2 || !got["password"].Secret || got["text"].Secret {
		t.Errorf("got %+v", docs)
	}
}

// The secret value of an option is registered, though plugins do not say which options are secret.
func TestSecretOptions(t *testing.T) {
	p := newProbe(t)
	var told []string
	in := p.input(t, "password = \"hunter2\"\ntext = \"plain\"", nil)
	in.Secret = func(s string) { told = append(told, s) }
	if diags := p.Builders[0].Check(in); diags.HasErrors() {
		t.Fatal(text(diags))
	}
	if fmt.Sprint(told) != "[hunter2]" {
		t.Errorf("told: %q", told)
	}
}

func TestRead(t *testing.T) {
	p := newProbe(t)
	for _, tt := range []struct{ body, want string }{
		{`output = "{\"text\": \"a\", \"list\": [1, 2], \"more\": true}"`, `object(list: list(1, 2), text: "a")`},
		{`output = "{\"text\": 3}"`, `object(list: null, text: "3")`},
		{`output = "{\"text\": [\"a\"]}"`, `it has returned "text" as tuple`},
		{`output = "[1]"`, "it has returned tuple, and not an object"},
		{`text = "no such thing."`, "no such thing"},
		{`errors = ["output: not this"]`, "output: not this"},
	} {
		d := made(t, p.DataSources[0], p.input(t, tt.body, nil))
		v, err := d.Read(t.Context())
		got := fmt.Sprint(err)
		if err == nil {
			got = describe(v)
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %s, want %s", tt.body, got, tt.want)
		}
	}
}

func describe(v cty.Value) string {
	switch {
	case v.IsNull():
		return "null"
	case v.Type() == cty.String:
		return fmt.Sprintf("%q", v.AsString())
	case v.Type() == cty.Number:
		return v.AsBigFloat().String()
	case v.Type().IsObjectType():
		return fmt.Sprintf("object(list: %s, text: %s)", describe(v.GetAttr("list")), describe(v.GetAttr("text")))
	}
	var all []string
	for _, e := range v.AsValueSlice() {
		all = append(all, describe(e))
	}
	return "list(" + strings.Join(all, ", ") + ")"
}

// A plugin that keeps the user waiting is named, with the call that it does not answer.
func TestSlowCall(t *testing.T) {
	t.Parallel()
	p := newProbe(t, "PROBE_MISBEHAVE=stubborn@Configure")
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	said := make(chan string, 1)
	p.Plugin.options.Warn = func(_ context.Context, format string, args ...any) {
		said <- fmt.Sprintf(format, args...)
		cancel(why)
	}
	if _, err := made(t, p.DataSources[0], p.input(t, "", nil)).Read(ctx); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	const want = "probe: the plugin example.com/bake/probe has not answered Datasource.Configure for 10s; bake waits for it up to 10m0s"
	if got := <-said; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// However a plugin ends, and at whatever call, the call fails at once with the known
// reason.
func TestEndedAtCall(t *testing.T) {
	calls := map[string]func(t *testing.T, p *probe) error{
		"ConfigSpec": func(t *testing.T, p *probe) error {
			_, err := p.Builders[0].Docs()
			return err
		},
		"Prepare": func(t *testing.T, p *probe) error {
			s, _ := scope(t)
			_, err := made(t, p.Builders[0], p.input(t, "", nil)).Build(t.Context(), s, builder.Hooks{})
			return err
		},
		"Run": func(t *testing.T, p *probe) error {
			s, _ := scope(t)
			_, err := made(t, p.Builders[0], p.input(t, "", nil)).Build(t.Context(), s, builder.Hooks{})
			return err
		},
		"Provision": func(t *testing.T, p *probe) error {
			s, _ := scope(t)
			m := provisionertest.NewMachine(t)
			return made(t, p.Provisioners[0], p.input(t, "", nil)).Provision(t.Context(), s, m.Builder())
		},
		"Configure": func(t *testing.T, p *probe) error {
			s, _ := scope(t)
			_, _, err := made(t, p.PostProcessors[0], p.input(t, "", nil)).Process(t.Context(), s, artifactOf("x"))
			return err
		},
		"PostProcess": func(t *testing.T, p *probe) error {
			s, _ := scope(t)
			_, _, err := made(t, p.PostProcessors[0], p.input(t, "", nil)).Process(t.Context(), s, artifactOf("x"))
			return err
		},
		"OutputSpec": func(t *testing.T, p *probe) error {
			_, err := made(t, p.DataSources[0], p.input(t, "", nil)).Read(t.Context())
			return err
		},
		"Execute": func(t *testing.T, p *probe) error {
			_, err := made(t, p.DataSources[0], p.input(t, "", nil)).Read(t.Context())
			return err
		},
	}
	for what, want := range map[string][]string{
		"panic":   {"the plugin process went away (exit status 2)", "panic: the probe panics at"},
		"exit":    {"the plugin process went away (exit status 7)", "the probe exits at"},
		"kill":    {"the plugin process went away (signal: killed)", "the probe is killed at"},
		"garbage": {"plugin"},
		"wrong":   {"the plugin example.com/bake/probe does not keep to the protocol: the answer to ", "has the wrong type: it is a list"},
		"huge":    {"the plugin example.com/bake/probe does not keep to the protocol: it sent an unreadable message: more than a plugin may send"},
		"error":   {"the probe fails at"},
	} {
		for at, do := range calls {
			t.Run(what+" at "+at, func(t *testing.T) {
				t.Parallel()
				p := newProbe(t, "PROBE_MISBEHAVE="+what+"@"+at)
				err := do(t, p)
				if what == "wrong" && (at == "Provision" || at == "Configure") && err == nil {
					return // these calls have no result
				}
				for _, text := range want {
					if err == nil || !strings.Contains(err.Error(), text) {
						t.Errorf("got %v, want %s", err, text)
					}
				}
				if at == "Run" && what != "error" && (err == nil || !strings.Contains(err.Error(), "may still exist")) {
					t.Errorf("got %v, which does not say that something may be left", err)
				}
			})
		}
	}
}
