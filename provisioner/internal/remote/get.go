package remote

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"time"

	"bake/builder"
)

// looks is the interval at which the size of a download is measured.
const looks = 100 * time.Millisecond

// GetAtMost is the communicator's Get with a limit in bytes: a download that exceeds it is
// cancelled with an error. dst must be empty.
func GetAtMost(ctx context.Context, m builder.Machine, src string, dst *os.Root, limit int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	watched := make(chan struct{})
	tooLarge := fmt.Errorf("%s is larger than the limit of %d MB", src, limit>>20)
	go func() {
		defer close(watched)
		tick := time.NewTicker(looks)
		defer tick.Stop()
		for size(dst) <= limit {
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
		cancel(tooLarge)
	}()
	err := m.Get(ctx, src, dst)
	close(over)
	<-watched
	if size(dst) > limit {
		return tooLarge
	}
	return err
}

// block is the minimum size that a file or directory counts as, which limits their
// number too.
const block = 4 << 10

// size returns the total size of the files in a directory that can be read.
func size(dir *os.Root) (sum int64) {
	_ = fs.WalkDir(dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return nil // it may have just been renamed
		}
		of := int64(block)
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			of = max(of, info.Size())
		}
		sum += of
		return nil
	})
	return sum
}
