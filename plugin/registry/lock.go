package registry

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strings"

	goversion "github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"bake/internal/constant"
	"bake/internal/hostpath"
	"bake/internal/lazyregexp"
	"bake/internal/limits"
	"bake/internal/prose"
	"bake/internal/wholefile"
)

// LockFile is the name of the lock file, which is in the template's directory.
const LockFile = "bake.lock.hcl"

// Lock is a lock file: the chosen release of each plugin, and its checksums.
type Lock struct {
	path    string
	exists  bool
	old     []byte
	plugins []Locked
	parser  *hclparse.Parser
}

// Locked is a plugin's entry in a lock file.
type Locked struct {
	Source      string
	Version     string
	Constraints string // the template's, when the release was chosen
	API         string
	Hashes      []Hash

	rng    hcl.Range
	hashes hcl.Range
}

// Hash is the SHA-256 checksum of an archive or of the binary in it.
type Hash struct {
	Platform Platform
	Kind     string // zip or bin
	SHA256   string

	rng hcl.Range
}

func (h Hash) String() string { return fmt.Sprintf("%s:%s:sha256:%s", h.Platform, h.Kind, h.SHA256) }

var hashForm = lazyregexp.New(`^([a-z0-9]+_[a-z0-9]+):(zip|bin):sha256:([0-9a-f]{64})$`)

func parseHash(text string) (Hash, error) {
	m := hashForm.Get().FindStringSubmatch(text)
	if m == nil {
		return Hash{}, fmt.Errorf("%q is not a hash such as linux_amd64:zip:sha256:… with 64 hexadecimal digits", clip(text))
	}
	p, err := parsePlatform(m[1])
	return Hash{Platform: p, Kind: m[2], SHA256: m[3]}, err
}

// Hash returns the checksum of a kind for a platform, or "" if there is none.
func (l *Locked) Hash(p Platform, kind string) string {
	h, _ := l.find(p, kind)
	return h.SHA256
}

func (l *Locked) find(p Platform, kind string) (h Hash, ok bool) {
	i := slices.IndexFunc(l.Hashes, func(h Hash) bool { return h.Platform == p && h.Kind == kind })
	if i < 0 {
		return Hash{}, false
	}
	return l.Hashes[i], true
}

// set adds or replaces a checksum.
func (l *Locked) set(p Platform, kind, sum string) {
	l.Hashes = slices.DeleteFunc(l.Hashes, func(h Hash) bool { return h.Platform == p && h.Kind == kind })
	l.Hashes = append(l.Hashes, Hash{Platform: p, Kind: kind, SHA256: sum})
}

// Differs returns the platform for which a release's archive differs from the lock file. ok is
// false if there is none.
func (l *Locked) Differs(r *Release) (p Platform, ok bool) {
	for _, a := range r.Archives {
		if sum := l.Hash(a.Platform, "zip"); sum != "" && sum != a.SHA256 {
			return a.Platform, true
		}
	}
	return Platform{}, false
}

// Range is the position of the plugin in the lock file.
func (l *Locked) Range() hcl.Range { return l.rng }

// ReadLock reads a lock file. A file that does not exist locks nothing. The lock's Files are valid
// whatever the diagnostics are.
func ReadLock(path string) (*Lock, hcl.Diagnostics) {
	l := &Lock{path: path, parser: hclparse.NewParser()}
	unreadable := func(err error) (*Lock, hcl.Diagnostics) {
		return l, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Lock file not readable", Detail: prose.Sprintf("%s: %v.", path, err)}}
	}
	src, err := hostpath.Read(path, hostpath.Limit)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return unreadable(err)
	}
	if err := limits.Source(src, limits.HCL); err != nil {
		return unreadable(err)
	}
	l.exists, l.old = true, src
	f, diags := l.parser.ParseHCL(src, path)
	if diags.HasErrors() {
		for _, d := range diags {
			d.Detail += " 'bake init' writes this file; if it cannot be repaired, delete it and run 'bake init' again."
		}
		return l, diags
	}
	content, diags := f.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "plugin", LabelNames: []string{"source"}}}})
	for _, b := range content.Blocks {
		p, more := readLocked(b)
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		if first, ok := l.Find(p.Source); ok {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Plugin locked twice", Subject: b.DefRange.Ptr(),
				Detail: fmt.Sprintf("%s is locked already, at %s. Delete one of the two.", p.Source, first.rng)})
			continue
		}
		l.plugins = append(l.plugins, p)
	}
	return l, diags
}

func readLocked(b *hcl.Block) (Locked, hcl.Diagnostics) {
	p := Locked{Source: b.Labels[0], rng: b.DefRange}
	content, diags := b.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{
		{Name: "version", Required: true}, {Name: "constraints"}, {Name: "api"}, {Name: "hashes", Required: true},
	}})
	if diags.HasErrors() {
		return p, diags
	}
	wrong := func(rng hcl.Range, err error) {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Invalid lock file", Subject: rng.Ptr(),
			Detail: fmt.Sprintf("%v. Run 'bake init' again after you have deleted this block.", err)})
	}
	if _, err := ParseSource(p.Source); err != nil {
		wrong(b.LabelRanges[0], err)
	}
	for name, to := range map[string]*string{"version": &p.Version, "constraints": &p.Constraints, "api": &p.API} {
		if a, ok := content.Attributes[name]; ok {
			text, more := constant.String(a.Expr)
			*to, diags = text, append(diags, more...)
		}
	}
	if _, err := goversion.NewSemver(p.Version); err != nil {
		wrong(content.Attributes["version"].Range, fmt.Errorf("%q is not a version", clip(p.Version)))
	}
	hashes := content.Attributes["hashes"]
	p.hashes = hashes.Range
	list, more := hcl.ExprList(hashes.Expr)
	diags = append(diags, more...)
	for _, expr := range list {
		text, more := constant.String(expr)
		if diags = append(diags, more...); more.HasErrors() {
			break
		}
		h, err := parseHash(text)
		if err != nil {
			wrong(expr.Range(), err)
			break
		}
		h.rng = expr.Range()
		p.Hashes = append(p.Hashes, h)
	}
	return p, diags
}

// Files returns the files that diagnostics refer to.
func (l *Lock) Files() map[string]*hcl.File { return l.parser.Files() }

// Find returns the entry of a plugin.
func (l *Lock) Find(source string) (*Locked, bool) {
	i := slices.IndexFunc(l.plugins, func(p Locked) bool { return strings.EqualFold(p.Source, source) })
	if i < 0 {
		return nil, false
	}
	return &l.plugins[i], true
}

// Put sets the entry of a plugin.
func (l *Lock) Put(p Locked) {
	l.plugins = slices.DeleteFunc(l.plugins, func(q Locked) bool { return strings.EqualFold(p.Source, q.Source) })
	l.plugins = append(l.plugins, p)
}

// Version returns the locked version of a plugin, or "" if none is locked. If the template's
// constraint excludes that version, this is an error, at the requirement.
func (l *Lock) Version(source, constraint string, allows func(version string) bool, required hcl.Range) (string, hcl.Diagnostics) {
	p, ok := l.Find(source)
	if !ok {
		return "", nil
	}
	v, err := goversion.NewSemver(p.Version)
	if err != nil || !allows(v.Core().String()) {
		return "", hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Locked version excluded", Subject: required.Ptr(),
			Detail: fmt.Sprintf("%s is locked to version %s, at %s, but %s is required here. Run 'bake init -upgrade' to select and lock another version.", source, p.Version, p.rng, constraint)}}
	}
	return p.Version, nil
}

// Verify checks an installed binary against the lock file. Its diagnostics refer to the line at
// fault, unless the file has no entry of the plugin. Without a lock file every plugin is accepted.
// Call it before the binary is run.
func (l *Lock) Verify(source, version, sum string, p Platform) hcl.Diagnostics {
	at, ok := l.Find(source)
	switch {
	case !l.exists:
		return nil
	case !ok:
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Plugin not locked", Detail: fmt.Sprintf(
			"The plugin %s is installed, but %s does not list it, so bake did not run it. If the template should use it, see that it is in required_plugins, run 'bake init', and commit the lock file.", source, l.path)}}
	}
	refuse := func(rng hcl.Range, summary, format string, args ...any) hcl.Diagnostics {
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Subject: rng.Ptr(), Detail: fmt.Sprintf(format, args...)}}
	}
	switch want, ok := at.find(p, "bin"); {
	case version != at.Version:
		return refuse(at.rng, "Plugin version not locked", "Version %s of %s is installed, but version %s is locked. Run 'bake init' to install the locked version, or 'bake init -upgrade' to lock a newer one.", version, source, at.Version)
	case !ok:
		return refuse(at.hashes, "Plugin not locked for this platform", "The lock file has no hash of the %s binary for %s. Run 'bake init' to verify the plugin and add its hash.", source, p)
	case want.SHA256 != sum:
		return refuse(want.rng, "Plugin changed",
			"The installed binary of %s %s for %s has the SHA-256 checksum %s, but the lock file has %s, so bake did not run it. If you did not change it yourself, find out who did. "+
				"'bake init -force' installs the locked release again. If you replaced it on purpose, delete this block and run 'bake init' to lock what is installed.",
			source, version, p, sum, want.SHA256)
	}
	return nil
}

const lockHeader = `# The plugin versions that this template uses, with their hashes. Written by
# "bake init"; commit it. Every command verifies plugins against it before starting
# them. "bake init -upgrade" selects newer versions.
`

// Save writes the lock file if it has changed.
func (l *Lock) Save() error {
	text := l.format()
	if l.exists && bytes.Equal(text, l.old) || !l.exists && len(l.plugins) == 0 {
		return nil
	}
	if err := wholefile.WriteData(l.path, 0o644, text); err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	l.exists, l.old = true, text
	return nil
}

// format returns the text of the file, which depends only on the plugins.
func (l *Lock) format() []byte {
	var b strings.Builder
	b.WriteString(lockHeader)
	plugins := slices.Clone(l.plugins)
	sort.Slice(plugins, func(i, j int) bool { return plugins[i].Source < plugins[j].Source })
	for _, p := range plugins {
		fmt.Fprintf(&b, "\nplugin %s {\n  version     = %s\n  constraints = %s\n  api         = %s\n  hashes = [\n", constant.Quote(p.Source), constant.Quote(p.Version), constant.Quote(p.Constraints), constant.Quote(p.API))
		hashes := slices.Clone(p.Hashes)
		sort.Slice(hashes, func(i, j int) bool {
			a, b := hashes[i], hashes[j]
			return cmp.Or(strings.Compare(a.Platform.String(), b.Platform.String()), strings.Compare(a.Kind, b.Kind)) < 0
		})
		for _, h := range hashes {
			fmt.Fprintf(&b, "    %s,\n", constant.Quote(h.String()))
		}
		b.WriteString("  ]\n}\n")
	}
	return []byte(b.String())
}

// NewLocked returns an entry for a plugin, without checksums.
func NewLocked(source, version, constraints string) Locked {
	return Locked{Source: source, Version: version, Constraints: constraints, API: apiKept}
}

// Add adds the checksums of a release's archives, and that of the binary installed on the platform
// p. rel is nil for a plugin that was not downloaded.
func (l *Locked) Add(rel *Release, p Platform, binary string) {
	if rel != nil {
		for _, a := range rel.Archives {
			l.set(a.Platform, "zip", a.SHA256)
		}
	}
	l.set(p, "bin", binary)
}
