// Package keeper is the process between bake and a plugin that creates resources. It relays all
// communication between the two. If bake goes away, for whatever reason, the keeper cancels the
// plugin's work and waits while the plugin deletes what it has created. Without the keeper, a
// plugin would exit at once and leave everything behind.
//
// A keeper is started like a plugin and sends a plugin's greeting. The plugin's command line
// follows its own. It leads a process group that contains the plugin and all processes that the
// plugin starts, so killing the group ends them all. Its exit status is the plugin's.
package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"bake/plugin/wire"
)

// argument is the argument that makes bake run as a keeper.
const argument = "plugin-keeper"

// Command returns the command of a keeper, to which the plugin's command line is appended. It is
// empty if the path of this program's file is unknown.
func Command() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{self, argument}
}

// Time limits. A keeper outlives bake, so it never waits without one.
const (
	startTimeout = time.Minute            // until the plugin greets, and until bake connects
	cancelDelay  = 300 * time.Millisecond // from the start of the plugin's work until it can be cancelled
	exitTimeout  = 5 * time.Second        // until the plugin exits after its last connection is closed
	flushTimeout = 2 * time.Second        // until bake has received the plugin's last messages
)

// patience is how long a plugin may take after bake has gone away.
type patience struct {
	begin    time.Duration // to start the work that was requested
	teardown time.Duration // to end the work and remove what it has created
}

// Child runs the keeper if args are those of one. main calls it before anything else.
func Child(args []string) (ran bool, code int) {
	if len(args) < 2 || args[1] != argument {
		return false, 0
	}
	if len(args) < 3 {
		fmt.Fprintf(os.Stderr, "bake %s runs a plugin for bake, whose command line follows; it is not run by hand.\n", argument)
		return true, 1
	}
	return true, keep(args[2:], patience{begin: 10 * time.Second, teardown: 10 * time.Minute})
}

// keep runs a plugin, given by its command line, and returns the exit code.
func keep(command []string, grace patience) (code int) {
	// Signals are caught and dropped, because bake says when the work is over. Ignored signals
	// would be ignored in the plugin too.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGPIPE)
	p, err := start(command)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := p.keep(grace); err != nil {
		p.log("%v", err)
		p.end()
		return 1
	}
	p.group.clear(p.cmd)
	return exitCode(p.cmd.ProcessState)
}

// plugin is the process of the plugin.
type plugin struct {
	cmd   *exec.Cmd
	first *wire.FirstLine
	ended chan struct{}
	group group
}

func start(command []string) (*plugin, error) {
	p := &plugin{first: wire.NewFirstLine(), ended: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), command[0], command[1:]...)
	// The plugin gets its own pipes: bake's may be closed, and writing to a closed pipe would kill
	// the plugin.
	p.cmd.Stdout, p.cmd.Stderr = p.first, unbreakable{os.Stderr}
	p.cmd.WaitDelay = time.Second // in case its children hold the pipes open
	if err := p.group.start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState has the result
		close(p.first.C)
		close(p.ended)
	}()
	return p, nil
}

// log prints a line for bake's debug log, which also gets the plugin's own log lines.
func (p *plugin) log(format string, args ...any) {
	fmt.Fprintf(os.Stderr, argument+": "+format+"\n", args...)
}

// wait waits for the plugin to exit, which it does once its connections are closed. It reports
// false if the plugin does not exit in time.
func (p *plugin) wait() bool {
	timer := time.NewTimer(exitTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// end kills the plugin and all processes that it has started, and the keeper too if it leads their
// group.
func (p *plugin) end() { p.group.end(p.cmd) }

// keep connects bake and the plugin, and returns when the plugin has ended. If bake has gone away,
// it also ends all processes that the plugin has started.
func (p *plugin) keep(grace patience) error {
	ctx, stop := watch()
	defer stop()
	line, err := p.greeting(ctx)
	if errors.Is(err, errEnded) {
		return nil
	} else if err != nil {
		return err
	}
	address, err := wire.ParseHandshake(line)
	if err != nil { // bake reports what is wrong with the line
		fmt.Println(line)
		if p.wait() {
			return nil
		}
		return err
	}
	down, err := address.Dial(context.WithoutCancel(ctx)) // connect even if ctx has ended, so that the plugin removes its socket
	if err != nil {
		return fmt.Errorf("the plugin cannot be reached: %w", err)
	}
	up, err := accept(ctx)
	if err != nil {
		down.Close()
		p.wait() // without a host it exits regularly
		return fmt.Errorf("bake has not connected: %w", err)
	}
	stop()
	r, err := newRelay(up, down)
	if err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-r.plugin.Closed(): // it is exiting, or has only closed the connection
	case <-r.left:
		r.wait(p, grace)
		r.finish()
	}
	if !p.wait() {
		return errors.New("the plugin did not exit and was killed")
	}
	if r.lost() {
		p.end()
	}
	r.flush()
	return nil
}

// watch returns a context that ends if bake goes away before it has connected or takes too long to
// connect. On systems where a process keeps the id of a dead parent, only the timeout applies.
func watch() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for parent, limit := os.Getppid(), time.Now().Add(startTimeout); ctx.Err() == nil; <-tick.C {
			if os.Getppid() != parent {
				cancel(errors.New("bake has gone"))
			} else if time.Now().After(limit) {
				cancel(fmt.Errorf("it took more than %s", startTimeout))
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// errEnded is the error of a plugin that ended without a greeting.
var errEnded = errors.New("the plugin has ended")

// greeting returns the first line of the plugin. If bake goes away, it still waits for a while: the
// plugin may be about to complete its start and print the address of its socket.
func (p *plugin) greeting(ctx context.Context) (string, error) {
	late := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		p.wait()
		close(late)
	})()
	select {
	case line, ok := <-p.first.C:
		if !ok {
			return "", errEnded
		}
		return line, nil
	case <-late:
		return "", fmt.Errorf("the plugin has not started: %w", context.Cause(ctx))
	}
}

// accept sends bake a plugin's greeting and waits for bake to connect. The socket is in a private
// directory, which is removed.
func accept(ctx context.Context) (net.Conn, error) {
	dir, err := os.MkdirTemp("", "bake") // short, because socket names have a limit
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if _, err := io.WriteString(os.Stdout, wire.Address{Network: "unix", Addr: l.Addr().String()}.Line()); err != nil {
		return nil, err
	}
	conn, err := l.Accept()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return conn, err
}

// unbreakable is a writer that drops what can no longer be written.
type unbreakable struct{ io.Writer }

func (w unbreakable) Write(b []byte) (int, error) {
	_, _ = w.Writer.Write(b)
	return len(b), nil
}

// relay passes data between bake and the plugin.
type relay struct {
	bake, plugin *wire.Mux
	left         chan struct{} // closed when bake has gone away or has closed the main stream
	leave        sync.Once

	mu      sync.Mutex
	main    *wire.Conn // of the plugin; nil until bake has dialled it
	writing sync.Mutex // of main
	calls   map[call]*work
	results map[uint32]bool // the plugin's streams that serve artifacts
	passing int             // streams that may still carry data to bake
	changed chan struct{}   // closed and replaced at each change of the fields above
}

// call identifies a call that is not answered yet.
type call struct {
	stream uint32
	seq    uint64
}

// work is a call that changes things outside of the plugin.
type work struct {
	service   string
	stream    uint32    // the stream that the plugin dials when it starts; 0 if the call cannot be cancelled
	begun     time.Time // when the plugin dialled it; zero if it has not
	cancelled bool
}

func newRelay(up, down net.Conn) (*relay, error) {
	r := &relay{
		left: make(chan struct{}), calls: map[call]*work{}, results: map[uint32]bool{}, changed: make(chan struct{}),
	}
	var ready sync.WaitGroup // both sides are set
	ready.Add(1)
	defer ready.Done()
	var err error
	if r.plugin, err = wire.NewRelay(down, false, func(id uint32, c *wire.Conn) { ready.Wait(); r.fromPlugin(id, c) }); err != nil {
		return nil, err
	}
	if r.bake, err = wire.NewRelay(up, true, func(id uint32, c *wire.Conn) { ready.Wait(); r.fromBake(id, c) }); err != nil {
		return nil, err
	}
	go func() {
		<-r.bake.Closed()
		r.leave.Do(func() { close(r.left) })
	}()
	return r, nil
}

// join dials to's other end for a stream that was dialled here, and acknowledges that one. It
// returns nil if either fails.
func join(to *wire.Mux, id uint32, from *wire.Conn) *wire.Conn {
	other, err := to.Dial(context.Background(), id)
	if err != nil {
		from.Close()
		return nil
	}
	if err := wire.Ack(from, id); err != nil {
		from.Close()
		other.Close()
		return nil
	}
	return other
}

// fromPlugin relays a stream that the plugin dials.
func (r *relay) fromPlugin(id uint32, c *wire.Conn) {
	other := join(r.bake, id, c)
	if other == nil {
		return
	}
	r.note(func() {
		for _, w := range r.calls {
			if w.stream == id {
				w.begun = time.Now()
			}
		}
	})
	r.pass(other, c)
}

// fromBake relays a stream that bake dials.
func (r *relay) fromBake(id uint32, c *wire.Conn) {
	other := join(r.plugin, id, c)
	if other == nil {
		return
	}
	r.mu.Lock()
	calls := id == 0 || r.results[id]
	if id == 0 {
		r.main = other
	}
	r.mu.Unlock()
	if !calls {
		r.pass(c, other)
		return
	}
	r.toBake(func() { r.answers(id, c, other) })
	r.requests(id, c, other)
	if id == 0 {
		r.leave.Do(func() { close(r.left) })
	} else {
		_ = other.CloseWrite()
	}
}

// note changes the state of the relay and wakes those that wait for a change.
func (r *relay) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

// pass copies data in both directions until both have ended.
func (r *relay) pass(bake, plugin *wire.Conn) {
	r.toBake(func() { pump(plugin, bake) })
	go pump(bake, plugin)
}

// toBake runs pass, which copies data to bake, in the background and counts it.
func (r *relay) toBake(pass func()) {
	r.note(func() { r.passing++ })
	go func() {
		pass()
		r.note(func() { r.passing-- })
	}()
}

// pump copies one stream to another, and its end too.
func pump(from, to *wire.Conn) {
	if _, err := io.Copy(to, from); err != nil { // one of the streams is broken
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}

// requests relays bake's calls. It passes on complete messages only: if bake is killed while it
// writes one, the plugin must still understand the keeper's own message that follows.
func (r *relay) requests(stream uint32, from, to *wire.Conn) {
	in := bufio.NewReader(from)
	for {
		m, err := wire.ReadMessage(in)
		if err != nil {
			return
		}
		r.called(stream, m)
		r.writing.Lock()
		_, err = to.Write(m.Raw)
		r.writing.Unlock()
		if err != nil {
			return
		}
	}
}

// answers relays the plugin's answers. It continues after bake has gone away.
func (r *relay) answers(stream uint32, to, from *wire.Conn) {
	in := bufio.NewReader(from)
	for {
		m, err := wire.ReadMessage(in)
		if err == nil {
			r.returned(stream, m) // before bake can dial the artifact's stream
		}
		_, _ = to.Write(m.Raw)
		if err != nil { // bake reports what is wrong with the message
			_, _ = io.Copy(unbreakable{to}, in)
			_ = to.CloseWrite()
			return
		}
		r.answered(stream, m)
	}
}

// called records a call that changes things, or one that cancels.
func (r *relay) called(stream uint32, m wire.Message) {
	service, method, _ := strings.Cut(m.Method, ".")
	w := &work{service: service}
	switch method {
	case "Run", "PostProcess":
		_ = wire.Assign(&w.stream, m.Body)
	case "Provision":
		var args struct{ StreamID uint32 }
		_ = wire.Assign(&args, m.Body)
		w.stream = args.StreamID
	case "Destroy":
	case "Cancel":
		r.note(func() {
			for _, w := range r.calls {
				w.cancelled = true
			}
		})
		return
	default:
		return
	}
	r.note(func() { r.calls[call{stream, m.Seq}] = w })
}

// returned records the stream of the artifact in an answer, if there is one.
func (r *relay) returned(stream uint32, m wire.Message) {
	result := m.Body
	if reply, ok := result.(map[string]any); ok {
		result = reply["StreamId"]
	}
	var artifact uint32
	_ = wire.Assign(&artifact, result)
	r.note(func() {
		if w := r.calls[call{stream, m.Seq}]; w != nil && w.service != "Artifact" && artifact != 0 {
			r.results[artifact] = true
		}
	})
}

// answered records that a call was answered.
func (r *relay) answered(stream uint32, m wire.Message) {
	r.note(func() { delete(r.calls, call{stream, m.Seq}) })
}

// wait cancels the plugin's work and waits until it has ended.
func (r *relay) wait(p *plugin, grace patience) {
	begun, limit := time.NewTimer(grace.begin), time.NewTimer(grace.teardown)
	defer begun.Stop()
	defer limit.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		busy, starting := len(r.calls) > 0, false
		var cancel *work
		var at time.Time // the earliest time to cancel it
		for _, w := range r.calls {
			switch {
			case w.stream == 0 || w.cancelled:
			case !w.begun.IsZero():
				cancel, at = w, w.begun.Add(cancelDelay)
			default: // a plugin crashes if it is cancelled before it has started the work
				starting = true
			}
		}
		r.mu.Unlock()
		if !busy {
			return
		}
		var delay, never <-chan time.Time
		if cancel != nil {
			delay = time.After(time.Until(at))
		}
		if starting {
			never = begun.C
		}
		select {
		case <-changed:
		case <-delay:
			p.log("bake has gone: %s is cancelled", cancel.service)
			r.note(func() { cancel.cancelled = true })
			go r.cancel(cancel.service) // in the background, because a plugin that does not read would block it past the limit
		case <-p.ended:
			return
		case <-never:
			p.log("the plugin did not start within %s and is killed", grace.begin)
			p.end()
			return
		case <-limit.C:
			p.log("the plugin did not finish its teardown within %s and is killed", grace.teardown)
			p.end()
			return
		}
	}
}

// cancel calls the Cancel method of a component.
func (r *relay) cancel(service string) {
	const seq = 1 << 62 // bake counts from 1
	request, err := wire.Request(service+".Cancel", seq, nil)
	if err != nil {
		return
	}
	r.writing.Lock()
	defer r.writing.Unlock()
	_, _ = r.main.Write(request)
}

// lost reports whether bake has gone away.
func (r *relay) lost() bool {
	select {
	case <-r.bake.Closed():
		return true
	default:
		return false
	}
}

// finish closes the plugin's main stream, which makes it exit.
func (r *relay) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.main != nil {
		r.main.Close()
	} else {
		r.plugin.Close()
	}
}

// flush waits until bake has received the plugin's last messages, then closes the connections.
func (r *relay) flush() {
	limit := time.After(flushTimeout)
	for over := false; !over; {
		r.mu.Lock()
		changed, passing := r.changed, r.passing
		r.mu.Unlock()
		closed := r.plugin.Closed() // everything that the plugin has sent has arrived
		if passing > 0 {
			closed = nil
		}
		select {
		case <-closed:
			over = true
		case <-changed:
		case <-limit:
			over = true
		}
	}
	r.plugin.Close()
	r.bake.Close()
}
