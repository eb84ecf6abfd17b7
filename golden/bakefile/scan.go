package bakefile

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"bake/config/lang"
	"bake/config/schema"
	"bake/golden/gates"
	"bake/internal/age"
)

// Scan are the arguments of a scan block, whose label is its kind: `openscap`, or `command`
// for any other scanner. What it looks at is the machine of the build, after its checks. A
// scan that cannot take place closes its gate.
type Scan struct {
	Kind string `hcl:"kind,label"`

	// Name of the scan, for its reports and as `scan.NAME` for channels. Not set: `openscap`.
	// A `command` needs one.
	Name string `hcl:"name,optional"`

	// For `openscap`: the file with the SCAP content, such as a source data stream of the
	// SCAP Security Guide.
	Content string `hcl:"content,optional"`

	// For `openscap`: SHA-256 of the content, in hexadecimal digits. Another content is an
	// error before anything is launched. Not set: not checked.
	SHA256 string `hcl:"sha256,optional"`

	// For `openscap`: ID of the profile in the content or in the tailoring, or the end of it.
	Profile string `hcl:"profile,optional"`

	// For `openscap`: ID of the data stream in the content. Needed if there are several.
	DataStream string `hcl:"data_stream,optional"`

	// For `openscap`: how old the content may be, such as `90d`, by the newest of the dates in
	// it. Older content is an error before anything is launched. Not set: any age.
	MaxAge age.Age `hcl:"max_age,optional"`

	// For `openscap`: a tailoring file.
	Tailoring string `hcl:"tailoring,optional"`

	// For `command`: the command line, for `sh`. What it has found, it writes to its standard
	// output. A program that cannot writes a file first: `grype dir:/ -o sarif`, or
	// `scan --out /tmp/x >&2; cat /tmp/x; rm /tmp/x`.
	Command string `hcl:"command,optional"`

	// For `command`: where it runs. On the `machine` it runs as root. On the `host` that bake
	// runs on it has the environment of bake, with `BAKE_SBOM`, the path of the SBOM of
	// the machine in the first of its formats if the image has an `sbom` block, `BAKE_REPORTS`, the directory of the reports on this host, and `BAKE_BUILD_NAME`.
	On Place `hcl:"on,optional"`

	// For `command`: what it writes. With `exit-code` that does not matter: exit status 0
	// passes, and any other fails. A command that fails although nothing in its report does
	// closes the gate.
	Format ScanFormat `hcl:"format,optional"`

	// For `command`: the exit statuses, besides 0, by which it says that it has found something,
	// such as `[100, 101]`. Any other closes the gate, as the scan may not be complete. Not
	// set: 1. With the format `exit-code` there are none.
	ExitCodes []int `hcl:"exit_codes,optional"`

	// How long the scan may take.
	Timeout time.Duration `hcl:"timeout,optional"`

	// What may fail. Without the block: nothing.
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

// ScanFormat is what a command writes.
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
	digest   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Fa-f]{64}$`) })
	scanName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`) })
)

// Validate implements [schema.Validator].
func (o *Scan) Validate(c *schema.Checker) {
	of := map[string][]any{
		OpenSCAP: {&o.Content, &o.SHA256, &o.Profile, &o.Tailoring, &o.DataStream, &o.MaxAge},
		Command:  {&o.Command, &o.On, &o.Format, &o.ExitCodes},
	}
	kinds := []string{OpenSCAP, Command}
	if !slices.Contains(kinds, o.Kind) {
		c.Errorf(&o.Kind, "Unknown kind of scan", "There is no scan %q.%s There are openscap, and command for any other scanner.", o.Kind, lang.DidYouMean(o.Kind, kinds))
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
	if o.Name != "" && !scanName().MatchString(o.Name) {
		c.Errorf(&o.Name, "Invalid name", "%q is not a name of letters, digits, dots, dashes and underscores, which begins with a letter or digit.", o.Name)
	}
	if o.SHA256 != "" && !digest().MatchString(o.SHA256) {
		c.Errorf(&o.SHA256, "Invalid digest", "%q is not a SHA-256 digest in 64 hexadecimal digits, as sha256sum prints it.", o.SHA256)
	}
	if c.Set(&o.ExitCodes) && o.Format == "exit-code" {
		c.Errorf(&o.ExitCodes, "Exit codes of exit-code", "With the format exit-code, exit status 0 passes and any other fails. Remove exit_codes, or have the command end with 0.")
	}
	for _, code := range o.ExitCodes {
		if code < 1 || code > 125 {
			c.Errorf(&o.ExitCodes, "Invalid exit code", "%d is not an exit status by which a command says what it has found: give numbers from 1 to 125.", code)
		}
	}
	if o.Timeout <= 0 && c.Known(&o.Timeout) {
		c.Errorf(&o.Timeout, "Invalid timeout", "timeout must be a duration such as \"30m\".")
	}
}

// scans complains about two scans with one name.
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
