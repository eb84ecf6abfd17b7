package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bake/internal/debuglog"
	"bake/internal/envvar"
	"bake/internal/procgroup"
	"bake/plugin/wire"
)

const (
	startTimeout = time.Minute
	exitTimeout  = 2 * time.Second  // for a plugin to exit after its connections are closed
	keeperGrace  = 10 * time.Second // for a keeper, which makes sure that the plugin ends
	goneTimeout  = 5 * time.Second  // for a process to end after its connection broke
)

// process is a running plugin that serves one component.
type process struct {
	plugin *Plugin
	mux    *wire.Mux
	client *wire.Client // of the main stream
	cmd    *exec.Cmd
	kept   bool
	kill   context.CancelFunc // kills the plugin and its children
	log    *tail

	// life is the context of the methods served to the plugin; end ends it.
	life    context.Context
	end     context.CancelFunc
	serving sync.WaitGroup

	ended chan struct{} // closed when the process has ended, by exit
	exit  error

	entry   *entry // in the ledger; nil if there is none
	closing sync.Once
	closed  error
}

// start starts the plugin for one component and connects to it. If keep is set, it is started
// through the keeper, if there is one. env is added to the plugin's environment.
func (p *Plugin) start(ctx context.Context, kind, name string, keep bool, env ...string) (*process, error) {
	if err := p.unchanged(ctx); err != nil {
		return nil, err
	}
	args := []string{p.Path, "start", kind, name}
	if p.protobuf() {
		args = append(args, "--protobuf")
	}
	if keep = keep && len(p.options.Keeper) > 0; keep {
		args = append(slices.Clone(p.options.Keeper), args...)
	}
	alive, kill := context.WithCancel(context.Background()) // ended by Close, which may be called after ctx has ended
	cmd := exec.CommandContext(alive, args[0], args[1:]...)
	cmd.Env = append(slices.Clip(p.environment()), env...)
	cmd.WaitDelay = time.Second
	proc := &process{
		plugin: p, cmd: cmd, kept: keep, kill: kill, ended: make(chan struct{}),
		log: &tail{name: filepath.Base(p.Path), to: debuglog.From(ctx)},
	}
	proc.life, proc.end = context.WithCancel(context.WithoutCancel(ctx))
	greeting, err := proc.launch()
	if err != nil {
		kill()
		return nil, fmt.Errorf("the plugin %s could not be started: %w", p.Source, err)
	}
	if err := proc.connect(ctx, greeting); err != nil {
		_ = proc.Close()
		return nil, err
	}
	return proc, nil
}

// unchanged checks that the file is still the one that was verified.
func (p *Plugin) unchanged(ctx context.Context) error {
	if p.stamp.same(p.Path) {
		return nil
	}
	sum, _, err := verify(ctx, p.Path)
	if err == nil && sum != p.SHA256 {
		err = errors.New("it was replaced by another one; run bake again")
	}
	if err != nil {
		return fmt.Errorf("the plugin %s has changed since the start: %w", p.Source, err)
	}
	return nil
}

// cookie shows a plugin that it was not started by hand.
const cookie = "PACKER_PLUGIN_MAGIC_COOKIE=d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"

func (p *Plugin) environment() []string {
	return append(slices.Clip(p.options.Env), cookie, "PACKER_PLUGIN_MIN_PORT=10000", "PACKER_PLUGIN_MAX_PORT=25000")
}

// form returns the encoding of the plugin's specs and values.
func (p *Plugin) form() wire.Form {
	if p.protobuf() {
		return wire.Protobuf
	}
	return wire.Gob
}

// protobuf reports whether to request specs from the plugin as protobuf messages, which version 2
// of its protocol introduced; otherwise they are gob.
func (p *Plugin) protobuf() bool {
	return p.Description.Protocol == "v2" && envvar.Get(p.options.Env, "PACKER_FORCE_GOB") == ""
}

// launch starts the process. greeting receives its first line.
func (p *process) launch() (greeting <-chan string, err error) {
	first := wire.NewFirstLine()
	p.cmd.Stdout, p.cmd.Stderr = first, p.log
	if err := procgroup.Start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		if p.exit = p.cmd.Wait(); errors.Is(p.exit, exec.ErrWaitDelay) {
			p.exit = nil // it has succeeded, and its children hold its output; Close ends them
		}
		p.log.flush()
		close(first.C)
		close(p.ended)
	}()
	return first.C, nil
}

// connect waits for the plugin's greeting and connects to the address in it.
func (p *process) connect(ctx context.Context, greeting <-chan string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("the plugin %s did not start within %s", p.plugin.Source, startTimeout))
	defer cancel()
	var line string
	var ok bool
	select {
	case line, ok = <-greeting:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !ok {
		<-p.ended
		return p.said(fmt.Errorf("the plugin %s did not start: it ended without a handshake (%s); install another version of it", p.plugin.Source, p.cmd.ProcessState))
	}
	address, err := wire.ParseHandshake(line)
	if err != nil {
		return p.said(fmt.Errorf("the plugin %s did not start: %w", p.plugin.Source, err))
	}
	conn, err := address.Dial(ctx)
	if err == nil {
		p.mux, err = wire.NewMux(conn)
	}
	if err == nil {
		p.client, err = p.dial(ctx, 0)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return p.said(fmt.Errorf("the plugin %s cannot be reached: %w", p.plugin.Source, err))
	}
	return nil
}

// dial returns a client of the stream that the plugin accepts under id.
func (p *process) dial(ctx context.Context, id uint32) (*wire.Client, error) {
	conn, err := p.mux.Dial(ctx, id)
	if err != nil {
		return nil, p.explain(err)
	}
	return wire.NewClient(conn), nil
}

// wait waits for the process to end, for at most d.
func (p *process) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// said adds the plugin's last log lines to an error.
func (p *process) said(err error) error {
	if words := p.log.last(); words != "" {
		return fmt.Errorf("%w\n%s", err, words)
	}
	return err
}

// gone is the error of a plugin that ended while it was needed.
type gone struct {
	plugin string
	how    string // "signal: killed"
	log    string // its last lines
}

func (e *gone) Error() string {
	text := fmt.Sprintf("the plugin process went away (%s)", e.how)
	if e.log != "" {
		text += "; the last that " + e.plugin + " has logged:\n" + e.log
	}
	return text
}

// Unwrap implements errors.Unwrap.
func (e *gone) Unwrap() error { return wire.ErrGone }

// explain replaces an error that only reports that the other end is gone by one that gives
// the reason.
func (p *process) explain(err error) error {
	if _, ok := errors.AsType[*wire.AnswerError](err); ok {
		return fmt.Errorf("the plugin %s does not keep to the protocol: %w", p.plugin.Source, err)
	}
	if bad, ok := errors.AsType[*wire.UnreadableError](err); ok {
		return fmt.Errorf("the plugin %s does not keep to the protocol: %w", p.plugin.Source, bad)
	}
	var already *gone
	if !errors.Is(err, wire.ErrGone) || errors.As(err, &already) {
		return err
	}
	if broken := p.mux.Err(); broken != nil {
		return fmt.Errorf("the plugin %s was given up: %w", p.plugin.Source, broken)
	}
	return &gone{plugin: p.log.name, how: p.how(), log: p.log.last()}
}

// how returns how the process ended.
func (p *process) how() string {
	switch {
	case !p.wait(goneTimeout):
		return "its connection broke"
	case p.exit == nil:
		return "it ended by itself"
	}
	return p.exit.Error()
}

// call calls a method on the main stream.
func (p *process) call(ctx context.Context, method string, args, reply any) error {
	return p.explain(p.client.Call(ctx, method, args, reply))
}

// serve answers calls on a new stream as long as the process lives. begun is closed when the plugin
// has dialled it.
func (p *process) serve(methods wire.Methods, find func(string) wire.Method) (id uint32, begun <-chan struct{}) {
	id, accept := p.mux.Listen()
	ch := make(chan struct{})
	p.serving.Go(func() {
		conn, err := accept(p.life)
		if err != nil {
			return
		}
		close(ch)
		wire.Serve(p.life, conn, methods, find)
	})
	return id, ch
}

// Close ends the plugin, which exits once its main stream is closed, and all processes that it has
// started. No method is served any more when Close returns.
func (p *process) Close() error {
	p.closing.Do(func() {
		p.end()
		if p.client != nil {
			p.client.Close()
			p.wait(exitTimeout)
		}
		if p.mux != nil {
			p.mux.Close()
		}
		if p.kept { // the keeper ends the plugin itself
			p.wait(keeperGrace)
		}
		p.kill()
		p.wait(goneTimeout)
		_ = procgroup.Signal(p.cmd, syscall.SIGKILL) // processes that the plugin has left behind
		p.serving.Wait()
		p.closed = p.entry.gone()
	})
	return p.closed
}

// drop is like Close, for a process that was started only to check options and is in no
// ledger.
func (p *process) drop() { _ = p.Close() }

// giveUp ends a plugin that did not exit in time, and returns the error for the user. If the
// plugin creates things and has a keeper, it is left to the keeper, because it may still remove
// them.
func (p *process) giveUp(makes bool) string {
	if !p.kept || !makes {
		p.kill()
		_ = p.Close()
		return fmt.Sprintf("the plugin %s had not exited by then and was killed: its resources may still exist", p.plugin.Source)
	}
	p.closing.Do(func() { // it stays in the ledger
		p.end()
		p.mux.Close()
		p.serving.Wait()
	})
	return fmt.Sprintf("the plugin %s had not exited by then: it continues its teardown in process %d", p.plugin.Source, p.cmd.Process.Pid)
}

// tail passes a plugin's log lines to the debug log and keeps the last ones.
type tail struct {
	name string
	to   interface{ Debug(msg string, args ...any) }

	mu       sync.Mutex
	begun    []byte // start of an incomplete line
	lines    []string
	panicked bool // lines hold the start of a panic
}

// Limits on the kept part of a plugin's log.
const (
	maxLogLine  = 8 << 10
	maxLogLines = 200
	panicLines  = 12
)

// Write implements [io.Writer].
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := b; len(rest) > 0; {
		line, more, whole := bytes.Cut(rest, []byte("\n"))
		if room := maxLogLine - len(t.begun); len(line) > room { // a longer line is split
			line, more, whole = rest[:room], rest[room:], true
		}
		t.begun = append(t.begun, line...)
		if rest = more; whole {
			t.add()
		}
	}
	return len(b), nil
}

// flush adds a line without a newline.
func (t *tail) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add()
}

func (t *tail) add() {
	line := strings.TrimRight(string(t.begun), "\r\n")
	if t.begun = t.begun[:0]; line == "" {
		return
	}
	t.to.Debug(line, "plugin", t.name)
	if !t.panicked && (strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")) {
		t.lines, t.panicked = nil, true
	}
	switch {
	case t.panicked && len(t.lines) >= panicLines:
	case len(t.lines) >= maxLogLines:
		t.lines = append(slices.Clone(t.lines[maxLogLines/2:]), line)
	default:
		t.lines = append(t.lines, line)
	}
}

// last returns the panic that the plugin has logged, or else its last lines.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.panicked {
		return strings.Join(t.lines, "\n")
	}
	return strings.Join(t.lines[max(0, len(t.lines)-5):], "\n")
}
