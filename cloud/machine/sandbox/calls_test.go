package sandbox

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// oneThread is a thread with its own mount namespace.
type oneThread struct {
	id   int
	jobs chan func()
}

func newThread(t *testing.T) *oneThread {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	thread := &oneThread{jobs: make(chan func())}
	ready := make(chan error)
	var run func()
	run = func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if thread.id = unix.Gettid(); thread.id == os.Getpid() {
			go run() // this one is the process, and never ends
			<-t.Context().Done()
			return
		}
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		ready <- err
		for job := range thread.jobs {
			job()
		}
	}
	go run()
	t.Cleanup(func() { close(thread.jobs) })
	if err := <-ready; err != nil {
		t.Skip("no view of mounts of its own: ", err)
	}
	return thread
}

func (o *oneThread) do(job func() error) error {
	done := make(chan error)
	o.jobs <- func() { done <- job() }
	return <-done
}

// ask starts a program on the thread that calls statfs(2) on path; the answer is its output.
func (o *oneThread) ask(t *testing.T, path string) (answer chan string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("stat", "-f", "-c", "%b", path)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := o.do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	answer = make(chan string, 1)
	go func() {
		_ = cmd.Wait()
		answer <- strings.TrimSpace(out.String())
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return answer
}

func soon(t *testing.T, answer chan string) string {
	t.Helper()
	select {
	case text := <-answer:
		return text
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
		return ""
	}
}

// mountHung mounts a file system that does not answer until connection is closed.
func (o *oneThread) mountHung(t *testing.T) (dir string, connection *os.File) {
	t.Helper()
	fd, err := unix.Open(fusePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no FUSE: ", err)
	}
	connection, dir = os.NewFile(uintptr(fd), fusePath), t.TempDir()
	t.Cleanup(func() { connection.Close() })
	if err := o.do(func() error {
		return unix.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fd))
	}); err != nil {
		t.Skip("no FUSE: ", err)
	}
	return dir, connection
}

// TestHungFileSystem checks that only calls about a hung file system wait for it.
func TestHungFileSystem(t *testing.T) {
	const size = 3 << 30
	thread := newThread(t)
	hung, connection := thread.mountHung(t)
	boot := &bootSpec{Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(boot.Dir, upperDir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeSize(boot.Dir, size); err != nil {
		t.Fatal(err)
	}
	var teller *statfsServer
	if err := thread.do(func() (err error) {
		teller, err = newStatfsServer(boot, func(err error) { t.Error(err) })
		return err
	}); err != nil {
		t.Fatal(err)
	}
	teller.patience = 100 * time.Millisecond
	served := make(chan struct{})
	go func() {
		teller.serve()
		close(served)
	}()
	free := func(n int32) {
		t.Helper()
		if err := eventually(t.Context(), 20*time.Second, func() (bool, error) { return teller.free.Load() >= n, nil }); err != nil {
			t.Fatal(err)
		}
	}
	free(askWalkers)
	want := fmt.Sprint(size / 4096)
	shows := func(want string) {
		t.Helper()
		if err := eventually(t.Context(), 20*time.Second, func() (bool, error) { return soon(t, thread.ask(t, "/")) == want, nil }); err != nil {
			t.Errorf("the root is not shown as %s blocks: %v", want, err)
		}
	}
	var host unix.Statfs_t
	if err := unix.Statfs("/", &host); err != nil {
		t.Fatal(err)
	}
	if err := teller.begun(-1); err == nil {
		t.Error("there is such a process")
	}
	if got := soon(t, thread.ask(t, "/")); got != fmt.Sprint(host.Blocks) {
		t.Errorf("without a machine it shows %s", got)
	}
	if err := teller.begun(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	shows(want)
	var asked []chan string
	for len(asked) == 0 || teller.free.Load() > 0 && len(asked) < 10*askMost {
		asked = append(asked, thread.ask(t, filepath.Join(hung, "file")))
		if len(asked) == askWalkers {
			shows(want) // other threads are available
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := teller.free.Load(); n != 0 {
		t.Fatalf("%d walkers are free, after %d calls that hang", n, len(asked))
	}
	for range 20 {
		if got := soon(t, thread.ask(t, "/")); got != fmt.Sprint(host.Blocks) {
			t.Fatalf("with all that hang it shows %s", got)
		}
	}
	connection.Close()
	for _, answer := range asked {
		soon(t, answer)
	}
	free(askMost)
	shows(want)
	thread.jobs <- runtime.Goexit // all possible callers end with the thread
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Error("it waits for nobody's calls")
	}
	go func() { // who ends the thread again
		for range thread.jobs {
		}
	}()
}

// TestUsageDoesNotHang checks that measuring does not wait for a file system that hangs.
func TestUsageDoesNotHang(t *testing.T) {
	thread := newThread(t)
	hung, _ := thread.mountHung(t)
	fixed := t.TempDir()
	u := newUsage([]string{fixed}, fmt.Sprintf("/proc/self/task/%d/root%s", thread.id, hung))
	if err := os.WriteFile(filepath.Join(fixed, "file"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, most := range []time.Duration{10 * time.Second, usageWait / 2} {
		answer := make(chan diskUse, 1)
		go func() { answer <- u.now() }()
		select {
		case n := <-answer:
			if n.files != 1 || n.bytes < 1<<20 {
				t.Errorf("it shows %+v", n)
			}
		case <-time.After(most):
			t.Fatalf("no answer in %v", most)
		}
	}
}

// TestCallsThatCannotBeAnswered checks that such calls end, and later ones too.
func TestCallsThatCannotBeAnswered(t *testing.T) {
	thread := newThread(t)
	var said atomic.Int32
	var l *callListener
	listen := func() (err error) {
		l, err = listenCalls(unix.SYS_STATFS, func(error) { said.Add(1) })
		return err
	}
	if err := thread.do(listen); err != nil {
		t.Fatal(err)
	}
	first := l
	if err := thread.do(listen); err == nil || !strings.Contains(err.Error(), "already intercepts the system calls") {
		t.Errorf("twice: %v", err)
	}
	l = first
	one, other := thread.ask(t, "/"), thread.ask(t, "/")
	call, err := l.receive()
	if err != nil {
		t.Fatal(err)
	}
	l.send(callAnswer{id: call.id, flags: 1 << 31}) // unknown to every kernel
	for _, answer := range []chan string{one, other, thread.ask(t, "/")} {
		if got := soon(t, answer); !strings.Contains(got, "not implemented") {
			t.Errorf("it ends with %q", got)
		}
	}
	if _, err := l.receive(); err == nil {
		t.Error("it goes on")
	}
	l.fail(io.ErrUnexpectedEOF)
	if n := said.Load(); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}

// TestTryCalls checks that a call can be answered and another one passed on.
func TestTryCalls(t *testing.T) {
	thread := newThread(t)
	var text strings.Builder
	err := thread.do(func() error {
		return tryCalls(func() error {
			cmd := exec.Command("stat", "-f", "-c", "%b", probedPath, "/proc")
			cmd.Stdout = &text
			return cmd.Run()
		})
	})
	if got := text.String(); err != nil || got != fmt.Sprintf("%d\n0\n", probedBlocks) {
		t.Errorf("%q, %v", got, err)
	}
	other := newThread(t) // the calls of this one are not intercepted
	if err := other.do(func() error { return tryCalls(askCalls) }); err != nil {
		t.Errorf("on its own thread: %v", err)
	}
}

// TestCheckDisks checks that a host that runs machines also supports answering their calls.
func TestCheckDisks(t *testing.T) {
	d, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if f := d.checkDisks(t.Context()); !f.OK {
		t.Errorf("%+v", f)
	}
}
