package remote_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/provisioner/internal/remote"
)

// endless is a machine that sends the requested file, and then nothing, or more.
type endless struct {
	communicator.Communicator
	more int
	sent int
}

func (e *endless) Get(ctx context.Context, src string, dst *os.Root) error {
	f, err := dst.Create(src)
	if err != nil {
		return err
	}
	defer f.Close()
	for range e.more {
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
		e.sent++
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	return nil
}

// crowded is a machine that sends empty files without end.
type crowded struct{ communicator.Communicator }

func (crowded) Get(ctx context.Context, src string, dst *os.Root) error {
	for i := 0; i < 10_000; i++ {
		if err := dst.WriteFile(fmt.Sprint(src, i), nil, 0o600); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// TestGetCrowd: names count towards the limit.
func TestGetCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		err = remote.GetAtMost(t.Context(), builder.Machine{Communicator: crowded{}}, "x", dir, 1<<20)
		if err == nil || !strings.Contains(err.Error(), "x is larger than the limit of 1 MB") {
			t.Error(err)
		}
		if files, err := fs.ReadDir(dir.FS(), "."); err != nil || len(files) > 300 {
			t.Errorf("%d files, %v", len(files), err)
		}
	})
}

func TestGetAtMost(t *testing.T) {
	for more, ok := range map[int]bool{4: true, 5: false, 1000: false} {
		synctest.Test(t, func(t *testing.T) {
			dir, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			e := &endless{more: more}
			err = remote.GetAtMost(t.Context(), builder.Machine{Communicator: e}, "x", dir, 4<<20)
			if ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "x is larger than the limit of 4 MB") || e.sent > 5 {
				t.Errorf("%d: %d MB, %v", more, e.sent, err)
			}
		})
	}
}
