package bakefile

import (
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config/schema"
	"bake/internal/age"
)

// Inputs are the arguments of an inputs block: when an image has to be rebuilt.
type Inputs struct {
	// Patterns of files that the image depends on, besides files that the template names.
	// `**` matches any number of directories. Each pattern must match a file. Relative
	// paths start at the current directory; `${path.root}` is the directory of the
	// template.
	Files []string `hcl:"files,optional"`

	// Rebuild the image if it is older than this, such as `7d` or `36h`, even if its inputs
	// are unchanged.
	MaxAge age.Age `hcl:"max_age,optional"`
}

// Validate implements [schema.Validator].
func (o *Inputs) Validate(c *schema.Checker) {
	for _, pattern := range o.Files {
		if !doublestar.ValidatePattern(pattern) || pattern == "" {
			c.Errorf(&o.Files, "Invalid pattern", "%q is not a pattern of paths.", pattern)
		}
	}
}

// Reads implements [schema.Reader].
func (o *Checks) Reads() []string { return onHost(o.Files) }

// Reads implements [schema.Reader].
func (v *Verify) Reads() []string { return onHost(v.Checks) }

// onHost returns the check files that are not built-in profiles.
func onHost(files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool { return strings.HasPrefix(f, "bake:") })
}

// afterwards are the arguments and blocks of an image block that affect neither the
// content of the image nor its checks. The values of files and variables count instead.
var afterwards = []string{"build", "sources", "vars", "for_each", "inputs", "distribute", "channel", "retention"}

// counted returns the parts of an image block's body that are inputs of the image.
func counted(b *hcl.Block) hcl.Body {
	body, ok := b.Body.(*hclsyntax.Body)
	if !ok {
		return b.Body
	}
	kept := *body
	kept.Attributes, kept.Blocks = hclsyntax.Attributes{}, nil
	for name, a := range body.Attributes {
		if !slices.Contains(afterwards, name) {
			kept.Attributes[name] = a
		}
	}
	for _, inner := range body.Blocks {
		if !slices.Contains(afterwards, inner.Type) {
			kept.Blocks = append(kept.Blocks, inner)
		}
	}
	return &kept
}
