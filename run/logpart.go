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
	"os"
	"path/filepath"
	"strings"

	"bake/builder/amazon"
	"bake/golden/reports"
	"bake/internal/s3uri"
	"bake/internal/wholefile"
	"bake/step"
	"bake/ui"
)

// logPartBytes bounds what of the log of a stage goes among the reports, before it is
// compressed, but for the events that tell how the run went.
const logPartBytes = 32 << 20

// LogPart is what a stage has added to the log of its run, as a document among the reports.
type LogPart struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// OpenReports returns where the reports of each run are, at the place that bake files say: a
// directory, a place in a bucket, or "", which is beside the log of the run.
func (s State) OpenReports(ctx context.Context, cloud amazon.Cloud, env []string, place string) (of func(run string) reports.Store, err error) {
	beside := func(run string) reports.Store { return reports.Store{Dir: s.Reports(run)} }
	switch {
	case place == "":
		return beside, nil
	case !strings.HasPrefix(place, s3uri.Scheme):
		return func(string) reports.Store { return reports.Store{Dir: place} }, nil
	}
	cloud.Within = nil // of all cells of a fleet the reports are in one bucket
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

// parts is the file with what earlier stages of a run have kept of its log among the reports,
// wherever they were done.
func (s State) parts(run string) string { return filepath.Join(s.Ledgers(), run+".parts") }

// logParts are the parts in that file.
func (s State) logParts(run string) (all []LogPart, err error) {
	text, err := os.ReadFile(s.parts(run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err == nil {
		err = json.Unmarshal(text, &all)
	}
	return all, err
}

// keepLog keeps what the log of a run has from a position on among the reports, for other
// hosts. Nil: it has nothing there.
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
	_, err = o.State.Lines(run, from, func(line []byte) bool {
		if skip -= len(line); skip < 0 || tells(line) {
			_, _ = z.Write(line) // into memory
		}
		return true
	})
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageLimit)
	defer cancel()
	name := "logs/" + o.pageDir() + o.Now().UTC().Format("20060102T150405.000Z-") + run + ".jsonl.gz"
	if err := in.Write(ctx, name, packed.Bytes()); err != nil {
		return nil, err
	}
	part := LogPart{name, reports.Digest(packed.Bytes())}
	all, err := o.State.logParts(run)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(append(all, part))
	if err != nil {
		return nil, err
	}
	return &part, wholefile.WriteData(o.State.parts(run), 0o600, text)
}

// allEvents calls emit for the events of a run, those of its stages on other hosts among them.
func (o Options) allEvents(ctx context.Context, run string, in reports.Store, emit func(step.Event)) error {
	parts, err := o.State.logParts(run)
	if err != nil || len(parts) == 0 {
		return errors.Join(err, o.State.Events(run, emit))
	}
	var errs []error
	for _, part := range parts {
		errs = append(errs, ReadLog(ctx, in, part, emit))
	}
	return errors.Join(errs...)
}

// ReadLog calls emit for the events of a part of a log.
func ReadLog(ctx context.Context, in reports.Store, part LogPart, emit func(step.Event)) error {
	text, err := in.ReadNamed(ctx, part.Name, part.SHA256, 2*logPartBytes)
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err == nil {
		err = ui.ReadEvents(io.LimitReader(z, 2*logPartBytes), emit)
	}
	if err != nil {
		return fmt.Errorf("the log %s: %w", in.At(part.Name), err)
	}
	return nil
}
