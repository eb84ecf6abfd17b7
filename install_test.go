package bake_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// archiveName is the archive of a release for the system of the test.
var archiveName = fmt.Sprintf("bake_9.8.7_%s_%s", runtime.GOOS, runtime.GOARCH)

// releaseFiles are the files of a release whose program only prints its version.
func releaseFiles(t *testing.T) map[string]string {
	t.Helper()
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	files := tar.NewWriter(zipped)
	for name, content := range map[string]string{
		"bake":                 "#!/bin/sh\necho bake 9.8.7 \"$@\"\n",
		"completion/bake.bash": "# bash\n",
		"completion/_bake":     "# zsh\n",
		"completion/bake.fish": "# fish\n",
		"man/bake.1":           ".TH BAKE 1\n",
		"man/bake-build.1":     ".TH BAKE-BUILD 1\n",
	} {
		mode := int64(0o644)
		if name == "bake" {
			mode = 0o755
		}
		if err := files.WriteHeader(&tar.Header{Name: archiveName + "/" + name, Mode: mode, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive.Bytes())
	other := strings.Repeat("0", 64)
	return map[string]string{
		archiveName + ".tar.gz": archive.String(),
		"SHA256SUMS": other + "  bake_9.8.7_plan9_amd64.tar.gz\n" +
			hex.EncodeToString(sum[:]) + "  " + archiveName + ".tar.gz\n" +
			other + "  bake_9.8.7_" + runtime.GOARCH + ".deb\n",
	}
}

// TestPackages: each entry of the Linux packages names files that scripts/release lays out, and
// no two of them go to one place, which nfpm refuses. Completions are where the zsh of
// the distributions looks for them.
func TestPackages(t *testing.T) {
	root := t.TempDir()
	script, err := os.ReadFile("scripts/release")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"bake", "bake-worker", "LICENSE", "README.md", "CHANGELOG.md"}
	for _, m := range regexp.MustCompile(`(?m)^"\$work/bake" completion .* >"\$work/(.*)"$`).FindAllStringSubmatch(string(script), -1) {
		files = append(files, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^"\$work/bake" docs -man "\$work/(.*)"$`).FindAllStringSubmatch(string(script), -1) {
		files = append(files, m[1]+"/bake.1", m[1]+"/bake-build.1")
	}
	for _, name := range files {
		name = filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("packaging/nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var packages struct {
		Contents []struct{ Src, Dst, Packager string }
	}
	if err := yaml.Unmarshal(text, &packages); err != nil || len(packages.Contents) == 0 {
		t.Fatalf("there are %d entries: %v", len(packages.Contents), err)
	}
	for kind, zsh := range map[string]string{"deb": "/usr/share/zsh/vendor-completions/_bake", "rpm": "/usr/share/zsh/site-functions/_bake"} {
		from := map[string]string{}
		for _, c := range packages.Contents {
			if c.Packager != "" && c.Packager != kind {
				continue
			}
			found, err := filepath.Glob(strings.ReplaceAll(c.Src, "${BAKE_ROOT}", root))
			if err != nil || len(found) == 0 {
				t.Errorf("%s names no file: %v", c.Src, err)
			}
			for _, name := range found {
				to := filepath.Clean(c.Dst)
				if strings.Contains(c.Src, "*") {
					to = filepath.Join(to, filepath.Base(name))
				}
				if other, ok := from[to]; ok {
					t.Errorf("%s: %s comes from both %s and %s", kind, to, other, c.Src)
				}
				from[to] = c.Src
			}
		}
		for _, file := range []string{"/usr/share/man/man1/bake.1", zsh} {
			if from[filepath.FromSlash(file)] == "" {
				t.Errorf("%s: there is no %s", kind, file)
			}
		}
	}
}

func install(t *testing.T, env []string, script string, args ...string) (string, error) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the script is for systems with a Bourne shell")
	}
	cmd := exec.CommandContext(t.Context(), script, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir()}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestInstall(t *testing.T) {
	files := releaseFiles(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := files[strings.TrimPrefix(r.URL.Path, "/release/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(content))
	}))
	defer server.Close()
	onDisk := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(onDisk, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, release := range map[string]string{"server": server.URL + "/release/", "directory": onDisk} {
		t.Run(name, func(t *testing.T) {
			prefix := t.TempDir()
			for range 2 { // the second time over the first one
				out, err := install(t, nil, "packaging/install.sh", "-prefix", prefix, release)
				if err != nil || !strings.Contains(out, "bake 9.8.7 version\n") || !strings.Contains(out, prefix+"/bin is not in PATH") {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			for _, file := range []string{
				"bin/bake", "share/bash-completion/completions/bake", "share/zsh/site-functions/_bake",
				"share/fish/vendor_completions.d/bake.fish", "share/man/man1/bake.1", "share/man/man1/bake-build.1",
			} {
				if _, err := os.Stat(filepath.Join(prefix, file)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestInstallNothing: if anything differs from the release's checksums, nothing is changed.
func TestInstallNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(files map[string]string)
		want   string
	}{
		"changed archive": {func(f map[string]string) { f[archiveName+".tar.gz"] += "x" }, "nothing was installed"},
		"no checksums":    {func(f map[string]string) { delete(f, "SHA256SUMS") }, "cannot read"},
		"no archive":      {func(f map[string]string) { delete(f, archiveName+".tar.gz") }, "cannot read"},
		"other systems":   {func(f map[string]string) { f["SHA256SUMS"] = "" }, "names no archive for"},
		"two releases":    {func(f map[string]string) { f["SHA256SUMS"] += strings.ReplaceAll(f["SHA256SUMS"], "9.8.7", "9.8.8") }, "more than one archive"},
	} {
		t.Run(name, func(t *testing.T) {
			files := releaseFiles(t)
			c.change(files)
			release, prefix := t.TempDir(), filepath.Join(t.TempDir(), "prefix")
			for name, content := range files {
				if err := os.WriteFile(filepath.Join(release, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := install(t, nil, "packaging/install.sh", "-prefix", prefix, release)
			if err == nil || !strings.Contains(out, c.want) {
				t.Errorf("%v, want an error with %q\n%s", err, c.want, out)
			}
			if _, err := os.Stat(prefix); err == nil {
				t.Error("something was installed")
			}
		})
	}
}

// TestAction runs the step of the GitHub action as a runner does.
func TestAction(t *testing.T) {
	text, err := os.ReadFile("packaging/action/action.yml")
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Inputs map[string]struct{ Required bool }
		Runs   struct {
			Using string
			Steps []struct {
				ID, Shell, Run string
				Env            map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &action); err != nil {
		t.Fatal(err)
	}
	if action.Runs.Using != "composite" || len(action.Runs.Steps) != 1 || action.Runs.Steps[0].Shell != "bash" || !action.Inputs["release"].Required {
		t.Fatalf("the action is another one: %+v", action)
	}
	work := t.TempDir()
	for name, content := range releaseFiles(t) {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path, err := filepath.Abs("packaging/action")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{
		"GITHUB_ACTION_PATH=" + path, "GITHUB_PATH=" + work + "/path", "GITHUB_OUTPUT=" + work + "/output", "RUNNER_TEMP=" + work,
	}
	for name, value := range action.Runs.Steps[0].Env {
		env = append(env, name+"="+strings.ReplaceAll(value, "${{ inputs.release }}", work))
	}
	if out, err := install(t, env, "bash", "-euo", "pipefail", "-c", action.Runs.Steps[0].Run); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for file, want := range map[string]string{"path": work + "/bake/bin\n", "output": "path=" + work + "/bake/bin/bake\n"} {
		got, err := os.ReadFile(filepath.Join(work, file))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q %v, want %q", file, got, err, want)
		}
	}
}
