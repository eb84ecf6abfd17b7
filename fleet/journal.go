package fleet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"bake/internal/filelock"
	"bake/run"
)

// folder is where this process keeps what must outlive it of a fleet: a journal of each
// run, RUN.jsonl, a lock that the process holds which runs the fleet, and what other processes
// ask it for: the files "paused" and RUN.cancel.
type folder string

func folderOf(s run.State, fleet string) folder {
	return folder(filepath.Join(string(s), "fleets", fleet))
}

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

func (d folder) has(name string) bool {
	_, err := os.Stat(d.path(name))
	return err == nil
}

// ask leaves a file that says something to whoever looks for it.
func (d folder) ask(name string) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	return os.WriteFile(d.path(name), nil, 0o600)
}

const (
	pausedFile   = "paused"
	lockFile     = "lock"
	journalEnd   = ".jsonl"
	cancelEnd    = ".cancel"
	keptJournals = 50 // finished runs of a fleet that are remembered
)

// lock keeps other processes from running the fleet, until it is closed. It fails with
// [filelock.ErrLocked] while one does.
func (d folder) lock() (*os.File, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := filelock.Try(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// live reports whether a process runs the fleet.
func (d folder) live() bool {
	f, err := os.Open(d.path(lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(filelock.TryShared(f), filelock.ErrLocked)
}

// header begins a journal.
type header struct {
	Fleet    string    `json:"fleet"`
	Run      string    `json:"run"`
	Started  time.Time `json:"started"`
	Command  string    `json:"command_line,omitempty"`
	Cells    []Cell    `json:"cells"`
	FailFast bool      `json:"fail_fast,omitempty"`
	Force    bool      `json:"force,omitempty"`
	Local    bool      `json:"local,omitempty"` // on the local cloud
}

// line is a line of a journal. One of its fields is set.
type line struct {
	Header *header    `json:"header,omitempty"`
	Began  *began     `json:"began,omitempty"`
	Ended  *Outcome   `json:"ended,omitempty"`
	Over   *time.Time `json:"over,omitempty"`
}

// began says that a cell is baked by a run.
type began struct {
	Cell string    `json:"cell"` // its ID
	Run  string    `json:"run"`
	At   time.Time `json:"at"`
}

// journal is the journal of a run that goes on. It is not safe for concurrent use.
type journal struct{ file *os.File }

// write adds a line, which is on the disk when it returns.
func (j *journal) write(l line) error {
	data, err := json.Marshal(l)
	if err == nil {
		_, err = j.file.Write(append(data, '\n'))
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("the journal of the fleet: %w", err)
	}
	return nil
}

// create begins the journal of a run, and deletes the oldest ones.
func (d folder) create(h header) (*journal, error) {
	d.prune()
	f, err := os.OpenFile(d.path(h.Run+journalEnd), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the journal of the fleet: %w; set BAKE_STATE_DIR to use another directory", err)
	}
	j := &journal{f}
	if err := j.write(line{Header: &h}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// reopen goes on with the journal of a run. What was being written when its process died is
// cut off.
func (d folder) reopen(p past) (*journal, error) {
	f, err := os.OpenFile(d.path(p.Run+journalEnd), os.O_WRONLY, 0)
	if err == nil {
		if err = f.Truncate(p.size); err == nil {
			_, err = f.Seek(p.size, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the journal of the fleet: %w", err)
	}
	return &journal{f}, nil
}

// past is what a journal tells.
type past struct {
	header
	began map[string]began   // by the IDs of cells; the last time
	ended map[string]Outcome // likewise
	over  time.Time          // zero: it is not
	size  int64              // of the whole lines
}

// outcomes are how cells ended, in their order.
func (p past) outcomes() (all []Outcome) {
	for _, c := range p.Cells {
		if o, ok := p.ended[c.ID()]; ok {
			all = append(all, o)
		}
	}
	return all
}

// read reads the journal of a run.
func (d folder) read(id string) (past, error) {
	p := past{began: map[string]began{}, ended: map[string]Outcome{}}
	data, err := os.ReadFile(d.path(id + journalEnd))
	if err != nil {
		return p, err
	}
	in := bufio.NewReader(bytes.NewReader(data))
	for n := 1; ; n++ {
		text, err := in.ReadBytes('\n')
		if err != nil {
			break // the end, or a line that was never written whole
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return p, fmt.Errorf("%s:%d: %w", d.path(id+journalEnd), n, err)
		}
		p.size += int64(len(text))
		switch {
		case l.Header != nil:
			p.header = *l.Header
		case l.Began != nil:
			p.began[l.Began.Cell] = *l.Began
			delete(p.ended, l.Began.Cell)
			p.over = time.Time{}
		case l.Ended != nil:
			p.ended[l.Ended.Cell.ID()] = *l.Ended
		case l.Over != nil:
			p.over = *l.Over
		}
	}
	if p.Run == "" {
		return p, fmt.Errorf("%s has no beginning", d.path(id+journalEnd))
	}
	return p, nil
}

// all are the runs of the fleet that are remembered, the newest first. Journals that cannot
// be read are passed over.
func (d folder) all() (all []past) {
	names, err := fs.Glob(os.DirFS(string(d)), "*"+journalEnd)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if p, err := d.read(strings.TrimSuffix(name, journalEnd)); err == nil {
			all = append(all, p)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[j].Started.Before(all[i].Started) })
	return all
}

// find returns the run that begins with prefix; the newest, if that is empty.
func (d folder) find(fleet, prefix string) (past, error) {
	for _, p := range d.all() {
		if strings.HasPrefix(p.Run, prefix) {
			return p, nil
		}
	}
	if prefix != "" {
		return past{}, fmt.Errorf("%w: nothing is remembered of a run %s of the fleet %s", ErrNoRun, prefix, fleet)
	}
	return past{}, fmt.Errorf("%w: %s has not been run on this machine", ErrNoRun, fleet)
}

func (d folder) prune() {
	all := d.all()
	for _, p := range all[min(keptJournals-1, len(all)):] {
		os.Remove(d.path(p.Run + journalEnd))
		os.Remove(d.path(p.Run + cancelEnd))
	}
}
