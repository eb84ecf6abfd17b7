package run

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"bake/config"
	"bake/engine"
)

// noReleases reports builds of image blocks: what comes of an earlier build, and not of the
// template alone, is nothing to hand out.
func noReleases(t *config.Template, selected []string, pipelines map[*config.Component]*engine.Pipeline) (diags hcl.Diagnostics) {
	for _, b := range t.Builds {
		if pipelines[b.Builder] == nil || !slices.Contains(selected, b.Name) {
			continue
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Subject: &b.Builder.TypeRange, Summary: "No release from the cache",
			Detail: fmt.Sprintf("%s makes an image of an image block, and with -cache it would be made of what an earlier build has left. Build it without -cache, leave it out with -except, or use -cache=release.", b.Name),
		})
	}
	return diags
}
