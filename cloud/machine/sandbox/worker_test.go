package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newWorkerDriver is a driver on a host that lets it begin workers.
func newWorkerDriver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.newWorker(d.options.Dir)
	if err != nil {
		t.Skip("no worker begins here: ", err)
	}
	w.end()
	return d
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
	taken, err := d.worker("")
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
	if err := eventually(t.Context(), 20*time.Second, func() (bool, error) {
		return unix.Kill(second.cmd.Process.Pid, 0) != nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	if pack(t, d) == "" {
		t.Error("nothing was packed")
	}
	awaitSpare(t, d).end()
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
	w, err := d.newWorker(d.options.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.end()
	if err := w.give(message{Op: opShim}); err != nil {
		t.Fatal(err)
	}
	if err := w.result(); err == nil || !strings.Contains(err.Error(), "0 files") {
		t.Error(err)
	}
}
