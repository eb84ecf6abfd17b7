package fleet

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"bake/internal/filelock"
	"bake/internal/hostpath"
	"bake/run"
)

// folder is the directory with the persistent state of a fleet: a journal of each run,
// RUN.jsonl; a lock, held by the process that runs the fleet; and requests of other
// processes, in the files "paused" and RUN.cancel.
type folder string

// folderOf returns the folder of a fleet. Fleets with the same name in different
// directories have separate folders.
func folderOf(s run.State, f *Fleet) folder {
	sum := sha256.Sum256([]byte(f.Dir))
	return folder(filepath.Join(string(s), "fleets", f.Name+"-"+hex.EncodeToString(sum[:4])))
}

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

func (d folder) has(name string) bool {
	_, err := os.Stat(d.path(name))
	return err == nil
}

// ask creates a file that requests something from the process that runs the fleet.
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
	keptJournals = 50 // maximum number of finished runs of a fleet that are kept
)

// lock prevents other processes from running the fleet, until it is closed. It fails with
// [filelock.ErrLocked] while another process does. A process that only reads holds the lock
// briefly; lock waits for that.
func (d folder) lock() (*os.File, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		err := filelock.Try(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, filelock.ErrLocked) || try == lockTries {
			return nil, errors.Join(err, f.Close())
		}
		time.Sleep(lockPause)
	}
}

const (
	lockTries = 20
	lockPause = 25 * time.Millisecond
)

// live reports whether a process runs the fleet.
func (d folder) live() bool {
	f, err := hostpath.OpenRegular(d.path(lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(filelock.TryShared(f), filelock.ErrLocked)
}

// header begins a journal.
type header struct {
	Fleet    string    `json:"fleet"`
	Dir      string    `json:"directory"` // of its template
	Run      string    `json:"run"`
	Started  time.Time `json:"started"`
	Command  string    `json:"command_line,omitempty"`
	Cells    []Cell    `json:"cells"`
	FailFast bool      `json:"fail_fast,omitempty"`
	Force    bool      `json:"force,omitempty"`
	Local    bool      `json:"local,omitempty"` // on the local cloud

	CloudInit *time.Duration `json:"cloud_init,omitempty"` // absent: the default of a new run
}

// line is a line of a journal. One of its fields is set.
type line struct {
	Header *header    `json:"header,omitempty"`
	Began  *began     `json:"began,omitempty"`
	Ended  *Outcome   `json:"ended,omitempty"`
	Again  *time.Time `json:"again,omitempty"` // another process continued the run
	Over   *time.Time `json:"over,omitempty"`
}

// began records the run that bakes a cell.
type began struct {
	Cell string    `json:"cell"` // its ID
	Run  string    `json:"run"`
	At   time.Time `json:"at"`
}

// journal is the journal of a run in progress. It is not safe for concurrent use.
type journal struct {
	file *os.File
	size int64 // of the complete lines
}

// write adds a line and returns when it is on the disk. If a line was written only in
// part, it is cut off, so that later lines can be read.
func (j *journal) write(l line) error {
	data, err := json.Marshal(l)
	if err == nil {
		_, err = j.file.WriteAt(append(data, '\n'), j.size)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the journal of the fleet: %w", err), j.file.Truncate(j.size))
	}
	j.size += int64(len(data)) + 1
	return nil
}

// create creates the journal of a run, and deletes the oldest journals.
func (d folder) create(h header) (*journal, error) {
	d.prune()
	f, err := os.OpenFile(d.path(h.Run+journalEnd), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the journal of the fleet: %w; set BAKE_STATE_DIR to use another directory", err)
	}
	j := &journal{file: f}
	if err := j.write(line{Header: &h}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// reopen opens the journal of a run that is resumed. It cuts off a line that was
// incomplete when the process died.
func (d folder) reopen(p journalState, now time.Time) (*journal, error) {
	f, err := os.OpenFile(d.path(p.Run+journalEnd), os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("the journal of the fleet: %w", err)
	}
	j := &journal{f, p.size}
	err = f.Truncate(p.size)
	if err == nil {
		err = j.write(line{Again: &now})
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// journalState is the state that a journal records.
type journalState struct {
	header
	began map[string]began    // by cell ID, of the last run
	ended map[string]Outcome  // likewise
	open  map[string][]string // runs of each cell without a recorded end, the newest last
	over  time.Time           // zero: not ended
	last  time.Time           // time of the last line
	size  int64               // of the complete lines
}

// outcomes returns how cells ended, in the order of the cells.
func (p journalState) outcomes() (all []Outcome) {
	for _, c := range p.Cells {
		if o, ok := p.ended[c.ID()]; ok {
			all = append(all, o)
		}
	}
	return all
}

// maxJournal is far larger than the journal of any run, in bytes.
const maxJournal = 256 << 20

// read reads the journal of a run.
func (d folder) read(id string) (journalState, error) {
	p := journalState{began: map[string]began{}, ended: map[string]Outcome{}, open: map[string][]string{}}
	data, err := hostpath.ReadRegular(os.OpenFile, d.path(id+journalEnd), maxJournal)
	if err != nil {
		return p, err
	}
	in := bufio.NewReader(bytes.NewReader(data))
	for n := 1; ; n++ {
		text, err := in.ReadBytes('\n')
		if err != nil {
			break // the end, or an incomplete line
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return p, fmt.Errorf("%s:%d: %w", d.path(id+journalEnd), n, err)
		}
		p.size += int64(len(text))
		p.apply(l)
	}
	if p.Run == "" && p.size > 0 {
		return p, fmt.Errorf("%s:1: it does not begin as the journal of a fleet does", d.path(id+journalEnd))
	}
	return p, nil
}

// apply adds a line to the state.
func (p *journalState) apply(l line) {
	at := p.last
	switch {
	case l.Header != nil:
		p.header, at = *l.Header, l.Header.Started
	case l.Began != nil:
		id := l.Began.Cell
		p.began[id], p.over, at = *l.Began, time.Time{}, l.Began.At
		p.open[id] = append(p.open[id], l.Began.Run)
		delete(p.ended, id)
	case l.Ended != nil:
		id := l.Ended.Cell.ID()
		p.ended[id], at = *l.Ended, l.Ended.Ended
		p.open[id] = slices.DeleteFunc(p.open[id], func(run string) bool { return run == l.Ended.Run })
	case l.Again != nil:
		p.over, at = time.Time{}, *l.Again
	case l.Over != nil:
		p.over, at = *l.Over, *l.Over
	}
	if at.After(p.last) {
		p.last = at
	}
}

// all returns the recorded runs of the fleet, the most recently continued first. The error
// names the journals that cannot be read; the others are still returned.
func (d folder) all() (all []journalState, err error) {
	names, err := fs.Glob(os.DirFS(string(d)), "*"+journalEnd)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		p, rerr := d.read(strings.TrimSuffix(name, journalEnd))
		switch {
		case errors.Is(rerr, fs.ErrNotExist): // just deleted
		case rerr != nil:
			err = errors.Join(err, fmt.Errorf("the journal of a run of the fleet cannot be read: %w; move the file away to do without it", rerr))
		case p.Run != "": // otherwise its process died before it had begun
			all = append(all, p)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[j].last.Before(all[i].last) })
	return all, err
}

// find returns the run that begins with prefix; the newest, if that is empty.
func (d folder) find(fleet, prefix string) (journalState, error) {
	all, err := d.all()
	found := slices.DeleteFunc(all, func(p journalState) bool { return !strings.HasPrefix(p.Run, prefix) })
	switch {
	case len(found) == 1 && prefix != "" || len(found) > 0 && prefix == "" && err == nil:
		return found[0], nil
	case err != nil:
		return journalState{}, err
	case len(found) > 0:
		return journalState{}, fmt.Errorf("several runs of the fleet %s begin with %s: write more of the id", fleet, prefix)
	case prefix != "":
		return journalState{}, fmt.Errorf("%w: nothing is remembered of a run %s of the fleet %s", ErrNoRun, prefix, fleet)
	}
	return journalState{}, fmt.Errorf("%w: %s has not been run on this machine", ErrNoRun, fleet)
}

func (d folder) prune() {
	all, _ := d.all() // other errors do not matter
	for _, p := range all[min(keptJournals-1, len(all)):] {
		os.Remove(d.path(p.Run + journalEnd))
		os.Remove(d.path(p.Run + cancelEnd))
	}
}
