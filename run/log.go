package run

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"bake/internal/filelock"
	"bake/internal/hostpath"
	"bake/internal/wholefile"
	"bake/step"
	"bake/ui"
)

// The logs of runs are events as JSON lines: ID.events.jsonl, and the earlier parts of a
// long log, in ID.events.000001.jsonl.gz and so on.
const (
	keptLogs  = 100       // maximum number of finished runs whose logs are kept
	keptBytes = 256 << 20 // maximum total bytes of the logs of finished runs
	logPart   = 16 << 20  // bytes after which a part is compressed
	logParts  = 64        // maximum number of compressed parts of one run
	logBytes  = 128 << 20 // maximum total bytes of the compressed parts of one run
)

// log is the log of a run. When Write returns, the data is in the file. The log is locked
// while it is open, so that no other run deletes it.
type log struct {
	file  *os.File // not embedded: writes through its other methods would bypass the limit
	size  int64
	parts []part
	limit int64 // bytes after which a part is compressed
}

// part is a compressed part of a log.
type part struct {
	path   string
	number int
	size   int64
}

// logPartsOf lists the compressed parts of the log of a run in dir, in order.
func logPartsOf(dir, run string) ([]part, error) {
	names, err := fs.Glob(os.DirFS(dir), run+".events.*.jsonl.gz") // not filepath.Glob: dir may contain pattern characters
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, run+".events."), ".jsonl.gz"))
		if err != nil {
			continue // not a part
		}
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just deleted
		} else if err != nil {
			return nil, err
		}
		parts = append(parts, part{path, n, info.Size()})
	}
	sort.Slice(parts, func(i, j int) bool { return parts[i].number < parts[j].number })
	return parts, nil
}

// createLog creates the log of a run, and deletes the oldest ones.
func createLog(state State, run string) (*log, error) {
	fail := func(err error) (*log, error) {
		return nil, fmt.Errorf("cannot write the log of the run: %w; set BAKE_STATE_DIR to use another directory", err)
	}
	if err := os.MkdirAll(state.Runs(), 0o700); err != nil {
		return fail(err)
	}
	state.pruneLogs(keptLogs-1, keptBytes)
	f, err := os.OpenFile(state.Log(run), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fail(err)
	}
	_ = filelock.Try(f) // some file systems have no locks
	return &log{file: f, limit: logPart}, nil
}

// reopenLog opens the log of a resumed run, or creates one if it was deleted. It cuts off
// an incomplete last line, and does not store twice what the run had compressed already.
func reopenLog(state State, run string) (*log, error) {
	f, err := os.OpenFile(state.Log(run), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return createLog(state, run)
	} else if err != nil {
		return nil, fmt.Errorf("cannot write the log of the run: %w", err)
	}
	_ = filelock.Try(f)
	l := &log{file: f, limit: logPart}
	l.parts, err = logPartsOf(state.Runs(), run)
	if err == nil && !l.compressed() {
		l.size, err = lastLine(f)
	}
	if err == nil {
		err = f.Truncate(l.size)
	}
	if err == nil {
		_, err = f.Seek(l.size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot write the log of the run: %w", err), f.Close())
	}
	return l, nil
}

// compressed reports whether the content of the file is already in the last part, because
// the run died before it emptied the file. It compares the first lines, which differ unless
// they are the same event, because events contain times.
func (l *log) compressed() bool {
	if len(l.parts) == 0 {
		return false
	}
	first := func(path string) (line []byte) {
		_ = readFile(path, func(r io.Reader) (err error) {
			line, err = bufio.NewReader(r).ReadBytes('\n')
			return err
		})
		return line
	}
	line := first(l.file.Name())
	return len(line) > 0 && bytes.Equal(line, first(l.parts[len(l.parts)-1].path))
}

// lastLine returns the offset of the end of the last complete line of a log.
func lastLine(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for end := info.Size(); end > 0; {
		start := max(0, end-int64(len(buf)))
		part := buf[:end-start]
		if _, err := f.ReadAt(part, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// end returns the position of the end of the log.
func (l *log) end() Position { return Position{lastPart(l.parts) + 1, l.size} }

// Write implements [io.Writer]. b holds whole lines.
func (l *log) Write(b []byte) (int, error) {
	if l.size > 0 && l.size+int64(len(b)) > l.limit {
		if err := l.compress(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

// Close closes the log. It deletes an empty log, such as that of an invalid template.
func (l *log) Close() error {
	err := l.file.Close()
	if l.size == 0 && len(l.parts) == 0 {
		os.Remove(l.file.Name())
	}
	return err
}

// compress compresses the content of the file into a new part, and empties the file.
func (l *log) compress() error {
	made := part{number: 1}
	if n := len(l.parts); n > 0 {
		made.number = l.parts[n-1].number + 1
	}
	made.path = fmt.Sprintf("%s.%06d.jsonl.gz", strings.TrimSuffix(l.file.Name(), ".jsonl"), made.number)
	in, err := hostpath.OpenRegular(l.file.Name())
	if err != nil {
		return err
	}
	defer in.Close()
	err = wholefile.Write(made.path, 0o600, func(out *os.File) error { return made.add(out, in) })
	if err != nil {
		return err
	}
	l.parts = append(l.parts, made)
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	if _, err = l.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	l.size = 0
	for len(l.parts) > 2 && (len(l.parts) > logParts || l.bytes() > logBytes) {
		if err := l.drop(); err != nil {
			return err
		}
	}
	return nil
}

func (l *log) bytes() (sum int64) {
	for _, p := range l.parts {
		sum += p.size
	}
	return sum
}

// add writes the content of r, compressed, to out, which becomes the file of the part.
func (p *part) add(out *os.File, r io.Reader) error {
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, r); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	info, err := out.Stat()
	p.size = info.Size()
	return err
}

// drop deletes the second part, the oldest after the one with the start of the run. It
// first moves the events that describe the course of the run to the end of the first part.
func (l *log) drop() error {
	first, second := &l.parts[0], l.parts[1]
	var kept bytes.Buffer
	if second.number == first.number+1 {
		note := &ui.JSON{Out: &kept}
		note.Handle(step.Event{Time: time.Now(), Kind: step.Warning, Text: "Lines are missing from the log here: it became too long, and the oldest of them after the start were deleted."})
	}
	err := readFile(second.path, func(r io.Reader) error {
		_, err := eachLine(r, func(_ int, line []byte) error {
			kept.Write(line)
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	if kept.Len() > 0 {
		err := wholefile.Write(first.path, 0o600, func(out *os.File) error {
			old, err := hostpath.OpenRegular(first.path)
			if err != nil {
				return err
			}
			defer old.Close() // before the file is replaced: Windows does not replace open files
			if _, err := io.Copy(out, old); err != nil {
				return err
			}
			return first.add(out, &kept)
		})
		if err != nil {
			return err
		}
	}
	if err := os.Remove(second.path); err != nil {
		return err
	}
	l.parts = slices.Delete(l.parts, 1, 2)
	return nil
}

// loggedRun is a run whose log is kept.
type loggedRun struct {
	id    string
	files []string
	size  int64
	at    time.Time // when it started
}

// pruneLogs deletes the logs and reports of all but the newest finished runs, and of more
// runs if the logs exceed bytes in total. It keeps the logs of runs that are in progress,
// have left resources behind, or can be resumed.
func (s State) pruneLogs(runs int, bytes int64) {
	all, sum := s.loggedRuns()
	if len(all) <= runs && sum <= bytes {
		return
	}
	all = slices.DeleteFunc(all, func(l *loggedRun) bool { return !s.finished(l.id) })
	for _, l := range all {
		l.at = s.started(l.id)
	}
	sort.Slice(all, func(i, j int) bool { return all[j].at.Before(all[i].at) }) // newest first
	sum = 0
	for i, l := range all {
		if sum += l.size; i < runs && sum <= bytes {
			continue
		}
		for _, path := range l.files {
			os.Remove(path)
		}
		os.RemoveAll(s.Reports(l.id))
	}
}

// loggedRuns returns the runs that have a log, and the total bytes of all logs.
func (s State) loggedRuns() (all []*loggedRun, sum int64) {
	names, err := fs.Glob(os.DirFS(s.Runs()), "*.events.*")
	if err != nil {
		return nil, 0
	}
	logs := map[string]*loggedRun{}
	for _, name := range names {
		path := filepath.Join(s.Runs(), name)
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		id, _, _ := strings.Cut(name, ".events.")
		if logs[id] == nil {
			logs[id] = &loggedRun{id: id}
			all = append(all, logs[id])
		}
		l := logs[id]
		l.files, l.size = append(l.files, path), l.size+info.Size()
		sum += info.Size()
	}
	return all, sum
}

// finished reports whether a run has ended and left neither resources nor state to resume
// from.
func (s State) finished(run string) bool {
	for _, path := range []string{s.Ledger(run), s.Journal(run)} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	f, err := os.OpenFile(s.Log(run), os.O_RDWR, 0)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return !errors.Is(filelock.Try(f), filelock.ErrLocked)
}

// started returns the time of the first event of a run. The time of the file is used only
// if the log has none, because a copy of a log has another file time.
func (s State) started(run string) time.Time {
	path := s.Log(run)
	if parts, err := logPartsOf(s.Runs(), run); err == nil && len(parts) > 0 {
		path = parts[0].path
	}
	var first step.Event
	err := readFile(path, func(r io.Reader) error { return json.NewDecoder(r).Decode(&first) })
	if info, serr := os.Stat(path); serr == nil && (err != nil || first.Time.IsZero()) {
		return info.ModTime()
	}
	return first.Time
}
