// Package chroot is the communicator of a directory of this computer: commands
// run with it as their root. The directory must contain a shell and GNU tar.
package chroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bake/communicator"
	"bake/internal/procgroup"
	"bake/internal/shellquote"
)

// Client implements [communicator.Communicator].
type Client struct {
	root string
	wrap func(command string) (string, error)
	env  []string

	mu     sync.Mutex
	closed bool
}

var _ communicator.Communicator = (*Client)(nil)

// New returns the communicator of the directory root. wrap turns a command of this computer's shell
// into the one that is run, for example with sudo in front. env is the environment of the commands.
func New(root string, wrap func(command string) (string, error), env []string) *Client {
	return &Client{root: root, wrap: wrap, env: env}
}

// Close implements [communicator.Communicator].
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

var errClosed = errors.New("the chroot is closed")

// Run implements [communicator.Communicator].
func (c *Client) Run(ctx context.Context, command communicator.Command) (communicator.Status, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return communicator.Status{}, errClosed
	}
	line, err := c.wrap("chroot " + shellquote.Join(c.root) + " /bin/sh -c " + shellquote.Join(command.Line))
	if err != nil {
		return communicator.Status{}, err
	}
	return Local(ctx, line, c.env, command)
}

// outputGrace limits the wait for more output after a command has ended or was killed, while a
// process that it started still holds the output open.
const outputGrace = 5 * time.Second

// Local runs a line in this computer's shell, with the streams of command. When ctx ends it kills
// the command and all processes that it has started.
func Local(ctx context.Context, line string, env []string, command communicator.Command) (communicator.Status, error) {
	if err := context.Cause(ctx); err != nil {
		return communicator.Status{}, err
	}
	outer := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = output(command.Stdout, fail), output(command.Stderr, fail)
	cmd.WaitDelay = outputGrace
	if command.Stdin != nil {
		// cmd.Stdin is not used, because the end of the command would then wait for the
		// reader.
		in, err := cmd.StdinPipe()
		if err != nil {
			return communicator.Status{}, err
		}
		go func() {
			if _, err := io.Copy(in, reader{command.Stdin, fail}); err == nil || !errors.Is(err, syscall.EPIPE) {
				in.Close()
			}
		}()
	}
	err := procgroup.Run(cmd)
	if cause := context.Cause(ctx); cause != nil && outer.Err() == nil {
		return communicator.Status{}, cause
	}
	if cause := context.Cause(outer); cause != nil {
		return communicator.Status{}, cause
	}
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		// A process in the background may hold the output of the command, which has ended well.
		return communicator.Status{}, nil
	case errors.As(err, &exit) && exit.Exited():
		return communicator.Status{Code: exit.ExitCode()}, nil
	case errors.As(err, &exit):
		sig := exit.Sys().(syscall.WaitStatus).Signal()
		return communicator.Status{Code: 128 + int(sig), Signal: strings.TrimPrefix(signalName(sig), "SIG")}, nil
	}
	return communicator.Status{}, err
}

// output wraps w to pass its errors to fail, which ends the command.
func output(w io.Writer, fail context.CancelCauseFunc) io.Writer {
	if w == nil {
		return nil
	}
	return writer{w, fail}
}

type writer struct {
	io.Writer
	fail context.CancelCauseFunc
}

func (w writer) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

type reader struct {
	io.Reader
	fail context.CancelCauseFunc
}

func (r reader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && err != io.EOF {
		r.fail(err)
	}
	return n, err
}

// Exit codes of the transfer scripts, in addition to those of tar.
const (
	exitNothing = 90
	exitIsDir   = 91
	exitThere   = 92
)

// Put implements [communicator.Communicator].
func (c *Client) Put(ctx context.Context, dst string, src fs.FS) error {
	dirs, files, err := communicator.List(src)
	if err != nil {
		return fmt.Errorf("upload to %s: %w", dst, err)
	}
	cd := fmt.Sprintf("cd && cd %s 2>/dev/null || exit %d; ", quotePath(dst), exitNothing)
	script := func(e communicator.Entry, in io.Reader, line string) (int, error) {
		stderr := communicator.Head{Max: 4 << 10}
		status, err := c.Run(ctx, communicator.Command{Line: cd + line, Stdin: in, Stderr: &stderr})
		switch {
		case err != nil:
			return 0, err
		case status.Code == exitNothing:
			return 0, fmt.Errorf("upload to %s: %w", dst, fs.ErrNotExist)
		case status.Code == exitIsDir:
			return 0, fmt.Errorf("upload to %s: %s is a directory there", dst, e.Name)
		case status.Code == 0 || status.Code == exitThere:
			return status.Code, nil
		case strings.Contains(stderr.String(), "No space left"):
			return 0, fmt.Errorf("upload of %s to %s: the disk of the machine is full", e.Name, dst)
		}
		return 0, fmt.Errorf("upload of %s to %s: status %d: %s", e.Name, dst, status.Code, strings.TrimSpace(stderr.String()))
	}
	var made []communicator.Entry
	for _, d := range dirs {
		code, err := script(d, nil, fmt.Sprintf("[ ! -d %[1]s ] || exit %[2]d; mkdir -m 0700 %[1]s", inside(d), exitThere))
		if err != nil {
			return err
		}
		if code == 0 {
			made = append(made, d)
		}
	}
	for _, f := range files {
		if err := c.putFile(src, f, script); err != nil {
			return err
		}
	}
	for _, d := range slices.Backward(made) {
		if _, err := script(d, nil, fmt.Sprintf("chmod %04o %s", d.Perm(), inside(d))); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) putFile(src fs.FS, e communicator.Entry, script func(communicator.Entry, io.Reader, string) (int, error)) error {
	f, err := src.Open(e.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = script(e, f, fmt.Sprintf("[ ! -d %[1]s ] || exit %[2]d; cat > %[1]s && chmod %04[3]o %[1]s", inside(e), exitIsDir, e.Perm()))
	return err
}

// inside is the entry's name for the shell, when its tree's place is the working
// directory.
func inside(e communicator.Entry) string { return shellquote.Join("./" + e.Name) }

// Get implements [communicator.Communicator].
func (c *Client) Get(ctx context.Context, src string, dst *os.Root) error {
	dir, base := path.Split(strings.TrimRight(src, "/"))
	if base == "" {
		base = "."
	}
	if dir == "" {
		dir = "."
		if strings.HasPrefix(base, "~") {
			dir, base = base, "."
		}
	}
	line := fmt.Sprintf("cd && cd %s 2>/dev/null || exit %d; [ -e %[3]s ] || exit %[2]d; exec tar -chf - %[3]s", quotePath(dir), exitNothing, shellquote.Join("./"+base))
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := communicator.Unpack(ctx, r, dst)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // padding
		}
		r.CloseWithError(err)
		unpacked <- err
	}()
	stderr := communicator.Head{Max: 4 << 10}
	status, err := c.Run(ctx, communicator.Command{Line: line, Stdout: w, Stderr: &stderr})
	_ = w.Close()
	local := <-unpacked
	switch {
	case status.Code == exitNothing:
		return fmt.Errorf("download of %s: %w", src, fs.ErrNotExist)
	case err != nil:
		return fmt.Errorf("download of %s: %w", src, err)
	case status.Code != 0:
		return fmt.Errorf("download of %s: tar failed with status %d: %s", src, status.Code, strings.TrimSpace(stderr.String()))
	case local != nil:
		return fmt.Errorf("download of %s: %w", src, local)
	}
	return nil
}

// quotePath quotes a path for the shell, but for the ~ of a home directory.
func quotePath(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok || p == "~" {
		return "~/" + shellquote.Join("./"+strings.TrimPrefix(rest, "~"))
	}
	return shellquote.Join(p)
}

func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGKILL: "KILL", syscall.SIGTERM: "TERM", syscall.SIGINT: "INT", syscall.SIGHUP: "HUP", syscall.SIGSEGV: "SEGV",
		syscall.SIGABRT: "ABRT", syscall.SIGPIPE: "PIPE", syscall.SIGQUIT: "QUIT",
	}
	return names[s]
}
