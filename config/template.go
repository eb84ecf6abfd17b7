// Package config reads templates.
package config

import (
	"context"
	"path"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/component"
	"bake/config/lang"
	"bake/datasource"
	"bake/internal/redact"
)

// LanguageVersion is the version of Packer whose template language this is.
const LanguageVersion = "1.16.0"

// Options says which template to load and what is given to it from outside.
type Options struct {
	Path     string   // a *.pkr.hcl or *.pkr.json file, or a directory of them
	Vars     []string // "name=value", in the order given
	VarFiles []string // *.hcl or *.json, in the order given
	Env      []string // "NAME=value"; PKR_VAR_name sets a variable, env("NAME") reads any
	Cwd      string   // absolute; what relative paths in Path and VarFiles start from, and path.cwd

	DataSources component.Registry[datasource.DataSource]

	// ReadData lets data sources run. They do when something needs their values.
	// Without it their values are unknown, of the types that they export.
	ReadData bool

	// AllData reads those too that nothing needs, with ReadData.
	AllData bool

	// SyntaxOnly stops once the variables have their values: locals, data sources
	// and builds are not looked at.
	SyntaxOnly bool

	// AllowUnset makes variables without a value unknown instead of an error.
	AllowUnset bool

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

// Template is a set of template files as one configuration. Component bodies
// are not decoded: only the component knows what may be in them.
type Template struct {
	Root      string      // path.root: the template's directory as it was typed
	Plugins   []Plugin    // required_plugins, by name
	Variables []*Variable // by name
	Builds    []*Build    // every build block with each of its sources, in template order
	Open      bool        // there may be more builds, which only data sources can tell of

	files   map[string]*hcl.File
	secrets *redact.Set
	weak    weak
	scope   *lang.Scope
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

// Explain rewrites diagnostics about names that do not exist in the words of
// templates. It is for those that decoding a [Component]'s Input gives.
func (t *Template) Explain(diags hcl.Diagnostics) hcl.Diagnostics { return t.scope.Explain(diags) }

// Lookup finds the factory for a type that the template names. The name under
// which a plugin is required is the prefix of its components, so that with
// aws = { source = "github.com/hashicorp/amazon", ... } aws-ebs is amazon-ebs.
func Lookup[C any](t *Template, r component.Registry[C], typ string) (component.Factory[C], bool) {
	if f, ok := r[typ]; ok {
		return f, true
	}
	for _, p := range t.Plugins {
		if rest, ok := strings.CutPrefix(typ, p.Name); ok && (rest == "" || rest[0] == '-') {
			if f, ok := r[path.Base(p.Source)+rest]; ok {
				return f, true
			}
		}
	}
	return nil, false
}

// Plugin is an entry of required_plugins.
type Plugin struct {
	Name    string
	Source  string // such as github.com/hashicorp/amazon
	Version string // constraint
	Range   hcl.Range
}

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
