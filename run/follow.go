package run

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sort"
	"sync"

	"bake/internal/hostpath"
	"bake/step"
)

// Position is a position in the log of a run. The zero value is its beginning.
type Position struct {
	Part   int   // number of a file of the log
	Offset int64 // of a line in it
}

// String formats a position for [ParsePosition].
func (p Position) String() string { return fmt.Sprintf("%d-%d", p.Part, p.Offset) }

// ParsePosition reads a position.
func ParsePosition(text string) (p Position, err error) {
	_, err = fmt.Sscanf(text, "%d-%d", &p.Part, &p.Offset)
	if err != nil || p.Part < 0 || p.Offset < 0 || p.String() != text {
		return Position{}, fmt.Errorf("%q is no position in a log", text)
	}
	return p, nil
}

// Lines calls handle for each event in the log of a run, as a line of JSON, starting at
// position from, until handle returns false or the log ends. It returns the position of
// the next event. An incomplete last line is not handled. The error wraps [ErrNoRun] if
// there is no log.
func (s State) Lines(run string, from Position, handle func(line []byte) bool) (Position, error) {
	for {
		parts, err := logPartsOf(s.Runs(), run)
		if err != nil {
			return from, err
		}
		for _, p := range parts {
			if p.number < from.Part {
				continue
			}
			from.enter(p.number)
			if on, err := s.partLines(p.path, &from, handle); err != nil || !on {
				return from, err
			}
		}
		from.enter(lastPart(parts) + 1)
		text, err := readFrom(s.Log(run), from.Offset)
		if err != nil {
			return from, noLog(s.Log(run), err)
		}
		again, err := logPartsOf(s.Runs(), run)
		if err != nil {
			return from, err
		}
		if lastPart(again) != lastPart(parts) {
			continue // the file has become a part, and was emptied while it was read
		}
		_, err = eachWhole(bufio.NewReader(bytes.NewReader(text)), &from, handle)
		return from, err
	}
}

// lastPart returns the number of the last compressed part of a log.
func lastPart(parts []part) int {
	if len(parts) == 0 {
		return 0
	}
	return parts[len(parts)-1].number
}

// enter moves to the beginning of a file of the log, unless the position is in it already.
func (p *Position) enter(part int) {
	if p.Part != part {
		*p = Position{Part: part}
	}
}

// noLog returns the error for a log file that cannot be read.
func noLog(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the log %s: %w", ErrNoRun, path, err)
	}
	return fmt.Errorf("the log %s: %w", path, err)
}

// partLines is Lines for one compressed part. on reports whether to continue after it.
func (s State) partLines(path string, from *Position, handle func(line []byte) bool) (on bool, err error) {
	err = readFile(path, func(r io.Reader) error {
		if _, err := io.CopyN(io.Discard, r, from.Offset); err != nil {
			return err
		}
		var err error
		on, err = eachWhole(bufio.NewReaderSize(r, 64<<10), from, handle)
		return err
	})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true, nil // a truncated part
	}
	if err != nil {
		err = noLog(path, err)
	}
	return on, err
}

// maxTail limits how much of a log that is not compressed yet is read at a time. It is twice
// the size at which a log is compressed.
const maxTail = 2 * logPart

func readFrom(path string, offset int64) ([]byte, error) {
	f, err := hostpath.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxTail))
}

// eachWhole calls handle for each complete line until it returns false, and advances from
// past the handled lines. on is false if handle returned false.
func eachWhole(r *bufio.Reader, from *Position, handle func(line []byte) bool) (on bool, err error) {
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		from.Offset += int64(len(line))
		if !handle(line) {
			return false, nil
		}
	}
}

// Follower describes runs as [State] does, but reads only the part of a log that was
// written since the last call. It is safe for concurrent use.
type Follower struct {
	State

	mu    sync.Mutex
	known map[string]*known
}

// known is the state of a log as read so far.
type known struct {
	past Past // without the data of the ledger
	at   Position
	last []byte // the last line
}

// List is [State.List].
func (f *Follower) List() ([]Past, error) {
	ids, err := f.State.logged()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	maps.DeleteFunc(f.known, func(id string, _ *known) bool { return !slices.Contains(ids, id) })
	f.mu.Unlock()
	var all []Past
	var bad []error
	for _, id := range ids {
		past, err := f.Past(id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // just deleted
		case err != nil:
			bad = append(bad, err)
		case !past.Started.IsZero():
			all = append(all, past)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[j].Started.Before(all[i].Started) })
	return all, errors.Join(bad...)
}

// Past is [State.Past].
func (f *Follower) Past(id string) (Past, error) {
	p, err := f.read(id)
	if err != nil || p.Started.IsZero() {
		return p, err
	}
	_, why := f.State.recall(id, true)
	p.Resumable = why == nil
	if err := p.account(f.State.Ledger(id)); err != nil {
		p.Damage = err.Error()
	}
	if p.State == Crashed && f.written(id) {
		p.live()
	}
	return p, nil
}

// read returns the run as its log describes it.
func (f *Follower) read(id string) (Past, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.known[id]
	if k == nil {
		k = &known{past: newPast(id)}
	}
	if err := f.State.learn(id, k); err != nil {
		delete(f.known, id)
		return k.past, err
	}
	if f.known == nil {
		f.known = map[string]*known{}
	}
	f.known[id] = k
	p := k.past
	p.Builds = slices.Clone(p.Builds)
	for i, b := range p.Builds {
		p.Builds[i].Images = maps.Clone(b.Images)
	}
	p.Left = slices.Clone(p.Left)
	return p, nil
}

// learn reads the new events of a log.
func (s State) learn(id string, k *known) error {
	n, wrong := 0, error(nil)
	at, err := s.Lines(id, k.at, func(line []byte) bool {
		n++
		k.last = line
		if !tells(line) {
			return true
		}
		var e step.Event
		if wrong = json.Unmarshal(line, &e); wrong != nil {
			return false
		}
		k.past.learn(e)
		return true
	})
	switch {
	case wrong != nil && k.at != Position{}: // read from the beginning, for the correct line number
		*k = known{past: newPast(id)}
		return s.learn(id, k)
	case wrong != nil:
		return fmt.Errorf("the log %s: line %d: %w", s.Log(id), n, wrong)
	}
	k.at = at
	var e step.Event
	if err == nil && k.past.State == Crashed && json.Unmarshal(k.last, &e) == nil {
		k.past.Elapsed = max(0, e.Time.Sub(k.past.Started)) // the clock may have been set back
	}
	return err
}

func newPast(id string) Past {
	return Past{Run: id, State: Crashed, Builds: []PastBuild{}, Left: []step.Resource{}}
}
