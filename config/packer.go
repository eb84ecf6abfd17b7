package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/internal/constant"
	"bake/internal/lazyregexp"
)

var packerSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "required_version"}},
	Blocks:     []hcl.BlockHeaderSchema{{Type: "required_plugins"}},
}

// packerBlock returns the plugins that a packer block requires.
func packerBlock(block *hcl.Block) ([]Plugin, hcl.Diagnostics) {
	content, diags := block.Body.Content(packerSchema)
	var plugins []Plugin
	for _, b := range content.Blocks {
		attrs, more := b.Body.JustAttributes()
		diags = append(diags, more...)
		for _, attr := range inOrder(attrs) {
			p, more := requiredPlugin(attr)
			diags = append(diags, more...)
			if !more.HasErrors() {
				plugins = append(plugins, p)
			}
		}
	}
	return plugins, diags
}

func requiredVersion(attr *hcl.Attribute) hcl.Diagnostics {
	text, diags := constant.String(attr.Expr)
	if diags.HasErrors() {
		return diags
	}
	rng := attr.Expr.Range()
	constraints, err := parseConstraint(text)
	if err != nil {
		return problem(&rng, "Invalid version constraint", "%s.", err)
	}
	if !constraints.Check(version.Must(version.NewVersion(LanguageVersion))) {
		return problem(&rng, "Unsupported Packer version",
			"This template requires Packer %s; bake reads the template language of Packer %s.", text, LanguageVersion)
	}
	return nil
}

func parseConstraint(text string) (version.Constraints, error) {
	constraints, err := version.NewConstraint(text)
	if err != nil {
		return nil, fmt.Errorf(`%q is not a version constraint such as ">= 1.9.0" or "~> 1.2"`, text)
	}
	for _, c := range constraints {
		if c.Prerelease() {
			return nil, fmt.Errorf("%q is a prerelease; constraints can only use releases", text)
		}
	}
	return constraints, nil
}

func requiredPlugin(attr *hcl.Attribute) (Plugin, hcl.Diagnostics) {
	rng := attr.Expr.Range()
	shape := func(format string, args ...any) (Plugin, hcl.Diagnostics) {
		return Plugin{}, problem(&rng, "Invalid plugin requirement", "%s\n\nWrite: %s = { source = \"github.com/hashicorp/%[2]s\", version = \"~> 1\" }",
			fmt.Sprintf(format, args...), attr.Name)
	}
	val, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		return Plugin{}, diags
	}
	if val.IsNull() || !val.Type().IsObjectType() {
		return shape("A requirement must be an object with a source and a version.")
	}
	p := Plugin{Name: attr.Name, Range: attr.Range}
	fields := map[string]*string{"source": &p.Source, "version": &p.Version}
	for name, v := range val.AsValueMap() {
		field, ok := fields[name]
		switch {
		case !ok:
			return shape("A requirement has only a source and a version, not %q.", name)
		case v.IsNull() || v.Type() != cty.String:
			return shape("The %s must be a string.", name)
		}
		*field = v.AsString()
	}
	for _, name := range []string{"source", "version"} {
		if *fields[name] == "" {
			return shape("The %s is missing.", name)
		}
	}
	if !dnsLabel.Get().MatchString(attr.Name) {
		return shape("The name %q must consist of lower-case letters, digits and dashes.", attr.Name)
	}
	if err := checkPluginSource(p.Source); err != nil {
		return shape("The source %q %s.", p.Source, err)
	}
	if _, err := parseConstraint(p.Version); err != nil {
		return shape("%s.", err)
	}
	return p, nil
}

var dnsLabel = lazyregexp.New(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkPluginSource returns what is wrong with the address of a plugin.
func checkPluginSource(source string) error {
	parts := strings.Split(source, "/")
	last := parts[len(parts)-1]
	switch {
	case strings.Contains(source, "://"):
		return fmt.Errorf("must not have a scheme: leave out %s", source[:strings.Index(source, "://")+3])
	case strings.ContainsAny(source, "?#"):
		return fmt.Errorf("must not have a query or fragment")
	case slices.Contains(parts, ".") || slices.Contains(parts, ".."):
		return fmt.Errorf("must not have . or .. between its slashes")
	case slices.Contains(parts, ""):
		return fmt.Errorf("must not start or end with a slash or have two in a row")
	case len(parts) < 3:
		return fmt.Errorf("must be of the form host/namespace/type")
	case len(parts) > 16:
		return fmt.Errorf("has more than 16 parts")
	case strings.HasPrefix(last, "packer-"):
		return fmt.Errorf("must not end in a name that starts with packer-: write %s", strings.TrimPrefix(strings.TrimPrefix(last, "packer-plugin-"), "packer-"))
	case !dnsLabel.Get().MatchString(strings.ToLower(last)):
		return fmt.Errorf("must end in a name of letters, digits and dashes")
	}
	return nil
}

// inOrder returns attributes in the order they were written.
func inOrder(attrs hcl.Attributes) []*hcl.Attribute {
	var list []*hcl.Attribute
	for _, a := range attrs {
		list = append(list, a)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Range.Start.Byte < list[j].Range.Start.Byte })
	return list
}
