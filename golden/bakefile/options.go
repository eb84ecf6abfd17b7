package bakefile

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-version"

	"bake/config/schema"
	"bake/internal/lazyregexp"
	"bake/internal/release"
	"bake/internal/s3uri"
)

// Tool are the arguments of a bake block.
type Tool struct {
	// Version constraint for the bake releases that can read the file, such as `>= 0.2` or
	// `~> 1.0`. Other releases refuse to run the template.
	RequiredVersion string `hcl:"required_version,optional"`

	// Directory for the reports of checks, leftovers and verifications in JSON, JUnit and SARIF
	// format, and for SBOMs, file lists and attestations. It is created if needed. Relative paths
	// start at the current directory. `s3://BUCKET/PREFIX` is a location in an existing S3 bucket,
	// accessed with the usual AWS credentials and region, even in a fleet; documents that are
	// written or read are also stored next to the run's log. Not set: only next to the run's log,
	// and deleted with it.
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
	// overrides it. If each image is built by a separate run, because images refer to others
	// or have `for_each`, this limit applies to each of them, and `-timeout` to all together.
	Timeout time.Duration `hcl:"timeout,optional"`

	// Time after the start of the run at which its machines shut themselves down, even if
	// bake was killed and `bake sweep` does not run. It must be longer than `timeout`. Not
	// set: two hours after the time limit of the run, if there is one.
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
// apply to everything that the file provisioner uploads there or below.
type Upload struct {
	// Owner of the files and directories, by name or number. This needs root, or sudo
	// without a password. If the login user may not write there, root copies the files.
	Owner string `hcl:"owner,optional"`

	// Group of the files and directories, by name or number. Not set: that of the login
	// user, or root's for files that root copies.
	Group string `hcl:"group,optional"`

	// Permissions of files in octal, such as `0640`. Not set: those of the source.
	Mode string `hcl:"mode,optional"`

	// Permissions of directories in octal. Not set: those of the source.
	DirectoryMode string `hcl:"directory_mode,optional"`
}

var (
	octal   = lazyregexp.New(`^[0-7]{3,4}$`)
	account = lazyregexp.New(`^[^\s:/-][^\s:/]*$`)
)

// Validate implements [schema.Validator].
func (o *Upload) Validate(c *schema.Checker) {
	for _, mode := range []*string{&o.Mode, &o.DirectoryMode} {
		if *mode != "" && !octal.Get().MatchString(*mode) {
			c.Errorf(mode, "Invalid permissions", "%q is not three or four octal digits, such as \"0640\".", *mode)
		}
	}
	for _, name := range []*string{&o.Owner, &o.Group} {
		switch {
		case *name == "" || account.Get().MatchString(*name):
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
