// Package plugintest is a plugin for tests, which speaks Packer's protocol without
// Packer's SDK. Its components do what their options request, including misbehavior,
// and record what they do in a journal.
//
// A test binary acts as the plugin when it is run under a plugin's name: its TestMain
// calls [Main] first, and [Install] installs it.
package plugintest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bake/plugin/wire"
)

// Source is the plugin's source in templates, and Version its version.
const (
	Source  = "example.com/bake/probe"
	version = "1.2.3"
)

// unnamed is the name of a component that has the same name as its plugin.
const unnamed = "-packer-default-plugin-name-"

// Install installs the running test binary as the plugin below root, and returns its path.
func Install(t testing.TB, root string) string {
	t.Helper()
	return InstallAs(t, root, Source)
}

// InstallAs is Install for another source.
func InstallAs(t testing.TB, root, source string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, filepath.FromSlash(source))
	file := fmt.Sprintf("packer-plugin-%s_v%s_x5.0_%s_%s", filepath.Base(dir), version, runtime.GOOS, runtime.GOARCH)
	path := filepath.Join(dir, file)
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	sum := sha256.New()
	err = errors.Join(os.MkdirAll(dir, 0o755), copyFile(path, self, sum))
	if err == nil {
		err = os.WriteFile(path+"_SHA256SUM", []byte(hex.EncodeToString(sum.Sum(nil))), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// copyFile links or copies from to to, and writes its content to sum.
func copyFile(to, from string, sum io.Writer) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if os.Link(from, to) == nil {
		_, err = io.Copy(sum, in)
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.MultiWriter(out, sum), in)
	return errors.Join(err, out.Close())
}

// Main runs the plugin. It returns false at once if args are not those of a plugin.
func Main(args, env []string) (code int, ran bool) {
	if !strings.HasPrefix(filepath.Base(args[0]), "packer-plugin-") || len(args) < 2 {
		return 0, false
	}
	switch args[1] {
	case "describe":
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
			"version": version, "sdk_version": "0.6.0", "api_version": "x5.0", "protocol_version": "v2",
			"builders": []string{unnamed}, "provisioners": []string{unnamed}, "post_processors": []string{unnamed}, "datasources": []string{unnamed},
		})
		return 0, true
	case "start":
		if err := serve(args[2:], env); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1, true
		}
		return 0, true
	}
	fmt.Fprintln(os.Stderr, "unknown command", args[1])
	return 1, true
}

const cookie = "PACKER_PLUGIN_MAGIC_COOKIE=d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"

// serve serves the component that args define: the kind, the name and --protobuf.
func serve(args, env []string) error {
	if !slices.Contains(env, cookie) {
		return errors.New("plugins are not run by hand")
	}
	if len(args) < 3 || args[2] != "--protobuf" {
		return fmt.Errorf("not started as newer plugins are: %q", args)
	}
	dir, err := os.MkdirTemp("", "packer-plugin")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // if it does not listen
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return err
	}
	fmt.Printf("5|0|unix|%s\n", listener.Addr())
	conn, err := listener.Accept()
	listener.Close()
	os.RemoveAll(dir) // it may be killed from here on
	if err != nil {
		return err
	}
	mux, accept, err := wire.NewServer(conn)
	if err != nil {
		return err
	}
	main, err := accept(context.Background())
	if err != nil {
		return err
	}
	p := &plugin{mux: mux, conn: conn, env: env}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	methods := map[string]func() wire.Methods{
		"builder": p.builder, "provisioner": p.provisioner, "post-processor": p.postProcessor, "datasource": p.dataSource,
	}[args[0]]
	if methods == nil {
		return fmt.Errorf("no component of kind %s", args[0])
	}
	// A plugin exits when its main stream is closed, whatever it is doing.
	served := methods()
	for name, m := range served {
		served[name] = func(ctx context.Context, a any) (any, error) {
			err := p.misbehave(name)
			if a, ok := errors.AsType[answer](err); ok {
				return a.v, nil
			}
			if err != nil {
				return nil, err
			}
			return m(ctx, a)
		}
	}
	r := &ending{Conn: main, ended: make(chan struct{})}
	go wire.Serve(context.Background(), r, served, nil)
	<-r.ended
	return nil
}

// ending closes ended when the other end of the stream is closed.
type ending struct {
	*wire.Conn
	ended chan struct{}
	over  bool
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	if err != nil && !e.over {
		e.over = true
		close(e.ended)
	}
	return n, err
}

// plugin is the state of the process.
type plugin struct {
	mux    *wire.Mux
	conn   net.Conn
	env    []string
	ctx    context.Context // of the work
	cancel context.CancelFunc
	begun  bool
	options
}

// journal records what happens, for tests.
func (p *plugin) journal(format string, args ...any) {
	if p.Journal == "" {
		return
	}
	f, err := os.OpenFile(p.Journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintf(f, format+"\n", args...)
}

// misbehave misbehaves as the option misbehave requests, at the call that the option at
// names. Before the options are known, environment variables are used instead.
func (p *plugin) misbehave(call string) error {
	what, at := p.Misbehave, p.At
	for _, e := range p.env {
		if value, ok := strings.CutPrefix(e, "PROBE_MISBEHAVE="); ok {
			what, at, _ = strings.Cut(value, "@")
		}
	}
	_, name, _ := strings.Cut(call, ".")
	if at != name {
		return nil
	}
	switch what {
	case "panic":
		go panic("the probe panics at " + call)
		select {}
	case "exit":
		fmt.Fprintln(os.Stderr, "the probe exits at", call)
		os.Exit(7)
	case "kill":
		fmt.Fprintln(os.Stderr, "the probe is killed at", call)
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	case "hang": // until it is cancelled
		<-p.ctx.Done()
		return errors.New("cancelled")
	case "stubborn":
		select {}
	case "garbage":
		w := bufio.NewWriter(p.conn)
		for range 1000 {
			_, _ = w.WriteString("this is not what yamux looks like\xff\x00")
		}
		_ = w.Flush()
		select {}
	case "wrong":
		return answer{[]string{"no method answers with a list of text"}}
	case "huge":
		return answer{make([]byte, 65<<20)}
	case "error":
		return fmt.Errorf("the probe fails at %s", call)
	}
	return nil
}

// answer is an answer of the main stream in place of the right one.
type answer struct{ v any }

func (answer) Error() string { return "another answer" }

// cancelled answers Cancel. Like those that are built with the SDK, the plugin crashes
// when it is cancelled before it has begun.
func (p *plugin) cancelled(context.Context, any) (any, error) {
	if !p.begun {
		go panic("cancelled before it has begun")
		select {}
	}
	p.journal("cancelled")
	p.cancel()
	return nil, nil
}

// call is a call of the host, which answers within the lifetime of the process.
func call(c *wire.Client, method string, args, reply any) error {
	return c.Call(context.Background(), method, args, reply)
}

// dial returns a client of a stream of the host.
func (p *plugin) dial(id uint32) (*wire.Client, error) {
	conn, err := p.mux.Dial(context.Background(), id)
	if err != nil {
		return nil, err
	}
	p.begun = true
	return wire.NewClient(conn), nil
}

// listen serves methods on a new stream.
func (p *plugin) listen(methods wire.Methods) uint32 {
	id, accept := p.mux.Listen()
	go func() {
		conn, err := accept(context.Background())
		if err == nil {
			wire.Serve(context.Background(), conn, methods, nil)
		}
	}()
	return id
}
