package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"bake/builder/amazon"
	"bake/config"
	"bake/engine"
	"bake/internal/login"
	"bake/run/cloudinit"
	"bake/step"
)

// Memory is the header of a run's journal: what another process needs to resume the run.
// It contains no secrets.
type Memory struct {
	Run     string         `json:"run"`
	Parent  string         `json:"whole,omitempty"` // the run that this one is a part of
	Bake    string         `json:"bake"`            // the version
	Started time.Time      `json:"started"`
	Command string         `json:"command_line"`
	Builds  []string       `json:"builds"` // builds that -only and -except selected
	Local   bool           `json:"local"`  // on the local cloud
	OnError engine.OnError `json:"on_error"`
	Force   bool           `json:"force"`

	Parallel int  `json:"parallel,omitempty"`
	FailFast bool `json:"fail_fast,omitempty"`

	CloudInit *time.Duration `json:"cloud_init,omitempty"` // nil in journals of older versions, which means the default

	Files map[string]string `json:"files"` // digests of the template and of values of variables, by name

	Path     string   `json:"path"`
	Cwd      string   `json:"cwd"`
	VarFiles []string `json:"var_files"`
	Only     []string `json:"only"`
	Except   []string `json:"except"`
	Vars     []string `json:"vars"`      // "name=value"
	Asked    []string `json:"sensitive"` // names of variables whose values are not stored

	Image *config.Instance `json:"image,omitempty"` // the image that the run builds, if images are built separately

	Within *amazon.Within `json:"within,omitempty"` // the account and region that it is restricted to

	Stages bool `json:"stages,omitempty"` // it runs by stages, possibly on other hosts

	Trace string `json:"trace,omitempty"` // of its first span, a traceparent
}

// Ledger returns the path of the ledger of a run. There is none when the run owns nothing.
func (s State) Ledger(run string) string { return filepath.Join(s.Ledgers(), run+".jsonl") }

// Journal returns the path of the journal of a run.
func (s State) Journal(run string) string { return filepath.Join(s.Ledgers(), run+".journal") }

// ResumeOptions are the options of [Resume].
type ResumeOptions struct {
	// Options are as for [Build], but these are taken from the journal instead: ID, Command,
	// Force, Parallel, FailFast, CloudInit, Within, and everything in Template except Env,
	// Secrets and the values of sensitive variables, which Vars must provide again. Cloud is used
	// only if the run is on the local cloud. An empty OnError means that of the run.
	Options

	Run     string // its id
	From    string // as in [engine.Options]
	Changed bool   // resume although the template, or bake's version, has changed
}

// Resumable returns the memory of the run whose id, or whose parent's id, starts with
// prefix, or of the newest run that can be resumed if prefix is empty. again allows
// provisioners to run again. The error says why no run can be resumed.
func (s State) Resumable(prefix string, again bool) (Memory, error) {
	names, err := fs.Glob(os.DirFS(s.Ledgers()), "*.journal")
	if err != nil {
		return Memory{}, err
	}
	var found []Memory
	var why []error
	for _, name := range names {
		m, err := s.recall(strings.TrimSuffix(name, ".journal"), again)
		if !strings.HasPrefix(name, prefix) && (m.Parent == "" || !strings.HasPrefix(m.Parent, prefix)) {
			continue
		}
		if err != nil {
			why = append(why, err)
			continue
		}
		found = append(found, m)
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Started.Before(found[j].Started) })
	switch {
	case len(found) == 0 && len(why) > 0:
		return Memory{}, errors.Join(why...)
	case len(found) == 0 && prefix == "":
		return Memory{}, errors.New("there is no run that can be resumed; bake runs lists the runs")
	case len(found) == 0:
		return Memory{}, fmt.Errorf("there is nothing to resume for run %s: it succeeded, or its resources were deleted; bake runs lists the runs", prefix)
	case prefix != "" && len(found) > 1:
		var ids []string
		for _, m := range found {
			ids = append(ids, m.Run)
		}
		return Memory{}, fmt.Errorf("several runs start with %s, or are parts of it; name one of them: %s", prefix, strings.Join(ids, ", "))
	}
	return found[len(found)-1], nil
}

// recall reads the memory of a run that has ended and can be resumed.
func (s State) recall(run string, again bool) (m Memory, err error) {
	j, err := step.ReadJournal(s.Journal(run), &m)
	if errors.Is(err, step.ErrLive) {
		return m, fmt.Errorf("run %s is still in progress", run)
	} else if err != nil {
		return m, fmt.Errorf("run %s cannot be resumed: %w", run, err)
	}
	why := resumable(j, m.Builds, again)
	if why != nil {
		why = fmt.Errorf("run %s cannot be resumed: %w; bake sweep -run %s deletes what is left of it", run, why, run)
	}
	return m, why
}

// resumable returns why none of the builds can be resumed, or nil.
func resumable(j step.Results, builds []string, again bool) error {
	var why error
	for _, b := range builds {
		err := engine.Resumable(j, b, again)
		if err == nil {
			return nil
		}
		if !errors.Is(err, engine.ErrFinished) {
			why = fmt.Errorf("%s: %w", b, err)
		}
	}
	if why == nil {
		why = errors.New("all of its builds had finished")
	}
	return why
}

// Resume continues a run that has died, or that failed and kept its resources, after its
// machines were provisioned. It remains the same run: its ledger owns the old and the new
// resources. The result and the error are as those of [Build].
func Resume(ctx context.Context, o ResumeOptions) (Result, error) {
	var m Memory
	journal, err := step.OpenJournal(o.State.Journal(o.Run), &m)
	switch {
	case errors.Is(err, step.ErrLive):
		return Result{}, fmt.Errorf("run %s is still in progress, or is being resumed by another bake", o.Run)
	case errors.Is(err, fs.ErrNotExist):
		return Result{}, fmt.Errorf("there is nothing to resume of run %s", o.Run)
	case err != nil:
		return Result{}, fmt.Errorf("run %s cannot be resumed: %w", o.Run, err)
	}
	useful := true
	defer func() { _ = journal.Close(useful) }()
	if err := resumable(journal, m.Builds, o.From != "" || o.Stages); err != nil {
		return Result{}, fmt.Errorf("run %s cannot be resumed: %w", o.Run, err)
	}
	if o.From != "" && !slices.ContainsFunc(m.Builds, func(b string) bool {
		return engine.Resumable(journal, b, false) != nil && engine.Resumable(journal, b, true) == nil
	}) {
		return Result{}, fmt.Errorf("run %s cannot be resumed from %q: all of its provisioners had finished; omit -from", o.Run, o.From)
	}
	if m.Bake != o.Version && !o.Changed {
		return Result{}, fmt.Errorf("run %s was started by bake %s, and this is bake %s; use -force to resume it anyway", o.Run, m.Bake, o.Version)
	}
	given := o.Template.Vars
	if o.Stages { // each stage gets all of them
		given = m.asked(given)
	}
	vars, err := m.vars(given)
	if err != nil {
		return Result{}, err
	}
	b := m.options(o.Options, vars)
	b.resumed = &resumed{m, journal, o.From, o.Changed, true}
	result, err := Build(ctx, b)
	useful = b.resumed.useful
	return result, err
}

// options returns o with the values from the start of the run, and with vars as variables.
func (m Memory) options(o Options, vars []string) Options {
	o.ID, o.Command, o.Force, o.Parallel, o.FailFast, o.CloudInit = m.Run, m.Command, m.Force, m.Parallel, m.FailFast, cloudinit.DefaultTimeout
	if m.CloudInit != nil {
		o.CloudInit = *m.CloudInit
	}
	if o.OnError == "" {
		o.OnError = m.OnError
	}
	t := &o.Template
	t.Path, t.Cwd, t.VarFiles, t.Only, t.Except, t.Vars, t.Now = m.Path, m.Cwd, m.VarFiles, m.Only, m.Except, vars, m.Started
	t.Instance, o.Within = m.Image, m.Within
	if !m.Local {
		o.Cloud = nil
	}
	return o
}

// resumed is the state of a resumed run.
type resumed struct {
	Memory
	journal *step.FileJournal
	from    string
	changed bool
	useful  bool // the run can be resumed again
}

// asked returns the given values that the journal does not store.
func (m Memory) asked(given []string) []string {
	return slices.DeleteFunc(slices.Clone(given), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains(m.Asked, name)
	})
}

// vars returns the values of variables, including those of sensitive variables, which must
// be given again.
func (m Memory) vars(given []string) ([]string, error) {
	names := func(vars []string) (names []string) {
		for _, v := range vars {
			name, _, _ := strings.Cut(v, "=")
			names = append(names, name)
		}
		return names
	}
	var missing []string
	for _, name := range m.Asked {
		if !slices.Contains(names(given), name) {
			missing = append(missing, fmt.Sprintf("-var %s=...", name))
		}
	}
	for _, name := range names(given) {
		if !slices.Contains(m.Asked, name) {
			return nil, fmt.Errorf("the value of %s cannot be changed: the run continues with its original value", name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("the values of sensitive variables are not stored; give them again: %s", strings.Join(missing, " "))
	}
	return slices.Concat(m.Vars, given), nil
}

// journal creates the journal of a run, or returns that of a resumed run. trace is the
// traceparent of the first span of a new run. For a resumed run, the error says what has
// changed since.
func (o Options) journal(run step.Invocation, t *config.Template, builds []string, trace string) (*step.FileJournal, error) {
	m := Memory{
		Run: run.ID, Parent: o.Parent, Bake: o.Version, Started: run.Start, Command: t.Secrets().Redact(o.Command), Local: o.Cloud != nil, OnError: o.OnError, Force: o.Force,
		Parallel: o.Parallel, FailFast: o.FailFast, CloudInit: &o.CloudInit, Builds: builds, Path: o.Template.Path, Cwd: o.Template.Cwd, VarFiles: o.Template.VarFiles, Only: o.Template.Only, Except: o.Template.Except, Files: map[string]string{},
		Image: o.Template.Instance, Within: o.Within, Stages: o.Stages, Trace: trace,
	}
	for name, f := range t.Files() {
		sum := sha256.Sum256(f.Bytes)
		m.Files[name] = hex.EncodeToString(sum[:])
	}
	if o.resumed != nil {
		o.resumed.journal.Hide(t.Secrets().Redact)
		return o.resumed.journal, o.resumed.unchanged(m.Files)
	}
	for _, v := range o.Template.Vars {
		if name, value, _ := strings.Cut(v, "="); t.Secrets().Redact(value) != value {
			m.Asked = append(m.Asked, name)
		} else {
			m.Vars = append(m.Vars, v)
		}
	}
	return step.CreateJournal(o.State.Journal(run.ID), m, t.Secrets().Redact)
}

// selected returns the names of the builds to run. It returns none if the selection is
// invalid: the engine reports that.
func (o Options) selected(t *config.Template, among map[*config.Build]bool) []string {
	builds, _ := engine.Select(t, engine.Options{Only: o.Template.Only, Except: o.Template.Except, Builds: among})
	var names []string
	for _, b := range builds {
		names = append(names, b.Name)
	}
	return names
}

// closeJournal closes the journal of a run. The journal of a resumed run is left to its
// owner.
func (o Options) closeJournal(j *step.FileJournal, useful bool) error {
	if o.resumed != nil {
		o.resumed.useful = useful
		return nil
	}
	return j.Close(useful)
}

// ledger creates the ledger of a run, or opens that of a resumed run. The ledger of a
// resumed run no longer exists if nothing was left in it.
func (o Options) ledger(h step.Header) (*step.FileLedger, error) {
	if o.resumed != nil {
		l, err := step.OpenLedger(o.State.Ledger(h.Run))
		if !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	}
	return step.CreateLedger(o.State.Ledgers(), h)
}

// unchanged returns an error that names the files that have changed since the run began.
func (a *resumed) unchanged(now map[string]string) error {
	var changed []string
	for name, sum := range now {
		if a.Files[name] != sum {
			changed = append(changed, name)
		}
	}
	for name := range a.Files {
		if _, ok := now[name]; !ok {
			changed = append(changed, name)
		}
	}
	if len(changed) == 0 || a.changed {
		return nil
	}
	slices.Sort(changed)
	return fmt.Errorf("the template has changed since the run began: %s; undo that, or use -force to resume with the changed template", strings.Join(changed, ", "))
}

// kept returns the reason not to delete the resources of a run, or "" if there is none.
// Reasons are that the run runs by stages, that it kept its resources after a failure and
// has not been resumed to its end since, and that it is being resumed. Whether it can be
// resumed does not matter.
func (s State) kept(run string) Reason {
	var m Memory
	_, err := step.ReadJournal(s.Journal(run), &m)
	switch {
	case m.Stages:
		return goesOn
	case errors.Is(err, step.ErrLive), m.OnError == engine.Keep:
		return wasKept
	}
	return ""
}

// key returns the private key of the machine that a build of a run has left, or "".
func (s State) key(run, build string) string {
	found, err := login.Find(s.Runs(), run, build)
	if err != nil || len(found) != 1 || filepath.Dir(found[0].KeyFile) != s.keys(run) {
		return ""
	}
	text, err := stateFile(found[0].KeyFile)
	if err != nil {
		return ""
	}
	return string(text)
}

// forgetRun deletes the journal of a run that can no longer be resumed.
func (s State) forgetRun(run string) { os.Remove(s.Journal(run)) }

// forgetJournals deletes the journals of runs that no longer own anything, if they
// ended some time ago, cannot be resumed, or were killed before they had begun.
func (s State) forgetJournals(now time.Time) {
	names, err := fs.Glob(os.DirFS(s.Ledgers()), "*.journal")
	if err != nil {
		return
	}
	for _, name := range names {
		run := strings.TrimSuffix(name, ".journal")
		info, err := os.Stat(s.Journal(run))
		if err != nil {
			continue
		}
		if _, err := os.Stat(s.Ledger(run)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		switch over, err := s.over(run); {
		case errors.Is(err, step.ErrUnbegun):
			_ = step.DiscardUnbegun(s.Journal(run)) // unless the run is just starting
		case over || now.Sub(info.ModTime()) >= loginsKept:
			s.forgetRun(run)
		}
	}
}

// over reports whether a run has ended and cannot be resumed. The error is that of
// [step.ReadJournal].
func (s State) over(run string) (bool, error) {
	var m Memory
	j, err := step.ReadJournal(s.Journal(run), &m)
	return err == nil && resumable(j, m.Builds, false) != nil && resumable(j, m.Builds, true) != nil, err
}
