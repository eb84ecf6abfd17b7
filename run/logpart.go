package run

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"bake/builder/amazon"
	"bake/golden/reports"
	"bake/internal/s3uri"
	"bake/internal/wholefile"
	"bake/step"
	"bake/ui"
)

// logPartBytes limits the part of a stage's log that is stored with the reports, in bytes
// before compression. Earlier events that describe the course of the run may take as many
// bytes again.
const logPartBytes = 32 << 20

// logReadBytes limits the size of a part when it is read: the earlier events, the note
// about missing lines and the end of the log.
const logReadBytes = 2*logPartBytes + 4096

// LogPart is the part of the log from a stage of a run, or from its teardown, as a
// document among the reports.
type LogPart struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Local  bool   `json:"local,omitempty"` // in a bucket on the local cloud of the host that stored it
}

// OpenReports returns the store for the reports of each run, at the place that bake files
// name: a directory, a place in a bucket, or "", which is next to the log of the run.
func (s State) OpenReports(ctx context.Context, cloud amazon.Cloud, env []string, place string) (of func(run string) reports.Store, err error) {
	beside := func(run string) reports.Store { return reports.Store{Dir: s.Reports(run)} }
	switch {
	case place == "":
		return beside, nil
	case !strings.HasPrefix(place, s3uri.Scheme):
		return func(string) reports.Store { return reports.Store{Dir: place} }, nil
	}
	cloud.Within = nil // all cells of a fleet write their reports to one bucket
	bucket, err := amazon.OpenBucket(ctx, cloud, env, place)
	if err != nil {
		return beside, err
	}
	return func(run string) reports.Store {
		store := beside(run)
		store.Bucket = bucket
		return store
	}, nil
}

// parts returns the file that lists the log parts which earlier stages of a run have
// stored with the reports, on any host.
func (s State) parts(run string) string { return filepath.Join(s.Ledgers(), run+".parts") }

// logParts returns the parts in that file.
func (s State) logParts(run string) (all []LogPart, err error) {
	text, err := stateFile(s.parts(run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err == nil {
		err = json.Unmarshal(text, &all)
	}
	return all, err
}

// keepLog stores the log of a run, starting at position from, with the reports, for other
// hosts. It returns nil if nothing is stored there. If it also returns an error, the
// report of the run will lack this part unless the report is made on this host.
func (o Options) keepLog(ctx context.Context, run string, from Position, in reports.Store) (*LogPart, error) {
	size := 0
	_, err := o.State.Lines(run, from, func(line []byte) bool {
		size += len(line)
		return true
	})
	if err != nil || size == 0 {
		return nil, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	skip := size - logPartBytes
	if skip > 0 {
		note := &ui.JSON{Out: z}
		note.Handle(step.Event{Time: o.Now(), Kind: step.Warning, Text: fmt.Sprintf("Lines are missing from the log here: the stage has written %d MB, and the last %d are kept.", size>>20, logPartBytes>>20)})
	}
	room := logPartBytes
	_, err = o.State.Lines(run, from, func(line []byte) bool {
		switch {
		case skip <= 0:
			_, _ = z.Write(line) // into memory
		case tells(line) && len(line) <= room:
			room -= len(line)
			_, _ = z.Write(line)
		}
		skip -= len(line)
		return true
	})
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, err
	}
	name := reports.Logs + "/" + o.pageDir() + o.Now().UTC().Format("20060102T150405.000Z-") + run + ".jsonl.gz"
	if err := inTime(ctx, func(ctx context.Context) error { return in.Write(ctx, name, packed.Bytes()) }); err != nil {
		return nil, err
	}
	part := &LogPart{name, reports.Digest(packed.Bytes()), o.Cloud != nil && in.Bucket != nil}
	all, err := o.State.logParts(run)
	if err != nil {
		return part, err
	}
	text, err := json.Marshal(append(all, *part))
	if err != nil {
		return part, err
	}
	return part, wholefile.WriteData(o.State.parts(run), 0o600, text)
}

// KeepLog stores the log of a run, from a position on, with the reports at a shared place;
// see [State.OpenReports]. It returns nil if nothing is stored there.
func (o Options) KeepLog(ctx context.Context, cloud amazon.Cloud, place, run string, from Position) (*LogPart, error) {
	of, err := o.State.OpenReports(ctx, cloud, o.Template.Env, place)
	if err != nil {
		return nil, err
	}
	in := of(run)
	if !o.sharedReports(in, run) {
		return nil, nil
	}
	return o.keepLog(ctx, run, from, in)
}

// JoinedLog assembles the log of a run from the parts that its stages have stored with the
// reports and from the log on this host. Events in both are identified by their times, so
// that neither the order of the stages nor the clocks of other hosts matter.
type JoinedLog struct {
	Emit func(step.Event) // gets each event once
	seen map[int64]bool   // times of events in parts, in nanoseconds
}

// Part forwards an event of a part.
func (j *JoinedLog) Part(e step.Event) {
	if j.seen == nil {
		j.seen = map[int64]bool{}
	}
	j.seen[e.Time.UnixNano()] = true
	j.Emit(e)
}

// Here forwards an event of the log on this host, unless it was in a part.
func (j *JoinedLog) Here(e step.Event) {
	if !j.seen[e.Time.UnixNano()] {
		j.Emit(e)
	}
}

// allEvents calls emit for the events of a run, including its stages on other hosts, and
// then for those of stages on this host whose logs could not be stored.
func (o Options) allEvents(ctx context.Context, run string, in reports.Store, emit func(step.Event)) error {
	parts, err := o.State.logParts(run)
	errs := []error{err}
	all := JoinedLog{Emit: emit}
	for _, part := range parts {
		errs = append(errs, inTime(ctx, func(ctx context.Context) error { return ReadLog(ctx, in, part, all.Part) }))
	}
	return errors.Join(append(errs, o.State.Events(run, all.Here))...)
}

// ReadLog calls emit for the events of a part of a log. If the part is not in the reports,
// the error is an [fs.ErrNotExist].
func ReadLog(ctx context.Context, in reports.Store, part LogPart, emit func(step.Event)) error {
	text, err := in.ReadNamed(ctx, part.Name, part.SHA256, logReadBytes)
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err == nil {
		whole := &io.LimitedReader{R: z, N: logReadBytes + 1}
		if err = ui.ReadEvents(whole, emit); whole.N == 0 {
			err = fmt.Errorf("it has more than %d MB, and the rest is not read", logReadBytes>>20)
		}
	}
	if err != nil {
		return fmt.Errorf("the log %s: %w", in.At(part.Name), err)
	}
	return nil
}

// LogReader returns a function that calls emit for the events of a part of a run's log,
// stored with the reports at a place that [State.OpenReports] accepts. The place is opened
// once, when the first part is read, in AWS or in the cloud that local returns. If this
// cloud has no such bucket, the error is an [fs.ErrNotExist]: another cloud has the part.
func (s State) LogReader(aws amazon.Cloud, local func(context.Context) (amazon.Cloud, error), env []string, place string) func(ctx context.Context, run string, part LogPart, emit func(step.Event)) error {
	var mu sync.Mutex
	opened := map[bool]func(run string) reports.Store{} // true: in the local cloud
	open := func(ctx context.Context, there bool) (of func(run string) reports.Store, err error) {
		mu.Lock()
		defer mu.Unlock()
		if of = opened[there]; of != nil {
			return of, nil
		}
		cloud := aws
		if there {
			if cloud, err = local(ctx); err != nil {
				return nil, err
			}
		}
		switch of, err = s.OpenReports(ctx, cloud, env, place); {
		case err == nil:
			opened[there] = of
		case there && errors.Is(err, amazon.ErrNoBucket):
			err = fmt.Errorf("the local cloud in %s: %w: %w", s, err, fs.ErrNotExist)
		}
		return of, err
	}
	return func(ctx context.Context, run string, part LogPart, emit func(step.Event)) error {
		of, err := open(ctx, part.Local)
		if err != nil {
			return err
		}
		return ReadLog(ctx, of(run), part, emit)
	}
}
