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

// Image are the arguments of an image block: what is asked of the images of some builds
// of the template. Its label is the name of the image.
type Image struct {
	// Name of the `build` block that makes the image, with all its sources. Set this or
	// `sources`.
	Build string `hcl:"build,optional"`

	// The builds that make the image, as `-only` names them: `amazon-ebs.debian`, or
	// `web.amazon-ebs.*`.
	Sources []string `hcl:"sources,optional"`

	// Make an image for each element of a map, or of a set of strings, such as
	// `toset(["debian", "ubuntu"])`. The block can use `each.key` and `each.value`. Their
	// names are the label and the key, as in `web/debian`.
	ForEach cty.Value `hcl:"for_each,optional"`

	// Values for variables of the template. They count more than the environment and files
	// of variables, and less than `-var`. They can use functions, but no variables, and what
	// other images are: `image.NAME.id` in the region of its build, `image.NAME.ids` by
	// region, and `image.NAME.name`; of one with `for_each`, `image.NAME["key"].id`. Such
	// images are built first. Where there are references or `for_each`, each image has
	// variables of its own; otherwise two images cannot give one variable different values.
	Vars cty.Value `hcl:"vars,optional"`

	// What the image depends on besides the template, and how old it may become. Without the
	// block: on nothing else, and any age.
	Inputs *Inputs `hcl:"inputs,block"`

	// Checks on the machine of the build, after its last provisioner. The label names them.
	// Repeatable.
	Checks []Checks `hcl:"checks,block"`

	// Scans of the machine of the build with OpenSCAP or another scanner, after its checks.
	// The label is the kind: `openscap` or `command`. Repeatable.
	Scan []Scan `hcl:"scan,block"`

	// Verification of the finished image before it is copied, shared or tagged: machines of
	// it are launched, looked at, and deleted. The label names it. Repeatable.
	Verify []Verify `hcl:"verify,block"`

	// What becomes of older images of the same name.
	Retention *Retention `hcl:"retention,block"`

	// What a build may leave on its machine. Without the block: nothing of what is looked for.
	Leftovers *Leftovers `hcl:"leftovers,block"`

	// What is installed in the image, as a bill of materials among the reports. Without the
	// block there is none.
	SBOM *SBOM `hcl:"sbom,block"`

	// A signed attestation of how the image was built, among the reports. Without the block
	// there is none.
	Provenance *Provenance `hcl:"provenance,block"`

	// Where the image goes once it is verified. Without the block: where the template says.
	Distribute *Distribute `hcl:"distribute,block"`

	// What names the image that is current, in the order in which images go through them. The
	// label names the channel. Repeatable.
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

// unique complains about the name of a block that is empty, or that another one has.
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

	// Files in goss's format, or `bake:baseline`. A relative path starts where bake was
	// called, as in templates; `${path.root}` is the directory of the template.
	Files []string `hcl:"files"`

	// Fix what fails and can be fixed, and check again.
	Remediate bool `hcl:"remediate,optional"`

	// What may fail. Without the block: nothing.
	Gate *gates.Options `hcl:"gate,block"`
}

// Verify are the arguments of a verify block.
type Verify struct {
	Name string `hcl:"name,label"`

	// Types of instances to launch, one after the other. Not set: the type of the build's
	// instance.
	InstanceTypes []string `hcl:"instance_types,optional"`

	// User to log in as. Not set: the `ssh_username` of the source.
	SSHUsername string `hcl:"ssh_username,optional"`

	// How often each machine is restarted, to see that it comes back.
	Reboots int `hcl:"reboots,optional"`

	// How long each machine may take, from launch to deletion.
	Timeout time.Duration `hcl:"timeout,optional"`

	// Files of checks to run on each machine, as in a `checks` block.
	Checks []string `hcl:"checks,optional"`

	// What may fail of the checks. Without the block: nothing.
	Gate *gates.Options `hcl:"gate,block"`

	// Provisioners to run on each machine, as in a template. If one fails, so does the
	// verification. They have no `only`, `except` or `override`. Repeatable.
	Provisioners []schema.Block `hcl:"provisioner,block"`

	// Files that may differ from those of the machine that the image was made of, beside those
	// that every machine has its own of: paths, in which `*`, `?` and `[...]` stand for names,
	// and `**` for any number of directories.
	MayChange []string `hcl:"may_change,optional"`

	// What becomes of an image that fails: `delete` it, `keep` it where it was made, or
	// `quarantine` it, which also disables it, so that nobody can launch it.
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
	// Paths on the machine that may stay, with what is below them.
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
