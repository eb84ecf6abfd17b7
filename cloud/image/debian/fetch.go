package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
)

// Progress is a report of the progress of a task.
type Progress struct {
	Phase       string // what is being done, such as "download packages"
	Done, Total int64  // bytes; a Total of 0 means unknown
	Note        string // a message for the user, such as that a suite was left out
}

// errNotFound is the cause if the mirror does not have a file.
var errNotFound = errors.New("not found on the mirror")

// fetcher downloads files, and stores those with a known hash in a directory.
type fetcher struct {
	client *http.Client
	dir    string
	report func(Progress) // never nil; calls do not overlap
}

const (
	downloads = 8                // concurrent
	tries     = 4                // for each file
	stall     = 30 * time.Second // time without data after which a download is retried
)

// release downloads a file whose size and hash are not known yet.
func (f *fetcher) release(ctx context.Context, url string) ([]byte, error) {
	const limit = 16 << 20
	var data []byte
	err := f.retry(ctx, func() error {
		return f.read(ctx, url, func(r io.Reader) error {
			var err error
			if data, err = io.ReadAll(io.LimitReader(r, limit+1)); err == nil && len(data) > limit {
				err = fmt.Errorf("%s: larger than %d bytes", url, limit)
			}
			return err
		})
	})
	return data, err
}

// item is a file to download.
type item struct {
	url string
	fileEntry
}

// path returns the file's path in the cache.
func (f *fetcher) path(i item) string { return filepath.Join(f.dir, i.SHA256) }

// all downloads the items that are not in the cache, several at a time, and reports the bytes under
// the name phase. When it returns nil, all items are in the cache and match their hashes.
func (f *fetcher) all(ctx context.Context, phase string, items []item) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("make the download cache: %w", err)
	}
	var (
		mu sync.Mutex
		p  = Progress{Phase: phase}
	)
	for _, i := range items {
		p.Total += i.Size
	}
	advance := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		p.Done += n
		f.report(p)
	}
	advance(0)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(downloads)
	for _, i := range items {
		g.Go(func() error {
			if hash, err := hashFile(f.path(i)); err == nil && hash == i.SHA256 {
				advance(i.Size)
				return nil
			}
			return f.retry(ctx, func() error { return f.save(ctx, i, advance) })
		})
	}
	return g.Wait()
}

// save downloads one item to the cache. If it fails, it subtracts the progress that it has
// reported.
func (f *fetcher) save(ctx context.Context, i item, advance func(int64)) error {
	tmp, err := os.CreateTemp(f.dir, ".download-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	var n int64
	err = f.read(ctx, i.url, func(r io.Reader) error {
		hash := sha256.New()
		counted := writerFunc(func(b []byte) (int, error) {
			n += int64(len(b))
			advance(int64(len(b)))
			return len(b), nil
		})
		if _, err := io.Copy(io.MultiWriter(tmp, hash, counted), io.LimitReader(r, i.Size+1)); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); n != i.Size || got != i.SHA256 {
			return fmt.Errorf("%s: its size or SHA256 does not match the signed index (%d bytes, %s)", i.url, i.Size, i.SHA256)
		}
		return nil
	})
	if err == nil {
		err = errors.Join(tmp.Close(), os.Rename(tmp.Name(), f.path(i)))
	}
	if err != nil {
		advance(-n)
	}
	return err
}

// retry calls op, and calls it again after temporary errors.
func (f *fetcher) retry(ctx context.Context, op func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 200 * time.Millisecond
	pause.Multiplier = 3
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := op()
		if errors.Is(err, errNotFound) || errors.Is(err, fs.ErrPermission) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(tries), backoff.WithBackOff(pause))
	return err
}

// read requests url and passes the body to fn.
func (f *fetcher) read(ctx context.Context, url string, fn func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing arrived for %v", stall)) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return backoff.Permanent(err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w%s", err, because(ctx))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return fmt.Errorf("%s: %w", url, errNotFound)
	case resp.StatusCode != http.StatusOK:
		err := fmt.Errorf("%s: the mirror answered %s", url, resp.Status)
		if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusRequestTimeout {
			err = backoff.Permanent(err)
		}
		return err
	}
	body := readerFunc(func(b []byte) (int, error) {
		watch.Reset(stall)
		n, err := resp.Body.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			err = fmt.Errorf("%s: %w%s", url, err, because(ctx))
		}
		return n, err
	})
	return fn(body)
}

// because returns ": " and the cause of a context's end, for an error message.
func because(ctx context.Context) string {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
		return ": " + cause.Error()
	}
	return ""
}

func hashFile(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
