package step

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Ledger is the durable list of resources a run owns. When a method returns
// nil, what it says is on disk.
type Ledger interface {
	Intend(Resource) error        // before the cloud is asked
	Created(key, id string) error // once the cloud has answered
	Gone(key string) error        // destroyed, or handed to the user
	Owned() ([]Resource, error)   // oldest first
}

// FileLedger is an append-only JSON-lines ledger of one run; every line is
// synced. While it is open it is locked, so that a sweep can tell the ledger of
// a live run from that of a dead one.
type FileLedger struct {
	Header Header

	mu   sync.Mutex
	f    *os.File
	size int64 // of the whole lines in f
	live []Resource
}

// Header is the first line of a ledger: which run it belongs to.
type Header struct {
	Run     string    `json:"run"`
	Started time.Time `json:"started"`
	PID     int       `json:"pid"`
	Command string    `json:"command"` // for the user to recognise the run
}

type line struct {
	Op string `json:"op"`
	*Header
	*Resource
}

// ErrLive says that the run a ledger belongs to has not ended.
var ErrLive = errors.New("the run is still going on")

// CreateLedger starts the ledger of a new run in dir, which it makes if needed.
func CreateLedger(dir string, h Header) (*FileLedger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the ledger needs a directory: %w", err)
	}
	path := filepath.Join(dir, h.Run+".jsonl")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot start the ledger: %w", err)
	}
	l := &FileLedger{Header: h, f: f}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = l.append(line{Op: "run", Header: &h})
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, fmt.Errorf("cannot start the ledger %s: %w", path, err)
	}
	return l, nil
}

// OpenLedger replays the ledger of a run that has ended and opens it for
// appending. It fails with ErrLive while the run goes on. A torn last line was
// never acknowledged to anyone, so it is cut off.
func OpenLedger(path string) (*FileLedger, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	l, err := replay(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return l, nil
}

func replay(f *os.File) (*FileLedger, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrLive
	} else if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	l := &FileLedger{f: f, size: int64(len(whole))}
	n := 0
	for text := range bytes.Lines(whole) {
		n++
		ln := line{Header: new(Header), Resource: new(Resource)}
		if err := json.Unmarshal(text, &ln); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if ln.Op == "run" {
			l.Header = *ln.Header
		} else {
			l.apply(ln.Op, *ln.Resource)
		}
	}
	if err := f.Truncate(l.size); err != nil {
		return nil, err
	}
	_, err = f.Seek(0, io.SeekEnd)
	return l, err
}

func (l *FileLedger) apply(op string, r Resource) {
	i := slices.IndexFunc(l.live, func(x Resource) bool { return x.Key == r.Key })
	switch {
	case op == "intend" && i < 0:
		l.live = append(l.live, r)
	case op == "created" && i >= 0:
		l.live[i].ID = r.ID
	case op == "gone" && i >= 0:
		l.live = slices.Delete(l.live, i, i+1)
	}
}

// append writes a line and waits until it is on disk. A line that could not be
// written whole, because the disk is full, is cut off again, so that the next one
// does not run into it.
func (l *FileLedger) append(ln line) error {
	b, err := json.Marshal(ln)
	if err != nil {
		return err
	}
	n, err := l.f.Write(append(b, '\n'))
	if err != nil {
		return errors.Join(err, l.cut())
	}
	l.size += int64(n)
	return l.f.Sync()
}

func (l *FileLedger) cut() error {
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	_, err := l.f.Seek(l.size, io.SeekStart)
	return err
}

func (l *FileLedger) write(op string, r Resource) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(line{Op: op, Resource: &r}); err != nil {
		return fmt.Errorf("ledger %s: %w", l.f.Name(), err)
	}
	l.apply(op, r)
	return nil
}

// Intend implements [Ledger].
func (l *FileLedger) Intend(r Resource) error { return l.write("intend", r) }

// Created implements [Ledger].
func (l *FileLedger) Created(key, id string) error {
	return l.write("created", Resource{Key: key, ID: id})
}

// Gone implements [Ledger].
func (l *FileLedger) Gone(key string) error { return l.write("gone", Resource{Key: key}) }

// Owned implements [Ledger].
func (l *FileLedger) Owned() ([]Resource, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.live), nil
}

// Close ends the ledger. One that owns nothing any more is deleted.
func (l *FileLedger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.live) == 0 {
		if err := os.Remove(l.f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.f.Close()
			return err
		}
	}
	return l.f.Close()
}

// Ledgers lists the paths of the ledgers in dir, oldest first by name. A
// missing directory holds none.
func Ledgers(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".jsonl") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
