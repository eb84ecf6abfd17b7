package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

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
		return fmt.Sprintf("the embedded cloud in %s is in use by %s: wait until it has ended, or use another directory", e.Dir, who)
	}
	return fmt.Sprintf("the embedded cloud in %s is in use by %s, which serves it at %s: use that as the endpoint, end the process, or use another directory", e.Dir, who, e.URL)
}

// dirLock keeps other processes out of a directory. endpoint.json in it tells
// them who holds it.
type dirLock struct {
	dir  string
	file *os.File
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
	return errors.Join(err, l.file.Close())
}
