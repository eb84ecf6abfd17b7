package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bake/plugin/wire"
)

// The test binary acts as the keeper, the plugin or bake, each in a separate process,
// according to its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case argument:
			os.Exit(keep(os.Args[2:], patience{begin: duration("KEEPER_BEGIN", time.Minute), teardown: duration("KEEPER_TEARDOWN", time.Minute)}))
		case "probe":
			os.Exit(probe(os.Args[2]))
		case "bake":
			os.Exit(bake())
		}
	}
	os.Exit(m.Run())
}

// duration returns the duration that an environment variable is set to.
func duration(name string, otherwise time.Duration) time.Duration {
	d, err := time.ParseDuration(os.Getenv(name))
	if err != nil {
		return otherwise
	}
	return d
}

// journal records what happens, for the test.
func journal(format string, a ...any) {
	f, err := os.OpenFile(os.Getenv("JOURNAL"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(f, format+"\n", a...)
	f.Close()
}

// reached waits until the journal contains what, and reports whether it does.
func reached(what string) bool {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if b, _ := os.ReadFile(os.Getenv("JOURNAL")); bytes.Contains(b, []byte(what)) {
			return true
		}
	}
	return false
}

// dieAt kills the process at the event of that number of those that are counted.
type dieAt struct{ n, at atomic.Int32 }

func countdown(name string) *dieAt {
	n, _ := strconv.Atoi(os.Getenv(name))
	d := &dieAt{}
	d.at.Store(int32(n))
	return d
}

func (d *dieAt) event(what string) {
	if d.n.Add(1) == d.at.Load() {
		journal("killed: %s", what)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// probe is a plugin: a builder that makes a resource, starts a process, and runs a hook.
func probe(mode string) int {
	if mode == "mute" {
		select {}
	}
	if mode == "rude" {
		fmt.Println("good morning")
		return 3
	}
	dir, err := os.MkdirTemp("", "packer-plugin")
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		panic(err)
	}
	fmt.Printf("5|0|unix|%s\n", l.Addr())
	conn, err := l.Accept()
	os.RemoveAll(dir)
	if err != nil {
		return 1
	}
	fmt.Fprintln(os.Stderr, "connected")
	mux, accept, err := wire.NewServer(conn)
	if err != nil {
		panic(err)
	}
	main, err := accept(context.Background())
	if err != nil {
		return 1
	}
	die := countdown("PLUGIN_DIES_AT")
	ctx, cancel := context.WithCancel(context.Background())
	var begun atomic.Bool
	methods := wire.Methods{
		"Builder.Prepare": func(context.Context, any) (any, error) { return nil, nil },
		"Builder.Cancel": func(context.Context, any) (any, error) {
			if !begun.Load() {
				journal("crashed")
				os.Exit(2)
			}
			journal("cancelled")
			cancel()
			return nil, nil
		},
		"Builder.Run": wire.Handle(func(_ context.Context, id uint32) (any, error) {
			if mode == "late" {
				journal("working")
				select {}
			}
			host, err := mux.Dial(context.Background(), id)
			if err != nil {
				return nil, err
			}
			begun.Store(true)
			c := wire.NewClient(host)
			defer c.Close()
			return build(ctx, mode, mux, c)
		}),
		"Probe.Exit": wire.Handle(func(_ context.Context, code int) (any, error) {
			fmt.Fprintln(os.Stderr, "last words")
			os.Exit(code)
			return nil, nil
		}),
		"Probe.Dial": wire.Handle(func(_ context.Context, id uint32) (any, error) {
			c, err := mux.Dial(context.Background(), id)
			if err != nil {
				return nil, err
			}
			go func() { // an echo, when all data has arrived
				b, _ := io.ReadAll(c)
				_, _ = c.Write(b)
				c.Close()
			}()
			return nil, nil
		}),
	}
	for name, m := range methods {
		methods[name] = func(ctx context.Context, a any) (any, error) {
			die.event(name)
			return m(ctx, a)
		}
	}
	// A plugin exits when its main stream is closed, whatever it does.
	ended := make(chan struct{})
	go wire.Serve(context.Background(), &ending{main, ended}, methods, nil)
	<-ended
	if mode == "deathless" {
		select {}
	}
	return 0
}

type ending struct {
	*wire.Conn
	ended chan struct{}
}

func (e *ending) Close() error { close(e.ended); return e.Conn.Close() }

func build(ctx context.Context, mode string, mux *wire.Mux, host *wire.Client) (artifact uint32, err error) {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		return 0, err
	}
	resource := os.Getenv("RESOURCE")
	if err := os.WriteFile(resource, nil, 0o600); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil && mode != "stubborn" {
			time.Sleep(duration("TEARDOWN", 0))
			journal("teardown: %v", os.Remove(resource))
		}
	}()
	_ = host.Call(context.Background(), "Ui.Say", "building", nil)
	id, accept := mux.Listen()
	go func() {
		if c, err := accept(context.Background()); err == nil {
			wire.Serve(context.Background(), c, wire.Methods{"Communicator.Start": func(context.Context, any) (any, error) { return nil, nil }}, nil)
		}
	}()
	hook := make(chan error, 1)
	go func() {
		hook <- host.Call(context.Background(), "Hook.Run", map[string]uint32{"StreamId": id}, nil)
	}()
	select {
	case err := <-hook:
		if err != nil {
			return 0, err
		}
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	switch mode {
	case "long":
		journal("working")
		<-ctx.Done()
	case "stubborn":
		journal("working")
		select {}
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	id, accept = mux.Listen()
	go func() {
		if c, err := accept(context.Background()); err == nil {
			wire.Serve(context.Background(), c, wire.Methods{
				"Artifact.Id": func(context.Context, any) (any, error) { return "probe", nil },
				"Artifact.Destroy": func(context.Context, any) (any, error) {
					journal("destroying")
					time.Sleep(300 * time.Millisecond)
					journal("destroyed: %v", os.Remove(resource))
					return nil, nil
				},
			}, nil)
		}
	}()
	return id, nil
}

// begin starts the plugin through the keeper.
func begin(mode string, env ...string) (*exec.Cmd, io.Reader, *bytes.Buffer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, nil, err
	}
	cmd := exec.Command(self, argument, self, "probe", mode)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log bytes.Buffer
	cmd.Stderr = &log
	out, w, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err == nil {
		journal("group: %d", cmd.Process.Pid)
	}
	return cmd, out, &log, err
}

// dial connects to the server that has announced itself on out.
func dial(out io.Reader, die *dieAt) (*wire.Mux, *wire.Client, error) {
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil {
		return nil, nil, err
	}
	die.event("greeted")
	a, err := wire.ParseHandshake(string(line[:n]))
	if err != nil {
		return nil, nil, err
	}
	conn, err := a.Dial(context.Background())
	if err != nil {
		return nil, nil, err
	}
	die.event("connected")
	mux, err := wire.NewMux(conn)
	if err != nil {
		return nil, nil, err
	}
	main, err := mux.Dial(context.Background(), 0)
	if err != nil {
		return nil, nil, err
	}
	die.event("dialled")
	if os.Getenv("BAKE_CUTS") != "" {
		go cut(main, die)
	}
	return mux, wire.NewClient(main), nil
}

// cut kills the process while it writes a call and the plugin works.
func cut(main *wire.Conn, die *dieAt) {
	if !reached("working") {
		journal("bake failed: the plugin does not work")
		return
	}
	_, _ = io.WriteString(main, "\x82\xadService")
	time.Sleep(50 * time.Millisecond)
	die.at.Store(die.n.Load() + 1)
	die.event("half a call")
}

// bake is the host of the plugin. It dies at an event, or exits 0 when all is done.
func bake() int {
	die := countdown("BAKE_DIES_AT")
	err := func() error {
		cmd, out, _, err := begin(os.Getenv("MODE"))
		if err != nil {
			return err
		}
		die.event("started")
		mux, c, err := dial(out, die)
		if err != nil {
			return err
		}
		if err := useAll(mux, c, die); err != nil {
			return err
		}
		c.Close()
		if err := cmd.Wait(); err != nil {
			return err
		}
		die.event("ended")
		mux.Close()
		return nil
	}()
	if err != nil {
		journal("bake failed: %v", err)
		return 1
	}
	return 0
}

// useAll calls everything.
func useAll(mux *wire.Mux, c *wire.Client, die *dieAt) error {
	ctx := context.Background()
	if err := c.Call(ctx, "Builder.Prepare", map[string]any{"Configs": []any{}}, nil); err != nil {
		return err
	}
	die.event("prepared")
	id, accept := mux.Listen()
	go func() {
		conn, err := accept(ctx)
		if err != nil {
			return
		}
		die.event("begun")
		wire.Serve(ctx, conn, wire.Methods{
			"Ui.Say": func(context.Context, any) (any, error) { die.event("Ui.Say"); return nil, nil },
			"Hook.Run": wire.Handle(func(ctx context.Context, args map[string]uint32) (any, error) {
				die.event("Hook.Run")
				conn, err := mux.Dial(ctx, args["StreamId"])
				if err != nil {
					return nil, err
				}
				machine := wire.NewClient(conn)
				defer machine.Close()
				die.event("hook dialled")
				err = machine.Call(ctx, "Communicator.Start", nil, nil)
				die.event("provisioned")
				return nil, err
			}),
		}, nil)
	}()
	result := make(chan error, 1)
	var artifact uint32
	go func() { result <- c.Call(ctx, "Builder.Run", id, &artifact) }()
	if err := <-result; err != nil {
		return err
	}
	die.event("built")
	conn, err := mux.Dial(ctx, artifact)
	if err != nil {
		return err
	}
	a := wire.NewClient(conn)
	var name string
	if err := a.Call(ctx, "Artifact.Id", nil, &name); err != nil || name != "probe" {
		return errors.Join(err, errors.New("the artifact is "+name))
	}
	die.event("artifact")
	go func() { result <- a.Call(ctx, "Artifact.Destroy", nil, nil) }()
	if !reached("destroying") {
		return errors.New("the plugin does not destroy the artifact")
	}
	die.event("destroying")
	return <-result
}

// world is where a plugin does its work.
type world struct {
	t             *testing.T
	dir, resource string
	env           []string
}

func newWorld(t *testing.T, env ...string) *world {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, resource: filepath.Join(dir, "resource")}
	w.env = append([]string{"TMPDIR=" + filepath.Join(dir, "tmp"), "JOURNAL=" + filepath.Join(dir, "journal"), "RESOURCE=" + w.resource}, env...)
	for _, e := range w.env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	return w
}

func (w *world) journal() string {
	b, err := os.ReadFile(filepath.Join(w.dir, "journal"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return string(b)
}

// bake runs bake until it ends or dies, and reports whether it has done everything.
func (w *world) bake() bool {
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := exec.Command(self, "bake").CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		w.t.Fatalf("%v: %s", err, out)
	}
	return err == nil
}

// clean waits until nothing is left of the plugin: no process, and no temporary file.
func (w *world) clean() {
	w.t.Helper()
	group := ""
	for line := range strings.Lines(w.journal()) {
		if g, ok := strings.CutPrefix(line, "group: "); ok {
			group = strings.TrimSpace(g)
		}
	}
	if group == "" {
		w.t.Fatalf("no plugin was started:\n%s", w.journal())
	}
	var left []string
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = members(group); len(left) == 0 {
			break
		}
	}
	if len(left) > 0 {
		w.t.Errorf("left: %s\n%s", left, w.journal())
		n, _ := strconv.Atoi(group)
		_ = syscall.Kill(-n, syscall.SIGKILL)
	}
	if files, err := os.ReadDir(filepath.Join(w.dir, "tmp")); err != nil || len(files) > 0 {
		w.t.Errorf("left: %v, %v\n%s", files, err, w.journal())
	}
}

// members returns the running processes of a group.
func members(group string) (list []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		rest := string(b[bytes.LastIndexByte(b, ')')+1:])
		if f := strings.Fields(rest); len(f) > 2 && f[2] == group && f[0] != "Z" && f[0] != "X" {
			list = append(list, string(b[:bytes.LastIndexByte(b, ')')+1]))
		}
	}
	return list
}

func (w *world) gone(want bool) {
	w.t.Helper()
	if _, err := os.Stat(w.resource); (err != nil) != want {
		w.t.Errorf("the resource is gone: %t, want %t\n%s", err != nil, want, w.journal())
	}
}

// TestBakeIsKilledAtEveryCall: wherever bake is killed, the plugin is cancelled and tears down
// what it has made, and nothing is left.
func TestBakeIsKilledAtEveryCall(t *testing.T) {
	for n := 1; n < 50; n++ { // there are fewer events
		done := false
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			// The probe closes the stream of an artifact before it answers: the limit passes.
			w := newWorld(t, "BAKE_DIES_AT="+strconv.Itoa(n), "KEEPER_TEARDOWN=5s")
			done = w.bake()
			w.clean()
			log := w.journal()
			w.gone(!strings.Contains(log, "killed: built\n") && !strings.Contains(log, "killed: artifact\n"))
			if strings.Contains(log, "crashed") || strings.Contains(log, "bake failed") || done == strings.Contains(log, "killed") {
				t.Errorf("done: %t\n%s", done, log)
			}
			if strings.Contains(log, "killed: Ui.Say") && !strings.Contains(log, "teardown: <nil>") {
				t.Errorf("it did not take down what it has made:\n%s", log)
			}
		})
		if done || t.Failed() {
			if n < 12 {
				t.Errorf("only %d events", n)
			}
			return
		}
	}
}

// TestBakeIsKilled kills bake while the plugin works silently.
func TestBakeIsKilled(t *testing.T) {
	for name, tc := range map[string]struct {
		mode, want string
		env        []string
		kept       bool // the resource
	}{
		"while the plugin works":           {"long", "cancelled\nteardown: <nil>\n", nil, false},
		"and teardown takes its time":      {"long", "cancelled\nteardown: <nil>\n", []string{"TEARDOWN=500ms"}, false},
		"and the plugin heeds nothing":     {"stubborn", "cancelled\n", []string{"KEEPER_TEARDOWN=1s"}, true},
		"and the plugin has not begun":     {"late", "working\n", []string{"KEEPER_BEGIN=1s"}, false},
		"and the plugin outlives its work": {"deathless", "killed: Ui.Say\n", []string{"BAKE_DIES_AT=7"}, false},
		"while it writes a call":           {"long", "killed: half a call\ncancelled\nteardown: <nil>\n", []string{"BAKE_CUTS=1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, append(tc.env, "MODE="+tc.mode)...)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			host := exec.Command(self, "bake")
			if err := host.Start(); err != nil {
				t.Fatal(err)
			}
			switch {
			case len(tc.env) > 0 && strings.HasPrefix(tc.env[0], "BAKE_"): // it kills itself
			default:
				if !reached("working") {
					t.Fatalf("it does not work:\n%s", w.journal())
				}
				_ = host.Process.Kill()
			}
			_ = host.Wait()
			w.clean()
			w.gone(!tc.kept)
			if log := w.journal(); !strings.Contains(log, tc.want) || strings.Contains(log, "crashed") {
				t.Errorf("want %q\n%s", tc.want, log)
			}
		})
	}
}

// TestPluginIsKilledAtEveryCall: waiting calls fail at once, and the keeper ends with the same
// signal.
func TestPluginIsKilledAtEveryCall(t *testing.T) {
	for n := 1; n <= 2; n++ {
		w := newWorld(t, "PLUGIN_DIES_AT="+strconv.Itoa(n))
		cmd, out, log, err := begin("")
		if err != nil {
			t.Fatal(err)
		}
		mux, c, err := dial(out, &dieAt{})
		if err != nil {
			t.Fatal(err)
		}
		if err := useAll(mux, c, &dieAt{}); !errors.Is(err, wire.ErrGone) {
			t.Errorf("%d: %v", n, err)
		}
		if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("%d: %v\n%s", n, err, log)
		}
		mux.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		w.clean()
	}
}

// TestKeeperIsTransparent: data, log lines and the plugin's exit status pass unchanged.
func TestKeeperIsTransparent(t *testing.T) {
	w := newWorld(t)
	cmd, out, log, err := begin("")
	if err != nil {
		t.Fatal(err)
	}
	mux, c, err := dial(out, &dieAt{})
	if err != nil {
		t.Fatal(err)
	}
	id, accept := mux.Listen()
	go func() { _ = c.Call(context.Background(), "Probe.Dial", id, nil) }()
	conn, err := accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	go func() {
		_, _ = conn.Write(data)
		_ = conn.CloseWrite()
	}()
	if b, err := io.ReadAll(conn); err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes came back of %d: %v", len(b), len(data), err)
	}
	conn.Close()
	if _, err := mux.Dial(t.Context(), 1234); err == nil {
		t.Error("a stream that nobody waits for was opened")
	}
	if err := c.Call(t.Context(), "Probe.Exit", 7, nil); !errors.Is(err, wire.ErrGone) {
		t.Errorf("%v", err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "exit status 7" || log.String() != "connected\nlast words\n" {
		t.Errorf("%v, %q", err, log)
	}
	mux.Close()
	w.clean()
}

// TestNoPlugin: programs that do not announce themselves as plugins.
func TestNoPlugin(t *testing.T) {
	w := newWorld(t)
	cmd, out, _, err := begin("rude")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(out)
	if string(b) != "good morning\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("%v", err)
	}
	w.clean()
	var log bytes.Buffer
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self, argument, filepath.Join(w.dir, "nothing"))
	cmd.Stderr = &log
	if err := cmd.Run(); err == nil || !strings.Contains(log.String(), "no such file") {
		t.Errorf("%v, %q", err, &log)
	}
}
