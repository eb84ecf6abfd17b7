//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// limit is the time limit of bake, whatever fails. The templates have far shorter limits,
// but a busy machine may be slow.
const limit = 10 * time.Minute

// trial is one bake in a separate world, with a failure at one point, and what follows it.
type trial struct {
	subject subject
	mode    mode
	point   point
	cut     int // with mode.cut: which of the intermediate states of the ledger
}

// point is a call or a command of a bake: the nth one with the same name.
type point struct {
	what string
	nth  int // from 1
}

func (p point) String() string { return fmt.Sprintf("%s/%d", p.what, p.nth) }

// end comes after all other points.
var end = point{"end", 1}

func (t trial) String() string {
	name := fmt.Sprintf("%s/%s/%s", t.subject.name, t.mode.name, t.point)
	if t.mode.cut {
		name += "." + strconv.Itoa(t.cut)
	}
	return name
}

// verdict is the result of a trial.
type verdict struct {
	trial    trial
	struck   bool // the bake reached that point
	crashed  bool
	finished bool
	resumed  bool
	left     []string // the bake's resources left in the cloud or on this host
	lost     []string // images that it has announced but that do not exist
	problems []string // other problems
	said     string
}

func (v *verdict) problem(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

func (v *verdict) bad() bool { return len(v.left)+len(v.lost)+len(v.problems) > 0 }

// course is the sequence of points in an undisturbed bake.
type course struct {
	points []point
	cuts   map[point]int // number of states of the ledger between the previous point and this one
	album  string        // of the images that it made
}

// attempt is a trial in progress.
type attempt struct {
	trial
	bake string
	w    *world
	dir  string
	out  verdict

	mu     sync.Mutex
	course course
	times  map[string]int // number of calls and commands, by name
	floor  int64          // size of the ledger when the last call that was carried out arrived
	ledger *os.File
	child  *os.Process
}

// run runs the trial in a directory below dir. If against is nil, it only determines the
// course.
func (t trial) run(ctx context.Context, bake, dir string, against *course) (_ verdict, _ *course, err error) {
	a := &attempt{trial: t, bake: bake, dir: dir, out: verdict{trial: t}, times: map[string]int{}, course: course{cuts: map[point]int{}}}
	w, err := newWorld(ctx, dir)
	if err != nil {
		return a.out, nil, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	a.w = w
	if err := os.WriteFile(filepath.Join(dir, "web.pkr.hcl"), []byte(t.subject.template), 0o600); err != nil {
		return a.out, nil, err
	}
	w.disturb(a.meddle)
	report, err := a.start(ctx, "build", "web.pkr.hcl")
	if err != nil {
		return a.out, nil, err
	}
	w.disturb(nil)
	defer a.closeLedger()
	if against == nil {
		held, err := w.inventory()
		a.course.album = held.album()
		a.course.cuts[end] = len(a.states())
		if err == nil && report.exit != 0 {
			err = fmt.Errorf("%s: the undisturbed bake failed:\n%s", t.subject.name, report.text)
		}
		if left := held.beside(slices.Collect(maps.Keys(held.images))); err == nil && len(report.kept) != len(held.images) {
			err = fmt.Errorf("%s: the undisturbed bake made %d images, and the cloud has %d; left: %v", t.subject.name, len(report.kept), len(held.images), left)
		}
		return a.out, &a.course, err
	}
	if t.point == end {
		a.out.struck = true
	}
	if !a.out.struck {
		return a.out, nil, nil
	}
	return a.out, nil, a.judge(ctx, report, against)
}

// report is the output of a child process.
type report struct {
	exit     int // -1: it was killed
	text     string
	run      string
	kept     []string // ids of images that are the user's
	made     []string // of an artifact
	admitted []string // ids of the resources that it reports as not deleted
	kinds    []string // and their kinds

	resumable bool // as reported: its images exist, but the following steps were not done
}

// start runs bake until it ends.
func (a *attempt) start(ctx context.Context, args ...string) (report, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := a.w.command(ctx, a.bake, args...)
	cmd.Env = append(cmd.Env, "AWS_MAX_ATTEMPTS=3")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	a.mu.Lock()
	err := cmd.Start()
	a.child = cmd.Process
	a.mu.Unlock()
	if err != nil {
		return report{}, err
	}
	err = cmd.Wait()
	r := report{exit: cmd.ProcessState.ExitCode(), text: stdout.String() + stderr.String()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, err
	}
	if ctx.Err() != nil {
		a.out.problem("bake %s did not end within %s", args[0], limit)
	}
	if strings.Contains(stderr.String(), "goroutine ") {
		a.out.problem("bake %s panicked", args[0])
	}
	a.out.said += fmt.Sprintf("bake %s: exit %d\n%s", strings.Join(args, " "), r.exit, r.text)
	r.read(stdout.Bytes())
	return r, nil
}

func (r *report) read(lines []byte) {
	type resource struct{ Kind, ID string }
	for line := range bytes.Lines(lines) {
		var e struct {
			Kind     string
			Run      string
			Resource resource
			Artifact struct{ Images map[string]string }
			Left     []resource `json:"left_behind"`

			Resumable bool
		}
		if json.Unmarshal(line, &e) != nil {
			continue // the last one, of a killed process
		}
		switch {
		case e.Kind == "resource-kept" && e.Resource.Kind == "ec2:image":
			r.kept = append(r.kept, e.Resource.ID)
		case e.Kind == "artifact":
			r.made = slices.AppendSeq(r.made, maps.Values(e.Artifact.Images))
		case e.Kind == "result":
			r.run, r.resumable = e.Run, e.Resumable
			for _, l := range e.Left {
				r.admitted, r.kinds = append(r.admitted, l.ID), append(r.kinds, l.Kind)
			}
		}
	}
}

// meddle injects the trial's failure at its point.
func (a *attempt) meddle(what string, w http.ResponseWriter, do func(http.ResponseWriter)) {
	a.mu.Lock()
	size := a.ledgerSize()
	a.times[what]++
	here := point{what, a.times[what]}
	a.course.points = append(a.course.points, here)
	a.course.cuts[here] = len(a.states())
	m := a.mode
	strike := here == a.point || m.forever && what == a.point.what
	a.out.struck = a.out.struck || strike
	if !strike || !m.before {
		a.floor = max(a.floor, size)
	}
	a.mu.Unlock()
	if strike {
		a.strike(w, do)
		return
	}
	do(w)
}

func (a *attempt) strike(w http.ResponseWriter, do func(http.ResponseWriter)) {
	m := a.mode
	answer := httptest.NewRecorder()
	switch {
	case m.code != "":
		refuse(w, m.status, m.code, "It was refused on purpose.")
		return
	case w == nil && !m.before:
		do(nil)
	case !m.before:
		do(answer)
	}
	if m.signal != 0 {
		_ = a.child.Signal(m.signal) // it may have ended
	}
	if w == nil {
		return
	}
	body := answer.Body.Bytes()
	if m.kills() || m.before || m.lose {
		panic(http.ErrAbortHandler) // hangs up
	}
	maps.Copy(w.Header(), answer.Header())
	switch {
	case m.half:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		body = body[:len(body)/2]
	case m.page:
		w.Header().Del("Content-Length")
		body = []byte("<html>The gateway has lost its way.</html>")
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(body) // it may have ended
}

// ledgerSize returns the size of the ledger. It keeps the ledger open, so that it can still
// be read after its deletion.
func (a *attempt) ledgerSize() int64 {
	if a.ledger == nil {
		files, _ := filepath.Glob(filepath.Join(a.dir, "state", "ledgers", "*.jsonl"))
		if len(files) == 0 {
			return 0
		}
		a.ledger, _ = os.Open(files[0])
	}
	info, err := a.ledger.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

func (a *attempt) closeLedger() {
	if a.ledger != nil {
		a.ledger.Close()
	}
}

// states returns the sizes that the ledger has had, also in the middle of a line, since the
// arrival of the last call that was carried out. If bake had been killed at one of them,
// the cloud would be in its present state.
func (a *attempt) states() (sizes []int64) {
	size := a.ledgerSize()
	if a.ledger == nil {
		return nil
	}
	text, err := io.ReadAll(io.NewSectionReader(a.ledger, 0, size))
	if err != nil {
		return nil
	}
	for at := int64(0); ; {
		end := bytes.IndexByte(text[at:], '\n')
		if end < 0 {
			return sizes
		}
		next := at + int64(end) + 1
		if next > a.floor {
			sizes = append(sizes, (at+next)/2, next)
		}
		at = next
	}
}

// cutLedger restores an intermediate state of the ledger.
func (a *attempt) cutLedger() (cut bool, err error) {
	sizes := a.states()
	if a.trial.cut >= len(sizes) {
		return false, nil
	}
	text := make([]byte, sizes[a.trial.cut])
	if _, err := a.ledger.ReadAt(text, 0); err != nil {
		return false, err
	}
	return true, os.WriteFile(a.ledger.Name(), text, 0o600)
}

// judge cleans up after the bake and checks what is left.
func (a *attempt) judge(ctx context.Context, r report, against *course) (err error) {
	m := a.mode
	a.out.crashed = m.kills()
	a.out.finished = r.exit == 0
	if m.cut {
		if cut, err := a.cutLedger(); err != nil || !cut {
			a.out.struck = false
			return err
		}
		r.made, r.kept = nil, nil // it may not have reached that point
		a.out.finished = false
	}
	if !m.kills() {
		if err := a.inspectEnd(r); err != nil {
			return err
		}
	}
	if m.resume {
		// On a busy host, a call with the same number may occur before the machine is ready.
		if times, err := a.w.provisioned(); err != nil || times["second"] == 0 {
			a.out.struck = false
			return err
		}
		if r, err = a.resume(ctx, against); err != nil {
			return err
		}
	}
	swept, err := a.start(ctx, "sweep")
	if err != nil {
		return err
	}
	if swept.exit != 0 {
		a.out.problem("the sweep failed")
	}
	return a.inspect(r, against)
}

// resume resumes a bake that was killed after its provisioners had finished. They must not
// run again, and the images must be those of an undisturbed bake.
func (a *attempt) resume(ctx context.Context, against *course) (report, error) {
	r, err := a.start(ctx, "resume")
	if err != nil {
		return r, err
	}
	held, err := a.w.inventory()
	if err != nil {
		return r, err
	}
	times, err := a.w.provisioned()
	switch {
	case r.exit != 0:
		a.out.problem("it was not resumed")
	case held.album() != against.album:
		a.out.problem("the images of the resumed bake are not those of an undisturbed one")
	case !maps.Equal(times, map[string]int{"first": 1, "second": 1}):
		a.out.problem("the provisioners ran %v times", times)
	default:
		a.out.finished, a.out.resumed = true, true
	}
	return r, err
}

// partOf maps kinds of objects in the cloud to the kinds of bake's resources with which
// they are deleted.
var partOf = map[string]string{
	"images": "ec2:image", "snapshots": "ec2:image", "instances": "ec2:instance", "volumes": "ec2:instance", "disks": "ec2:instance",
	"spot-requests": "ec2:instance", "key-pairs": "ec2:key-pair", "security-groups": "ec2:security-group", "launch-templates": "ec2:launch-template",
	"roles": "ec2:role", "profiles": "ec2:instance-profile",
}

// inspectEnd checks the resources after bake has ended by itself: bake must have reported
// what it left.
func (a *attempt) inspectEnd(r report) error {
	held, err := a.w.inventory()
	if err != nil {
		return err
	}
	for _, left := range held.beside(slices.Concat(r.kept, r.admitted)) {
		kind, _, _ := strings.Cut(left, " ")
		if !slices.Contains(r.kinds, partOf[kind]) {
			a.out.problem("left without a word: %s", left)
		}
	}
	if files, err := os.ReadDir(filepath.Join(a.dir, "tmp")); err != nil || len(files) > 0 {
		a.out.problem("temporary files are left: %v %v", files, err)
	}
	return nil
}

// inspect compares the final state with the expected one: the images of the undisturbed
// bake, nothing, or those of some regions, if the build failed and reported that.
func (a *attempt) inspect(r report, against *course) error {
	held, err := a.w.inventory()
	if err != nil {
		return err
	}
	expected := r.kept
	whole := held.album() == against.album
	switch {
	case whole:
		expected = slices.Collect(maps.Keys(held.images))
	case a.mode.kills() && len(r.made) == 0:
		expected = nil
	}
	a.out.left = held.beside(expected)
	for _, id := range slices.Concat(r.made, r.kept) {
		if _, ok := held.images[id]; !ok {
			a.out.lost = append(a.out.lost, id)
		}
	}
	if a.out.finished && !whole {
		a.out.lost = append(a.out.lost, "the images are not those of an undisturbed bake")
	}
	ledgers, err := os.ReadDir(filepath.Join(a.dir, "state", "ledgers"))
	for _, l := range ledgers {
		if !r.resumable && (r.exit >= 0 || len(r.kept) == 0) || filepath.Ext(l.Name()) != ".journal" {
			a.out.left = append(a.out.left, "ledger "+l.Name())
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil // it was stopped before it had one
	}
	return err
}
