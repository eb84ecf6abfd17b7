package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDirs(t *testing.T) {
	sep := string(os.PathListSeparator)
	for _, tt := range []struct {
		env    []string
		system string
		exists string
		want   []string
	}{
		{[]string{"PACKER_PLUGIN_PATH=/a" + sep + "/b", "HOME=/h"}, "linux", "", []string{"/a", "/b"}},
		{[]string{"PACKER_PLUGIN_PATH=" + sep + "/a" + sep, "HOME=/h"}, "linux", "", []string{"/a"}},
		{[]string{"PACKER_PLUGIN_PATH=" + sep, "HOME=/h"}, "linux", "", []string{"/h/.config/packer/plugins"}},
		{[]string{"PACKER_CONFIG_DIR=/c", "HOME=/h"}, "linux", "", []string{"/c/.packer.d/plugins"}},
		{[]string{"HOME=/h", "XDG_CONFIG_HOME=/x"}, "linux", "/h/.packer.d", []string{"/h/.packer.d/plugins"}},
		{[]string{"HOME=/h", "XDG_CONFIG_HOME=/x"}, "linux", "", []string{"/x/packer/plugins"}},
		{[]string{"HOME=/h"}, "darwin", "", []string{"/h/.config/packer/plugins"}},
		{[]string{"APPDATA=/app", "HOME=/h"}, "windows", "", []string{"/app/packer.d/plugins"}},
		{[]string{"XDG_CONFIG_HOME=/x"}, "linux", "", []string{"/x/packer/plugins"}},
		{nil, "linux", "/.packer.d", nil},
	} {
		got := dirs(tt.env, tt.system, func(name string) bool { return name == tt.exists })
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q on %s (-want +got):\n%s", tt.env, tt.system, diff)
		}
	}
}

// script installs a program as a plugin and returns its path. When asked for its
// description, it prints described, and creates a file beside itself.
func script(t *testing.T, root, source, v, described string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("plugins are shell scripts here")
	}
	dir := filepath.Join(root, filepath.FromSlash(source))
	path := filepath.Join(dir, fmt.Sprintf("packer-plugin-%s_v%s_x5.0_%s_%s", filepath.Base(source), v, runtime.GOOS, runtime.GOARCH))
	text := "#!/bin/sh\ntouch '" + path + ".ran'\n" + described + "\n"
	sum := sha256.Sum256([]byte(text))
	for _, err := range []error{
		os.MkdirAll(dir, 0o755), os.WriteFile(path, []byte(text), 0o755),
		os.WriteFile(path+"_SHA256SUM", []byte(hex.EncodeToString(sum[:])), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func says(version, api string) string {
	return fmt.Sprintf(`echo '{"version":"%s","api_version":"%s","builders":["x"],"protocol_version":"v2"}'`, version, api)
}

func TestRequireTakesTheNewest(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	const source = "github.com/Some-Org/thing"
	script(t, root, source, "1.2.0", says("1.2.0", "x5.0"))
	script(t, other, source, "1.10.0", says("1.10.0", "x5.0"))
	script(t, root, source, "2.0.0-dev", says("2.0.0-dev", "x5.0"))
	script(t, root, source, "3.0.0-beta1", says("3.0.0-beta1", "x5.0"))
	script(t, root, "github.com/Some-Org/thing/deeper", "9.0.0", says("9.0.0", "x5.0"))
	all := func(string) bool { return true }
	for _, tt := range []struct {
		source   string
		releases bool
		allows   func(string) bool
		want     string // a version, or a part of the error
	}{
		{source, false, nil, "2.0.0-dev"},
		{source, true, nil, "1.10.0"},
		{strings.ToLower(source), false, all, "2.0.0-dev"},
		{source, false, func(v string) bool { return v == "1.2.0" }, "1.2.0"},
		{source, false, func(v string) bool { return v == "1.3.0" }, "1.10.0_x5.0_" + runtime.GOOS + "_" + runtime.GOARCH + " is not used: its version is 1.10.0"},
		{source, false, func(v string) bool { return false }, "of those only versions that end in -dev"},
		{"github.com/none/thing", false, nil, "the plugin github.com/none/thing is not installed in " + root},
		{"../" + filepath.Base(other), false, nil, "is not installed"},
	} {
		set := Installed(Options{Dirs: []string{root, other}, Env: os.Environ(), Releases: tt.releases})
		p, err := set.Require(t.Context(), Requirement{Source: tt.source, Allows: tt.allows})
		if err != nil {
			var missing *NotInstalled
			if !errors.As(err, &missing) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.source, err, tt.want)
			}
			continue
		}
		if p.Version != tt.want || p.Description.Builders[0] != "x" || len(p.SHA256) != 64 {
			t.Errorf("%s: got %+v, want %s", tt.source, p, tt.want)
		}
	}
}

// A plugin whose child holds its output has described itself all the same, and the child ends.
func TestDescribeLeavesNoChild(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes are looked up in /proc")
	}
	root := t.TempDir()
	pid := filepath.Join(root, "pid")
	script(t, root, "example.com/a/b", "1.0.0", "sleep 1000 &\necho $! > '"+pid+"'\n"+says("1.0.0", "x5.0"))
	if _, err := Installed(Options{Dirs: []string{root}, Env: os.Environ()}).Require(t.Context(), Requirement{Source: "example.com/a/b"}); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	waitGone(t, child)
}

// A binary that does not match its checksum or name is not used, and it is not run before its
// checksum was verified.
func TestUnusableBinaries(t *testing.T) {
	for _, tt := range []struct {
		name, described string
		spoil           func(path string) error
		want            string
		runs            bool
	}{
		{"no checksum", says("1.0.0", "x5.0"), func(p string) error { return os.Remove(p + "_SHA256SUM") }, "there is no file", false},
		{"no sum in it", says("1.0.0", "x5.0"), func(p string) error { return os.WriteFile(p+"_SHA256SUM", []byte("abc"), 0o644) }, "holds no checksum", false},
		{"two sums", says("1.0.0", "x5.0"), func(p string) error {
			b, _ := os.ReadFile(p + "_SHA256SUM")
			return os.WriteFile(p+"_SHA256SUM", append(b, b...), 0o644)
		}, "holds no checksum", false},
		{"changed", says("1.0.0", "x5.0"), func(p string) error { return os.WriteFile(p, []byte("#!/bin/sh\ntouch '"+p+".ran'\n"), 0o755) }, "install it again", false},
		{"another version", says("1.0.1", "x5.0"), nil, `it describes itself as version "1.0.1"`, true},
		{"another protocol", says("1.0.0", "x5.1"), nil, "plugin protocol", true},
		{"no plugin", "echo hello", nil, "does not describe itself as a Packer plugin", true},
		{"no JSON of one", "echo '{}'", nil, "does not describe itself as a Packer plugin", true},
		{"it fails", "echo why >&2; exit 3", nil, "exit status 3: why", true},
		{"too much", `i=0; while [ $i -lt 17 ]; do head -c 65536 /dev/zero; i=$((i+1)); done`, nil, "more than a megabyte", true},
		{"odd names", `echo '{"version":"1.0.0","api_version":"x5.0","builders":["a b"]}'`, nil, `a component "a b"`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			path := script(t, root, "example.com/a/b", "1.0.0", tt.described)
			if tt.spoil != nil {
				if err := tt.spoil(path); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Installed(Options{Dirs: []string{root}, Env: os.Environ()}).Require(t.Context(), Requirement{Source: "example.com/a/b"})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if _, err := os.Stat(path + ".ran"); (err == nil) != tt.runs {
				t.Errorf("it ran: %t, want %t", err == nil, tt.runs)
			}
		})
	}
}

// Trust is called before a plugin is run, and its refusal does not lead to a search for
// another version.
func TestTrust(t *testing.T) {
	root := t.TempDir()
	path := script(t, root, "example.com/a/b", "1.1.0", says("1.1.0", "x5.0"))
	script(t, root, "example.com/a/b", "1.0.0", says("1.0.0", "x5.0"))
	refused := errors.New("another hash in the lock file")
	var asked Binary
	set := Installed(Options{Dirs: []string{root}, Env: os.Environ(), Trust: func(b Binary) error { asked = b; return refused }})
	if _, err := set.Require(t.Context(), Requirement{Source: "example.com/a/b"}); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	if asked.Path != path || len(asked.SHA256) != 64 {
		t.Errorf("asked about %+v", asked)
	}
	if _, err := os.Stat(path + ".ran"); err == nil {
		t.Error("it was run")
	}
}

func TestBinaries(t *testing.T) {
	root := t.TempDir()
	script(t, root, "example.com/a/b", "1.0.0", "")
	script(t, root, "example.com/a/b", "1.1.0", "")
	script(t, root, "example.com/a/b/c", "0.1.0", "")
	script(t, root, "example.com/a/odd", "1.x", "")
	if err := os.Symlink(filepath.Join(root, "example.com"), filepath.Join(root, "example.com", "again")); err != nil {
		t.Fatal(err)
	}
	found, skipped := Installed(Options{Dirs: []string{root, filepath.Join(root, "none")}}).Binaries()
	var got []string
	for _, b := range found {
		if !strings.Contains(b.Source, "again") { // a loop ends somewhere
			got = append(got, b.Source+" "+b.Version+" "+b.API)
		}
	}
	want := []string{"example.com/a/b 1.1.0 5.0", "example.com/a/b 1.0.0 5.0", "example.com/a/b/c 0.1.0 5.0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(skipped) == 0 || !strings.Contains(skipped[0].Why, `"1.x" is not a version`) {
		t.Errorf("skipped: %v", skipped)
	}
}
