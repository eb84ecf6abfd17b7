// Package keeper is the process between bake and a plugin that has something to lose. It
// passes on all that the two say to each other. When bake goes away, however it ends, the
// keeper cancels what the plugin does and waits while the plugin takes down what it has
// made; by itself a plugin would exit at once and leave it.
//
// A keeper is started like the plugin, whose command line follows its own, and greets like
// one. It heads a group of processes, in which the plugin is, and all that the plugin
// starts: who kills the group has ended all of them. It ends as the plugin did.
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

// Name is the argument of bake that makes it a keeper.
const Name = "plugin-keeper"

// Command is the command of a keeper, which a plugin's command line follows. It is empty
// if the system does not know where this program is.
func Command() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{self, Name}
}

// Limits on waits. A keeper outlives bake, so it never waits without one.
const (
	startTimeout = time.Minute            // for the plugin to greet, and for bake to connect
	cancelDelay  = 300 * time.Millisecond // since the plugin has begun, before it can be cancelled
	exitTimeout  = 5 * time.Second        // for the plugin to end once nobody talks to it any more
	flushTimeout = 2 * time.Second        // for what it said last to reach bake
)

// patience is how long a plugin may take when bake has gone.
type patience struct {
	begin    time.Duration // with what it was told to do
	teardown time.Duration // to end that, and to take down what it has made
}

// Child is the keeper, if args are those of one. It is called before anything else.
func Child(args []string) (ran bool, code int) {
	if len(args) < 2 || args[1] != Name {
		return false, 0
	}
	if len(args) < 3 {
		fmt.Fprintf(os.Stderr, "bake %s runs a plugin for bake, whose command line follows; it is not run by hand.\n", Name)
		return true, 1
	}
	return true, keep(args[2:], patience{begin: 10 * time.Second, teardown: 10 * time.Minute})
}

// keep runs a plugin, by its command line, and returns its exit code.
func keep(command []string, grace patience) (code int) {
	// bake says when it is over. To ignore the signals would have the plugin ignore them.
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
	// It has pipes of its own: bake's may close, and the plugin would die of writing to one.
	p.cmd.Stdout, p.cmd.Stderr = p.first, unbreakable{os.Stderr}
	p.cmd.WaitDelay = time.Second // for what its children still hold open
	if err := p.group.start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // the state says how it ended
		close(p.first.C)
		close(p.ended)
	}()
	return p, nil
}

// log is for bake's debug log, as what the plugin logs is.
func (p *plugin) log(format string, args ...any) {
	fmt.Fprintf(os.Stderr, Name+": "+format+"\n", args...)
}

// wait waits for the plugin to end, as it does when nobody talks to it any more.
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

// end ends the plugin and what it has started, and with them the keeper, where that
// heads their group.
func (p *plugin) end() { p.group.end(p.cmd) }

// keep brings bake and the plugin together, and returns when the plugin has ended. If
// bake has gone, all that the plugin has started ends as well.
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
	if err != nil { // bake says what is wrong with it
		fmt.Println(line)
		if p.wait() {
			return nil
		}
		return err
	}
	down, err := address.Dial(context.WithoutCancel(ctx)) // its socket is to be removed
	if err != nil {
		return fmt.Errorf("the plugin cannot be reached: %w", err)
	}
	up, err := accept(ctx)
	if err != nil {
		down.Close()
		p.wait() // it exits without a host, in order
		return fmt.Errorf("bake has not connected: %w", err)
	}
	stop()
	r, err := newRelay(up, down)
	if err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-r.plugin.Closed(): // it is about to end, or has closed the connection only
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

// watch returns a context that ends if bake goes away before it has connected, or takes
// too long. Where a process keeps the parent that it had, it has to take too long.
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

// errEnded is the error of a plugin that has ended without a greeting.
var errEnded = errors.New("the plugin has ended")

// greeting is the first line of the plugin. When bake has gone the plugin may still end
// its start: it says where its socket is.
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

// accept greets bake as a plugin does, and waits for it to connect. The socket is where
// nobody else can connect to it, and is removed.
func accept(ctx context.Context) (net.Conn, error) {
	dir, err := os.MkdirTemp("", "bake") // short: the names of sockets are
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

// unbreakable drops what can no longer be written.
type unbreakable struct{ io.Writer }

func (w unbreakable) Write(b []byte) (int, error) {
	_, _ = w.Writer.Write(b)
	return len(b), nil
}

// relay passes on what bake and the plugin say to each other.
type relay struct {
	bake, plugin *wire.Mux
	left         chan struct{} // closed when bake has gone, or talks to the plugin no more
	leave        sync.Once

	mu      sync.Mutex
	main    *wire.Conn // of the plugin; nil until bake has dialled it
	writing sync.Mutex // of main
	calls   map[call]*work
	results map[uint32]bool // streams of the plugin on which artifacts are
	passing int             // streams from which something may still come to bake
	changed chan struct{}   // closed and replaced when one of those changes
}

// call is a call that was not answered yet.
type call struct {
	stream uint32
	seq    uint64
}

// work is a call that changes things outside of the plugin.
type work struct {
	service   string
	stream    uint32    // that the plugin dials when it begins; 0 if it cannot be cancelled
	begun     time.Time // when it has; zero if it has not
	cancelled bool
}

func newRelay(up, down net.Conn) (*relay, error) {
	r := &relay{
		left: make(chan struct{}), calls: map[call]*work{}, results: map[uint32]bool{}, changed: make(chan struct{}),
	}
	var ready sync.WaitGroup // both sides are there
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

// join dials the other end of a stream that was dialled here.
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

// fromPlugin passes on a stream that the plugin dials.
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

// fromBake passes on a stream that bake dials.
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

// note changes what is known.
func (r *relay) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

// pass passes data on in both directions, until both have ended.
func (r *relay) pass(bake, plugin *wire.Conn) {
	r.toBake(func() { pump(plugin, bake) })
	go pump(bake, plugin)
}

// toBake passes something on to bake.
func (r *relay) toBake(pass func()) {
	r.note(func() { r.passing++ })
	go func() {
		pass()
		r.note(func() { r.passing-- })
	}()
}

// pump passes on what comes from a stream, and its end.
func pump(from, to *wire.Conn) {
	if _, err := io.Copy(to, from); err != nil { // one of them is broken
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}

// requests passes on calls of bake, whole ones only: when bake is killed while it writes
// one, the plugin has to understand what comes after it.
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

// answers passes on what the plugin answers. It goes on when bake has gone.
func (r *relay) answers(stream uint32, to, from *wire.Conn) {
	in := bufio.NewReader(from)
	for {
		m, err := wire.ReadMessage(in)
		if err == nil {
			r.returned(stream, m) // before bake can dial it
		}
		_, _ = to.Write(m.Raw)
		if err != nil { // bake says what is wrong with it
			_, _ = io.Copy(unbreakable{to}, in)
			_ = to.CloseWrite()
			return
		}
		r.answered(stream, m)
	}
}

// called notes a call that changes things, or cancels one.
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

// returned notes the stream of an artifact that is the answer to a call.
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

// answered notes that a call was answered.
func (r *relay) answered(stream uint32, m wire.Message) {
	r.note(func() { delete(r.calls, call{stream, m.Seq}) })
}

// wait cancels what the plugin does, and waits for it to end that.
func (r *relay) wait(p *plugin, grace patience) {
	begun, limit := time.NewTimer(grace.begin), time.NewTimer(grace.teardown)
	defer begun.Stop()
	defer limit.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		busy, starting := len(r.calls) > 0, false
		var cancel *work
		var at time.Time // when cancel may be cancelled
		for _, w := range r.calls {
			switch {
			case w.stream == 0 || w.cancelled:
			case !w.begun.IsZero():
				cancel, at = w, w.begun.Add(cancelDelay)
			default: // a plugin that is cancelled before it has begun crashes
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
			go r.cancel(cancel.service) // a plugin that reads nothing does not hold up the limit
		case <-p.ended:
			return
		case <-never:
			p.log("the plugin has not begun within %s, and is killed", grace.begin)
			p.end()
			return
		case <-limit.C:
			p.log("the plugin did not take down what it has made within %s, and is killed", grace.teardown)
			p.end()
			return
		}
	}
}

// cancel calls Cancel of a component.
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

// lost says whether bake has gone.
func (r *relay) lost() bool {
	select {
	case <-r.bake.Closed():
		return true
	default:
		return false
	}
}

// finish closes the plugin's main stream: then it exits.
func (r *relay) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.main != nil {
		r.main.Close()
	} else {
		r.plugin.Close()
	}
}

// flush waits until bake has what the plugin said last, and closes the connections.
func (r *relay) flush() {
	limit := time.After(flushTimeout)
	for over := false; !over; {
		r.mu.Lock()
		changed, passing := r.changed, r.passing
		r.mu.Unlock()
		closed := r.plugin.Closed() // all that it has sent is there
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
