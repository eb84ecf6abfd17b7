package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"

	"bake/cloud/machine/layer"
)

// filesJob is work on files that belong to the machines' ids. It is done by a
// [worker].
type filesJob struct {
	op     string     // unpack, pack, clone, merge, empty
	dirs   []*os.File // what it works on; of merge, the result and then the layers
	stdin  io.Reader  // of unpack
	stdout io.Writer  // of pack
}

// inNamespace does a job and reports the worker's complaint as the error.
func (d *Driver) inNamespace(ctx context.Context, job filesJob) error {
	w, err := d.worker(ctx, "")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { w.cmd.Process.Kill() })
	work := message{Op: opFiles, Name: job.op, Mode: d.ids.mode}
	switch {
	case job.stdin != nil:
		err = w.fed(work, job)
	case job.stdout != nil:
		err = w.printing(work, job)
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

// fed runs a job that reads a stream. If the stream cannot be read to its end, that is the error,
// and the worker does not mistake it for the end.
func (w *worker) fed(work message, job filesJob) error {
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
	_, _ = io.Copy(feed, source) // of a worker that reads no more, result tells why
	if source.err != nil {
		w.cmd.Process.Kill()
		return source.err
	}
	feed.Close()
	return w.result()
}

// printing has the worker do a job that prints.
func (w *worker) printing(work message, job filesJob) error {
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

// watchedReader remembers why reading ended, if not by the end of the stream.
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

// workOnFiles is the worker's side of inNamespace. Given are the stream, if the job has one, and the
// directories.
func workOnFiles(op string, mode Mode, given []*os.File) error {
	o := layer.Options{IgnoreOwner: mode == ModeSingle}
	wanted := map[string]int{"unpack": 2, "pack": 2, "clone": 2, "merge": 1, "empty": 1}[op]
	if wanted == 0 || len(given) < wanted {
		return fmt.Errorf("files: job %q with %d files", op, len(given))
	}
	switch op {
	case "unpack":
		return layer.Unpack(given[0], given[1], o)
	case "pack":
		return layer.Pack(given[1], given[0])
	case "clone":
		return layer.Clone(given[0], given[1], o)
	case "merge":
		return layer.Merge(given[1:], given[0], o)
	default:
		return empty(given[0])
	}
}

// empty removes everything in dir.
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
