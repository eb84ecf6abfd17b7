package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"bake/cloud/machine/layer"
)

// filesJob is work on files that belong to the machines' ids. It is done by a
// child that is root over those ids and over nothing else.
type filesJob struct {
	op     string     // unpack, pack, clone, merge, empty
	dirs   []*os.File // what it works on; of merge, the result and then the layers
	stdin  io.Reader
	stdout io.Writer
}

// firstDir is the descriptor of the first directory in the child.
const firstDir = fdMapped + 1

// inNamespace does a job and reports the child's complaint as the error.
func (d *Driver) inNamespace(ctx context.Context, job filesJob) error {
	gate, open, err := os.Pipe()
	if err != nil {
		return err
	}
	defer gate.Close()
	defer open.Close()

	var complaint bytes.Buffer
	program, err := sealedProgram()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = []string{roleFiles, job.op, string(d.ids.mode), strconv.Itoa(len(job.dirs))}
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = job.stdout, &complaint
	cmd.ExtraFiles = append([]*os.File{gate}, job.dirs...)
	d.ids.prepare(cmd, 0)

	// The stream is fed here and not by exec, whose Wait would not return before
	// a reader that blocks, though the child has failed.
	var feed io.WriteCloser
	if job.stdin != nil {
		if feed, err = cmd.StdinPipe(); err != nil {
			return err
		}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("begin in a user namespace: %w", err)
	}
	if err := d.ids.finish(cmd.Process.Pid); err != nil {
		cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	if _, err := open.Write([]byte{1}); err != nil {
		cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	var read error
	if feed != nil {
		source := &watchedReader{r: job.stdin}
		_, _ = io.Copy(feed, source)
		read = source.err
		if read != nil {
			cmd.Process.Kill() // or it would take the end for the true one
		}
		feed.Close()
	}
	err = cmd.Wait()
	switch {
	case read != nil:
		return read
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && complaint.Len() > 0:
		return errors.New(clean(complaint.String()))
	}
	return err
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

// filesMain is the child's side of inNamespace.
func filesMain(args []string) error {
	job, err := enterNamespace(args)
	if err != nil {
		return err
	}
	if len(job) != 3 {
		return fmt.Errorf("files: %d arguments", len(job))
	}
	count, err := strconv.Atoi(job[2])
	if err != nil {
		return err
	}
	o := layer.Options{IgnoreOwner: Mode(job[1]) == ModeSingle}
	dir := os.NewFile(firstDir, "directory")
	switch job[0] {
	case "unpack":
		return layer.Unpack(os.Stdin, dir, o)
	case "pack":
		return layer.Pack(dir, os.Stdout)
	case "clone":
		return layer.Clone(dir, os.NewFile(firstDir+1, "copy"), o)
	case "merge":
		layers := make([]*os.File, count-1)
		for i := range layers {
			layers[i] = os.NewFile(uintptr(firstDir+1+i), "layer")
		}
		return layer.Merge(layers, dir, o)
	case "empty":
		return empty(dir)
	case "nothing":
		return nil
	}
	return fmt.Errorf("files: unknown job %q", job[0])
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
