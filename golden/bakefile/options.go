package bakefile

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-version"

	"bake/config/schema"
	"bake/internal/release"
	"bake/internal/s3uri"
)

// Tool are the arguments of a bake block.
type Tool struct {
	// Releases of bake that can read the file, as a version constraint such as `>= 0.2` or
	// `~> 1.0`. Any other release refuses to run the template.
	RequiredVersion string `hcl:"required_version,optional"`

	// Directory for the reports of checks, leftovers and verifications, as JSON, JUnit and
	// SARIF, for SBOMs, lists of files and attestations. It is made if needed. A relative path
	// starts where bake was called. `s3://BUCKET/PREFIX` is a place in a bucket that exists:
	// credentials and region are those of every AWS tool, in a fleet too, and what is written or
	// read is also beside the log of the run. Not set: beside the log of the run alone, and deleted
	// with it.
	Reports string `hcl:"reports,optional"`
}

// Validate implements [schema.Validator].
func (o *Tool) Validate(c *schema.Checker) {
	if strings.HasPrefix(o.Reports, s3uri.Scheme) {
		if _, _, err := s3uri.Parse(o.Reports); err != nil {
			c.Errorf(&o.Reports, "Invalid bucket", "%s.", err)
		}
	} else if strings.Contains(o.Reports, "://") {
		c.Errorf(&o.Reports, "Not a place for reports", "%q is neither a directory nor s3://BUCKET/PREFIX.", o.Reports)
	}
	if o.RequiredVersion == "" {
		return
	}
	constraints, err := version.NewConstraint(o.RequiredVersion)
	if err != nil {
		c.Errorf(&o.RequiredVersion, "Invalid version constraint", "%q is not a version constraint such as \">= 0.2\" or \"~> 1.0\".", o.RequiredVersion)
		return
	}
	if !constraints.Check(version.Must(version.NewVersion(release.Version))) {
		c.Errorf(&o.RequiredVersion, otherVersion, "This file requires bake %s; this is bake %s.", o.RequiredVersion, release.Version)
	}
}

// otherVersion is the summary of the diagnostic for a file that is not for this release of
// bake.
const otherVersion = "Unsupported version of bake"

// Build are the arguments of a build block: limits of every run of the template.
type Build struct {
	// Cancel the run after this time, and delete what it created. `bake build -timeout`
	// takes its place. Where each image is built by a run of its own, because images refer to
	// others or have `for_each`, it is for each of them, and `-timeout` for all together.
	Timeout time.Duration `hcl:"timeout,optional"`

	// How long after the start of the run its machines end themselves, even if bake was
	// killed and nobody sweeps. It must be more than `timeout`. Not set: two hours after the
	// time limit of the run, if it has one.
	TerminateAfter time.Duration `hcl:"terminate_after,optional"`
}

// Validate implements [schema.Validator].
func (o *Build) Validate(c *schema.Checker) {
	for _, d := range []*time.Duration{&o.Timeout, &o.TerminateAfter} {
		if *d < 0 {
			c.Errorf(d, "Negative duration", "%s cannot be negative.", c.Name(d))
		}
	}
	if o.TerminateAfter > 0 && o.TerminateAfter <= o.Timeout {
		c.Errorf(&o.TerminateAfter, endsBefore, "%s", o.endsBefore(o.Timeout))
	}
	if o.TerminateAfter > 0 && o.TerminateAfter < time.Minute {
		c.Errorf(&o.TerminateAfter, "Too short", "A machine cannot end itself sooner than after one minute.")
	}
}

const endsBefore = "Machines end before their run"

func (o *Build) endsBefore(timeout time.Duration) string {
	return fmt.Sprintf("The run may take %s, but terminate_after is %s. It must be more.", timeout, o.TerminateAfter)
}

// Upload are the arguments of an upload block, whose label is a path on the machine. They
// are for what the file provisioner uploads there, and below it.
type Upload struct {
	// User that the files and directories belong to, by name or number. It takes root, or
	// sudo without a password. If the login user may not write there, root copies the files.
	Owner string `hcl:"owner,optional"`

	// Their group, by name or number. Not set: that of the login user, or of root for what
	// root copies.
	Group string `hcl:"group,optional"`

	// Permissions of files, in octal digits such as `0640`. Not set: those of the source.
	Mode string `hcl:"mode,optional"`

	// Permissions of directories, likewise.
	DirectoryMode string `hcl:"directory_mode,optional"`
}

var (
	octal   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-7]{3,4}$`) })
	account = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[^\s:/-][^\s:/]*$`) })
)

// Validate implements [schema.Validator].
func (o *Upload) Validate(c *schema.Checker) {
	for _, mode := range []*string{&o.Mode, &o.DirectoryMode} {
		if *mode != "" && !octal().MatchString(*mode) {
			c.Errorf(mode, "Invalid permissions", "%q is not three or four octal digits, such as \"0640\".", *mode)
		}
	}
	for _, name := range []*string{&o.Owner, &o.Group} {
		switch {
		case *name == "" || account().MatchString(*name):
		case name == &o.Owner && strings.Contains(*name, ":"):
			c.Errorf(name, "Invalid name", "%q is not the name or number of a user. Set group for the group.", *name)
		default:
			c.Errorf(name, "Invalid name", "%q is not a name or number.", *name)
		}
	}
	if !c.Set(&o.Owner) && !c.Set(&o.Group) && !c.Set(&o.Mode) && !c.Set(&o.DirectoryMode) {
		c.Errorf(&o.Owner, "Nothing to set", "Set owner, group, mode or directory_mode.")
	}
}
