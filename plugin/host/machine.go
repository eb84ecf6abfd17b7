package host

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/internal/shellquote"
	"bake/plugin/wire"
)

// machine adapts the communicator of a plugin's builder to bake's interface.
type machine struct {
	mux     *wire.Mux
	client  *wire.Client
	explain func(error) error // adds why the plugin is gone
	windows bool              // paths and commands are those of Windows
	data    builder.Data
}

var _ communicator.Communicator = (*machine)(nil)

// newMachine returns the machine that a plugin serves to client and describes by data.
func newMachine(proc *process, client *wire.Client, data builder.Data) communicator.Communicator {
	m := &machine{mux: proc.mux, client: client, explain: proc.explain, windows: data["ConnType"].Text == "winrm", data: data}
	if data["ConnType"].Text == "ssh" && data["Host"].Text != "" {
		return sshMachine{m}
	}
	return m
}

// Describe implements [communicator.Describer].
func (c *machine) Describe() communicator.Connection {
	port, _ := strconv.Atoi(c.data["Port"].Text)
	return communicator.Connection{Host: c.data["Host"].Text, Port: port, User: c.data["User"].Text, Password: c.data["Password"].Text, WinRM: c.windows}
}

// sshMachine is a machine that a user can log in to, unless a bastion is in between, which a plugin
// does not report.
type sshMachine struct{ *machine }

var _ communicator.Accessible = sshMachine{}

// Access implements [communicator.Accessible].
func (c sshMachine) Access() communicator.Access {
	return communicator.Access{Port: c.Describe().Port, KeyFile: c.data["SSHPrivateKeyFile"].Text, Agent: c.data["SSHAgentAuth"].Text == "true"}
}

// Dial implements [communicator.Accessible].
func (c sshMachine) Dial(ctx context.Context) (net.Conn, error) {
	to := c.Describe()
	return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(to.Port)))
}

// Close implements [communicator.Communicator]. The plugin closes its own communicator.
func (c *machine) Close() error { return c.client.Close() }

func (c *machine) call(ctx context.Context, method string, args any) error {
	return c.explain(c.client.Call(ctx, "Communicator."+method, args, nil))
}

// drainTimeout is how long output may continue after the command has ended.
const drainTimeout = 10 * time.Second

// stream allocates a stream for the plugin to dial and passes it to fn. The end of ctx closes the
// stream.
func (c *machine) stream(ctx context.Context, fn func(io.ReadWriter) error) (id uint32, done <-chan error) {
	id, accept := c.mux.Listen()
	ch := make(chan error, 1)
	go func() {
		conn, err := accept(ctx)
		if err != nil {
			ch <- c.explain(err)
			return
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		err = fn(conn)
		stop()
		conn.Close()
		ch <- err
	}()
	return id, ch
}

// Run implements [communicator.Communicator]. The protocol cannot end a command: after a
// cancellation the command continues, but its output is not read.
func (c *machine) Run(ctx context.Context, cmd communicator.Command) (communicator.Status, error) {
	streams, cancel := context.WithCancel(ctx)
	defer cancel()
	args := startArgs{Command: cmd.Line}
	r := c.listen(streams, cmd, &args)
	err := c.call(streams, "Start", args)
	if err == nil {
		err = r.wait(streams)
	}
	if err != nil { // end the streams first, so that nothing is written after Run returns
		cancel()
		r.drain()
		if why := context.Cause(ctx); why != nil {
			err = why
		}
		return communicator.Status{}, err
	}
	return c.status(r)
}

// running is a command that a plugin runs. Each stream has a channel that receives how the stream
// ended. The channel is nil if there is no stream or after it has ended.
type running struct {
	stdout, stderr, ended <-chan error
	end                   commandFinished // what the plugin reported about the end of the command
	broken                error           // why it reported nothing
}

// listen allocates the streams of a command, which end with ctx, and puts their ids into args.
func (c *machine) listen(ctx context.Context, cmd communicator.Command, args *startArgs) *running {
	r := &running{}
	if cmd.Stdin != nil {
		args.StdinStreamId, _ = c.stream(ctx, func(conn io.ReadWriter) error {
			_, err := io.Copy(conn, cmd.Stdin) // not waited for: the command may not read all input
			return err
		})
	}
	collect := func(w io.Writer) (uint32, <-chan error) {
		return c.stream(ctx, func(conn io.ReadWriter) error { return copyTo(w, conn) })
	}
	if cmd.Stdout != nil {
		args.StdoutStreamId, r.stdout = collect(cmd.Stdout)
	}
	if cmd.Stderr != nil {
		args.StderrStreamId, r.stderr = collect(cmd.Stderr)
	}
	args.ResponseStreamId, r.ended = c.stream(ctx, func(conn io.ReadWriter) error {
		return gob.NewDecoder(io.LimitReader(conn, maxFinished)).Decode(&r.end)
	})
	return r
}

// wait waits for the end of a command and of its output. Its error is the reason why it
// stopped waiting.
func (r *running) wait(ctx context.Context) error {
	var late <-chan time.Time
	for r.ended != nil || r.stdout != nil || r.stderr != nil {
		select {
		case r.broken = <-r.ended:
			r.ended = nil
			late = time.After(drainTimeout)
		case err := <-r.stdout:
			if r.stdout = nil; err != nil {
				return err
			}
		case err := <-r.stderr:
			if r.stderr = nil; err != nil {
				return err
			}
		case <-late:
			return errors.New("the plugin does not end the output of a command that has ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// drain waits until the streams have ended. Their context must have ended.
func (r *running) drain() {
	for _, ch := range []<-chan error{r.stdout, r.stderr, r.ended} {
		if ch != nil {
			<-ch //nolint:errcheck // it ends because this one did
		}
	}
}

// status returns the status of a command after wait.
func (c *machine) status(r *running) (communicator.Status, error) {
	switch {
	case r.broken != nil && errors.Is(r.broken, wire.ErrGone):
		return communicator.Status{}, r.broken
	case r.broken != nil:
		if err := c.alive(); err != nil {
			return communicator.Status{}, err
		}
		return communicator.Status{}, fmt.Errorf("%w: the plugin has not said how it ended", communicator.ErrDisconnected)
	case r.end.ExitStatus == disconnected:
		return communicator.Status{}, communicator.ErrDisconnected
	}
	return communicator.Status{Code: r.end.ExitStatus}, nil
}

// alive returns nil if the plugin still runs, and otherwise why it does not.
func (c *machine) alive() error {
	select {
	case <-c.mux.Closed():
		return c.explain(wire.ErrGone)
	default:
		return nil
	}
}

// copyTo copies until the stream ends. It returns errors of w only, because the plugin may end a
// stream in any way.
func copyTo(w io.Writer, r io.Reader) error {
	out := &writing{w: w}
	_, _ = io.Copy(out, r)
	return out.err
}

type writing struct {
	w   io.Writer
	err error
}

func (o *writing) Write(b []byte) (int, error) {
	var n int
	n, o.err = o.w.Write(b)
	return n, o.err
}

// transfer makes a call during which the plugin reads or writes a stream.
func (c *machine) transfer(ctx context.Context, method string, args func(stream uint32) any, fn func(io.ReadWriter) error) error {
	cause := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	id, done := c.stream(ctx, fn)
	err := c.call(ctx, method, args(id))
	if err != nil {
		cancel() // the plugin may not have dialled, and no longer will
	}
	ours := <-done
	if why := context.Cause(cause); why != nil {
		return why
	}
	if err != nil {
		return err
	}
	return ours
}

// infoOf returns the description of a file for a plugin, with the permissions for the machine.
func infoOf(e communicator.Entry) *fileInfo {
	return &fileInfo{e.Info.Name(), e.Info.Size(), e.Info.Mode().Type() | e.Perm(), e.Info.ModTime()}
}

func (c *machine) upload(ctx context.Context, to string, src fs.FS, e communicator.Entry) error {
	f, err := src.Open(e.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	args := func(id uint32) any {
		return uploadArgs{to, id, infoOf(e)}
	}
	return c.transfer(ctx, "Upload", args, func(conn io.ReadWriter) error {
		in := &reading{r: f}
		_, _ = io.Copy(conn, in) // the plugin may stop reading at any time
		return in.err
	})
}

type reading struct {
	r   io.Reader
	err error
}

func (r *reading) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// few is the maximum number of files that are uploaded one by one. More files are
// uploaded as a directory.
const few = 8

// Put implements [communicator.Communicator].
func (c *machine) Put(ctx context.Context, dst string, src fs.FS) error {
	dirs, files, err := communicator.List(src)
	if err != nil {
		return err
	}
	if dst, err = c.directory(ctx, dst); err != nil {
		return err
	}
	if len(dirs) > 0 || len(files) > few {
		return c.putTree(ctx, dst, src, dirs, files)
	}
	for _, e := range files {
		if err := c.upload(ctx, path.Join(dst, e.Name), src, e); err != nil {
			return fmt.Errorf("uploading %s: %w", path.Join(dst, e.Name), err)
		}
	}
	return nil
}

// putTree uploads a copy of src from the host's disk, because a plugin accepts only a directory
// there.
func (c *machine) putTree(ctx context.Context, dst string, src fs.FS, dirs, files []communicator.Entry) (err error) {
	tmp, err := os.MkdirTemp("", "bake-upload-")
	if err != nil {
		return err
	}
	defer func() {
		for _, d := range dirs { // a directory without write permission cannot be emptied
			_ = os.Chmod(filepath.Join(tmp, d.Name), 0o700)
		}
		err = errors.Join(err, os.RemoveAll(tmp))
	}()
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, d := range dirs {
		if err := root.Mkdir(d.Name, 0o700); err != nil {
			return err
		}
	}
	for _, e := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		f, err := src.Open(e.Name)
		if err != nil {
			return err
		}
		err = errors.Join(communicator.WriteFile(root, e.Name, 0o600, f), f.Close())
		if err == nil {
			err = root.Chmod(e.Name, e.Perm())
		}
		if err != nil {
			return err
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := root.Chmod(dirs[i].Name, dirs[i].Perm()); err != nil {
			return err
		}
	}
	if err := c.call(ctx, "UploadDir", dirArgs{Dst: dst, Src: tmp + "/"}); err != nil {
		return fmt.Errorf("uploading to %s: %w", dst, err)
	}
	return nil
}

// mark precedes the answer of a shell command, because login files may print a greeting before it.
const mark = "\x01"

// shell runs line in the machine's shell and returns its output. The answer is empty if there is no
// shell, such as without a connection.
func (c *machine) shell(ctx context.Context, line string) (answer string, code int, err error) {
	var out bytes.Buffer
	st, err := c.Run(ctx, communicator.Command{Line: line, Stdout: &capped{&out, 1 << 20}})
	_, text, _ := strings.Cut(out.String(), mark)
	return text, st.Code, err
}

// capped drops everything after n bytes.
type capped struct {
	w io.Writer
	n int
}

func (c *capped) Write(b []byte) (int, error) {
	part := b[:min(len(b), c.n)]
	c.n -= len(part)
	_, err := c.w.Write(part)
	return len(b), err
}

// word quotes a path for a POSIX shell, which expands a "~" at its start.
func word(p string) string {
	switch {
	case p == "~":
		return p
	case strings.HasPrefix(p, "~/"):
		return "~/" + shellquote.Join(p[2:])
	case strings.HasPrefix(p, "-"):
		p = "./" + p
	}
	return shellquote.Join(p)
}

// directory returns the absolute path of a directory of the machine, which must exist. It is needed
// because plugins may pass paths to programs that do not expand "~", or may create a file if there
// is no directory.
func (c *machine) directory(ctx context.Context, dir string) (string, error) {
	if c.windows {
		return dir, nil
	}
	text, code, err := c.shell(ctx, `cd `+word(dir)+` && printf '\001%s/' "$PWD"`)
	switch {
	case err != nil:
		return "", err
	case code != 0:
		return "", fmt.Errorf("%w: there is no directory %s on the machine", fs.ErrNotExist, dir)
	case text == "": // a communicator that runs no commands
		return dir, nil
	}
	return path.Clean(text), nil
}

// Get implements [communicator.Communicator].
func (c *machine) Get(ctx context.Context, src string, dst *os.Root) error {
	if c.windows {
		return c.getPlain(ctx, src, dst)
	}
	contents := strings.HasSuffix(src, "/.")
	w := word(src)
	text, _, err := c.shell(ctx, `if [ -d `+w+` ]; then printf '\001d'; elif [ -e `+w+` ]; then printf '\001f'; stat -c %a `+w+
		` 2>/dev/null || stat -f %Lp `+w+` 2>/dev/null; else printf '\001n'; fi`)
	switch {
	case err != nil:
		return err
	case text == "n":
		return fmt.Errorf("%w: there is no %s on the machine", fs.ErrNotExist, src)
	case text == "d":
		return c.unpack(ctx, src, contents, dst)
	case strings.HasPrefix(text, "f"):
		mode, err := strconv.ParseUint(strings.TrimSpace(text[1:]), 8, 12)
		if err != nil {
			mode = 0o644
		}
		from := src
		if strings.HasPrefix(src, "~/") {
			dir, err := c.directory(ctx, path.Dir(src))
			if err != nil {
				return err
			}
			from = path.Join(dir, path.Base(src))
		}
		return c.download(ctx, from, dst, fs.FileMode(mode).Perm())
	}
	return c.getPlain(ctx, src, dst)
}

// unpack downloads a directory with tar, which preserves names and modes. No entry of the stream
// can reach outside dst.
func (c *machine) unpack(ctx context.Context, src string, contents bool, dst *os.Root) error {
	dir, name := src, "."
	if !contents {
		dir, name = path.Dir(path.Clean(src)), path.Base(path.Clean(src))
	}
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := communicator.Unpack(ctx, r, dst)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // the padding of tar's last block
		}
		r.CloseWithError(err)
		unpacked <- err
	}()
	var says bytes.Buffer
	st, err := c.Run(ctx, communicator.Command{
		Line: "tar -C " + word(dir) + " -chf - " + word(name), Stdout: w, Stderr: &capped{&says, 4096},
	})
	w.CloseWithError(err)
	wrong := <-unpacked
	switch {
	case err == nil && st.Code == 127: // there is no tar
		to := dst
		if !contents {
			err = dst.MkdirAll(name, 0o755)
			if err == nil {
				to, err = dst.OpenRoot(name)
			}
			if err != nil {
				return err
			}
			defer to.Close()
		}
		return c.getPlain(ctx, strings.TrimSuffix(src, "/.")+"/.", to)
	case err == nil && st.Code != 0:
		return fmt.Errorf("downloading %s: exit status %d: %s", src, st.Code, strings.TrimSpace(says.String()))
	case wrong != nil:
		return wrong
	}
	return err
}

func (c *machine) download(ctx context.Context, src string, dst *os.Root, mode fs.FileMode) error {
	args := func(id uint32) any { return downloadArgs{src, id} }
	name := path.Base(src)
	if c.windows {
		name = path.Base(strings.ReplaceAll(src, `\`, "/"))
	}
	f, err := dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	err = c.transfer(ctx, "Download", args, func(conn io.ReadWriter) error { return copyTo(f, conn) })
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("downloading %s: %w", src, err)
	}
	return nil
}

// getPlain downloads src if there is no shell to determine whether it is a directory. It is
// treated as one if it ends in "/" or "/.".
func (c *machine) getPlain(ctx context.Context, src string, dst *os.Root) error {
	if !strings.HasSuffix(src, "/.") && !strings.HasSuffix(src, "/") {
		return c.download(ctx, src, dst, 0o644)
	}
	tmp, err := os.MkdirTemp("", "bake-download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := c.call(ctx, "DownloadDir", dirArgs{Dst: tmp, Src: strings.TrimSuffix(src, ".")}); err != nil {
		return fmt.Errorf("downloading %s: %w", src, err)
	}
	from, err := os.OpenRoot(tmp) // confined to tmp, because the machine controls the files that the plugin has written there
	if err != nil {
		return err
	}
	defer from.Close()
	return copyTree(ctx, from, dst)
}

func copyTree(ctx context.Context, from, dst *os.Root) error {
	dirs, files, err := communicator.List(from.FS())
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := dst.MkdirAll(d.Name, d.Perm()|0o700); err != nil {
			return err
		}
	}
	for _, e := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		f, err := from.Open(e.Name)
		if err != nil {
			return err
		}
		if err := errors.Join(communicator.WriteFile(dst, e.Name, e.Perm(), f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
