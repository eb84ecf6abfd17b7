package ebs

import (
	"slices"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/fastlaunch"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/launch"
	"bake/config/schema"
)

// Options of the builder amazon-ebs.
type Options struct {
	Access
	Launch
	Image
}

// The groups of options, each accessible by its name.
type (
	// Access holds the options for the account and region.
	Access struct{ access.Options }
	// Launch holds the options for the machine and the connection to it.
	Launch struct {
		launch.Options
		launch.Volumes
		launch.VolumeTags
	}
	// Image holds the options for the finished image.
	Image struct {
		image.Options

		// Provision the machine but do not create an image. For testing provisioners.
		SkipCreate bool `hcl:"skip_create_ami,optional"`

		// Pre-provision snapshots of a Windows image so that its instances launch faster.
		// The snapshots are charged.
		FastLaunch *fastlaunch.Options `hcl:"fast_launch,block"`
	}
)

// Defaults returns the options of a template that sets none.
func Defaults() Options {
	return Options{Access{access.Defaults()}, Launch{Options: launch.Defaults()}, Image{}}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Access.Validate(c)
	o.Launch.Options.Validate(c)
	o.Launch.ValidateIn(c, o.Region)
	o.Image.ValidateTags(c, o.DeferredRunTags())
	o.VolumeTags.Validate(c)
	o.Volumes.Validate(c)
	o.Image.Validate(c)
	o.Image.ValidateVolumes(c, o.Volumes.Devices())
	if o.Spot() {
		const why = "This can only be set on a stopped instance, and a spot instance cannot be stopped."
		if o.SRIOVSupport {
			c.Errorf(&o.SRIOVSupport, "Not supported on a spot instance", why)
		}
		if o.ENASupport != nil {
			c.Errorf(&o.ENASupport, "Not supported on a spot instance", why)
		}
	}
	if f := o.FastLaunch; f != nil && c.Known(&o.Regions) && c.Known(&o.Region) {
		f.ValidateRegions(c, func(region string) bool {
			return o.Region == "" || region == o.Region || slices.Contains(o.Regions, region)
		})
	}
}
