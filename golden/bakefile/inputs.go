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

// Inputs are the arguments of an inputs block: when an image has to be built anew.
type Inputs struct {
	// Files that the image depends on, besides those that the template itself names, as
	// patterns: `**` stands for any directories. Each must match a file. A relative path
	// starts where bake was called; `${path.root}` is the directory of the template.
	Files []string `hcl:"files,optional"`

	// Build anew if the image is older than this, such as `7d` or `36h`, whatever its inputs.
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

// onHost returns those of the check files that are not built in.
func onHost(files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool { return strings.HasPrefix(f, "bake:") })
}

// afterwards are the arguments and blocks of an image block that do not affect the content
// of the image, or how it was checked: its files and variables count by their values.
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
