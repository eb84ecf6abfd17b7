package run

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bake/builder"
	"bake/internal/filelock"
	"bake/internal/hostpath"
	"bake/step"
	"bake/ui"
)

// Past is a run as its log and its ledger describe it.
type Past struct {
	Run     string          `json:"run"`
	Started time.Time       `json:"started"`
	Elapsed time.Duration   `json:"elapsed"`                // nanoseconds; until the last event, if the run has no end
	Command string          `json:"command_line,omitempty"` // the user's command line; unknown for runs of old versions
	State   PastState       `json:"state"`
	Builds  []PastBuild     `json:"builds"`
	Left    []step.Resource `json:"left_behind"`      // resources that its ledger still owns, as far as it can be read
	Damage  string          `json:"damage,omitempty"` // why its ledger cannot be read, or not all of it

	Resumable bool `json:"resumable"` // bake resume can continue it
}

// PastState is how a run ended.
type PastState string

// The states of runs.
const (
	Running   PastState = "running"
	Succeeded PastState = "succeeded"
	Failed    PastState = "failed"
	Cancelled PastState = "cancelled"
	Crashed   PastState = "crashed" // its log has no end: bake was killed, or the power failed
)

// PastBuild is a build of a run.
type PastBuild struct {
	Name   string            `json:"name"`
	State  PastState         `json:"state"` // Crashed and Running mean that the run is
	Error  string            `json:"error,omitempty"`
	Images map[string]string `json:"images,omitempty"` // region -> image id
}

// ErrNoRun means that there is no log of a run.
var ErrNoRun = errors.New("no such run")

// List lists the runs whose logs are kept, newest first, except sweeps, which build
// nothing. The error names logs that cannot be read; the list of the others is still
// returned.
func (s State) List() ([]Past, error) { return (&Follower{State: s}).List() }

// Find returns the id of the run that starts with prefix, or of the newest one if that is
// empty. The error wraps ErrNoRun if there is none.
func (s State) Find(prefix string) (string, error) {
	if prefix == "" {
		all, err := s.List()
		if len(all) == 0 {
			return "", errors.Join(fmt.Errorf("%w: there is no log in %s", ErrNoRun, s.Runs()), err)
		}
		return all[0].Run, nil
	}
	ids, err := s.logged()
	if err != nil {
		return "", err
	}
	id, err := only(ids, prefix)
	if id == "" && err == nil {
		err = fmt.Errorf("%w: no log in %s is of a run %s", ErrNoRun, s.Runs(), prefix)
	}
	return id, err
}

// FindOwner is Find for all runs that have a log or a ledger, or a part that has a ledger.
// prefix must not be empty.
func (s State) FindOwner(prefix string) (string, error) {
	ids, err := s.logged()
	if err != nil {
		return "", err
	}
	ledgers, err := step.Ledgers(s.Ledgers())
	if err != nil {
		return "", err
	}
	for _, path := range ledgers {
		ids = append(ids, strings.TrimSuffix(filepath.Base(path), ".jsonl"))
		if h, err := step.ReadHeader(path); err == nil && h.Parent != "" {
			ids = append(ids, h.Parent)
		}
	}
	slices.Sort(ids)
	id, err := only(slices.Compact(ids), prefix)
	if id == "" && err == nil {
		err = fmt.Errorf("%w: neither a ledger nor a log in %s is of a run %s", ErrNoRun, string(s), prefix)
	}
	return id, err
}

// only returns prefix if it is one of ids, or else the only one of ids that starts with it.
// It returns "" if none does.
func only(ids []string, prefix string) (string, error) {
	if slices.Contains(ids, prefix) {
		return prefix, nil
	}
	found := slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, prefix) })
	if len(found) > 1 {
		return "", fmt.Errorf("several runs start with %s: %s", prefix, strings.Join(found, ", "))
	}
	return strings.Join(found, ""), nil
}

// logged returns the ids of all runs that have a log.
func (s State) logged() ([]string, error) {
	names, err := fs.Glob(os.DirFS(s.Runs()), "*.events.*")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		id, _, _ := strings.Cut(name, ".events.")
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Events calls handle for every event in the log of a run, from the oldest that is kept.
// It leaves out an incomplete last line.
func (s State) Events(run string, handle func(step.Event)) error {
	return s.read(run, func(r io.Reader) error {
		err := ui.ReadEvents(r, handle)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	})
}

// read calls handle for every file of the log of a run, in order.
func (s State) read(run string, handle func(io.Reader) error) error {
	parts, err := logPartsOf(s.Runs(), run)
	if err != nil {
		return err
	}
	var paths []string
	for _, p := range parts {
		paths = append(paths, p.path)
	}
	for _, path := range append(paths, s.Log(run)) {
		if err := readFile(path, handle); err != nil {
			return noLog(path, err)
		}
	}
	return nil
}

func readFile(path string, handle func(io.Reader) error) error {
	f, err := hostpath.OpenRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if !strings.HasSuffix(path, ".gz") {
		return handle(f)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	return handle(z)
}

// Stamp returns a text that changes when a log or a ledger is created, written or deleted.
func (s State) Stamp() string {
	sum := sha256.New()
	for _, dir := range []string{s.Runs(), s.Ledgers()} {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if info, err := e.Info(); err == nil { // otherwise just deleted
				fmt.Fprintln(sum, e.Name(), info.Size(), info.ModTime().UnixNano())
			}
		}
		fmt.Fprintln(sum, err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Past returns a run as its log and its ledger describe it.
func (s State) Past(id string) (Past, error) { return (&Follower{State: s}).Past(id) }

// eachLine calls handle for each line of a log file that describes the course of the run,
// with its number, and returns the last line of the file. It ignores an incomplete line.
func eachLine(r io.Reader, handle func(n int, line []byte) error) (last []byte, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return last, nil
		} else if err != nil {
			return nil, err
		}
		if last = line; tells(line) {
			if err := handle(n, line); err != nil {
				return nil, err
			}
		}
	}
}

// tells reports whether a line of a log is an event that describes the course of the run.
func tells(line []byte) bool {
	head := line[:min(len(line), 120)] // it contains the kind, which follows the time
	for _, kind := range []step.Kind{step.RunStarted, step.RunFinished, step.BuildFinished, step.BuildFailed, step.ArtifactMade} {
		if bytes.Contains(head, []byte(`"kind":"`+string(kind)+`"`)) {
			return true
		}
	}
	return false
}

// learn updates p with an event.
func (p *Past) learn(e step.Event) {
	switch e.Kind {
	case step.RunStarted:
		if !p.Started.IsZero() { // the run was resumed, with the same builds
			p.goesOn()
			return
		}
		p.Started, p.Command, p.Builds = e.Time, e.Command, []PastBuild{}
		for name := range strings.Lines(e.Text) {
			p.Builds = append(p.Builds, PastBuild{Name: strings.TrimSpace(name), State: Crashed})
		}
	case step.RunFinished:
		p.Elapsed, p.State = e.Elapsed, Succeeded
		if slices.ContainsFunc(p.Builds, func(b PastBuild) bool { return b.State != Succeeded }) {
			p.State = Failed
		}
		if e.Error != nil {
			p.State = Cancelled
		}
		for i, b := range p.Builds {
			if b.State == Crashed { // it had not started
				p.Builds[i].State = Cancelled
			}
		}
	case step.BuildFinished, step.BuildFailed, step.ArtifactMade:
		i := slices.IndexFunc(p.Builds, func(b PastBuild) bool { return b.Name == e.Build })
		if i < 0 {
			return
		}
		switch b := &p.Builds[i]; e.Kind {
		case step.BuildFinished:
			b.State = Succeeded
		case step.BuildFailed:
			b.State, b.Error = Failed, fmt.Sprint(e.Error)
		default:
			b.addImages(ui.Artifact(e))
		}
	}
}

// goesOn resets the outcome of a run that was resumed.
func (p *Past) goesOn() {
	p.State = Crashed
	for i := range p.Builds {
		p.Builds[i].State, p.Builds[i].Error = Crashed, ""
	}
}

// live marks a run as in progress.
func (p *Past) live() {
	if p.State != Crashed {
		return
	}
	p.State = Running
	for i, b := range p.Builds {
		if b.State == Crashed {
			p.Builds[i].State = Running
		}
	}
}

// written reports whether the log of a run is open for writing. Only that shows that a run
// that consists of other runs is in progress, because it has no ledger.
func (s State) written(run string) bool {
	f, err := hostpath.OpenRegular(s.Log(run))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(filelock.TryShared(f), filelock.ErrLocked)
}

func (b *PastBuild) addImages(a *builder.Artifact) {
	if a == nil {
		return
	}
	for region, id := range a.Images {
		if b.Images == nil {
			b.Images = map[string]string{}
		}
		b.Images[region] = id
	}
}

// account adds what the ledger of the run says: whether the run is in progress, and what it
// owns. The error says which part of the ledger cannot be read.
func (p *Past) account(path string) error {
	ledger, err := step.OpenLedger(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, step.ErrLive):
		p.live()
		return nil
	case err != nil:
		return err
	}
	owned, err := ledger.Owned()
	p.Left = append(p.Left, owned...)
	if ledger.Damage != nil {
		err = errors.Join(err, fmt.Errorf("ledger %s: %w", path, ledger.Damage))
	}
	return errors.Join(err, ledger.Close())
}
