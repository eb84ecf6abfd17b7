package installed

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/plugin/setup"
)

// Missing returns the requirements that built-in plugins do not meet.
func (p Places) Missing(required []setup.Requirement) (missing []setup.Requirement) {
	for _, r := range required {
		if _, ok := p.BuiltIn.InsteadOf(r.Source, r.Allows); !ok {
			missing = append(missing, r)
		}
	}
	return missing
}

// Initialized is the result for a requirement.
type Initialized struct {
	Plugin Plugin // plugin that meets it
	Text   string // the result on one line; empty if nothing meets it
	Diags  hcl.Diagnostics
}

// Initialized returns the result for a requirement, whose outcome is empty if a built-in plugin
// meets it. If a plugin cannot be obtained, a built-in one in another version replaces it.
func (p Places) Initialized(r setup.Requirement, outcome setup.Outcome) (i Initialized) {
	b, builtIn := p.BuiltIn.Called(r.Source)
	i.Plugin = p.named(r)
	if builtIn {
		i.Text = fmt.Sprintf("%s %s %q is built in: %s", r.Name, r.Source, r.Constraint, strings.Join(b.As(r.Name), ", "))
	}
	warn := func(summary, detail string) {
		i.Diags = append(i.Diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Subject: r.Range.Ptr(), Detail: detail})
	}
	for _, note := range outcome.Notes {
		warn(note.Summary, note.Detail)
	}
	switch {
	case outcome.Unavailable && builtIn:
		detail := fmt.Sprintf("The template requires %s of %s; the built-in plugin, which has the options of version %s, is used instead.", r.Constraint, r.Source, b.Version)
		for _, d := range outcome.Diags {
			detail += "\n\n" + d.Detail
		}
		warn("Different version built in", detail)
	case outcome.Diags.HasErrors():
		i.Diags, i.Text = append(i.Diags, outcome.Diags...), ""
	case outcome.Path != "":
		i.Plugin.BuiltIn = false
		i.Plugin.Version, i.Plugin.Path, i.Plugin.New = outcome.Version, outcome.Path, &outcome.New
		i.Text = fmt.Sprintf("%s %s %q is installed: v%s in %q", r.Name, r.Source, r.Constraint, outcome.Version, outcome.Path)
		if outcome.New {
			i.Text = fmt.Sprintf("Installed plugin %s v%s in %q", r.Source, outcome.Version, outcome.Path)
		}
	}
	return i
}

// named returns the built-in plugin for a requirement, under the name that the template uses.
func (p Places) named(r setup.Requirement) Plugin {
	l := Plugin{Components: []string{}}
	if b, ok := p.BuiltIn.Called(r.Source); ok {
		l = BuiltIn(b, r.Name)
	}
	l.Name, l.Source, l.Constraint = r.Name, r.Source, r.Constraint
	return l
}
