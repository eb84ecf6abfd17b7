package remote

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"time"

	"bake/builder"
)

// looks is how often a download is measured.
const looks = 100 * time.Millisecond

// GetAtMost is that of the communicator for no more than limit bytes: a download that
// goes on beyond that is broken off, which is an error. dst is empty.
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

// size is what all files in a directory hold, as far as they can be seen.
func size(dir *os.Root) (sum int64) {
	_ = fs.WalkDir(dir.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it may be renamed at this moment
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
