package confined

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLinks replaces each component of a path with a symbolic link to another directory, which must
// never be opened.
func TestLinks(t *testing.T) {
	for _, at := range []string{"m", "m/volumes", "m/volumes/xvdf", "m/volumes/xvdf/content"} {
		t.Run(filepath.Base(at), func(t *testing.T) {
			base, victim := t.TempDir(), t.TempDir()
			name := "m/volumes/xvdf/content"
			rest, err := filepath.Rel(at, name)
			if err != nil {
				t.Fatal(err)
			}
			precious := filepath.Join(victim, rest, "post.md")
			for _, err := range []error{
				os.MkdirAll(filepath.Dir(precious), 0o755), os.WriteFile(precious, []byte("mine"), 0o644),
				os.MkdirAll(filepath.Join(base, filepath.Dir(at)), 0o755), os.Symlink(victim, filepath.Join(base, at)),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			d, dst := Dir{base, name}, filepath.Join(t.TempDir(), "layer")
			link := func(err error) bool { return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) }
			if f, err := d.Open(); !link(err) {
				t.Errorf("opened %v, %v", f, err)
			}
			if empty, err := d.Empty(); !link(err) {
				t.Errorf("empty is %v, %v", empty, err)
			}
			if err := d.Rename(dst); !link(err) {
				t.Errorf("rename: %v", err)
			}
			if _, err := os.Stat(precious); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(dst); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something came: %v", err)
			}
		})
	}
}

func TestRename(t *testing.T) {
	base := t.TempDir()
	d := Dir{base, "m/upper"}
	if empty, err := d.Empty(); !empty || err != nil {
		t.Errorf("what does not exist is empty: %v, %v", empty, err)
	}
	if err := os.MkdirAll(filepath.Join(base, "m/upper/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if empty, err := d.Empty(); empty || err != nil {
		t.Errorf("empty: %v, %v", empty, err)
	}
	dst := filepath.Join(base, "layer")
	if err := d.Rename(dst); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dst, "etc")); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(d.Path(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.Rename(dst); !errors.Is(err, os.ErrExist) {
		t.Errorf("renamed over another: %v", err)
	}
	if f, err := (Dir{base, "../" + filepath.Base(base) + "/layer"}).Open(); !errors.Is(err, unix.EXDEV) {
		t.Errorf("left the base: %v, %v", f, err)
	}
}
