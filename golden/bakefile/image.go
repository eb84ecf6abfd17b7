package bakefile

import (
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/config/schema"
	"bake/golden/gates"
	"bake/golden/manifest"
)

// Image are the arguments of an image block: the requirements on the image that some
// builds of the template make. The label is the name of the image.
type Image struct {
	// Name of the `build` block that makes the image, with all its sources. Set either
	// this or `sources`.
	Build string `hcl:"build,optional"`

	// The builds that make the image, as `-only` names them: `amazon-ebs.debian`, or
	// `web.amazon-ebs.*`.
	Sources []string `hcl:"sources,optional"`

	// Make one image for each element of a map, or of a set of strings such as
	// `toset(["debian", "ubuntu"])`. The block can use `each.key` and `each.value`. The
	// names of the images consist of the label and the key, as in `web/debian`.
	ForEach cty.Value `hcl:"for_each,optional"`

	// Values for variables of the template. They override the environment and variable
	// files; `-var` overrides them. They can use functions and refer to other images, but
	// not to variables: `image.NAME.id` is the ID in the region of the build,
	// `image.NAME.ids` the IDs by region, and `image.NAME.name` the name; for an image with
	// `for_each`, `image.NAME["key"].id`. The other images are built first. With such
	// references or `for_each`, each image has its own variables; otherwise two images
	// cannot set a variable to different values.
	Vars cty.Value `hcl:"vars,optional"`

	// Further inputs of the image, besides the template, and its maximum age. Without the
	// block: no further inputs, and no maximum age.
	Inputs *Inputs `hcl:"inputs,block"`

	// Checks on the build's machine, after the last provisioner. The label is their name.
	// Repeatable.
	Checks []Checks `hcl:"checks,block"`

	// Scans of the build's machine with OpenSCAP or another scanner, after the checks. The
	// label is the kind: `openscap` or `command`. Repeatable.
	Scan []Scan `hcl:"scan,block"`

	// Verification of the finished image before it is copied, shared or tagged: machines
	// are launched from it, examined, and deleted. The label is its name. Repeatable.
	Verify []Verify `hcl:"verify,block"`

	// Retirement of older images of the same name.
	Retention *Retention `hcl:"retention,block"`

	// Exceptions from the search for leftovers on the build's machine. Without the block: no
	// exceptions.
	Leftovers *Leftovers `hcl:"leftovers,block"`

	// SBOM of the image, written to the reports. Without the block, none is made.
	SBOM *SBOM `hcl:"sbom,block"`

	// Signed attestation of how the image was built, written to the reports. Without the
	// block, none is made.
	Provenance *Provenance `hcl:"provenance,block"`

	// Distribution of the verified image. Without the block: as in the template.
	Distribute *Distribute `hcl:"distribute,block"`

	// Channels, which name the current image, in the order in which images pass through them.
	// The label is the name of the channel. Repeatable.
	Channels []Channel `hcl:"channel,block"`
}

// Validate implements [schema.Validator].
func (o *Image) Validate(c *schema.Checker) {
	switch {
	case c.Set(&o.Build) && c.Set(&o.Sources):
		c.Errorf(&o.Sources, "Both build and sources", "An image has either build or sources, not both.")
	case !c.Set(&o.Build) && !c.Set(&o.Sources) && c.Known(&o.Build) && c.Known(&o.Sources):
		c.Errorf(&o.Build, "Image without a build", "Set build to the name of a build block, or sources to a list such as [\"amazon-ebs.web\"].")
	}
	seen := map[string]string{}
	for i := range o.Checks {
		unique(c, seen, "checks", &o.Checks[i].Name)
	}
	o.scans(c)
	for i := range o.Verify {
		unique(c, seen, "verify", &o.Verify[i].Name)
	}
	o.channels(c, seen)
}

// unique reports an empty or duplicate name of a block.
func unique(c *schema.Checker, seen map[string]string, kind string, name *string) {
	switch {
	case strings.TrimSpace(*name) == "":
		c.Errorf(name, "Missing name", "The label of a %s block is its name, and cannot be empty.", kind)
	case strings.ContainsFunc(*name, func(c rune) bool { return c == ',' || c < ' ' }):
		c.Errorf(name, "Invalid name", "The name %q cannot have a comma in it, or a control character: names stand in a list of what the image has passed.", *name)
	case seen[kind+" "+*name] != "":
		c.Errorf(name, "Duplicate name", "This image has %s %q already.", kind, *name)
	}
	seen[kind+" "+*name] = *name
}

// Checks are the arguments of a checks block.
type Checks struct {
	Name string `hcl:"name,label"`

	// Files in goss's format, or `bake:baseline`. Relative paths start at the current
	// directory, as in templates; `${path.root}` is the directory of the template.
	Files []string `hcl:"files"`

	// Fix failed checks that have a fix, and check again.
	Remediate bool `hcl:"remediate,optional"`

	// Failures to accept. Without the block: none.
	Gate *gates.Options `hcl:"gate,block"`
}

// Verify are the arguments of a verify block.
type Verify struct {
	Name string `hcl:"name,label"`

	// Instance types to launch, one after the other. Not set: the type of the build's
	// instance.
	InstanceTypes []string `hcl:"instance_types,optional"`

	// User to log in as. Not set: the `ssh_username` of the source.
	SSHUsername string `hcl:"ssh_username,optional"`

	// How often to reboot each machine, to check that it comes back.
	Reboots int `hcl:"reboots,optional"`

	// Time limit for each machine, from launch to deletion.
	Timeout time.Duration `hcl:"timeout,optional"`

	// Check files to run on each machine, as in a `checks` block.
	Checks []string `hcl:"checks,optional"`

	// Failures of the checks to accept. Without the block: none.
	Gate *gates.Options `hcl:"gate,block"`

	// Provisioners to run on each machine, as in a template. If one fails, the
	// verification fails. `only`, `except` and `override` are not supported. Repeatable.
	Provisioners []schema.Block `hcl:"provisioner,block"`

	// Files that may differ from those of the build's machine, besides files that differ on
	// every machine: paths with the wildcards `*`, `?` and `[...]` within names, and `**` for
	// any number of directories.
	MayChange []string `hcl:"may_change,optional"`

	// What to do with an image that fails: `delete` it, `keep` it where it was made, or
	// `quarantine` it, that is, keep it but disable it so that it cannot be launched.
	OnFailure FailureAction `hcl:"on_failure,optional"`
}

// SetDefaults implements [schema.Defaulter].
func (v *Verify) SetDefaults() {
	v.Timeout, v.OnFailure = 15*time.Minute, FailureAction(builder.Delete)
}

// FailureAction is a [builder.RejectAction].
type FailureAction builder.RejectAction

// Choices implements [schema.Choices].
func (FailureAction) Choices() []string {
	return []string{string(builder.Delete), string(builder.Keep), string(builder.Quarantine)}
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *FailureAction) UnmarshalText(b []byte) error { return schema.ParseChoice(f, b, f.Choices()) }

// mostReboots is the maximum number of reboots.
const mostReboots = 10

// Validate implements [schema.Validator].
func (v *Verify) Validate(c *schema.Checker) {
	if v.Reboots < 0 || v.Reboots > mostReboots {
		c.Errorf(&v.Reboots, "Invalid number", "A machine can be restarted 0 to %d times, not %d.", mostReboots, v.Reboots)
	}
	if slices.Contains(v.InstanceTypes, "") {
		c.Errorf(&v.InstanceTypes, "Empty type", "An empty text is not a type of instance.")
	}
	if v.Timeout <= 0 && c.Known(&v.Timeout) {
		c.Errorf(&v.Timeout, "Invalid timeout", "timeout must be a duration such as \"15m\".")
	}
	for _, p := range v.MayChange {
		if wrong := manifest.CheckPattern(p); wrong != "" {
			c.Errorf(&v.MayChange, "Invalid path", "%s", wrong)
		}
	}
	if v.Gate != nil && len(v.Checks) == 0 && c.Known(&v.Checks) {
		c.Errorf(&v.Gate, "Gate without checks", "The gate of a verify block is for its checks, and it has none. Nothing else that is looked at may fail.")
	}
}

// Leftovers are the arguments of a leftovers block.
type Leftovers struct {
	// Paths on the machine that may stay, with everything below them.
	Allow []string `hcl:"allow,optional"`
}

// Validate implements [schema.Validator].
func (l *Leftovers) Validate(c *schema.Checker) {
	for _, p := range l.Allow {
		if !strings.HasPrefix(p, "/") || strings.TrimRight(p, "/") == "" {
			c.Errorf(&l.Allow, "Invalid path", "%q is not an absolute path on the machine.", p)
		}
	}
}
