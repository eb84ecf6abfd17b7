package engine

import (
	"github.com/hashicorp/hcl/v2"

	"bake/config"
)

// Select returns the builds selected by -only and -except, without the post-processors that -except
// names. A template without builds is not an error.
func Select(t *config.Template, o Options) ([]*config.Build, hcl.Diagnostics) {
	if len(t.Builds) == 0 {
		return nil, nil
	}
	return choose(t, o)
}
