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

// worker is a child of this process in namespaces of its own: root over the machines' ids and
// over nothing else. What it is to do, being a machine's shim or working on files, it learns from
// the driver when it is there, so that one can be begun before it is wanted.
type worker struct {
	dir       string // its working directory
	control   *control
	cmd       *exec.Cmd
	ended     <-chan error // its end, once; closed then
	complaint bytes.Buffer // what it has said when it has ended, until it is a shim
}

// newWorker begins a child in the working directory dir and waits until its ids are mapped. A directory
// that is handed over later would be one of another view of mounts.
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
	// With a view of mounts of its own, which is the host's, a shim can take
	// volumes out of it for the machine.
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

// give hands over what the worker needs for the work that msg names, in this order.
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

// death is why the worker could not be told something or does not answer, where that failed with err:
// what it has said of its end, if it has ended, or else how it did.
func (w *worker) death(err error) error {
	if !ofDeath(err) {
		return err
	}
	w.cmd.Process.Kill() // its end of the socket is closed, which is its last act but for dying
	end := <-w.ended
	if text := clean(w.complaint.String()); text != "" {
		return errors.New(text)
	}
	if end == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", err, end)
}

// ofDeath reports whether an error is one of telling or hearing who has ended.
func ofDeath(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ESRCH)
}

// end ends the worker, if it has not ended, and waits for that.
func (w *worker) end() {
	w.control.close()
	if w.cmd != nil {
		w.cmd.Process.Kill()
		<-w.ended //nolint:errcheck // that was asked for
	}
}

// gone reports whether the worker has ended.
func (w *worker) gone() bool {
	select {
	case <-w.ended: //nolint:errcheck // whoever wants to know why asks result
		w.control.close()
		return true
	default:
		return false
	}
}

// startInDir starts cmd with dir as its working directory. That of the calling
// thread is changed, and not by cmd.Dir that of the child, because the machines'
// root may not be allowed to walk to dir. The thread lives as long as the child:
// the signal that the child gets on the death of its parent is about the thread.
// The child's end is sent to ended.
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

// spares keeps a worker ready. Without keeps it keeps none.
type spares struct {
	mu     sync.Mutex
	keeps  bool
	unused time.Duration // after which a spare worker is ended
	next   chan *worker  // gets the spare one, which may still be coming, or nil; nil if there is none
}

// spareUnused is how long a spare worker is kept that nobody wants: its view of mounts is the host's of when
// it began, and a disk that the host has unmounted since stays in use.
const spareUnused = 2 * time.Minute

// afterLaunch is how long a spare worker is not begun after one has become a machine's shim: the
// machine's start is to have the processors.
const afterLaunch = time.Second

// worker returns a worker in the working directory dir, or in any if that is empty: the spare one if it is
// there, which is where all is that this driver looks after.
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

// putBack makes a worker that has done its work the spare one, if one is wanted and none is there; else it
// ends it.
func (d *Driver) putBack(w *worker) {
	next := make(chan *worker, 1)
	next <- w
	if w.dir != d.options.Dir || !d.spares.keep(next) {
		w.end()
	}
}

// keep makes what next gets the spare worker until somebody takes it, or has not for a while. It does not if
// none is wanted or another one is there.
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

// close ends the spare worker, and has none come any more.
func (s *spares) close() {
	s.mu.Lock()
	next := s.next
	s.keeps, s.next = false, nil
	s.mu.Unlock()
	if next != nil {
		endSpare(next)
	}
}

// endSpare ends what next gets, when it has come.
func endSpare(next <-chan *worker) {
	if w := <-next; w != nil {
		w.end()
	}
}

// replenish begins a spare worker after a while, if one is wanted and none is there.
func (d *Driver) replenish(after time.Duration) {
	time.AfterFunc(after, func() {
		next := make(chan *worker, 1)
		if !d.spares.keep(next) {
			return
		}
		w, err := d.newWorker(d.options.Dir)
		if err != nil {
			d.log.Debug("no worker begun ahead", "error", err) // who wants one hears why
		}
		next <- w
	})
}

// workerMain is the worker's side.
func workerMain(args []string) error {
	if _, err := enterNamespace(args); err != nil {
		return err
	}
	runtime.LockOSThread() // the thread that begins a machine must not end before it
	// Where enterNamespace ran the program again, the exec has cleared what the driver asked for.
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
		case errors.Is(err, io.EOF): // it was not wanted
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
				f.Close() // before the answer: who gave them may be waiting for their end
			}
			given = nil
			if err := c.send(answer, nil); err != nil {
				return err
			}
		default:
			return fmt.Errorf("no work: %s", msg.Op)
		}
	}
}
