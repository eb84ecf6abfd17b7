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

// InUseError means that another process has the cloud's directory open.
type InUseError struct {
	Dir string
	PID int    // 0 if unknown
	URL string // empty if the process does not serve
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

// dirLock keeps other processes from opening a directory. endpoint.json in it names the
// process that holds the lock.
type dirLock struct {
	dir   string
	file  *os.File
	users *os.File // exclusively locked by Drain; nil before
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

// announce writes the holder of the lock and its URL to endpoint.json.
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

// ErrClosing means that the process that serves a cloud is about to close it.
var ErrClosing = errors.New("the embedded cloud is being closed by the process that serves it")

// Use keeps the process that serves the cloud in dir from closing it until the returned
// closer is closed or this process ends. The error is [ErrClosing] if the cloud is already
// closing.
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

// openUsers opens the users file. Every process that uses the cloud holds a shared lock on
// it; the process that closes the cloud takes an exclusive lock.
func openUsers(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "users"), os.O_CREATE|os.O_RDWR, 0o600)
}

// Drain waits until no other process uses the cloud, and then prevents new uses. It calls
// waiting once if it has to wait. If ctx ends first, it fails with the cause of ctx.
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
