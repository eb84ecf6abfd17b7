package filedigest_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"bake/internal/filedigest"
)

func TestOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions and links")
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "sub", "a")
	must(os.Mkdir(filepath.Dir(file), 0o755))
	must(os.WriteFile(file, []byte("one"), 0o644))
	must(os.Symlink("a", filepath.Join(dir, "sub", "link")))
	digest := func() string {
		t.Helper()
		sum, err := filedigest.Of([]string{"", dir})
		must(err)
		return sum
	}
	seen := map[string]string{digest(): "the start"}
	for what, change := range map[string]func() error{
		"content":           func() error { return os.WriteFile(file, []byte("two"), 0o644) },
		"mode":              func() error { return os.Chmod(file, 0o755) },
		"mode of directory": func() error { return os.Chmod(filepath.Dir(file), 0o700) },
		"new file":          func() error { return os.WriteFile(filepath.Join(dir, "b"), nil, 0o644) },
		"new directory":     func() error { return os.Mkdir(filepath.Join(dir, "empty"), 0o755) },
		"link": func() error {
			return os.Rename(filepath.Join(dir, "sub", "link"), filepath.Join(dir, "sub", "other"))
		},
	} {
		must(change())
		sum := digest()
		if before := seen[sum]; before != "" {
			t.Errorf("%s: the digest is that of %s", what, before)
		}
		if seen[sum] = what; sum != digest() {
			t.Errorf("%s: the digest is not always the same", what)
		}
	}
	beside := filepath.Join(t.TempDir(), "beside")
	must(os.MkdirAll(filepath.Join(beside, "deep"), 0o755))
	must(os.Symlink(beside, filepath.Join(dir, "linked")))
	must(os.Symlink("..", filepath.Join(dir, "sub", "circle")))
	before := digest()
	must(os.WriteFile(filepath.Join(beside, "deep", "b"), []byte("one"), 0o644))
	if digest() == before {
		t.Error("what is behind a link to a directory does not count")
	}
	for _, wrong := range []string{filepath.Join(dir, "none"), os.DevNull} {
		if _, err := filedigest.Of([]string{wrong}); err == nil {
			t.Errorf("%s has a digest", wrong)
		}
	}
}
