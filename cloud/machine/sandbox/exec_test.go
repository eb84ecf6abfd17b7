package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bake/cloud/machine"
)

// exec runs a script and returns its output.
func (b *bench) exec(m machine.Machine, script, dir string) (stdout, stderr string, status int, err error) {
	b.t.Helper()
	var out, errs bytes.Buffer
	status, err = m.Exec(b.t.Context(), machine.Command{Script: []byte(script), Dir: dir, Stdout: &out, Stderr: &errs})
	return strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), status, err
}

func TestExec(t *testing.T) {
	left, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0) // like a file that this program has inherited
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	newBench(t, Options{}).eachInit(t, func(t *testing.T, b *bench, _ Init) {
		spec := b.spec()
		spec.RootSize = 3 << 30
		m := b.start(spec)
		b.login(spec)
		for _, test := range []struct {
			name, script, dir string
			stdout, stderr    string
			status            int
		}{
			{name: "root in the machine", script: "id -u; hostname; pwd; cat; echo $HOME", stdout: "0\n" + spec.Hostname + "\n/\n/root"},
			{name: "status", script: "echo to stderr >&2; exit 3", dir: "/tmp", stderr: "to stderr", status: 3},
			{name: "directory", script: "pwd", dir: "/var/log", stdout: "/var/log"},
			{name: "signal", script: "kill -9 $$", status: 137},
			{name: "interpreter", script: "#!/usr/bin/python3\nimport sys\nprint(sys.version_info[0])", stdout: "3"},
			{name: "nothing", script: ""},
			{
				name: "namespaces", stdout: "",
				script: "for n in mnt uts ipc cgroup pid time net user; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done",
			},
			{name: "size", script: "df -B1 --output=size / | tail -1", stdout: "3221225472"},
			{name: "descriptors", script: "ls /proc/self/fd | tr '\\n' ' '", stdout: "0 1 2 3 4"}, // 4 is the directory
			{name: "nothing is left of it", script: "find / -xdev -name '*script*' -newer /proc/1 2>/dev/null; grep -l bake-machine:exec /proc/[0-9]*/cmdline", status: 1},
		} {
			stdout, stderr, status, err := b.exec(m, test.script, test.dir)
			if err != nil || stdout != test.stdout || stderr != test.stderr || status != test.status {
				t.Errorf("%s: %q, %q, %d, %v", test.name, stdout, stderr, status, err)
			}
		}
		if _, _, _, err := b.exec(m, "true", "/nowhere"); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("in a directory that does not exist: %v", err)
		}
		if out, _, _, err := b.exec(m, "head -c 300000 /dev/zero | tr '\\0' x", ""); err != nil || len(out) != 300000 {
			t.Errorf("%d bytes of output, %v", len(out), err)
		}
		// Commands are counted and suspended with the machine.
		if out, _, _, err := b.exec(m, "cat /proc/self/cgroup", ""); err != nil || m.(*running).group != nil && !strings.Contains(out, "0::/"+execLeaf) {
			t.Errorf("its group: %q, %v", out, err)
		}
	})
}

// TestExecEnds ends commands in every possible way.
func TestExecEnds(t *testing.T) {
	b := newBench(t, Options{})
	spec := b.spec()
	m := b.start(spec)
	b.login(spec)
	const forever = "sleep 1000 & echo; trap '' TERM HUP INT; sleep 1000; sleep 1000"
	lasting := func() string {
		out, _, _, err := b.exec(m, "pgrep -c sleep", "")
		if err != nil {
			t.Error(err)
		}
		return out
	}
	begin := func(ctx context.Context, script string) <-chan error {
		begun, ended := make(chan struct{}, 1), make(chan error, 1)
		go func() {
			_, err := m.Exec(ctx, machine.Command{Script: []byte(script), Stdout: writerFunc(func(p []byte) (int, error) {
				begun <- struct{}{}
				return len(p), nil
			}), Stderr: io.Discard})
			ended <- err
		}()
		<-begun
		return ended
	}
	why := errors.New("no more wanted")
	for _, script := range []string{forever, "sleep 1000 & echo"} { // the shell of the second one has already ended
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := begin(ctx, script)
		if n := lasting(); n == "0" {
			t.Error("nothing runs")
		}
		cancel(why)
		if err := <-ended; !errors.Is(err, why) {
			t.Errorf("%s: cancelled: %v", script, err)
		}
		// Orphans remain until the first process has waited for them.
		for deadline := time.Now().Add(10 * time.Second); lasting() != "0"; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s processes are left", script, lasting())
			}
		}
	}
	// A command whose output can no longer be delivered.
	_, err := m.Exec(t.Context(), machine.Command{Script: []byte("echo; sleep 1000"), Stdout: writerFunc(func([]byte) (int, error) { return 0, why }), Stderr: io.Discard})
	if !errors.Is(err, why) {
		t.Errorf("no output wanted: %v", err)
	}
	// No command starts while its machine is suspended, whether as a group or one by one.
	b.execSuspended(m)
	own := m.(*running).group
	m.(*running).group = nil
	b.execSuspended(m)
	m.(*running).group = own
	ended := begin(t.Context(), forever)
	began := time.Now()
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, machine.ErrEnded) {
		t.Errorf("when the machine stopped: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("a machine with a command that hears no signals took %v to stop", took)
	}
	if _, err := m.Exec(t.Context(), machine.Command{Stdout: io.Discard, Stderr: io.Discard}); !errors.Is(err, machine.ErrEnded) {
		t.Errorf("in a machine that has ended: %v", err)
	}
}

// TestExecHeldUp checks that root in a machine can only prevent commands from starting, and can
// delay neither a suspension nor the end of the machine.
func TestExecHeldUp(t *testing.T) {
	b := newBench(t, Options{})
	spec := b.spec()
	m := b.start(spec)
	if m.(*running).group == nil {
		t.Skip("machines have no groups here")
	}
	c := b.login(spec)
	b.run(c, "sudo sh -c 'mkdir -p /sys/fs/cgroup/"+execLeaf+" && echo 1 > /sys/fs/cgroup/"+execLeaf+"/cgroup.freeze'")
	for range 2 {
		if _, _, _, err := b.exec(m, "true", ""); err == nil || !strings.Contains(err.Error(), "did not start within") {
			t.Errorf("a command: %v", err)
		}
	}
	if err := errors.Join(m.Freeze(t.Context()), m.Thaw()); err != nil {
		t.Error(err)
	}
	_, _ = try(c, "sudo reboot")
	b.waitEnd(m)
	if e := m.Exit(); e.Reason != machine.Reboot || e.Err != nil {
		t.Errorf("exit is %+v", e)
	}
}

// execSuspended runs a command that waits for a suspended machine, and another one that gives up.
func (b *bench) execSuspended(m machine.Machine) {
	b.t.Helper()
	if err := m.Freeze(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	waiting := make(chan string, 1)
	go func() {
		out, _, _, err := b.exec(m, "ls /root/ran; date +%s.%N", "")
		waiting <- fmt.Sprintln(out, err)
	}()
	short, stop := context.WithTimeout(b.t.Context(), 300*time.Millisecond)
	defer stop()
	began := time.Now()
	if _, err := m.Exec(short, machine.Command{Script: []byte("touch /root/ran"), Stdout: io.Discard, Stderr: io.Discard}); err == nil {
		b.t.Error("a command ran in a suspended machine")
	}
	if took := time.Since(began); took > execGrace {
		b.t.Errorf("a command waited for a suspended machine for %v", took)
	}
	time.Sleep(300 * time.Millisecond) // the waiting command does not run meanwhile
	thawed := time.Now()
	if err := m.Thaw(); err != nil {
		b.t.Fatal(err)
	}
	var at float64
	out := <-waiting
	if _, err := fmt.Sscan(out, &at); err != nil || at < float64(thawed.UnixMilli())/1000 {
		b.t.Errorf("it printed %q, and the machine went on at %v: %v", out, thawed.UnixMilli(), err)
	}
}

// TestFrames reads messages that a compromised executor might send.
func TestFrames(t *testing.T) {
	frame := func(kind byte, size uint32, data string) string {
		return string(binary.BigEndian.AppendUint32([]byte{kind}, size)) + data
	}
	for name, test := range map[string]struct{ in, out, want string }{
		"good":        {frame(frameStdout, 2, "hi") + frame(frameStatus, 4, "\x00\x00\x00\x05"), "hi", ""},
		"long":        {frame(frameStdout, 1<<30, "hi"), "", "too long"},
		"short":       {frame(frameStdout, 3, "hi"), "", "unexpected EOF"},
		"odd status":  {frame(frameStatus, 2, "\x00\x00"), "", "unknown message"},
		"unknown":     {frame(77, 0, ""), "", "unknown message"},
		"failed":      {frame(frameFailed, 6, "no\x1b[1m"), "", "no"},
		"no end":      {frame(frameStdout, 2, "hi"), "hi", "EOF"},
		"not a frame": {"x", "", "unexpected EOF"},
	} {
		var out bytes.Buffer
		status, err := readFrames(strings.NewReader(test.in), &out, io.Discard)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || out.String() != test.out || err == nil && status != 5 {
			t.Errorf("%s: %q, %d, %v", name, out.String(), status, err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
