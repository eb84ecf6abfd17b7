// Package fastlaunch enables EC2 Fast Launch, which prepares instances of a Windows
// image in advance so that they start faster.
package fastlaunch

import "bake/config/schema"

// Options define whether and how instances are prepared. Setting any of them enables
// fast launch.
type Options struct {
	// Turn on EC2 Fast Launch for the image, which must be a Windows image: EC2 launches
	// instances in advance and keeps their snapshots, which are charged.
	Enable bool `hcl:"enable_fast_launch,optional"`

	// ID of the launch template for those instances, in the region of the build. Not
	// together with `template_name`.
	TemplateID string `hcl:"template_id,optional"`

	// Name of the launch template. Not together with `template_id`.
	TemplateName string `hcl:"template_name,optional"`

	// Version of the launch template. Not set: the latest.
	TemplateVersion int `hcl:"template_version,optional"`

	// Maximum number of instances that EC2 launches at a time, 6 or more. Not set: 6.
	MaxParallelLaunches int `hcl:"max_parallel_launches,optional"`

	// Number of prepared snapshots to keep. Not set: 5.
	TargetResourceCount int `hcl:"target_resource_count,optional"`

	// Settings for one region. A region that the image is copied to and that has no such
	// block uses no launch template. Repeatable.
	Regions []Region `hcl:"region_launch_templates,block"`
}

// Region holds the settings for one region.
type Region struct {
	// The region: that of the build, or one of `ami_regions`.
	Region string `hcl:"region"`

	// Set to `false` to leave the region out.
	Enable *bool `hcl:"enable_fast_launch,optional"`

	// ID of the launch template in this region. Not together with `template_name`.
	TemplateID string `hcl:"template_id,optional"`

	// Name of the launch template in this region. Not together with `template_id`.
	TemplateName string `hcl:"template_name,optional"`

	// Version of the launch template. Not set: the latest.
	TemplateVersion int `hcl:"template_version,optional"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if o.TemplateID != "" && o.TemplateName != "" {
		c.Errorf(&o.TemplateName, "Conflicting arguments", "Set template_id or template_name, not both.")
	}
	if n := o.MaxParallelLaunches; n != 0 && n < 6 {
		c.Errorf(&o.MaxParallelLaunches, "Too few launches", "max_parallel_launches must be 6 or more, not %d.", n)
	}
	if n := o.TargetResourceCount; n < 0 {
		c.Errorf(&o.TargetResourceCount, "Too few snapshots", "target_resource_count must be 1 or more, not %d.", n)
	}
	validateVersion(c, &o.TemplateVersion, o.TemplateID+o.TemplateName)
	seen := map[string]bool{}
	for i := range o.Regions {
		r := &o.Regions[i]
		if seen[r.Region] && c.Known(&r.Region) {
			c.Errorf(&r.Region, "Duplicate region", "There is another region_launch_templates for %s.", r.Region)
		}
		seen[r.Region] = true
	}
}

// Validate implements [schema.Validator].
func (r *Region) Validate(c *schema.Checker) {
	if r.TemplateID != "" && r.TemplateName != "" {
		c.Errorf(&r.TemplateName, "Conflicting arguments", "Set template_id or template_name, not both.")
	}
	validateVersion(c, &r.TemplateVersion, r.TemplateID+r.TemplateName)
}

func validateVersion(c *schema.Checker, version *int, template string) {
	switch {
	case *version < 0:
		c.Errorf(version, "Negative number", "template_version cannot be negative.")
	case *version > 0 && template == "":
		c.Errorf(version, "Version without a launch template", "template_version needs template_id or template_name.")
	}
}

// ValidateRegions reports regions that are neither the build's nor a copy's.
func (o *Options) ValidateRegions(c *schema.Checker, has func(region string) bool) {
	for i := range o.Regions {
		if r := &o.Regions[i]; c.Known(&r.Region) && !has(r.Region) {
			c.Errorf(&r.Region, "Region without an image", "%q is neither the region of the build nor one of ami_regions.", r.Region)
		}
	}
}

// in returns the settings for a region, and whether instances are prepared there.
func (o *Options) in(region, build string) (Region, bool) {
	enabled := o.Enable || o.TemplateID+o.TemplateName != "" || o.MaxParallelLaunches > 0 || o.TargetResourceCount > 0 || len(o.Regions) > 0
	for _, r := range o.Regions {
		if r.Region == region {
			return r, enabled && (r.Enable == nil || *r.Enable)
		}
	}
	r := Region{Region: region}
	if region == build {
		r.TemplateID, r.TemplateName, r.TemplateVersion = o.TemplateID, o.TemplateName, o.TemplateVersion
	}
	return r, enabled
}
