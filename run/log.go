package run

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The logs of runs are events as JSON lines: ID.events.jsonl, and before it what was
// too much for one file, in ID.events.001.jsonl.gz and so on.
const (
	keptLogs  = 100       // runs whose logs are kept
	keptBytes = 256 << 20 // of all logs together
	logPart   = 16 << 20  // bytes after which a part is compressed
	logParts  = 64        // compressed parts of one run; the oldest go first
)

// log is the log of a run. What is written is in the file when Write returns.
type log struct {
	*os.File
	size  int64
	parts []string
	count int
}

// createLog creates the log of a run in dir, and deletes the oldest ones.
func createLog(dir, run string) (*log, error) {
	fail := func(err error) (*log, error) {
		return nil, fmt.Errorf("cannot write the log of the run: %w; set BAKE_STATE_DIR to use another directory", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	pruneLogs(dir, keptLogs-1, keptBytes)
	f, err := os.OpenFile(filepath.Join(dir, run+".events.jsonl"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fail(err)
	}
	return &log{File: f}, nil
}

// reopenLog opens the log of a run that goes on, or creates one if it is not kept any
// more. What a run was writing when it died is cut off.
func reopenLog(dir, run string) (*log, error) {
	f, err := os.OpenFile(filepath.Join(dir, run+".events.jsonl"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return createLog(dir, run)
	} else if err != nil {
		return nil, fmt.Errorf("cannot write the log of the run: %w", err)
	}
	l := &log{File: f}
	parts, err := fs.Glob(os.DirFS(dir), run+".events.*.jsonl.gz")
	for _, name := range parts { // in order
		l.parts = append(l.parts, filepath.Join(dir, name))
		_, _ = fmt.Sscanf(strings.TrimPrefix(name, run+".events."), "%d", &l.count)
	}
	if err == nil {
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

// lastLine returns where the last whole line of a log ends.
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

// Write implements [io.Writer]. b holds whole lines.
func (l *log) Write(b []byte) (int, error) {
	if l.size > 0 && l.size+int64(len(b)) > logPart {
		if err := l.compress(); err != nil {
			return 0, err
		}
	}
	n, err := l.File.Write(b)
	l.size += int64(n)
	return n, err
}

// compress makes a part of what is in the file, and empties the file.
func (l *log) compress() (err error) {
	in, err := os.Open(l.Name())
	if err != nil {
		return err
	}
	defer in.Close()
	l.count++
	path := fmt.Sprintf("%s.%03d.jsonl.gz", strings.TrimSuffix(l.Name(), ".jsonl"), l.count)
	unfinished := path + ".new" // which nobody reads
	out, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(z, in)
		err = errors.Join(err, z.Close())
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(unfinished, path)
	}
	if err != nil {
		os.Remove(unfinished)
		return err
	}
	if l.parts = append(l.parts, path); len(l.parts) > logParts {
		os.Remove(l.parts[0])
		l.parts = l.parts[1:]
	}
	if err := l.Truncate(0); err != nil {
		return err
	}
	_, err = l.Seek(0, io.SeekStart)
	l.size = 0
	return err
}

// pruneLogs deletes the logs in dir of all but the newest runs, and more of them if
// they take more bytes than that.
func pruneLogs(dir string, runs int, bytes int64) {
	type kept struct {
		files []string
		size  int64
		at    time.Time
	}
	logs := map[string]*kept{}
	names, err := fs.Glob(os.DirFS(dir), "*.events.*") // dir may hold what is special in a pattern
	if err != nil {
		return
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		id, _, _ := strings.Cut(name, ".events.")
		if logs[id] == nil {
			logs[id] = &kept{}
		}
		l := logs[id]
		l.files, l.size = append(l.files, path), l.size+info.Size()
		if info.ModTime().After(l.at) {
			l.at = info.ModTime()
		}
	}
	var all []*kept
	for _, l := range logs {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *kept) int { return b.at.Compare(a.at) }) // newest first
	var sum int64
	for i, l := range all {
		if sum += l.size; i < runs && sum <= bytes {
			continue
		}
		for _, path := range l.files {
			os.Remove(path)
		}
	}
}
