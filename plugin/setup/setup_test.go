//go:build unix

package setup

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	goversion "github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"

	"bake/plugin/host"
	"bake/plugin/registry"
)

// world is a mirror, a directory of plugins and a lock file.
type world struct {
	t            *testing.T
	mirror, root string
	lock         string
}

func newWorld(t *testing.T) world {
	return world{t, t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), registry.LockFile)}
}

func (w world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func script(version, note string) string {
	return fmt.Sprintf("#!/bin/sh\n# %s\ntouch \"$0.ran\"\necho '{\"version\":\"%s\",\"api_version\":\"x5.0\",\"builders\":[\"x\"]}'\n", note, version)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// publish puts versions of a plugin into the mirror, for this platform and another. It
// returns the checksum of this platform's archive of the last one.
func (w world) publish(source, note string, versions ...string) (archive string) {
	w.t.Helper()
	product := "packer-plugin-" + path.Base(source)
	home := filepath.Join(w.mirror, path.Dir(source), product)
	index := map[string]map[string]struct{}{"versions": {}}
	for _, v := range versions {
		index["versions"][v] = struct{}{}
		prefix := filepath.Join(home, v, product+"_"+v+"_")
		w.check(os.MkdirAll(filepath.Dir(prefix), 0o755))
		var sums strings.Builder
		for _, p := range []string{"plan9_mips", Platform().String()} {
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			f, err := z.Create(product + "_v" + v + "_x5.0_" + p)
			w.check(err)
			_, err = f.Write([]byte(script(v, note)))
			w.check(errors.Join(err, z.Close(), os.WriteFile(prefix+p+".zip", b.Bytes(), 0o644)))
			archive = sum(b.Bytes())
			fmt.Fprintf(&sums, "%s  %s\n", archive, filepath.Base(prefix+p+".zip"))
		}
		w.check(os.WriteFile(prefix+"SHA256SUMS", []byte(sums.String()), 0o644))
		w.check(os.WriteFile(prefix+"manifest.json", []byte(`{"metadata":{"protocol_version":"5.0"}}`), 0o644))
	}
	text, err := json.Marshal(index)
	w.check(errors.Join(err, os.WriteFile(filepath.Join(home, "index.json"), text, 0o644)))
	return archive
}

// install puts a binary into the directory of plugins, with its checksum.
func (w world) install(source, version, text string) (path string) {
	w.t.Helper()
	dir := filepath.Join(w.root, source)
	path = filepath.Join(dir, fmt.Sprintf("packer-plugin-%s_v%s_x5.0_%s", filepath.Base(source), version, Platform()))
	w.check(os.MkdirAll(dir, 0o755))
	w.check(os.WriteFile(path, []byte(text), 0o755))
	w.check(os.WriteFile(path+"_SHA256SUM", []byte(sum([]byte(text))), 0o644))
	return path
}

func (w world) options(change func(*Options)) Options {
	w.t.Helper()
	r, err := registry.New(registry.Options{Mirror: w.mirror})
	w.check(err)
	lock, diags := registry.ReadLock(w.lock)
	if diags.HasErrors() {
		w.t.Fatal(diags)
	}
	o := Options{Registry: r, Dirs: []string{w.root}, Env: os.Environ(), Lock: lock}
	if change != nil {
		change(&o)
	}
	return o
}

func requires(name, source, constraint string) Requirement {
	c := goversion.MustConstraints(goversion.NewConstraint(constraint))
	return Requirement{Name: name, Source: source, Constraint: constraint, Range: hcl.Range{Filename: "t.pkr.hcl"}, Allows: func(v string) bool {
		return c.Check(goversion.Must(goversion.NewVersion(v)))
	}}
}

// init runs Init for one plugin and saves the lock file.
func (w world) init(r Requirement, change func(*Options)) Outcome {
	w.t.Helper()
	o := w.options(change)
	out := Init(w.t.Context(), []Requirement{r}, o)
	w.check(o.Lock.Save())
	return out[0]
}

// start opens the plugin like a command that uses it.
func (w world) start(source string) error {
	w.t.Helper()
	lock, diags := registry.ReadLock(w.lock)
	if diags.HasErrors() {
		w.t.Fatal(diags)
	}
	_, err := host.Installed(host.Options{Dirs: []string{w.root}, Env: os.Environ(), Trust: Trust(lock)}).Require(w.t.Context(), host.Requirement{Source: source})
	return err
}

func force(o *Options)   { o.Force = true }
func upgrade(o *Options) { o.Upgrade = true }

const thing = "example.com/a/thing"

// A binary that differs from the lock file is never run, neither by bake init nor by commands,
// even if the checksum next to it is right; -force restores the locked one.
func TestChangedBinary(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "", "1.0.0")
	made := w.init(requires("thing", thing, ">= 1"), nil)
	if !made.New || made.Diags.HasErrors() || w.start(thing) != nil {
		t.Fatalf("%+v", made)
	}
	w.check(os.Remove(made.Path + ".ran"))
	w.install(thing, "1.0.0", script("1.0.0", "evil"))
	err := w.start(thing)
	if refused, ok := errors.AsType[*Refused](err); !ok || refused.Diags[0].Summary != "Plugin changed" || refused.Diags[0].Subject.Filename != w.lock {
		t.Errorf("started: %v", err)
	}
	for _, change := range []func(*Options){nil, upgrade} {
		if out := w.init(requires("thing", thing, ">= 1"), change); !out.Diags.HasErrors() || out.Diags[0].Summary != "Plugin changed" || out.Unavailable {
			t.Errorf("got %+v", out)
		}
	}
	if _, err := os.Stat(made.Path + ".ran"); err == nil {
		t.Error("it was run")
	}
	if out := w.init(requires("thing", thing, ">= 1"), force); out.Diags.HasErrors() || !out.New || w.start(thing) != nil {
		t.Errorf("got %+v", out)
	}
}

// A release whose files were replaced is not installed, however it is requested.
func TestChangedRelease(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "", "1.0.0")
	w.init(requires("thing", thing, ">= 1"), nil)
	before, err := os.ReadFile(w.lock)
	w.check(err)
	w.publish(thing, "replaced", "1.0.0")
	for name, change := range map[string]func(*Options){"missing": func(o *Options) { o.Dirs = []string{t.TempDir()} }, "force": force, "upgrade": upgrade} {
		out := w.init(requires("thing", thing, ">= 1"), change)
		if !out.Diags.HasErrors() || out.Diags[0].Summary != "Release changed" || out.Diags[0].Subject.Start.Line != 5 || out.New {
			t.Errorf("%s: got %+v", name, out)
		}
	}
	// The same for a release that was not replaced, but whose mirror has a different archive than
	// it states.
	w.publish(thing, "", "1.0.0")
	zip := filepath.Join(w.mirror, "example.com/a/packer-plugin-thing/1.0.0/packer-plugin-thing_1.0.0_"+Platform().String()+".zip")
	w.check(os.WriteFile(zip, []byte("x"), 0o644))
	if out := w.init(requires("thing", thing, ">= 1"), force); !strings.Contains(out.Diags.Error(), "SHA-256 checksum mismatch") || out.Unavailable {
		t.Errorf("got %+v", out)
	}
	if after, err := os.ReadFile(w.lock); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the lock file has changed: %v", err)
	}
}

// A lock entry of another system is verified with the archive, even if a binary of that version is
// installed, because that could be anything.
func TestOtherPlatform(t *testing.T) {
	w := newWorld(t)
	archive := w.publish(thing, "", "1.0.0", "1.1.0")
	lock := fmt.Sprintf("plugin %q {\n  version = \"1.1.0\"\n  hashes = [\"plan9_mips:bin:sha256:%064d\", \"%s:zip:sha256:%s\"]\n}\n", thing, 1, Platform(), archive)
	w.check(os.WriteFile(w.lock, []byte(lock), 0o644))
	mine := w.install(thing, "1.1.0", script("1.1.0", "mine"))
	err := w.start(thing)
	if refused, ok := errors.AsType[*Refused](err); !ok || refused.Diags[0].Summary != "Plugin not locked for this platform" {
		t.Errorf("started: %v", err)
	}
	out := w.init(requires("thing", thing, ">= 1"), nil)
	if out.Diags.HasErrors() || !out.New || out.Path != mine {
		t.Fatalf("got %+v", out)
	}
	if b, err := os.ReadFile(mine); err != nil || string(b) != script("1.1.0", "") {
		t.Errorf("installed is %q, %v", b, err)
	}
	b, err := os.ReadFile(w.lock)
	if err != nil || !strings.Contains(string(b), "plan9_mips:bin:") || !strings.Contains(string(b), Platform().String()+":bin:sha256:"+sum([]byte(script("1.1.0", "")))) {
		t.Errorf("locked is %s, %v", b, err)
	}
	if err := w.start(thing); err != nil {
		t.Error(err)
	}
}

// The user's own binary is locked itself, and is not replaced.
func TestDevelopment(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "", "1.0.0")
	w.install(thing, "1.1.0-dev", script("1.1.0-dev", ""))
	for range 2 {
		out := w.init(requires("thing", thing, ">= 1"), nil)
		if out.Diags.HasErrors() || out.New || out.Version != "1.1.0-dev" || out.Notes != nil {
			t.Errorf("got %+v", out)
		}
	}
	if err := w.start(thing); err != nil {
		t.Error(err)
	}
	// The release with the same number is another version: the locked one is used and
	// kept.
	w.install(thing, "1.1.0", script("1.1.0", ""))
	if out := w.init(requires("thing", thing, ">= 1"), nil); out.Diags.HasErrors() || out.New || out.Version != "1.1.0-dev" {
		t.Errorf("got %+v", out)
	}
	// If it is not installed, it cannot be obtained.
	out := w.init(requires("thing", thing, ">= 1"), func(o *Options) { o.Dirs = []string{t.TempDir()} })
	if !strings.Contains(out.Diags.Error(), "bake plugins install -path") {
		t.Errorf("got %v", out.Diags)
	}
	// A development version does not satisfy the lock entry of the release with the same number.
	w.check(os.Remove(w.lock))
	w.check(os.RemoveAll(w.root))
	w.publish(thing, "", "1.0.0", "1.1.0")
	w.init(requires("thing", thing, ">= 1"), nil)
	w.check(os.RemoveAll(w.root))
	w.install(thing, "1.1.0-dev", script("1.1.0-dev", ""))
	if out := w.init(requires("thing", thing, ">= 1"), nil); out.Diags.HasErrors() || !out.New || out.Version != "1.1.0" {
		t.Errorf("got %+v", out)
	}
}

// A locked binary without a locked archive is compared when it is installed anew.
func TestLockedBinaryAlone(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "", "1.0.0")
	lock := fmt.Sprintf("plugin %q {\n  version = \"1.0.0\"\n  hashes = [\"%s:bin:sha256:%064d\"]\n}\n", thing, Platform(), 1)
	w.check(os.WriteFile(w.lock, []byte(lock), 0o644))
	out := w.init(requires("thing", thing, ">= 1"), nil)
	if out.New || out.Unavailable || !strings.Contains(out.Diags.Error(), "and the lock file has 000") {
		t.Errorf("got %+v", out)
	}
	if left, _ := os.ReadDir(filepath.Join(w.root, thing)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// One plugin under two names has to be of one version, and is installed once; many
// plugins are installed at the same time.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "", "1.0.0", "1.1.0", "2.0.0")
	required := []Requirement{requires("one", thing, ">= 1"), requires("two", "example.com/A/thing", "< 2")}
	for i := range 12 {
		source := fmt.Sprintf("example.com/many/p%d", i)
		w.publish(source, "", "0.1.0")
		required = append(required, requires(path.Base(source), source, ">= 0"))
	}
	required = append(required, requires("none", "example.com/a/none", ">= 1"))
	o := w.options(nil)
	installed := 0
	for i, out := range Init(t.Context(), required, o) {
		if out.Name != required[i].Name {
			t.Errorf("outcome %d is of %s", i, out.Name)
		}
		if failed := out.Diags.HasErrors(); failed != (out.Name == "none") {
			t.Errorf("%s: %v", out.Name, out.Diags)
		}
		if out.New {
			installed++
		}
		if (out.Name == "one" || out.Name == "two") && out.Version != "1.1.0" {
			t.Errorf("%s is %s", out.Name, out.Version)
		}
	}
	if installed != 13 {
		t.Errorf("%d were installed", installed)
	}
	if locked, ok := o.Lock.Find(thing); !ok || locked.Constraints != ">= 1, < 2" {
		t.Errorf("locked: %+v", locked)
	}
}

// When the user cancels, nothing is installed or left.
func TestCancelled(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "", "1.0.0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := Init(ctx, []Requirement{requires("thing", thing, ">= 1")}, w.options(nil))
	if !out[0].Diags.HasErrors() || out[0].New {
		t.Errorf("got %+v", out)
	}
	if left, _ := os.ReadDir(filepath.Join(w.root, thing)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestMirrorIsOfTheLockedRelease(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "", "1.0.0")
	w.init(requires("thing", thing, ">= 1"), nil)
	w.publish(thing, "", "1.0.0", "1.1.0")
	required := []Requirement{requires("thing", thing, ">= 1"), requires("none", "example.com/a/none", ">= 1")}
	copied, diags := Mirror(t.Context(), required, t.TempDir(), registry.Platforms{}, w.options(nil))
	if len(copied) != 1 || copied[0].Version != "1.0.0" || len(copied[0].Files) != 2 || len(diags) != 1 || !strings.Contains(diags.Error(), "Plugin not copied") {
		t.Errorf("copied %+v, %v", copied, diags)
	}
	w.publish(thing, "replaced", "1.0.0", "1.1.0")
	if copied, diags := Mirror(t.Context(), required[:1], t.TempDir(), registry.Platforms{}, w.options(nil)); len(copied) != 0 || !strings.Contains(diags.Error(), "Release changed") {
		t.Errorf("copied %+v, %v", copied, diags)
	}
}

// TestInstall: without a template, the newest release that is allowed is installed, once; what
// was found is known even if it cannot be installed.
func TestInstall(t *testing.T) {
	w := newWorld(t)
	w.publish(thing, "released", "1.0.0", "1.1.0", "2.0.0")
	source, err := registry.ParseSource(thing)
	w.check(err)
	install := func(change func(*Options)) (Installation, error) {
		t.Helper()
		return Install(t.Context(), source, func(v string) bool { return strings.HasPrefix(v, "1.") }, w.options(change))
	}
	for n, want := range []bool{true, false} {
		i, err := install(nil)
		w.check(err)
		if i.New != want || i.Version != "1.1.0" || i.Release.Version != "1.1.0" || !strings.HasPrefix(i.Path, w.root) {
			t.Errorf("time %d: %+v", n, i)
		}
	}
	i, err := install(force)
	if err != nil || !i.New {
		t.Errorf("again: %+v, %v", i, err)
	}
	w.check(w.start(thing))
	i, err = install(func(o *Options) { o.Dirs, o.Force = []string{filepath.Join(i.Path, "no directory")}, true })
	if err == nil || i.Release == nil || i.Installed != nil {
		t.Errorf("into a file: %+v, %v", i, err)
	}
	if i, err := Install(t.Context(), source, func(string) bool { return false }, w.options(nil)); err == nil || i.Release != nil {
		t.Errorf("no version: %+v, %v", i, err)
	}
}
