package step

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"bake/internal/hostpath"
)

// Ledger is the durable list of the resources that a run owns. When a method returns nil, the
// change is on disk.
type Ledger interface {
	Intend(Resource) error        // before the request to the cloud
	Created(key, id string) error // after the cloud's response
	Gone(keys ...string) error    // destroyed, or left to the user: all or none
	Owned() ([]Resource, error)   // oldest first
}

// FileLedger is an append-only JSON-lines ledger of one run; every line is synced. It is
// locked while open, so that a sweep can distinguish the ledger of a live run from that of
// a dead one.
type FileLedger struct {
	Header Header

	// Damage describes the unreadable lines; nil if there are none. A damaged ledger is kept even
	// if it owns nothing: its lost lines may have recorded more resources.
	Damage error

	mu   sync.Mutex
	disk disk
	f    file
	size int64 // of the complete lines in f
	torn bool  // an incomplete line after them could not be removed
	live []Resource

	doubtful map[string]bool // keys in live that a lost line may have released
}

// ledgerVersion is the version of the ledgers that this program writes. It is increased when older
// programs would misread them. Ledgers without a version have version 1.
const ledgerVersion = 1

// Header is the first line of a ledger. It identifies the run.
type Header struct {
	Version int       `json:"version,omitempty"` // set by [CreateLedger]
	Run     string    `json:"run"`
	Started time.Time `json:"started"`
	PID     int       `json:"pid"`
	Command string    `json:"command"` // for the user to recognize the run

	// Parent is the id of the run that this run is a part of; empty if there is none.
	Parent string `json:"whole,omitempty"`
}

type line struct {
	Op string `json:"op"`
	*Header
	*Resource
	Keys []string `json:"keys,omitempty"` // of "gone", in place of one key
}

// ErrLive is the error if the run of a ledger has not ended.
var ErrLive = errors.New("the run is still in progress")

// ErrNewer is the error if a ledger was written by a newer version of bake.
var ErrNewer = errors.New("it was written by a newer version of bake; use that version")

// CreateLedger creates the ledger of a new run in dir, which it creates if necessary.
func CreateLedger(dir string, h Header) (*FileLedger, error) {
	return createLedger(osDisk{}, dir, h)
}

func createLedger(d disk, dir string, h Header) (*FileLedger, error) {
	if err := mkdirAll(d, dir); err != nil {
		return nil, fmt.Errorf("the ledger needs a directory: %w", err)
	}
	h.Version = ledgerVersion
	path := filepath.Join(dir, h.Run+".jsonl")
	f, err := d.create(path)
	if err != nil {
		return nil, fmt.Errorf("cannot start the ledger: %w", err)
	}
	l := &FileLedger{Header: h, disk: d, f: f}
	err = l.append(line{Op: "run", Header: &h})
	if err == nil {
		err = d.syncDir(dir)
	}
	if err != nil {
		_ = d.remove(f)
		return nil, fmt.Errorf("cannot start the ledger %s: %w", path, err)
	}
	return l, nil
}

// OpenLedger replays the ledger of a run that has ended and opens it for appending. It
// fails with ErrLive while the run is in progress, and with ErrNewer, leaving the file
// unchanged, if a newer version of bake has written it. It cuts off an incomplete last
// line, which was never acknowledged. It skips other unreadable lines and records them in
// the ledger's Damage.
func OpenLedger(path string) (*FileLedger, error) {
	return openLedger(osDisk{}, path)
}

func openLedger(d disk, path string) (*FileLedger, error) {
	f, err := d.open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	l, err := replay(d, f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return l, nil
}

func replay(d disk, f file) (*FileLedger, error) {
	l := &FileLedger{disk: d, f: f, doubtful: map[string]bool{}}
	n, lost, headed := 0, 0, false
	var first error
	for text, err := range wholeLines(f, &l.size) {
		n++
		if n == 1 && newer(text) {
			return nil, ErrNewer
		}
		var ln line
		if err == nil {
			ln, err = readLine(text)
		} else if !errors.Is(err, errLong) {
			return nil, err
		}
		switch {
		case err != nil:
			if lost++; lost == 1 {
				first = fmt.Errorf("line %d: %w", n, err)
			}
			for _, r := range l.live {
				l.doubtful[r.Key] = true
			}
		case ln.Op == "run":
			l.Header, headed = *ln.Header, true
		default:
			l.apply(ln)
		}
	}
	switch {
	case lost == 1:
		l.Damage = first
	case lost > 1:
		l.Damage = fmt.Errorf("%d lines cannot be read; the first: %w", lost, first)
	case n > 0 && !headed:
		l.Damage = errors.New("line 1: it does not name the run")
	}
	if err := f.Truncate(l.size); err != nil {
		return nil, err
	}
	_, err := f.Seek(0, io.SeekEnd)
	return l, err
}

// longestLine is far above the length of any line of a ledger, in bytes. A longer line is not read
// into memory.
const longestLine = 4 << 20

var errLong = errors.New("it is too long for a line of a ledger")

// wholeLines returns an iterator over the complete lines of r, each of which is valid until the
// next one is read. A line that is too long yields errLong instead. The sizes of the lines are
// added to size.
func wholeLines(r io.Reader, size *int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		b := bufio.NewReaderSize(r, 64<<10)
		var text []byte
		for length := int64(0); ; {
			part, err := b.ReadSlice('\n')
			length += int64(len(part))
			if length <= longestLine {
				text = append(text, part...)
			}
			switch {
			case errors.Is(err, bufio.ErrBufferFull):
				continue
			case errors.Is(err, io.EOF):
				return
			case err == nil && length > longestLine:
				err = errLong
			}
			*size += length
			if !yield(text, err) || err != nil && !errors.Is(err, errLong) {
				return
			}
			text, length = text[:0], 0
		}
	}
}

// newer reports whether the first line of a ledger has the version of a newer program, whose format
// may differ.
func newer(first []byte) bool {
	var h struct{ Version int }
	return json.Unmarshal(first, &h) == nil && h.Version > ledgerVersion
}

// readLine parses a line of a ledger. The error says why it is invalid.
func readLine(text []byte) (line, error) {
	ln := line{Header: new(Header), Resource: new(Resource)}
	if err := json.Unmarshal(text, &ln); err != nil {
		return ln, err
	}
	switch {
	case ln.Op != "run" && ln.Op != "intend" && ln.Op != "created" && ln.Op != "gone":
		return ln, fmt.Errorf("unknown ledger operation %q", ln.Op)
	case ln.Op != "run" && ln.Key == "" && (ln.Op != "gone" || len(ln.Keys) == 0):
		return ln, fmt.Errorf("the operation %q names no resource", ln.Op)
	}
	return ln, nil
}

func (l *FileLedger) apply(ln line) {
	i := slices.IndexFunc(l.live, func(x Resource) bool { return x.Key == ln.Key })
	switch {
	case ln.Op == "intend" && i < 0:
		l.live = append(l.live, *ln.Resource)
	case ln.Op == "created" && i >= 0:
		l.live[i].ID = ln.ID
	case ln.Op == "gone":
		l.live = slices.DeleteFunc(l.live, func(x Resource) bool { return x.Key == ln.Key || slices.Contains(ln.Keys, x.Key) })
	}
}

// append writes a line and syncs it. If that fails, for example because the disk is full, it
// removes the line again, so that the next line starts correctly and a reported failure is not read
// back as a success.
func (l *FileLedger) append(ln line) error {
	b, err := json.Marshal(ln)
	if err != nil {
		return err
	}
	if l.torn {
		if err := l.cut(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(append(b, '\n'))
	if err == nil {
		err = l.f.Sync()
	}
	if err == nil && ln.Op == "intend" {
		err = l.lasts()
	}
	if err != nil {
		return errors.Join(err, l.cut())
	}
	l.size += int64(n)
	return nil
}

// lasts returns an error if a sweep could not find the ledger, because its file, or a directory
// above it, was deleted or replaced.
func (l *FileLedger) lasts() error {
	err := l.disk.named(l.f)
	if errors.Is(err, os.ErrNotExist) {
		return errLost
	}
	return err
}

var errLost = errors.New("the file was deleted or replaced during the run, so a sweep could not find what the run creates; leave the state directory alone while bake runs")

func (l *FileLedger) cut() error {
	l.torn = true
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	if _, err := l.f.Seek(l.size, io.SeekStart); err != nil {
		return err
	}
	l.torn = false
	return nil
}

func (l *FileLedger) write(ln line) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(ln); err != nil {
		return fmt.Errorf("ledger %s: %w", l.f.Name(), err)
	}
	l.apply(ln)
	return nil
}

// Intend implements [Ledger]. It fails if the file was deleted or replaced, because its lines
// would be lost with the process.
func (l *FileLedger) Intend(r Resource) error { return l.write(line{Op: "intend", Resource: &r}) }

// Created implements [Ledger].
func (l *FileLedger) Created(key, id string) error {
	return l.write(line{Op: "created", Resource: &Resource{Key: key, ID: id}})
}

// Gone implements [Ledger]. It writes a single line.
func (l *FileLedger) Gone(keys ...string) error {
	switch len(keys) {
	case 0:
		return nil
	case 1:
		return l.write(line{Op: "gone", Resource: &Resource{Key: keys[0]}})
	default:
		return l.write(line{Op: "gone", Resource: new(Resource), Keys: keys})
	}
}

// Owned implements [Ledger].
func (l *FileLedger) Owned() ([]Resource, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.live), nil
}

// Doubtful reports whether a lost line may have released the resource with this key to the user.
func (l *FileLedger) Doubtful(key string) bool { return l.doubtful[key] }

// Close closes the ledger, and deletes it if it owns nothing and is not damaged. It fails if what
// the ledger owns is lost because the file was deleted or replaced.
func (l *FileLedger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.live) == 0 && l.Damage == nil {
		return l.disk.remove(l.f)
	}
	err := l.lasts()
	if err != nil {
		err = fmt.Errorf("ledger %s: %w", l.f.Name(), err)
	}
	return errors.Join(err, l.f.Close())
}

// ReadHeader returns the first line of a ledger, even while its run is in progress. The header is
// empty if the line has not been written yet or cannot be parsed.
func ReadHeader(path string) (h Header, err error) {
	f, err := hostpath.OpenRegular(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	var size int64
	for text, err := range wholeLines(f, &size) {
		if err != nil || newer(text) {
			return h, nil
		}
		if ln, err := readLine(text); err == nil && ln.Op == "run" {
			return *ln.Header, nil
		}
		break
	}
	return h, nil
}

// Ledgers returns the paths of the ledgers in dir, sorted by name and so by age. A missing
// directory contains none.
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
