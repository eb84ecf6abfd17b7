// Package setup installs the plugins that a template requires and makes sure that they match its
// lock file.
package setup

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	goversion "github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sync/errgroup"

	"bake/internal/prose"
	"bake/plugin/host"
	"bake/plugin/registry"
)

// Platform is the platform that this program runs on.
func Platform() registry.Platform { return registry.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH} }

// Refused is the error of a plugin that does not match the lock file. Its diagnostics name the line
// at fault.
type Refused struct{ Diags hcl.Diagnostics }

func (r *Refused) Error() string { return r.Diags.Error() }

// Unwrap returns the diagnostics, for errors.As.
func (r *Refused) Unwrap() error { return r.Diags }

// Trust returns a function for [host.Options] that checks a plugin against the lock file before it
// is started. Its error is a [*Refused].
func Trust(lock *registry.Lock) func(host.Binary) error {
	return func(b host.Binary) error {
		if diags := lock.Verify(b.Source, b.Version, b.SHA256, Platform()); diags.HasErrors() {
			return &Refused{diags}
		}
		return nil
	}
}

// TrustLocked is like Trust, but it also trusts versions other than the locked one, and plugins not
// yet locked for this platform.
func TrustLocked(lock *registry.Lock) func(host.Binary) error {
	return func(b host.Binary) error {
		if locked, ok := lock.Find(b.Source); !ok || b.Version != locked.Version || locked.Hash(Platform(), "bin") == "" {
			return nil
		}
		return Trust(lock)(b)
	}
}

// describe asks a binary for its version, with the environment env.
func describe(env []string) registry.Describe {
	return func(ctx context.Context, path string) (version, api string, err error) {
		d, err := host.Describe(ctx, path, env)
		return d.Version, d.API, err
	}
}

// Requirement is an entry of required_plugins.
type Requirement struct {
	Name       string
	Source     string
	Constraint string
	Allows     func(version string) bool // whether the constraint allows version
	Range      hcl.Range
}

// Options control how plugins are installed.
type Options struct {
	Registry *registry.Registry
	Dirs     []string // where plugins are searched; new ones go into the first
	Env      []string // environment of plugins
	Lock     *registry.Lock
	Upgrade  bool // take the newest allowed release, whatever is installed and locked
	Force    bool // reinstall what is installed
}

// Outcome is the result for one requirement.
type Outcome struct {
	Requirement
	Version, Path string // of the installed plugin
	New           bool   // it was installed just now
	Unavailable   bool   // Diags say why it cannot be obtained: nothing that was found is wrong, and the lock file does not forbid it
	Notes         []Note // what the user should know
	Diags         hcl.Diagnostics
}

// Note is something that the user should know about an installed plugin.
type Note struct{ Summary, Detail string }

// parallel is the maximum number of plugins that are downloaded at a time.
const parallel = 4

// Init installs the missing plugins, as far as possible, and updates o.Lock, which the caller
// saves. It returns one outcome for each requirement, in their order.
func Init(ctx context.Context, required []Requirement, o Options) []Outcome {
	plugins := merge(required)
	all := make([]*found, len(plugins))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, p := range plugins {
		g.Go(func() error {
			all[i] = o.plugin(ctx, p)
			return nil
		})
	}
	_ = g.Wait() // each has its own diagnostics
	var outcomes []Outcome
	for _, r := range required {
		f := all[slices.IndexFunc(plugins, func(p Requirement) bool { return strings.EqualFold(p.Source, r.Source) })]
		f.Requirement = r
		outcomes = append(outcomes, f.Outcome)
		f.New, f.Notes, f.Diags = false, nil, nil // another name of the same plugin
	}
	for _, f := range all {
		if f.lock != nil {
			o.Lock.Put(*f.lock)
		}
	}
	return outcomes
}

// Installation is the result for a plugin that was requested without a template.
type Installation struct {
	Release             *registry.Release // nil if none was found
	*registry.Installed                   // nil if it could not be installed
	New                 bool              // it was installed just now, not before
}

// dir is the directory for new plugins.
func (o Options) dir() (string, error) {
	if len(o.Dirs) == 0 {
		return "", errors.New("no plugin directory: the home directory is unknown; set PACKER_PLUGIN_PATH to a directory")
	}
	return o.Dirs[0], nil
}

// InstallFile installs a binary from this host into the first of o.Dirs, as the version that it
// reports.
func InstallFile(ctx context.Context, source registry.Source, binary string, o Options) (*registry.Installed, error) {
	dir, err := o.dir()
	if err != nil {
		return nil, err
	}
	return registry.InstallFile(ctx, dir, source, binary, Platform(), describe(o.Env))
}

// Install installs the newest allowed release for this platform into the first of o.Dirs. If the
// release is in one of them already, it does so only with o.Force. It does not use a lock file.
func Install(ctx context.Context, source registry.Source, allows func(version string) bool, o Options) (i Installation, err error) {
	dir, err := o.dir()
	if err != nil {
		return i, err
	}
	if i.Release, err = o.Registry.Find(ctx, source, Platform().Only(), allows); err != nil {
		return i, err
	}
	if !o.Force {
		there, _, err := host.Installed(host.Options{Dirs: o.Dirs, Env: o.Env}).Usable(ctx, func(b host.Binary) bool {
			return strings.EqualFold(b.Source, source.String()) && b.Version == i.Release.Version
		})
		if err != nil {
			return i, err
		}
		if len(there) > 0 {
			i.Installed = &registry.Installed{Path: there[0].Path, Source: source, Version: i.Release.Version}
			return i, nil
		}
	}
	i.New = true
	i.Installed, err = o.Registry.Install(ctx, dir, i.Release, Platform(), "", describe(o.Env))
	return i, err
}

// merge merges requirements that have the same source.
func merge(required []Requirement) (merged []Requirement) {
	for _, r := range required {
		i := slices.IndexFunc(merged, func(m Requirement) bool { return strings.EqualFold(m.Source, r.Source) })
		if i < 0 {
			merged = append(merged, r)
			continue
		}
		m := &merged[i]
		if m.Constraint != r.Constraint {
			m.Constraint += ", " + r.Constraint
		}
		first := m.Allows
		m.Allows = func(v string) bool { return first(v) && r.Allows(v) }
	}
	return merged
}

// found is the outcome of a requirement and its new entry in the lock file.
type found struct {
	Outcome
	lock *registry.Locked
}

func (f *found) failed(summary string, subject hcl.Range, format string, args ...any) *found {
	f.Diags = append(f.Diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Subject: subject.Ptr(), Detail: prose.Sprintf(format, args...)})
	return f
}

// plugin installs one plugin.
func (o Options) plugin(ctx context.Context, r Requirement) *found {
	f := &found{Outcome: Outcome{Requirement: r}}
	source, err := registry.ParseSource(r.Source)
	if err != nil {
		return f.failed(notInstalled, r.Range, "%v.", err)
	}
	locked, isLocked := o.Lock.Find(r.Source)
	wanted, diags := o.wanted(r)
	if diags.HasErrors() {
		f.Diags = diags
		return f
	}
	if !o.Upgrade && !o.Force {
		switch p, err := o.installed(ctx, r, wanted); {
		case err != nil:
			return f.broken(notInstalled, err)
		case p == nil:
		case isLocked && locked.Hash(Platform(), "bin") == "" && locked.Hash(Platform(), "zip") != "":
			// Only the archive can show that the plugin is the one that was locked on another
			// platform.
		default:
			return o.keep(ctx, f, p, nil)
		}
	}
	rel, err := o.find(ctx, source, Platform().Only(), wanted, r.Allows)
	if err != nil {
		return f.broken(notInstalled, err)
	}
	f.Notes = notes(rel)
	if f.Diags = o.unchanged(rel); f.Diags.HasErrors() {
		return f
	}
	same := isLocked && locked.Version == rel.Version
	if !o.Force {
		p, err := o.installed(ctx, r, rel.Version)
		if err != nil {
			return f.broken(notInstalled, err)
		}
		if o.Upgrade && p != nil && (!same || locked.Hash(Platform(), "bin") != "") {
			return o.keep(ctx, f, p, rel)
		}
	}
	dir, err := o.dir()
	if err != nil {
		return f.failed(notInstalled, r.Range, "%v.", err)
	}
	sum := ""
	if same {
		sum = locked.Hash(Platform(), "bin")
	}
	made, err := o.Registry.Install(ctx, dir, rel, Platform(), sum, describe(o.Env))
	if err != nil {
		return f.broken(notInstalled, err)
	}
	f.Version, f.Path, f.New = made.Version, made.Path, true
	o.record(f, rel, made.SHA256)
	return f
}

// wanted returns the version to install if it is locked, and otherwise nothing.
func (o Options) wanted(r Requirement) (version string, diags hcl.Diagnostics) {
	if o.Upgrade {
		return "", nil
	}
	return o.Lock.Version(r.Source, r.Constraint, r.Allows, r.Range)
}

// unchanged compares a release with its entry in the lock file.
func (o Options) unchanged(rel *registry.Release) hcl.Diagnostics {
	locked, ok := o.Lock.Find(rel.Source.String())
	if !ok || locked.Version != rel.Version {
		return nil
	}
	p, ok := locked.Differs(rel)
	if !ok {
		return nil
	}
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Release changed", Subject: locked.Range().Ptr(), Detail: fmt.Sprintf(
		"The checksum of %s %s for %s that %s publishes does not match the one locked here: the release was replaced after it was locked. Nothing was downloaded. If the publisher confirms the change, delete this block and run 'bake init' again.",
		rel.Source, rel.Version, p, rel.Site)}}
}

// notes returns what the user should know about the origin of a release.
func notes(rel *registry.Release) (all []Note) {
	for _, why := range rel.Failures {
		all = append(all, Note{"Site did not respond", fmt.Sprintf("%s v%s was found on %s; another site, which may have a newer release, did not respond: %s.", rel.Source, rel.Version, rel.Site, why)})
	}
	return all
}

// Core returns a version without its prerelease suffix.
func Core(version string) string {
	v, err := goversion.NewSemver(version)
	if err != nil {
		return version
	}
	return v.Core().String()
}

// installed returns the installed plugin in the wanted version or, if that is empty, in the newest
// version that the constraint allows; nil if there is none. A binary that does not match the lock
// file is not run and is an error.
func (o Options) installed(ctx context.Context, r Requirement, wanted string) (*host.Plugin, error) {
	set := host.Installed(host.Options{Dirs: o.Dirs, Env: o.Env, Trust: TrustLocked(o.Lock)})
	want := host.Requirement{Source: r.Source, Version: r.Constraint, Allows: r.Allows}
	if wanted != "" {
		want.Allows, want.Locked = nil, wanted
	}
	p, err := set.Require(ctx, want)
	if _, missing := errors.AsType[*host.NotInstalled](err); missing {
		return nil, nil
	}
	return p, err
}

// find returns the release to install: the wanted one, or the newest.
func (o Options) find(ctx context.Context, source registry.Source, on registry.Platforms, wanted string, allows func(string) bool) (*registry.Release, error) {
	if wanted != "" {
		return o.Registry.Exactly(ctx, source, on, wanted)
	}
	return o.Registry.Find(ctx, source, on, allows)
}

const notInstalled = "Plugin not installed"

// broken marks f as a plugin that could not be installed.
func (f *found) broken(summary string, err error) *found {
	if refused, ok := errors.AsType[*Refused](err); ok {
		f.Diags = append(f.Diags, refused.Diags...)
		return f
	}
	detail := prose.Sprintf("%v.", err)
	if missing, ok := errors.AsType[*registry.NotFoundError](err); ok {
		detail = fmt.Sprintf("No release of %s that meets %q can be installed:", f.Source, f.Constraint)
		for _, reason := range missing.Reasons {
			detail += "\n- " + reason
		}
	}
	_, untrusted := errors.AsType[*registry.UntrustedError](err)
	f.Unavailable = !untrusted
	return f.failed(summary, f.Range, "%s", detail)
}

// patience limits the request for the checksums of an installed plugin.
const patience = 10 * time.Second

// keep makes an installed plugin the outcome. If rel is nil and the lock file has no checksums of
// its release, it requests them.
func (o Options) keep(ctx context.Context, f *found, p *host.Plugin, rel *registry.Release) *found {
	f.Version, f.Path = p.Version, p.Path
	if rel == nil && !o.knowsArchives(f) {
		short, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no response within %s", patience))
		defer cancel()
		source, err := registry.ParseSource(f.Source)
		if err == nil {
			rel, err = o.Registry.Exactly(short, source, Platform().Only(), p.Version)
		}
		if err != nil && Core(p.Version) == p.Version {
			f.Notes = append(f.Notes, Note{"Plugin locked for this platform only", fmt.Sprintf("%s v%s is locked for %s only, because its published checksums could not be downloaded: %v.", f.Source, p.Version, Platform(), err)})
		}
	}
	o.record(f, rel, p.SHA256)
	return f
}

// knowsArchives reports whether the lock file has checksums of the release's archives.
func (o Options) knowsArchives(f *found) bool {
	locked, ok := o.Lock.Find(f.Source)
	return ok && locked.Version == f.Version && slices.ContainsFunc(locked.Hashes, func(h registry.Hash) bool { return h.Kind == "zip" })
}

// record locks the installed plugin. Hashes already locked for the same version are kept.
func (o Options) record(f *found, rel *registry.Release, sum string) {
	entry := registry.NewLocked(f.Source, f.Version, f.Constraint)
	if locked, ok := o.Lock.Find(f.Source); ok && locked.Version == f.Version {
		entry.Hashes = slices.Clone(locked.Hashes)
	}
	entry.Add(rel, Platform(), sum)
	f.lock = &entry
}

// Mirrored is a release that was copied to a mirror.
type Mirrored struct {
	Source, Version string
	Files           []string // names of archives
	Notes           []Note
}

// Mirror copies the releases of the requirements to the mirror dir: the locked ones, or else the
// newest allowed. It continues after errors.
func Mirror(ctx context.Context, required []Requirement, dir string, platforms registry.Platforms, o Options) (copied []Mirrored, diags hcl.Diagnostics) {
	for _, r := range merge(required) {
		f := &found{Outcome: Outcome{Requirement: r}}
		m, err := o.mirror(ctx, f, dir, platforms)
		if err != nil {
			f.broken("Plugin not copied", err)
		}
		if diags = append(diags, f.Diags...); m != nil {
			copied = append(copied, *m)
		}
	}
	return copied, diags
}

func (o Options) mirror(ctx context.Context, f *found, dir string, platforms registry.Platforms) (*Mirrored, error) {
	source, err := registry.ParseSource(f.Source)
	if err != nil {
		return nil, err
	}
	wanted, diags := o.wanted(f.Requirement)
	if f.Diags = diags; diags.HasErrors() {
		return nil, nil
	}
	rel, err := o.find(ctx, source, platforms, wanted, f.Allows)
	if err != nil {
		return nil, err
	}
	if f.Diags = o.unchanged(rel); f.Diags.HasErrors() {
		return nil, nil
	}
	files, err := o.Registry.Mirror(ctx, dir, rel, platforms)
	if err != nil {
		return nil, err
	}
	return &Mirrored{f.Source, rel.Version, files, notes(rel)}, nil
}
