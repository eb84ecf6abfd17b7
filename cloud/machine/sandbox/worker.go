package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// worker is a child of this process in its own namespaces: it is root over the
// machines' ids and nothing else. After it has started, the driver sends it its
// work: to become a machine's shim or to work on files. So a worker can be
// started ahead of need.
type worker struct {
	dir       string // its working directory
	control   *control
	cmd       *exec.Cmd
	ended     <-chan error // receives the error of its end once, then is closed
	complaint bytes.Buffer // standard error, complete once it has ended; empty once it is a shim
}

// newWorker starts a child in the working directory dir and waits until its ids
// are mapped. The directory must be set here: one handed over later would
// belong to another mount namespace.
func (d *Driver) newWorker(dir string) (_ *worker, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	w := &worker{dir: dir}
	if w.control, err = newControl(os.NewFile(uintptr(pair[0]), "control")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.end()
		}
	}()
	gate, open, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	defer open.Close()
	program, err := sealedProgram()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Args = []string{roleWorker}
	cmd.Env = []string{}
	cmd.Stderr = &w.complaint
	cmd.ExtraFiles = []*os.File{gate, theirs}
	// The worker starts with a copy of the host's mount namespace, from which a
	// shim can unmount volumes for the machine.
	d.ids.prepare(cmd, unix.CLONE_NEWNET|unix.CLONE_NEWNS)
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	if w.ended, err = startInDir(cmd, dir); err != nil {
		return nil, fmt.Errorf("begin in a user and a network namespace: %w", err)
	}
	w.cmd = cmd
	if err := d.ids.finish(cmd.Process.Pid); err != nil {
		return nil, err
	}
	_, err = open.Write([]byte{1})
	return w, err
}

// give sends the files, in order, and then the message that says what to do
// with them.
func (w *worker) give(msg message, files ...*os.File) error {
	for _, f := range files {
		if err := w.control.send(message{Op: opGive}, f); err != nil {
			return w.death(err)
		}
	}
	if err := w.control.send(msg, nil); err != nil {
		return w.death(err)
	}
	return nil
}

// death returns why the worker could not be reached or does not answer, after
// that failed with err. If the worker has ended, this is what it printed, or
// else how it ended.
func (w *worker) death(err error) error {
	if !ofDeath(err) {
		return err
	}
	w.cmd.Process.Kill() // its end of the socket is closed, which is the last thing it does before it exits
	end := <-w.ended
	if text := clean(w.complaint.String()); text != "" {
		return errors.New(text)
	}
	if end == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", err, end)
}

// ofDeath reports whether an error means that the other side of a connection
// has ended.
func ofDeath(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ESRCH)
}

// end ends the worker, if it still runs, and waits for that.
func (w *worker) end() {
	w.control.close()
	if w.cmd != nil {
		w.cmd.Process.Kill()
		<-w.ended //nolint:errcheck // that was asked for
	}
}

// gone reports whether the worker has ended. The kernel closes its end of the socket first, and whoever waits for
// the process learns of it a moment later.
func (w *worker) gone() bool {
	select {
	case <-w.ended: //nolint:errcheck // death reports it
	default:
		if !w.control.closed() {
			return false
		}
	}
	w.control.close()
	return true
}

// startInDir starts cmd with dir as its working directory. It changes the
// directory of the calling thread instead of setting cmd.Dir, because the
// machines' root may lack the rights to walk to dir. The thread lives as long
// as the child, because the child's parent-death signal depends on the thread.
// ended receives the child's exit error.
func startInDir(cmd *exec.Cmd, dir string) (ended <-chan error, err error) {
	started, end := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends here too
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			started <- err
			return
		}
		if err := unix.Chdir(dir); err != nil {
			started <- &os.PathError{Op: "chdir", Path: dir, Err: err}
			return
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			end <- cmd.Wait()
			close(end)
		}
	}()
	return end, <-started
}

// spares keeps one worker ready, if keeps is set.
type spares struct {
	mu     sync.Mutex
	keeps  bool
	unused time.Duration // after which a spare worker is ended
	delay  time.Duration // between a launch and the start of a new spare worker
	timer  *time.Timer   // starts the next spare worker, or has done so; nil if none was asked for yet
	next   chan *worker  // receives the spare worker, perhaps not started yet, or nil; the channel is nil if there is none
}

// spareUnused is how long an unused spare worker is kept. Its mount namespace
// is a copy of the host's from when it started, so a disk that the host has
// unmounted since stays in use.
const spareUnused = 2 * time.Minute

// afterLaunch is the delay before a new spare worker is started once a worker
// has become a machine's shim, so that the machine's start has the processors
// to itself. It begins anew with each launch.
const afterLaunch = time.Second

// worker returns a worker in the working directory dir; if dir is empty, any
// directory will do. It returns the spare worker if there is one for dir: spare
// workers run in the directory of the driver's own data.
func (d *Driver) worker(ctx context.Context, dir string) (*worker, error) {
	if dir != "" && dir != d.options.Dir {
		return d.newWorker(dir)
	}
	d.spares.mu.Lock()
	next := d.spares.next
	d.spares.next = nil
	if d.spares.keeps {
		dir = d.options.Dir // so that it can be a spare one later
	}
	d.spares.mu.Unlock()
	if next != nil {
		select {
		case w := <-next:
			if w != nil && !w.gone() {
				return w, nil
			}
		case <-ctx.Done():
			if !d.spares.keep(next) {
				go endSpare(next)
			}
			return nil, context.Cause(ctx)
		}
	}
	return d.newWorker(cmp.Or(dir, "/"))
}

// putBack keeps a worker that has done its work as the spare one, if a spare is
// wanted and missing; otherwise it ends the worker.
func (d *Driver) putBack(w *worker) {
	next := make(chan *worker, 1)
	next <- w
	if w.dir != d.options.Dir || !d.spares.keep(next) {
		w.end()
	}
}

// keep makes the worker that next receives the spare one, until it is taken or
// has been unused for a while. It reports false if no spare is wanted or there
// is one already.
func (s *spares) keep(next chan *worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.keeps || s.next != nil {
		return false
	}
	s.next = next
	time.AfterFunc(s.unused, func() {
		s.mu.Lock()
		still := s.next == next
		if still {
			s.next = nil
		}
		s.mu.Unlock()
		if still {
			endSpare(next)
		}
	})
	return true
}

// close ends the spare worker and allows no new one.
func (s *spares) close() {
	s.mu.Lock()
	next := s.next
	s.keeps, s.next = false, nil
	s.mu.Unlock()
	if next != nil {
		endSpare(next)
	}
}

// endSpare waits for the worker that next receives and ends it.
func endSpare(next <-chan *worker) {
	if w := <-next; w != nil {
		w.end()
	}
}

// replenish starts a spare worker after a delay, if one is wanted and missing then.
// It replaces an earlier call whose delay has not passed.
func (d *Driver) replenish(after time.Duration) {
	d.spares.mu.Lock()
	defer d.spares.mu.Unlock()
	if d.spares.timer != nil {
		d.spares.timer.Stop()
	}
	d.spares.timer = time.AfterFunc(after, func() {
		next := make(chan *worker, 1)
		if !d.spares.keep(next) {
			return
		}
		w, err := d.newWorker(d.options.Dir)
		if err != nil {
			d.log.Debug("a spare worker could not be started", "error", err) // the next caller of worker gets the error
		}
		next <- w
	})
}

// workerMain is the main function of the worker process.
func workerMain(args []string) error {
	if _, err := enterNamespace(args); err != nil {
		return err
	}
	runtime.LockOSThread() // the thread that starts a machine must not end before it
	// If enterNamespace executed the program again, the exec has cleared the
	// signal that the driver set.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	unix.CloseOnExec(fdMapped)
	unix.CloseOnExec(fdControl)
	c, err := newControl(os.NewFile(fdControl, "control"))
	if err != nil {
		return err
	}
	var given []*os.File
	for {
		msg, f, err := c.receive()
		switch {
		case errors.Is(err, io.EOF): // no work came
			return nil
		case err != nil:
			return err
		}
		switch msg.Op {
		case opGive:
			given = append(given, f)
		case opShim:
			if err := becomeShim(c, given); err != nil {
				return c.send(failure(message{Op: opFailed}, err), nil)
			}
			return nil
		case opFiles:
			answer := message{Op: opDone}
			if err := workOnFiles(msg.Name, msg.Mode, given); err != nil {
				answer = failure(message{Op: opFailed}, err)
			}
			for _, f := range given {
				f.Close() // before the answer: the driver may wait for the files to be closed
			}
			given = nil
			if err := c.send(answer, nil); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown request to a worker: %q", msg.Op)
		}
	}
}
