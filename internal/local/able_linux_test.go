package local

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/cloud/machine/sandbox"
)

// TestCutShort: if not everything could be tested, there is no verdict about the host.
func TestCutShort(t *testing.T) {
	dir := t.TempDir()
	driver, err := sandbox.New(sandbox.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	if err := fatal(ctx, driver); !errors.Is(err, enough) {
		t.Errorf("machines can run: %v", err)
	}
	if found, err := Examine(ctx, dir, nil); !errors.Is(err, enough) || len(found) == 0 {
		t.Errorf("%v, %v", found, err)
	}
}

// TestAble: a host that can run machines is tested once for each of its boots, any other one each
// time.
func TestAble(t *testing.T) {
	dir, tries := t.TempDir(), 0
	boot := filepath.Join(dir, "boot")
	for i, c := range []struct {
		boot  string
		fault error
		tries int
	}{
		{"one", errors.New("no user namespaces"), 1},
		{"one", nil, 2},
		{"one", nil, 2},
		{"two", nil, 3},
		{"", nil, 4}, // it has no id
		{"", nil, 5},
		{"two", nil, 5},
	} {
		if err := os.WriteFile(boot, []byte(c.boot), 0o600); err != nil {
			t.Fatal(err)
		}
		if c.boot == "" {
			if err := os.Remove(boot); err != nil {
				t.Fatal(err)
			}
		}
		err := able(dir, boot, func() error { tries++; return c.fault })
		if !errors.Is(err, c.fault) || tries != c.tries {
			t.Errorf("%d: tried %d times, not %d: %v", i, tries, c.tries, err)
		}
	}
}

// TestRemedyOfTheDirectory: what is wrong with the directory of the cloud is said with the variable
// that names another.
func TestRemedyOfTheDirectory(t *testing.T) {
	found, err := Examine(t.Context(), "/proc/none", slog.New(slog.DiscardHandler)) // where nothing can be created
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Name == "overlay file system" && !f.OK && strings.HasSuffix(f.Remedy, "; BAKE_CLOUD_DIR names the directory") {
			return
		}
	}
	t.Errorf("%+v", found)
}
