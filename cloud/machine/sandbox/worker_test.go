package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// newWorkerDriver is a driver on a host that lets it begin workers.
func newWorkerDriver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if f := d.checkNamespaces(t.Context()); !f.OK {
		t.Skip("no worker begins here: ", f.Detail)
	}
	t.Cleanup(d.Close)
	return d
}

// ended waits until a process has, and its parent knows.
func ended(t *testing.T, pid int) {
	t.Helper()
	if err := eventually(t.Context(), 20*time.Second, func() (bool, error) {
		return unix.Kill(pid, 0) != nil, nil
	}); err != nil {
		t.Fatalf("process %d goes on: %v", pid, err)
	}
}

// A worker that has closed its socket is gone, even if the wait for its process has not returned yet.
func TestWorkerGone(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newControl(os.NewFile(uintptr(pair[0]), "control"))
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{control: c, ended: make(chan error)}
	if w.gone() {
		t.Error("a worker that is there is gone")
	}
	if err := unix.Close(pair[1]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !w.gone() {
			t.Error("a worker that has ended is still there")
		}
	}
}

// awaitSpare waits for a spare worker, and leaves it there.
func awaitSpare(t *testing.T, d *Driver) (w *worker) {
	t.Helper()
	err := eventually(t.Context(), 20*time.Second, func() (bool, error) {
		d.spares.mu.Lock()
		defer d.spares.mu.Unlock()
		if d.spares.next == nil {
			return false, nil
		}
		w = <-d.spares.next
		d.spares.next <- w
		return true, nil
	})
	if err != nil || w == nil {
		t.Fatal("no worker was begun ahead: ", err)
	}
	return w
}

// pack does a job of files, and returns what it says.
func pack(t *testing.T, d *Driver) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layer")
	if err := d.makeLayerDir(dir); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	if err := d.inNamespace(t.Context(), filesJob{op: "pack", dirs: []*os.File{f}, stdout: &out}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A worker that was begun ahead does the work and is there for more, and one that has died is replaced.
func TestSpareWorker(t *testing.T) {
	d := newWorkerDriver(t)
	pack(t, d)
	if d.spares.next != nil {
		t.Fatal("a driver that nobody has prepared keeps a worker")
	}
	d.Prepare()
	first := awaitSpare(t, d)
	if pack(t, d) == "" {
		t.Error("nothing was packed")
	}
	if awaitSpare(t, d) != first {
		t.Error("another worker has done the work")
	}
	if pack(t, d) == "" {
		t.Error("nothing was packed by a worker that has worked")
	}
	taken, err := d.worker(t.Context(), "")
	if err != nil || taken != first {
		t.Fatal("the worker is not there: ", err)
	}
	pack(t, d)
	if w := awaitSpare(t, d); w.dir != d.options.Dir {
		t.Error("a machine could not begin in ", w.dir)
	}
	if d.putBack(taken); !taken.gone() {
		t.Error("there are two spare workers")
	}
	second := awaitSpare(t, d)
	second.cmd.Process.Kill()
	ended(t, second.cmd.Process.Pid)
	if pack(t, d) == "" {
		t.Error("nothing was packed")
	}
	last := awaitSpare(t, d)
	d.replenish(50 * time.Millisecond) // comes too late
	d.Close()
	ended(t, last.cmd.Process.Pid)
	time.Sleep(100 * time.Millisecond)
	if pack(t, d) == "" {
		t.Error("nothing was packed after the end of spare workers")
	}
	if d.spares.mu.Lock(); d.spares.next != nil {
		t.Error("a worker was begun ahead, or kept, after Close")
	}
	d.spares.mu.Unlock()
}

// The delay after a launch begins anew with the next one.
func TestReplenishAnew(t *testing.T) {
	d := newWorkerDriver(t)
	d.spares.keeps = true
	d.replenish(50 * time.Millisecond)
	d.replenish(time.Hour)
	time.Sleep(200 * time.Millisecond)
	d.spares.mu.Lock()
	defer d.spares.mu.Unlock()
	if d.spares.next != nil {
		t.Error("a worker was begun while a machine starts")
	}
}

// A spare worker that nobody wants ends, and one that is wanted is there for whoever wants it next.
func TestSpareWorkerUnused(t *testing.T) {
	d := newWorkerDriver(t)
	d.spares.unused = 500 * time.Millisecond
	d.Prepare()
	w := awaitSpare(t, d)
	ended(t, w.cmd.Process.Pid)
	if pack(t, d) == "" {
		t.Error("nothing was packed")
	}
	again := awaitSpare(t, d)
	taken, err := d.worker(t.Context(), "")
	if err != nil || taken != again {
		t.Fatal("the worker is not there: ", err)
	}
	time.Sleep(2 * d.spares.unused)
	if taken.gone() {
		t.Error("a worker was ended that somebody uses")
	}
	taken.end()
}

// Who gives up while the spare worker is coming leaves it to the next.
func TestSpareWorkerCancelled(t *testing.T) {
	d := newWorkerDriver(t)
	coming := make(chan *worker, 1)
	d.spares.keeps = true
	d.spares.keep(coming)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if _, err := d.worker(ctx, ""); !errors.Is(err, cause) {
		t.Fatal(err)
	}
	w, err := d.newWorker(d.options.Dir)
	if err != nil {
		t.Fatal(err)
	}
	coming <- w
	taken, err := d.worker(t.Context(), "")
	if err != nil || taken != w {
		t.Error("the worker is not there: ", err)
	}
	w.end()
}

// spareDir says where the test's program, begun again, keeps a spare worker until it is killed.
const spareDir = "BAKE_TEST_SPARE"

func keepSpare(dir string) {
	d, err := New(Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	d.Prepare()
	for {
		d.spares.mu.Lock()
		next := d.spares.next
		d.spares.mu.Unlock()
		if next != nil {
			fmt.Println((<-next).cmd.Process.Pid)
			select {}
		}
		time.Sleep(time.Millisecond)
	}
}

// The spare worker ends with a process that is killed.
func TestSpareWorkerKilledParent(t *testing.T) {
	newWorkerDriver(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), spareDir+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if _, err := startTime(pid); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	if err := eventually(t.Context(), 20*time.Second, func() (bool, error) {
		_, err := startTime(pid) // whoever is its parent now
		return err != nil, nil
	}); err != nil {
		t.Fatalf("process %d goes on: %v", pid, err)
	}
}

// What goes wrong in a worker is the error of its work, and ends it.
func TestWorkerFails(t *testing.T) {
	d := newWorkerDriver(t)
	if err := d.inNamespace(t.Context(), filesJob{op: "dance"}); err == nil || !strings.Contains(err.Error(), `job "dance"`) {
		t.Error(err)
	}
	dir := filepath.Join(t.TempDir(), "layer")
	if err := d.Unpack(t.Context(), strings.NewReader(strings.Repeat("no tar ", 1000)), dir); err == nil {
		t.Error("it has unpacked what is no archive")
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	time.AfterFunc(100*time.Millisecond, func() {
		cancel(cause)
		writer.Close()
	})
	if err := d.Unpack(ctx, reader, dir); !errors.Is(err, cause) {
		t.Error(err)
	}
}

// What a worker has said and how it has ended is told to whoever gives it work or waits for it.
func TestWorkerDies(t *testing.T) {
	d := newWorkerDriver(t)
	begin := func() *worker {
		w, err := d.newWorker(d.options.Dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.end)
		return w
	}
	w := begin()
	if err := w.control.send(message{Op: "dance"}, nil); err != nil {
		t.Fatal(err)
	}
	ended(t, w.cmd.Process.Pid)
	if err := w.give(message{Op: opShim}); err == nil || err.Error() != "unknown request to a worker: \"dance\"" {
		t.Error(err)
	}
	m := &running{shim: w, control: w.control, spec: machine.Spec{Console: "CONSOLE"}}
	if err := m.await(t.Context()); err == nil || err.Error() != "the shim ended before the machine started: unknown request to a worker: \"dance\"" {
		t.Error(err)
	}
	if err := m.sendBoot(d, &bootSpec{}); err == nil || err.Error() != "the shim ended before the machine started: unknown request to a worker: \"dance\"" {
		t.Error(err)
	}
	w = begin()
	w.cmd.Process.Kill()
	ended(t, w.cmd.Process.Pid)
	if err := w.give(message{Op: opShim}); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Error(err)
	}
	m = &running{shim: w, control: w.control, spec: machine.Spec{Console: "CONSOLE"}}
	if err := m.await(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "see CONSOLE") {
		t.Error(err)
	}
	w = begin()
	m = &running{shim: w, control: w.control, spec: machine.Spec{Console: "CONSOLE"}}
	if err := m.sendBoot(d, &bootSpec{Hostname: strings.Repeat("x", maxMessage)}); err == nil || strings.Contains(err.Error(), "ended") || !strings.HasSuffix(err.Error(), "is too long") {
		t.Errorf("a message that cannot be sent: %v", err)
	}
	if err := w.give(message{Op: opShim}); err != nil {
		t.Fatal(err)
	}
	if err := w.result(); err == nil || !strings.Contains(err.Error(), "0 files") {
		t.Error(err)
	}
}

// TestSpareWorkerAfterEnd checks that the end of a short-lived machine starts a spare worker, so that
// the next launch does not wait for one.
func TestSpareWorkerAfterEnd(t *testing.T) {
	b := newBench(t, Options{})
	spec := b.spec()
	b.driver.options.Dir = commonDir(append([]string{spec.Dir}, b.layers...)) // a machine's worker runs there
	b.driver.spares.delay = time.Hour
	b.driver.Prepare()
	defer b.driver.Close()
	first := awaitSpare(t, b.driver)
	spec.Command = []string{"/bin/true"}
	m := b.start(spec)
	b.waitEnd(m)
	if awaitSpare(t, b.driver) == first {
		t.Error("the machine's own worker is the spare one")
	}
}
