package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gobwas/glob"
	"github.com/hashicorp/hcl/v2"

	"bake/config"
)

// patterns are the globs of -only or -except.
type patterns struct {
	flag  string
	texts []string
	globs []*glob.Pattern
}

func compile(flag string, texts []string) (patterns, hcl.Diagnostics) {
	p := patterns{flag: flag, texts: texts}
	for _, text := range texts {
		g, err := glob.Compile(text)
		if err != nil {
			return p, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Invalid pattern in " + flag, Detail: fmt.Sprintf("%q: %s.", text, err)}}
		}
		p.globs = append(p.globs, g)
	}
	return p, nil
}

func (p patterns) match(name string) bool {
	return slices.ContainsFunc(p.globs, func(g *glob.Pattern) bool { return g.Match(name) })
}

// idle returns warnings for patterns that match none of names.
func (p patterns) idle(names, shown []string) (diags hcl.Diagnostics) {
	for i, g := range p.globs {
		if !slices.ContainsFunc(names, g.Match) {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning, Summary: "Pattern in " + p.flag + " matches nothing",
				Detail: fmt.Sprintf("%q matches none of the builds: %s.", p.texts[i], strings.Join(shown, ", ")),
			})
		}
	}
	return diags
}

// choose returns the builds selected by -only and -except, in template order, without the
// post-processors that -except names.
func choose(t *config.Template, o Options) ([]*config.Build, hcl.Diagnostics) {
	if len(t.Builds) == 0 && t.Open {
		return nil, nil
	}
	if len(t.Builds) == 0 {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No build block",
			Detail: "A template needs a build block that names the sources to build."}}
	}
	only, diags := compile("-only", o.Only)
	except, more := compile("-except", o.Except)
	if diags = append(diags, more...); diags.HasErrors() {
		return nil, diags
	}
	open := t.Open // the template is incomplete: an unmatched pattern may still match later
	var names, extra []string
	var chosen []*config.Build
	for _, b := range t.Builds {
		if o.Builds != nil && !o.Builds[b] {
			continue
		}
		names = append(names, b.Name)
		open = open || b.Unsettled
		for _, chain := range b.PostProcessors {
			for _, p := range chain {
				extra = append(extra, label(p))
			}
		}
		if len(o.Only) > 0 && !only.match(b.Name) && !b.Unsettled || except.match(b.Name) {
			continue
		}
		copied := *b
		copied.Name = t.Secrets().RedactMessage(b.Name) // the name is displayed and written to the ledger
		copied.PostProcessors = nil
		for _, chain := range b.PostProcessors {
			// The rest of the chain would get an artifact of the wrong kind.
			if i := slices.IndexFunc(chain, func(p *config.PostProcessor) bool { return except.match(label(p)) }); i >= 0 {
				chain = chain[:i]
			}
			if len(chain) > 0 {
				copied.PostProcessors = append(copied.PostProcessors, chain)
			}
		}
		chosen = append(chosen, &copied)
	}
	distinguish(chosen)
	if open || o.Builds != nil { // the caller has selected the builds and checks the patterns
		return chosen, diags
	}
	diags = append(diags, only.idle(names, names)...)
	diags = append(diags, except.idle(slices.Concat(names, extra), names)...)
	if len(chosen) == 0 {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "No builds to run",
			Detail: fmt.Sprintf("-only and -except exclude all builds: %s.", strings.Join(names, ", "))})
	}
	return chosen, diags
}

// distinguish numbers builds with the same name, because a build's resources are identified by its
// name.
func distinguish(builds []*config.Build) {
	count := map[string]int{}
	for _, b := range builds {
		if count[b.Name]++; count[b.Name] > 1 {
			b.Name = fmt.Sprintf("%s (%d)", b.Name, count[b.Name])
		}
	}
}

// label returns the name that -except uses for a post-processor.
func label(p *config.PostProcessor) string {
	if p.Name != "" {
		return p.Name
	}
	return p.Type
}
