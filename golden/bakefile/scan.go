package bakefile

import (
	"slices"
	"strings"
	"time"

	"bake/config/lang"
	"bake/config/schema"
	"bake/golden/gates"
	"bake/internal/age"
	"bake/internal/lazyregexp"
)

// Scan are the arguments of a scan block, whose label is its kind: `openscap`, or `command`
// for any other scanner. It scans the build's machine after the checks. A scan that cannot
// be carried out closes the gate.
type Scan struct {
	Kind string `hcl:"kind,label"`

	// Name of the scan in reports and, as `scan.NAME`, for channels. Not set: `openscap`.
	// Required for `command`.
	Name string `hcl:"name,optional"`

	// For `openscap`: file with the SCAP content, such as a source data stream of the SCAP
	// Security Guide.
	Content string `hcl:"content,optional"`

	// For `openscap`: SHA-256 of the content file in hexadecimal. A mismatch is an error
	// before anything is launched. Not set: not checked.
	SHA256 string `hcl:"sha256,optional"`

	// For `openscap`: ID, or the end of the ID, of a profile in the content or the tailoring.
	Profile string `hcl:"profile,optional"`

	// For `openscap`: ID of the data stream in the content. Required if there are several.
	DataStream string `hcl:"data_stream,optional"`

	// For `openscap`: maximum age of the content, such as `90d`, by the newest date in it.
	// Older content is an error before anything is launched. Not set: any age.
	MaxAge age.Age `hcl:"max_age,optional"`

	// For `openscap`: tailoring file.
	Tailoring string `hcl:"tailoring,optional"`

	// For `command`: command line for `sh` that writes its findings to standard output, such
	// as `grype dir:/ -o sarif`. For a program that can only write a file: `scan --out /tmp/x
	// >&2; cat /tmp/x; rm /tmp/x`.
	Command string `hcl:"command,optional"`

	// For `command`: where it runs. On the `machine`, it runs as root. On the `host` that bake runs
	// on, it has bake's environment and these variables: `BAKE_SBOM`, the path of the machine's SBOM
	// in the first of its formats, if the image has an `sbom` block; `BAKE_REPORTS`, the directory of
	// the reports on this host; and `BAKE_BUILD_NAME`.
	On Place `hcl:"on,optional"`

	// For `command`: format of the output. With `exit-code`, the output does not matter:
	// exit status 0 passes, and any other fails. If the command reports a failure by its
	// exit status, but its output contains none, the gate is closed.
	Format ScanFormat `hcl:"format,optional"`

	// For `command`: exit statuses, besides 0, that mean that something was found, such as
	// `[100, 101]`. Any other closes the gate, because the scan may be incomplete. Not set: 1.
	// Not used with the format `exit-code`.
	ExitCodes []int `hcl:"exit_codes,optional"`

	// Time limit of the scan.
	Timeout time.Duration `hcl:"timeout,optional"`

	// Failures to accept. Without the block: none.
	Gate *gates.Options `hcl:"gate,block"`
}

// Kinds of scans.
const (
	OpenSCAP = "openscap"
	Command  = "command"
)

// Reads implements [schema.Reader].
func (o *Scan) Reads() []string { return []string{o.Content, o.Tailoring} }

// SetDefaults implements [schema.Defaulter].
func (o *Scan) SetDefaults() { o.Timeout, o.On = 30*time.Minute, OnMachine }

// Place is where a command runs.
type Place string

// The places.
const (
	OnMachine Place = "machine"
	OnHost    Place = "host"
)

// Choices implements [schema.Choices].
func (Place) Choices() []string { return []string{string(OnMachine), string(OnHost)} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Place) UnmarshalText(b []byte) error { return schema.ParseChoice(p, b, p.Choices()) }

// ScanFormat is the format of a command's output.
type ScanFormat string

// Choices implements [schema.Choices].
func (ScanFormat) Choices() []string { return []string{"sarif", "junit", "tap", "xccdf", "exit-code"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *ScanFormat) UnmarshalText(b []byte) error { return schema.ParseChoice(f, b, f.Choices()) }

// FullName returns the name of the scan: that of its kind if it has no other.
func (o *Scan) FullName() string {
	if o.Name == "" {
		return o.Kind
	}
	return o.Name
}

var (
	digest   = lazyregexp.New(`^[0-9A-Fa-f]{64}$`)
	scanName = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// Validate implements [schema.Validator].
func (o *Scan) Validate(c *schema.Checker) {
	of := map[string][]any{
		OpenSCAP: {&o.Content, &o.SHA256, &o.Profile, &o.Tailoring, &o.DataStream, &o.MaxAge},
		Command:  {&o.Command, &o.On, &o.Format, &o.ExitCodes},
	}
	kinds := []string{OpenSCAP, Command}
	if !slices.Contains(kinds, o.Kind) {
		c.Errorf(&o.Kind, "Unknown kind of scan", "Unknown scan %q.%s Use openscap, or command for any other scanner.", o.Kind, lang.DidYouMean(o.Kind, kinds))
		return
	}
	for _, kind := range kinds {
		for _, s := range of[kind] {
			if kind != o.Kind && c.Set(s) {
				c.Errorf(s, "Argument of another kind of scan", "%s is for scan %q, and this is scan %q.", c.Name(s), kind, o.Kind)
			}
		}
	}
	need := map[any]string{&o.Content: o.Content, &o.Profile: o.Profile}
	if o.Kind == Command {
		need = map[any]string{&o.Name: o.Name, &o.Command: o.Command, &o.Format: string(o.Format)}
	}
	for _, option := range append(of[o.Kind], &o.Name) {
		if value, ok := need[option]; ok && c.Known(option) && strings.TrimSpace(value) == "" {
			c.Errorf(option, "Missing "+c.Name(option), "A scan %q needs %s.", o.Kind, c.Name(option))
		}
	}
	if o.Name != "" && !scanName.Get().MatchString(o.Name) {
		c.Errorf(&o.Name, "Invalid name", "%q is not a name of letters, digits, dots, dashes and underscores, which begins with a letter or digit.", o.Name)
	}
	if o.SHA256 != "" && !digest.Get().MatchString(o.SHA256) {
		c.Errorf(&o.SHA256, "Invalid digest", "%q is not a SHA-256 digest in 64 hexadecimal digits, as sha256sum prints it.", o.SHA256)
	}
	if c.Set(&o.ExitCodes) && o.Format == "exit-code" {
		c.Errorf(&o.ExitCodes, "Exit codes of exit-code", "With the format exit-code, exit status 0 passes and any other fails. Remove exit_codes, or have the command end with 0.")
	}
	for _, code := range o.ExitCodes {
		if code < 1 || code > 125 {
			c.Errorf(&o.ExitCodes, "Invalid exit code", "%d cannot be an exit status for findings: use numbers from 1 to 125.", code)
		}
	}
	if o.Timeout <= 0 && c.Known(&o.Timeout) {
		c.Errorf(&o.Timeout, "Invalid timeout", "timeout must be a duration such as \"30m\".")
	}
}

// scans reports scans with the same name.
func (o *Image) scans(c *schema.Checker) {
	seen := map[string]bool{}
	for i := range o.Scan {
		s := &o.Scan[i]
		at := &s.Name
		if s.Name == "" {
			at = &s.Kind
		}
		if !c.Known(&s.Name) {
			continue
		}
		if seen[s.FullName()] {
			c.Errorf(at, "Duplicate name", "This image has a scan %q already. Set name to another one.", s.FullName())
		}
		seen[s.FullName()] = true
	}
}
