package step

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"bake/internal/filelock"
	"bake/internal/hostpath"
)

// Results are the results in a journal.
type Results interface {
	// Result returns the last result recorded for a build under key.
	Result(build, key string) (json.RawMessage, bool)
}

// Journal is the durable record of a run's results, from which another process can resume the run
// after a crash. Methods are safe for concurrent use.
type Journal interface {
	Results

	// Record durably stores a result. If that fails, the run can no longer be resumed: the journal
	// then has no results, and its error says why.
	Record(build, key string, result json.RawMessage)
}

// Resumable is the key with which a builder records, at its start, that it will be able to resume
// with its machine.
const Resumable = "resumable"

// Provisioned is the key with which a builder records that it can resume after provisioning.
const Provisioned = "provisioned"

// Reached is the key with which a builder records that it can resume with its machine, on which the
// provisioners run again.
const Reached = "reached"

// Recall returns the result that an earlier process of the run has recorded under key.
func Recall[T any](s *Scope, key string) (result T, ok bool) {
	if s.Journal == nil {
		return result, false
	}
	text, ok := s.Journal.Result(s.Build, key)
	if !ok || json.Unmarshal(text, &result) != nil {
		var zero T
		return zero, false
	}
	return result, true
}

// Record stores a result, which must be plain data, for a later process of the run.
func Record[T any](s *Scope, key string, result T) {
	if s.Journal == nil {
		return
	}
	if text, err := json.Marshal(result); err == nil {
		s.Journal.Record(s.Build, key, text)
	}
}

// Memo returns the result that an earlier process of the run has recorded under key. If there is
// none, it calls fn and records its result unless fn fails.
func Memo[T any](ctx context.Context, s *Scope, key string, fn func(context.Context) (T, error)) (T, error) {
	if v, ok := Recall[T](s, key); ok {
		return v, nil
	}
	v, err := fn(ctx)
	if err == nil {
		Record(s, key, v)
	}
	return v, err
}

// Made returns the scope's resource that match accepts, created by an earlier process of the run or
// an earlier attempt; the zero Resource if there is none. Matching resources whose ids are unknown
// are destroyed, so that the caller can create them again.
func (s *Scope) Made(ctx context.Context, match func(Resource) bool) (Resource, error) {
	var found Resource
	owned, err := s.owned()
	if err != nil {
		return found, err
	}
	for _, r := range owned {
		switch {
		case !match(r):
		case r.ID != "":
			found = r
		default:
			if err := s.Unattended().destroy(ctx, s.Destroyers(), r); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// FileJournal is a journal in a file that only its owner can read. Each line is synced. The file is
// locked while the journal is open.
type FileJournal struct {
	redact func(string) string

	mu      sync.Mutex
	f       *os.File
	size    int64
	head    json.RawMessage
	broken  bool
	results results
}

type results map[[2]string]json.RawMessage

// Result implements [Results].
func (r results) Result(build, key string) (json.RawMessage, bool) {
	text, ok := r[[2]string{build, key}]
	return text, ok
}

// journalLimit is far above the size of any run's journal, in bytes.
const journalLimit = 64 << 20

type entry struct {
	Head   json.RawMessage `json:"head,omitempty"` // in the first line only
	Build  string          `json:"build,omitempty"`
	Key    string          `json:"key,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Broken string          `json:"broken,omitempty"` // reason why the run cannot be resumed
}

// CreateJournal creates a journal that begins with head, and its directory if necessary. If redact
// would change a result or the head, that is not written, and the run cannot be resumed.
func CreateJournal(path string, head any, redact func(string) string) (*FileJournal, error) {
	text, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	if err := mkdirAll(osDisk{}, filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := createLocked(path)
	if err != nil {
		return nil, err
	}
	j := &FileJournal{redact: redact, f: f, head: text, results: results{}}
	err = j.append(entry{Head: text})
	if errors.Is(err, errSensitive) {
		err = j.giveUp(err)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, remove(f))
	}
	return j, nil
}

// OpenJournal opens the journal of a run that has ended, to resume the run, and reads its
// head. It fails with ErrLive while another process has it open. It cuts off an incomplete
// last line; other unreadable lines are an error.
func OpenJournal(path string, head any) (*FileJournal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	j := &FileJournal{f: f, results: results{}}
	if err = lockWithin(f, time.Second/2); err == nil {
		err = j.replay(head)
	}
	if err == nil {
		err = f.Truncate(j.size)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the journal %s: %w", path, err), f.Close())
	}
	return j, nil
}

// ReadJournal reads the journal of a run that has ended, and its head, without changing the file.
// The errors are those of OpenJournal. If the error is ErrLive or concerns a part after the head,
// head is still set if it has been written.
func ReadJournal(path string, head any) (Results, error) {
	f, err := hostpath.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	j := &FileJournal{f: f, results: results{}}
	if err = filelock.TryShared(f); err == nil {
		err = j.replay(head)
	} else if errors.Is(err, filelock.ErrLocked) {
		err = errors.Join(ErrLive, j.peek(head))
	}
	if err != nil {
		return nil, fmt.Errorf("the journal %s: %w", path, err)
	}
	return j.results, nil
}

// DiscardUnbegun deletes the journal of a run that was killed before its head was written. It
// leaves other journals unchanged.
func DiscardUnbegun(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	j := &FileJournal{f: f, results: results{}}
	if err = lock(f); err == nil {
		var head any
		if err = j.replay(&head); errors.Is(err, ErrUnbegun) {
			return remove(f)
		}
	}
	return errors.Join(err, f.Close())
}

// ErrUnbegun is the error of a journal whose run was killed before its head was written.
var ErrUnbegun = errors.New("it is empty: the run was killed while it was starting")

// plausible returns an error if the file cannot be a journal.
func (j *FileJournal) plausible() error {
	if info, err := j.f.Stat(); err != nil {
		return err
	} else if !info.Mode().IsRegular() || info.Size() > journalLimit {
		return errors.New("this is not a journal written by bake")
	}
	return nil
}

// peek reads the head, if it has been written, of a journal that another process is writing.
func (j *FileJournal) peek(head any) error {
	if err := j.plausible(); err != nil {
		return err
	}
	for text, err := range wholeLines(j.f, &j.size) {
		var e entry
		if err == nil {
			err = json.Unmarshal(text, &e)
		}
		if err == nil {
			err = json.Unmarshal(e.Head, head)
		}
		return err
	}
	return nil
}

func (j *FileJournal) replay(head any) error {
	if err := j.plausible(); err != nil {
		return err
	}
	n := 0
	for text, err := range wholeLines(j.f, &j.size) {
		if n++; err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if n == 1 {
			j.head = e.Head
			if err := json.Unmarshal(e.Head, head); err != nil {
				return fmt.Errorf("line 1: %w", err)
			}
		}
		if e.Broken != "" {
			return errors.New(e.Broken)
		}
		if n > 1 {
			j.results[[2]string{e.Build, e.Key}] = e.Result
		}
	}
	if n == 0 {
		return ErrUnbegun
	}
	return nil
}

// Hide sets the function that removes secrets from texts. A result that the function would
// change is not recorded.
func (j *FileJournal) Hide(redact func(string) string) { j.redact = redact }

func (j *FileJournal) append(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	var plain any // decoded, so that no text is escaped
	if err := json.Unmarshal(line, &plain); err != nil {
		return err
	}
	if j.redact != nil && sensitive(plain, j.redact) {
		return errSensitive
	}
	if len(line) >= longestLine || j.size+int64(len(line)) >= journalLimit {
		return errors.New("its journal would be too large")
	}
	n, err := j.f.Write(append(line, '\n'))
	if err != nil {
		return err
	}
	j.size += int64(n)
	return j.f.Sync()
}

// Result implements [Results].
func (j *FileJournal) Result(build, key string) (json.RawMessage, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.results.Result(build, key)
}

// Record implements [Journal].
func (j *FileJournal) Record(build, key string, result json.RawMessage) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return
	}
	if err := j.append(entry{Build: build, Key: key, Result: result}); err != nil {
		_ = j.giveUp(err) // a line that was not written completely cannot be read
		return
	}
	j.results[[2]string{build, key}] = result
}

var errSensitive = errors.New("its journal would contain a sensitive value")

// sensitive reports whether redact would change a string in a JSON value.
func sensitive(v any, redact func(string) string) bool {
	switch v := v.(type) {
	case string:
		return redact(v) != v
	case []any:
		return slices.ContainsFunc(v, func(v any) bool { return sensitive(v, redact) })
	case map[string]any:
		for key, v := range v {
			if redact(key) != key || sensitive(v, redact) {
				return true
			}
		}
	}
	return false
}

// redacted returns a JSON value with redact applied to its strings.
func redacted(v any, redact func(string) string) any {
	switch v := v.(type) {
	case string:
		return redact(v)
	case []any:
		for i := range v {
			v[i] = redacted(v[i], redact)
		}
	case map[string]any:
		clean := map[string]any{}
		for key, value := range v {
			clean[redact(key)] = redacted(value, redact)
		}
		return clean
	}
	return v
}

// giveUp replaces the journal's content with its head, without secrets, and the reason why the run
// cannot be resumed.
func (j *FileJournal) giveUp(why error) error {
	var head any
	err := json.Unmarshal(j.head, &head)
	if j.redact != nil {
		head = redacted(head, j.redact)
	}
	j.broken, j.results, j.size, j.redact = true, nil, 0, nil
	text, more := json.Marshal(head)
	if err = errors.Join(err, more, j.f.Truncate(0)); err == nil {
		_, err = j.f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	return j.append(entry{Head: text, Broken: why.Error()})
}

// Close closes the journal, and deletes it unless it is still useful.
func (j *FileJournal) Close(useful bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if useful {
		return j.f.Close()
	}
	return remove(j.f)
}
