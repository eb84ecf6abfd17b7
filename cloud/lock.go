package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"bake/cloud/durable"
)

// InUseError says that another process has the directory of a cloud open.
type InUseError struct {
	Dir string
	PID int    // 0 if it has not said
	URL string // empty if it does not serve
}

func (e *InUseError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	if e.URL == "" {
		return fmt.Sprintf("the embedded cloud in %s is in use by %s: wait until it exits, or use another directory", e.Dir, who)
	}
	return fmt.Sprintf("the embedded cloud in %s is in use by %s, which serves it at %s: use that as the endpoint, stop the process, or use another directory", e.Dir, who, e.URL)
}

// dirLock keeps other processes out of a directory. endpoint.json in it tells
// them who holds it.
type dirLock struct {
	dir   string
	file  *os.File
	users *os.File // locked once the cloud is drained; nil before
}

// endpoint is the content of endpoint.json.
type endpoint struct {
	PID int    `json:"pid"`
	URL string `json:"url,omitempty"`
}

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the embedded cloud: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		_ = f.Close() // nothing was written
		e := &InUseError{Dir: dir}
		var other endpoint
		if data, err := os.ReadFile(filepath.Join(dir, "endpoint.json")); err == nil && json.Unmarshal(data, &other) == nil {
			e.PID, e.URL = other.PID, other.URL
		}
		return nil, e
	}
	l := &dirLock{dir: dir, file: f}
	if err := l.announce(""); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// announce writes who holds the lock, and where it serves.
func (l *dirLock) announce(url string) error {
	data, err := json.Marshal(endpoint{PID: os.Getpid(), URL: url})
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(l.dir, "endpoint.json"), append(data, '\n'), 0o600)
}

func (l *dirLock) release() error {
	err := os.Remove(filepath.Join(l.dir, "endpoint.json"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, l.file.Close())
	if l.users != nil {
		err = errors.Join(err, l.users.Close())
	}
	return err
}

// ErrClosing says that the process which serves a cloud is about to let go of it.
var ErrClosing = errors.New("the embedded cloud is being closed by the process that serves it")

// Use tells the process that serves the cloud in dir that it is wanted, until the
// caller closes what is returned or ends. The error is [ErrClosing] if it is too late.
func Use(dir string) (io.Closer, error) {
	f, err := openUsers(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrClosing
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openUsers opens the file that every process which uses a cloud has locked
// together with the others, and the one that closes it for itself alone.
func openUsers(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "users"), os.O_CREATE|os.O_RDWR, 0o600)
}

// Drain waits until no other process uses the cloud, and lets none begin after
// that. waiting is called once if there is one. It fails with the cause of ctx.
func (c *Cloud) Drain(ctx context.Context, waiting func()) error {
	f, err := openUsers(c.dir)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			c.lock.users = f
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if !told {
			waiting()
			told = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), f.Close())
		}
	}
}
