package host

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/go-version"
	"golang.org/x/sync/errgroup"

	"bake/internal/hostpath"
)

// Binary is an installed plugin binary, as described by its path.
type Binary struct {
	Path    string
	Source  string // such as github.com/hashicorp/qemu
	Version string // such as 1.1.4 or 1.1.5-dev
	API     string // version of the plugin protocol, such as 5.0
	SHA256  string // of the file, in hexadecimal; empty until computed

	version *version.Version
}

// Name returns the default prefix of its components' names; a template may choose another.
func (b Binary) Name() string { return path.Base(b.Source) }

// Skipped is a binary that cannot be used.
type Skipped struct {
	Path string
	Why  string
}

// Requirement is a template's requirement of a plugin.
type Requirement struct {
	Source  string                    // such as github.com/hashicorp/qemu
	Version string                    // the constraint, for messages; empty if there is none
	Allows  func(version string) bool // nil allows every version; the argument has no prerelease suffix
	Locked  string                    // if not empty, only this version, such as 1.1.5-dev
}

// NotInstalled is the error if no installed binary meets a requirement.
type NotInstalled struct {
	Requirement
	dirs    []string
	Skipped []Skipped
}

func (e *NotInstalled) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the plugin %s", e.Source)
	if e.Version != "" {
		fmt.Fprintf(&b, " (version %s)", e.Version)
	}
	if b.WriteString(" is not installed"); len(e.dirs) > 0 {
		fmt.Fprintf(&b, " in %s", strings.Join(e.dirs, " or "))
	}
	for _, s := range e.Skipped {
		fmt.Fprintf(&b, "\n%s is not used: %s", s.Path, s.Why)
	}
	return b.String()
}

// Set is the set of installed plugins. Methods are safe for concurrent use.
type Set struct {
	options Options

	mu      sync.Mutex
	plugins map[string]*opened // by path
}

type opened struct {
	once   sync.Once
	plugin *Plugin
	err    error
}

// Installed returns the set of installed plugins. Directories are read only when needed.
func Installed(o Options) *Set { return &Set{options: o, plugins: map[string]*opened{}} }

// Limits on the search below a plugin directory.
const (
	maxDepth   = 16
	maxEntries = 10_000
)

// Binaries lists the binaries for this system, by source and, within a source, the newest first. It
// opens none of them.
func (s *Set) Binaries() (found []Binary, skipped []Skipped) {
	left := maxEntries
	for _, root := range s.options.Dirs {
		if root, err := filepath.Abs(root); err == nil {
			f, sk := s.walk(root, "", maxDepth, &left)
			found, skipped = append(found, f...), append(skipped, sk...)
		}
	}
	sort.SliceStable(found, func(i, j int) bool {
		a, b := found[i], found[j]
		return cmp.Or(cmp.Compare(a.Source, b.Source), b.version.Compare(a.version)) < 0
	})
	return found, skipped
}

func (s *Set) walk(root, source string, depth int, left *int) (found []Binary, skipped []Skipped) {
	dir := filepath.Join(root, filepath.FromSlash(source))
	entries, err := os.ReadDir(dir)
	if err != nil || depth == 0 {
		return nil, nil
	}
	found, skipped = s.binaries(dir, source, entries)
	for _, e := range entries {
		if *left--; *left < 0 {
			return found, append(skipped, Skipped{dir, "there are too many files in the directory of plugins"})
		}
		if e.Type()&(fs.ModeDir|fs.ModeSymlink) != 0 && isDir(filepath.Join(dir, e.Name())) {
			f, sk := s.walk(root, path.Join(source, e.Name()), depth-1, left)
			found, skipped = append(found, f...), append(skipped, sk...)
		}
	}
	return found, skipped
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// binaries returns the files in the directory of source that are for this system.
func (s *Set) binaries(dir, source string, entries []fs.DirEntry) (found []Binary, skipped []Skipped) {
	for _, e := range entries {
		b, why, ok := parse(source, e.Name())
		switch b.Path = filepath.Join(dir, e.Name()); {
		case !ok || isDir(b.Path):
		case why == "" && s.options.Releases && b.version.Prerelease() != "":
			skipped = append(skipped, Skipped{b.Path, "pre-releases are ignored"})
		case why != "":
			skipped = append(skipped, Skipped{b.Path, why})
		default:
			found = append(found, b)
		}
	}
	return found, skipped
}

// parse parses the name of a file: packer-plugin-NAME_vX.Y.Z[-dev]_xMAJOR.MINOR_OS_ARCH[.exe]. If
// ok is false, the file is not a plugin for this system. If why is not empty, it is one that cannot
// be used.
func parse(source, file string) (b Binary, why string, ok bool) {
	b.Source = source
	middle, prefixed := strings.CutPrefix(file, "packer-plugin-"+path.Base(source)+"_v")
	suffix := "_" + runtime.GOOS + "_" + runtime.GOARCH
	if runtime.GOOS == "windows" {
		suffix += ".exe"
	}
	middle, suffixed := strings.CutSuffix(middle, suffix)
	i := strings.LastIndex(middle, "_x")
	if !prefixed || !suffixed || i < 0 {
		return b, "", false
	}
	b.Version, b.API = middle[:i], middle[i+2:]
	v, err := version.NewSemver(b.Version)
	if err != nil {
		return b, fmt.Sprintf("%q is not a version", b.Version), true
	}
	b.version = v
	if p := v.Prerelease(); p != "" && p != "dev" {
		return b, fmt.Sprintf("%s is a pre-release; of those only versions that end in -dev are used", b.Version), true
	}
	if err := speaks(b.API); err != nil {
		return b, err.Error(), true
	}
	return b, "", true
}

// minor is the highest supported minor version of version 5 of the plugin protocol.
const minor = 0

// speaks returns an error if bake does not support a version of the plugin protocol, such as 5.0.
func speaks(api string) error {
	major, rest, _ := strings.Cut(api, ".")
	if n, err := strconv.Atoi(rest); major != "5" || err != nil || n < 0 || n > minor {
		return fmt.Errorf("it uses version %s of the plugin protocol, and bake 5.%d", api, minor)
	}
	return nil
}

// Require returns the newest installed plugin that meets a requirement. The error is a
// [*NotInstalled], that of [Options.Trust], or the cause of ctx.
func (s *Set) Require(ctx context.Context, r Requirement) (*Plugin, error) {
	missing := &NotInstalled{Requirement: r, dirs: s.options.Dirs}
	for _, b := range s.candidates(r.Source, &missing.Skipped) {
		if r.Locked != "" && b.Version != r.Locked || r.Allows != nil && !r.Allows(b.version.Core().String()) {
			missing.Skipped = append(missing.Skipped, Skipped{b.Path, fmt.Sprintf("its version is %s", b.Version)})
			continue
		}
		p, err := s.open(ctx, b)
		var unusable *unusable
		switch {
		case err == nil:
			return p, nil
		case !errors.As(err, &unusable):
			return nil, err
		}
		missing.Skipped = append(missing.Skipped, Skipped{b.Path, unusable.why})
	}
	return nil, missing
}

// candidates returns the binaries of a source, the newest first. The source is compared without
// regard to case.
func (s *Set) candidates(source string, skipped *[]Skipped) (found []Binary) {
	if !clean(source) {
		return nil
	}
	for _, root := range s.options.Dirs {
		root, err := filepath.Abs(root)
		if err != nil {
			continue
		}
		dir := filepath.Join(root, filepath.FromSlash(source))
		if entries, err := os.ReadDir(dir); err == nil {
			f, sk := s.binaries(dir, source, entries)
			found, *skipped = append(found, f...), append(*skipped, sk...)
		}
	}
	if len(found) == 0 && len(*skipped) == 0 {
		all, _ := s.Binaries()
		for _, b := range all {
			if strings.EqualFold(b.Source, source) {
				found = append(found, b)
			}
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[j].version.LessThan(found[i].version) })
	return found
}

// clean reports whether source is a valid path below a plugin directory.
func clean(source string) bool { return fs.ValidPath(source) && !strings.Contains(source, `\`) }

// unusable is the reason why a binary cannot be used, while another one may be.
type unusable struct {
	path, why string
}

func (e *unusable) Error() string { return e.path + ": " + e.why }

// Usable opens the binaries that want accepts. It returns those that can be used, in the order of
// Binaries, and why others cannot be used, by path. It fails only with the cause of ctx.
func (s *Set) Usable(ctx context.Context, want func(Binary) bool) (usable []*Plugin, skipped []Skipped, err error) {
	binaries, skipped := s.Binaries()
	binaries = slices.DeleteFunc(binaries, func(b Binary) bool { return !want(b) })
	plugins := make([]*Plugin, len(binaries))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, b := range binaries {
		g.Go(func() (err error) {
			if plugins[i], err = s.open(ctx, b); err != nil && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				skipped = append(skipped, Skipped{Path: b.Path, Why: strings.TrimPrefix(err.Error(), b.Path+": ")})
			}
			return context.Cause(ctx)
		})
	}
	err = g.Wait()
	sort.Slice(skipped, func(i, j int) bool { return skipped[i].Path < skipped[j].Path })
	return slices.DeleteFunc(plugins, func(p *Plugin) bool { return p == nil }), skipped, err
}

// open verifies that b matches its name and its checksum, and asks it for its description. It does
// so once per binary.
func (s *Set) open(ctx context.Context, b Binary) (*Plugin, error) {
	s.mu.Lock()
	o := s.plugins[b.Path]
	if o == nil {
		o = &opened{}
		s.plugins[b.Path] = o
	}
	s.mu.Unlock()
	o.once.Do(func() { o.plugin, o.err = open(ctx, b, s.options) })
	if o.err != nil && ctx.Err() == nil && errors.Is(o.err, context.Canceled) { // cancelled by another caller
		return open(ctx, b, s.options)
	}
	return o.plugin, o.err
}

func open(ctx context.Context, b Binary, o Options) (*Plugin, error) {
	var err error
	p := &Plugin{Binary: b, options: o, asking: &sync.Mutex{}}
	if p.SHA256, p.stamp, err = verify(ctx, b.Path); err != nil {
		return nil, err
	}
	if o.Trust != nil {
		if err := o.Trust(p.Binary); err != nil {
			return nil, err
		}
	}
	if p.Description, err = Describe(ctx, b.Path, o.Env); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, &unusable{b.Path, err.Error()}
	}
	switch v, err := version.NewSemver(strings.TrimPrefix(p.Description.Version, "v")); {
	case err != nil || v.Compare(b.version) != 0:
		return nil, &unusable{b.Path, fmt.Sprintf("it describes itself as version %q", p.Description.Version)}
	case strings.TrimPrefix(p.Description.API, "x") != b.API:
		return nil, &unusable{b.Path, fmt.Sprintf("it describes itself as one for version %q of the plugin protocol", p.Description.API)}
	}
	return p, nil
}

// sumSuffix is the suffix of the checksum file of a binary.
const sumSuffix = "_SHA256SUM"

// stamp serves to detect that a file has changed.
type stamp struct{ info fs.FileInfo }

func (s stamp) same(path string) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(s.info, info) && s.info.Size() == info.Size() && s.info.ModTime().Equal(info.ModTime())
}

// verify compares a binary with its checksum file and returns the checksum.
func verify(ctx context.Context, path string) (string, stamp, error) {
	var none stamp
	want, err := hostpath.Open(path + sumSuffix)
	if err != nil {
		return "", none, &unusable{path, "there is no file " + filepath.Base(path) + sumSuffix + " beside it with its checksum"}
	}
	defer want.Close()
	text, err := io.ReadAll(io.LimitReader(want, 1024))
	sum := strings.ToLower(strings.TrimSpace(string(text)))
	if raw, herr := hex.DecodeString(sum); err != nil || herr != nil || len(raw) != sha256.Size {
		return "", none, &unusable{path, want.Name() + " holds no checksum"}
	}
	f, err := hostpath.Open(path)
	if err != nil {
		return "", none, &unusable{path, err.Error()}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", none, &unusable{path, err.Error()}
	}
	h := sha256.New()
	if _, err := io.Copy(h, cancellable{ctx, f}); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", none, cause
		}
		return "", none, &unusable{path, err.Error()}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return "", none, &unusable{path, fmt.Sprintf("its SHA-256 checksum is %s, but its checksum file has %s; install it again", got, sum)}
	}
	return sum, stamp{info}, nil
}

// cancellable is a reader that ends with a context.
type cancellable struct {
	ctx context.Context
	io.Reader
}

func (r cancellable) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
