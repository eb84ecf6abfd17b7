package bakefile

import (
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/config/schema"
	"bake/internal/age"
)

// Retention are the arguments of a retention block: when older images of the same name,
// by the tag `bake:image`, are retired in each region. Ages count from the creation of
// the image, but each stage begins at least 7 days after the previous one. Images in use
// are not changed.
type Retention struct {
	// How many of the newest available images to leave unchanged in each region. Images that
	// are deprecated or have failed their verification do not count. Not set: 5.
	KeepLast *int `hcl:"keep_last,optional"`

	// Age at which an image is deprecated, such as `30d`: others no longer find it, but can
	// still launch it. Not set: never.
	DeprecateAfter age.Age `hcl:"deprecate_after,optional"`

	// Age at which an image is disabled: it cannot be launched until `bake images enable`
	// enables it. Not set: never.
	DisableAfter age.Age `hcl:"disable_after,optional"`

	// Age at which an image is deregistered and its snapshots are deleted. Not set: never.
	DeleteAfter age.Age `hcl:"delete_after,optional"`
}

// keep returns the number of images to leave unchanged.
func (o *Retention) keep() int {
	if o.KeepLast == nil {
		return 5
	}
	return *o.KeepLast
}

// Validate implements [schema.Validator].
func (o *Retention) Validate(c *schema.Checker) {
	if o.keep() < 1 && c.Known(&o.KeepLast) {
		c.Errorf(&o.KeepLast, "Invalid number", "At least one image stays: keep_last must be 1 or more, not %d.", o.keep())
	}
	var last *age.Age
	for _, stage := range []*age.Age{&o.DeprecateAfter, &o.DisableAfter, &o.DeleteAfter} {
		if *stage == 0 {
			continue
		}
		if last != nil && *stage <= *last {
			c.Errorf(stage, "Stages out of order", "%s is %s, but must be more than %s, which is %s.", c.Name(stage), stage, c.Name(last), last)
		}
		last = stage
	}
	if last == nil && c.Known(&o.DeprecateAfter) && c.Known(&o.DisableAfter) && c.Known(&o.DeleteAfter) {
		c.Errorf(&o.DeleteAfter, "Retention without an end", "Nothing becomes of older images: set deprecate_after, disable_after or delete_after, such as delete_after = \"120d\".")
	}
}

// Retentions returns the retention blocks of all images, with diagnostics about values that
// are not known yet.
func (s *Settings) Retentions() (all []builder.Retention, diags hcl.Diagnostics) {
	for _, p := range s.pipelines {
		o := p.Image.Retention
		if o == nil || slices.ContainsFunc(all, func(r builder.Retention) bool { return r.Image == p.Name }) {
			continue
		}
		ptrs := []any{&o.KeepLast, &o.DeprecateAfter, &o.DisableAfter, &o.DeleteAfter}
		if d := p.Image.Distribute; d != nil {
			ptrs = append(ptrs, &d.Regions, &d.Accounts, &d.Mode, &d.Role, &d.ExternalID)
		}
		for _, ptr := range ptrs {
			if !p.Src.Known(ptr) {
				diags = append(diags, &hcl.Diagnostic{
					Severity: hcl.DiagError, Summary: "Unknown retention", Subject: p.Src.Range(ptr),
					Detail: "What becomes of older images must be known without data sources.",
				})
			}
		}
		all = append(all, p.Image.Retained(p.Name))
	}
	return all, diags
}

// Retained returns the retention of an image's older releases, if the image has one.
func (i *Image) Retained(name string) builder.Retention {
	o := i.Retention
	return builder.Retention{
		Image: name, Keep: o.keep(), To: i.Distribution(),
		Deprecate: time.Duration(o.DeprecateAfter), Disable: time.Duration(o.DisableAfter), Delete: time.Duration(o.DeleteAfter),
	}
}
