package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"

	"bake/cloud/machine/layer"
)

// filesJob is a job on files whose owners are user ids of machines. A [worker] does it.
type filesJob struct {
	op     string     // unpack, pack, pack-merged, clone, merge, empty, remove-groups
	dirs   []*os.File // directories to work on; for merge, the result followed by the layers
	stdin  io.Reader  // for unpack
	stdout io.Writer  // for pack and pack-merged
}

// inNamespace runs a job in a worker and returns its error.
func (d *Driver) inNamespace(ctx context.Context, job filesJob) error {
	w, err := d.worker(ctx, "")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { w.cmd.Process.Kill() })
	work := message{Op: opFiles, Name: job.op, Mode: d.ids.mode}
	switch {
	case job.stdin != nil:
		err = w.runWithInput(work, job)
	case job.stdout != nil:
		err = w.runWithOutput(work, job)
	default:
		if err = w.give(work, job.dirs...); err == nil {
			err = w.result()
		}
	}
	if stop() && err == nil {
		d.putBack(w)
		return nil
	}
	w.end()
	d.replenish(0)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// runWithInput runs a job that reads a stream. If reading the stream fails, runWithInput returns that error and kills
// the worker, which would take the failure for the end of the stream.
func (w *worker) runWithInput(work message, job filesJob) error {
	in, feed, err := os.Pipe()
	if err != nil {
		return err
	}
	defer feed.Close()
	err = w.give(work, append([]*os.File{in}, job.dirs...)...)
	in.Close()
	if err != nil {
		return err
	}
	source := &watchedReader{r: job.stdin}
	_, _ = io.Copy(feed, source) // if the worker stopped reading, result returns the reason
	if source.err != nil {
		w.cmd.Process.Kill()
		return source.err
	}
	feed.Close()
	return w.result()
}

// runWithOutput runs a job that writes a stream.
func (w *worker) runWithOutput(work message, job filesJob) error {
	printed, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer printed.Close()
	err = w.give(work, append([]*os.File{out}, job.dirs...)...)
	out.Close()
	if err != nil {
		return err
	}
	if _, err := io.Copy(job.stdout, printed); err != nil {
		return err
	}
	return w.result()
}

// result waits for the worker's answer. If there is none, it returns why the worker ended.
func (w *worker) result() error {
	answer, _, err := w.control.receive()
	if err != nil {
		return w.death(err)
	}
	return answer.error()
}

// watchedReader remembers the error that ended reading, other than io.EOF.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// workOnFiles is the worker's side of inNamespace. given are the stream, if the job has one, and
// the directories.
func workOnFiles(op string, mode Mode, given []*os.File) error {
	o := layer.Options{IgnoreOwner: mode == ModeSingle}
	wanted := map[string]int{"unpack": 2, "pack": 2, "pack-merged": 2, "clone": 2, "merge": 1, "empty": 1, "remove-groups": 1}[op]
	if wanted == 0 || len(given) < wanted {
		return fmt.Errorf("files: job %q with %d files", op, len(given))
	}
	switch op {
	case "unpack":
		return layer.Unpack(given[0], given[1], o)
	case "pack":
		return layer.Pack(given[1], given[0])
	case "pack-merged":
		return layer.PackMerged(given[1:], given[0])
	case "clone":
		return layer.Clone(given[0], given[1], o)
	case "merge":
		return layer.Merge(given[1:], given[0], o)
	case "remove-groups":
		return removeBelow(fmt.Sprintf("/proc/self/fd/%d", given[0].Fd()))
	default:
		return empty(given[0])
	}
}

// empty deletes the content of dir.
func empty(dir *os.File) error {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return err
	}
	defer root.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}
