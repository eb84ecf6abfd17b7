// Package config reads templates.
package config

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/component"
	"bake/config/lang"
	"bake/datasource"
	"bake/internal/prose"
	"bake/internal/redact"
)

// LanguageVersion is the version of Packer whose template language this is.
const LanguageVersion = "1.16.0"

// Options define which template to load, and its external inputs.
type Options struct {
	Path     string   // a *.pkr.hcl or *.pkr.json file, or a directory of such files
	Vars     []string // "name=value", in the order given
	VarFiles []string // *.hcl or *.json, in the order given
	Env      []string // "NAME=value"; PKR_VAR_name sets a variable, env("NAME") reads any
	Cwd      string   // absolute; what relative paths in Path and VarFiles start from, and path.cwd

	DataSources component.Finder[datasource.DataSource] // nil: there are none

	// ReadData runs data sources when their values are needed. Without it their values are
	// unknown, of the types that they export.
	ReadData bool

	// Warn, if not nil, tells the user which data source keeps bake waiting.
	Warn func(ctx context.Context, format string, args ...any)

	// AllData makes ReadData also read the data sources that nothing needs.
	AllData bool

	// SyntaxOnly stops once the variables have their values: locals, data sources
	// and builds are not looked at.
	SyntaxOnly bool

	// AllowUnset makes variables without a value unknown instead of an error.
	AllowUnset bool

	// Instance is the image whose variables the template gets, if its images must be loaded
	// separately; see [ReadImages]. Nil: it gets those of all images.
	Instance *Instance

	// WarnUndeclared warns of variables that files set and no template declares.
	WarnUndeclared bool

	// Secrets learns the values that must not be shown, as soon as they are known.
	// Nil makes a set for this template alone.
	Secrets *redact.Set

	// SecretsManager looks up the text of a secret, for the functions
	// aws_secretsmanager and aws_secretsmanager_raw. Nil: their values are unknown.
	SecretsManager func(ctx context.Context, name string) (string, error)

	Now time.Time // for timestamps; the start of the run
}

// Template is a set of template files as one configuration. Component bodies are not
// decoded: only the component knows their schema.
type Template struct {
	Root      string      // path.root: the template's directory as it was typed
	Plugins   []Plugin    // required_plugins, by name
	Variables []*Variable // by name
	Builds    []*Build    // every build block with each of its sources, in template order
	Open      bool        // there may be more builds, which only data sources can tell of
	BakeFiles []BakeFile  // next to the template, by name

	files   map[string]*hcl.File
	secrets *redact.Set
	secret  texts // there may be more builds, which depend on data sources
	weak    weak
	reads   reads
	cwd     string

	instance *Instance
	scope    *lang.Scope
}

// Files returns every file and command-line value that diagnostics can point at,
// by name. Secrets in them are blanked.
func (t *Template) Files() map[string]*hcl.File {
	files := map[string]*hcl.File{}
	for name, f := range t.files {
		clean := *f
		clean.Bytes = t.secrets.Blank(f.Bytes)
		files[name] = &clean
	}
	return files
}

// Secrets returns the values that must not be shown. It grows while values are
// computed and components are made.
func (t *Template) Secrets() *redact.Set { return t.secrets }

// Sensitive returns the texts in the values that the template marks as sensitive: those of
// variables, and of the local values that have been computed. Unlike [Template.Secrets] it
// does not include secrets that bake has generated or uses to log in.
func (t *Template) Sensitive() (all []string) {
	for _, v := range t.Variables {
		if v.Sensitive {
			lang.Strings(v.Value, func(text string) { all = append(all, text) })
		}
	}
	t.secret.mu.Lock()
	defer t.secret.mu.Unlock()
	return append(all, t.secret.all...)
}

// sensitive makes text one of a sensitive local value.
func (t *Template) sensitive(text string) {
	t.secrets.Add(text)
	t.secret.mu.Lock()
	defer t.secret.mu.Unlock()
	t.secret.all = append(t.secret.all, text)
}

// texts are texts that several goroutines add to.
type texts struct {
	mu  sync.Mutex
	all []string
}

// Explain rewrites diagnostics about unknown names in the terms of templates. It is for
// diagnostics from decoding a [Component]'s Input.
func (t *Template) Explain(diags hcl.Diagnostics) hcl.Diagnostics { return t.scope.Explain(diags) }

// Find returns the factory of a component whose type is written at that place. If there is
// none, the diagnostics say why; what is the kind of component.
func Find[C any](t *Template, f component.Finder[C], what, typ string, at hcl.Range) (component.Factory[C], hcl.Diagnostics) {
	factory, said := f.Find(typ, t.Plugins)
	var diags hcl.Diagnostics
	for _, d := range said {
		placed := *d
		if d.Subject == nil {
			placed.Subject = &at
		}
		diags = append(diags, &placed)
	}
	if factory != nil || diags.HasErrors() {
		return factory, diags
	}
	hint := lang.DidYouMean(typ, f.Names())
	if hint == "" {
		hint = " Built in: " + strings.Join(f.Names(), ", ") + "."
	}
	return nil, append(diags, problem(&at, "Unknown "+what, "There is no %s of type %q.%s", what, typ, hint)...)
}

// Once combines diagnostics about a missing requirement of the whole template
// ([component.MissingRequirement]): it keeps the first, with the number of other blocks
// that are affected.
func Once(diags hcl.Diagnostics) hcl.Diagnostics {
	type said struct{ summary, detail string }
	places := map[said]int{}
	var out hcl.Diagnostics
	for _, d := range diags {
		if _, is := d.Extra.(component.MissingRequirement); is {
			key := said{d.Summary, d.Detail}
			if places[key]++; places[key] > 1 {
				continue
			}
			first := *d
			d = &first
		}
		out = append(out, d)
	}
	for _, d := range out {
		if _, is := d.Extra.(component.MissingRequirement); is {
			if others := places[said{d.Summary, d.Detail}] - 1; others > 0 {
				d.Detail += "\n\nThe same holds for " + prose.Count(others, "other block") + "."
			}
		}
	}
	return out
}

// Plugin is an entry of required_plugins.
type Plugin = component.Requirement

// Build is one build block with one of its sources: what makes one image.
type Build struct {
	Name        string // full name: [build.]type.local
	Block       string // name of the build block; may be empty
	Description string // of the build block
	Type        string // such as amazon-ebs
	Source      string // label of the source block
	Local       string // name within the build block; the label unless the block renames it
	Unsettled   bool   // some of Name is not known until data sources are read

	Builder        *Component
	Provisioners   []*Provisioner // those that apply to this source
	ErrorCleanup   *Provisioner   // nil if there is none
	PostProcessors []Chain        // each is fed with the builder's artifact
}

// Chain is a list of post-processors, each fed with the artifact of the one before.
type Chain []*PostProcessor

// Provisioner is a provisioner block of one build.
type Provisioner struct {
	*Component
	Name            string        // empty if unnamed
	PauseBefore     time.Duration // 0: none
	Timeout         time.Duration // of one attempt; 0: none
	MaxRetries      int           // attempts after the first
	ContinueOnError bool
}

// PostProcessor is a post-processor block of one build.
type PostProcessor struct {
	*Component
	Name      string // empty if unnamed
	KeepInput *bool  // keep_input_artifact; nil if not set
}
