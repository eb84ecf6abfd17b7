package run

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/config"
	"bake/engine"
)

// fits is the type of the only builder whose machines can be cached.
const fits = "amazon-ebs"

// uncached returns a warning for each source whose builds run all their provisioners
// despite the cache, and explains why.
func uncached(t *config.Template, selected []string) (diags hcl.Diagnostics) {
	said := map[*config.Component]bool{}
	for _, b := range t.Builds {
		if b.Builder.Type == fits || said[b.Builder] || !slices.Contains(selected, b.Name) {
			continue
		}
		said[b.Builder] = true
		why := fmt.Sprintf("Builders of type %s do not launch a machine from an image of the local cloud, which is what the cache replaces.", b.Builder.Type)
		if strings.HasPrefix(b.Builder.Type, fits) { // amazon-ebssurrogate, amazon-ebsvolume
			why = fmt.Sprintf("The result of %s is on additional volumes of its machine, and the cache keeps only the root volume.", b.Builder.Type)
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagWarning, Subject: &b.Builder.TypeRange, Summary: "The cache is not used",
			Detail: why + " All provisioners run. Only " + fits + " starts from the cache.",
		})
	}
	return diags
}

// noReleases returns an error for each build of an image block: an image that depends on
// an earlier build, and not only on the template, must not be distributed.
func noReleases(t *config.Template, selected []string, pipelines map[*config.Component]*engine.Pipeline) (diags hcl.Diagnostics) {
	for _, b := range t.Builds {
		if pipelines[b.Builder] == nil || !slices.Contains(selected, b.Name) {
			continue
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Subject: &b.Builder.TypeRange, Summary: "No release from the cache",
			Detail: fmt.Sprintf("%s builds an image that has an image block, and with -cache it would start from the machine of an earlier build. Build it without -cache, exclude it with -except, or use -cache=release.", b.Name),
		})
	}
	return diags
}
