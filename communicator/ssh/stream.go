package ssh

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"bake/communicator"
	"bake/internal/shellquote"
)

// tarKind is the kind of tar that a machine has.
type tarKind int

const (
	tarUnknown tarKind = iota
	noTar
	plainTar // changes the mode of existing directories
	gnuTar
)

// Exit codes of the scripts below, chosen outside those that shells and tar use.
const (
	exitNoDir     = 91
	exitNoFile    = 92
	exitNotToRead = 93
	exitIsDir     = 94
	exitOtherTar  = 97
)

// Put implements [communicator.Communicator].
func (c *Client) Put(ctx context.Context, dst string, src fs.FS) error {
	dirs, files, err := communicator.List(src)
	if err != nil {
		return fmt.Errorf("upload to %s: %w", dst, err)
	}
	switch {
	case c.opts.FileTransferMethod == SFTP:
		return c.putSFTP(ctx, dst, src, dirs, files)
	case len(dirs) == 0 && len(files) == 1:
		return c.putFile(ctx, dst, src, files[0], newMeter(ctx, c.scope, files))
	}
	if c.tarKnown() == tarUnknown && !slices.ContainsFunc(files, func(e communicator.Entry) bool { return e.Info.Size() >= partsFrom }) {
		// Most machines have GNU tar. Asking first would cost a round trip, which on a near machine
		// is as much as some hundred small files.
		if err := c.putTar(ctx, dst, src, append(slices.Clone(dirs), files...), gnuTar); !errors.Is(err, errOtherTar) {
			return err
		}
		// Nothing was read, so the source can be read again.
	}
	kind, err := c.tarKind(ctx)
	if err != nil {
		return err
	}
	if kind == gnuTar {
		large, files := c.apart(ctx, src, dirs, files)
		if err := c.putTar(ctx, dst, src, append(dirs, files...), gnuTar); err != nil {
			return err
		}
		m := newMeter(ctx, c.scope, large)
		for _, f := range large {
			if err := c.putFile(ctx, dst, src, f, m); err != nil {
				return err
			}
		}
		return nil
	}
	if err := c.makeDirs(ctx, dst, dirs); err != nil {
		return err
	}
	if kind == plainTar {
		err = c.putTar(ctx, dst, src, files, plainTar)
	} else {
		m := newMeter(ctx, c.scope, files)
		for _, f := range files {
			if err = c.putFile(ctx, dst, src, f, m); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	return c.closeDirs(ctx, dst, dirs)
}

// isGNUTar is a shell condition.
const isGNUTar = `tar --no-overwrite-dir --version >/dev/null 2>&1`

// errOtherTar is the error if the machine has no GNU tar.
var errOtherTar = errors.New("the machine has no GNU tar")

// tarKnown returns the machine's kind of tar, as far as it is known.
func (c *Client) tarKnown() tarKind {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tar
}

// tarKind finds out the machine's kind of tar. GNU tar is remembered for the connection; the other
// answers may change when packages are installed.
func (c *Client) tarKind(ctx context.Context) (tarKind, error) {
	kind, _, err := c.tarKindAnd(ctx, "")
	return kind, err
}

// tarKindAnd is tarKind with another command, more, in the same round trip; it returns that
// command's output. If the kind is known and the machine is near, it does not run the command and
// returns no output.
func (c *Client) tarKindAnd(ctx context.Context, more string) (tarKind, string, error) {
	c.mu.Lock()
	kind, l := c.tar, c.link
	c.mu.Unlock()
	probe := `{ ` + isGNUTar + ` && echo gnu || { command -v tar >/dev/null && echo plain || echo none; }; }; `
	if kind == gnuTar {
		if more == "" || l != nil && l.near() {
			return kind, "", nil
		}
		probe = "echo gnu; "
	}
	out, err := c.script(ctx, probe+more, nil, nil)
	first, rest, _ := strings.Cut(out, "\n")
	kind = noTar
	switch first {
	case "gnu":
		kind = gnuTar
	case "plain":
		kind = plainTar
	}
	var failed *scriptError
	if err != nil && !errors.As(err, &failed) {
		return noTar, "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tar = kind
	return kind, rest, nil
}

// putFile writes one file. Until it is complete only its owner can read it.
func (c *Client) putFile(ctx context.Context, dst string, src fs.FS, e communicator.Entry, m *meter) error {
	f, err := src.Open(e.Name)
	if err != nil {
		return fmt.Errorf("upload to %s: %w", dst, err)
	}
	defer f.Close()
	if workers, parts := c.inParts(ctx, f, e.Info.Size()); workers > 0 {
		if err := c.putParts(ctx, dst, e, f.(io.ReaderAt), workers, parts, m); !errors.Is(err, errNoParts) {
			return uploadError(err, dst, e.Name, c.opts.Username)
		}
	}
	to := remotePath(path.Join(dst, e.Name))
	// A stream that was cut off ends like a complete one, so the size is checked.
	script := fmt.Sprintf(`[ -d %s ] || exit %d; [ ! -d %[3]s ] || exit %[4]d; umask 077; cat > %[3]s; s=$?; `+
		`if [ -f %[3]s ] && [ -w %[3]s ]; then [ $s = 0 ] && [ "$(stat -Lc %%s %[3]s 2>/dev/null || wc -c <%[3]s 2>/dev/null || echo %[6]d)" -eq %[6]d ] || { `+
		`if [ -h %[3]s ]; then : > %[3]s; else rm -f %[3]s; fi; exit 1; }; fi; [ $s = 0 ] && %[5]s`,
		remotePath(dst), exitNoDir, to, exitIsDir, setMode(e, to), e.Info.Size())
	body := &exact{r: f, left: e.Info.Size(), meter: m}
	_, err = c.script(ctx, script, body, nil)
	if body.err != nil {
		return fmt.Errorf("upload of %s: %w", e.Name, body.err)
	}
	return uploadError(err, dst, e.Name, c.opts.Username)
}

// setMode returns shell code that sets a file's mode. A file of another user that the login user
// may write to keeps its mode, as with scp; the new content remains.
func setMode(e communicator.Entry, name string) string {
	return fmt.Sprintf("{ chmod %04[1]o %[2]s 2>/dev/null || [ ! -O %[2]s ] || chmod %04[1]o %[2]s; }", e.Perm(), name)
}

// exact reads a file of known size and returns an error if the size changes meanwhile.
type exact struct {
	r     io.Reader
	left  int64
	meter *meter
	err   error
}

func (x *exact) Read(b []byte) (int, error) {
	n, err := x.r.Read(b)
	x.left -= int64(n)
	x.meter.add(n)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		x.err = err
	case x.left < 0 || err != nil && x.left > 0:
		x.err = errors.New("the local file changed while it was read")
		return 0, x.err
	}
	return n, err
}

// putTar writes entries as one tar stream. If kind is gnuTar and the machine has another tar, it
// writes nothing and returns errOtherTar.
func (c *Client) putTar(ctx context.Context, dst string, src fs.FS, entries []communicator.Entry, kind tarKind) error {
	if len(entries) == 0 {
		return nil
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	m := newMeter(ctx, c.scope, entries)
	m.progress.Total = 0
	for _, e := range entries {
		if !e.Info.IsDir() {
			m.progress.Total += e.Info.Size()
		}
	}
	go func() {
		err := pack(w, src, entries, m)
		w.CloseWithError(err)
		packed <- err
	}()
	extract := "exec tar"
	if kind == gnuTar {
		extract = "exec tar --no-overwrite-dir"
		if c.tarKnown() != gnuTar {
			extract = fmt.Sprintf("%s || exit %d; %s", isGNUTar, exitOtherTar, extract)
		}
	}
	script := fmt.Sprintf("[ -d %s ] || exit %d; %s -xpmof - -C %[1]s", remotePath(dst), exitNoDir, extract)
	_, err := c.script(ctx, script, r, nil)
	r.CloseWithError(io.ErrClosedPipe)
	if local := <-packed; local != nil && !errors.Is(local, io.ErrClosedPipe) {
		return fmt.Errorf("upload to %s: %w", dst, local)
	}
	if failed := (*scriptError)(nil); errors.As(err, &failed) && failed.code == exitOtherTar {
		return errOtherTar
	}
	return uploadError(err, dst, fmt.Sprintf("%d files and directories", len(entries)), c.opts.Username)
}

// pack writes entries of src as a tar stream in GNU format, which every tar can read whatever the
// names are.
func pack(w io.Writer, src fs.FS, entries []communicator.Entry, m *meter) error {
	buffered := bufio.NewWriterSize(w, streamBuffer)
	tw := tar.NewWriter(buffered)
	buf := make([]byte, 64<<10)
	for _, e := range entries {
		if err := packOne(tw, src, e, m, buf); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

func packOne(tw *tar.Writer, src fs.FS, e communicator.Entry, m *meter, buf []byte) error {
	h := &tar.Header{Name: e.Name, Mode: int64(e.Perm()), Format: tar.FormatGNU}
	if e.Info.IsDir() {
		h.Typeflag, h.Name = tar.TypeDir, e.Name+"/"
		return tw.WriteHeader(h)
	}
	f, err := src.Open(e.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, e.Info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	body := &exact{r: f, left: h.Size, meter: m}
	_, err = io.CopyBuffer(struct{ io.Writer }{tw}, body, buf)
	if body.err != nil {
		return fmt.Errorf("%s: %w", e.Name, body.err)
	}
	return err
}

// makeDirs creates the missing directories, at first writable by their owner.
func (c *Client) makeDirs(ctx context.Context, dst string, dirs []communicator.Entry) error {
	script := fmt.Sprintf(`cd %s 2>/dev/null || exit %d; while IFS= read -r m && IFS= read -r d; do [ -d "$d" ] || mkdir -m "$m" "./$d" || exit 1; done`, remotePath(dst), exitNoDir)
	var list bytes.Buffer
	for _, d := range dirs {
		if strings.Contains(d.Name, "\n") {
			return fmt.Errorf("upload to %s: the name of the directory %q contains a line break, and the machine has no GNU tar", dst, d.Name)
		}
		fmt.Fprintf(&list, "%04o\n%s\n", d.Perm()|0o700, d.Name)
	}
	_, err := c.script(ctx, script, &list, nil)
	return uploadError(err, dst, fmt.Sprintf("%d directories", len(dirs)), c.opts.Username)
}

// closeDirs removes the extra permissions that makeDirs gave the owner.
func (c *Client) closeDirs(ctx context.Context, dst string, dirs []communicator.Entry) error {
	var script strings.Builder
	for i := len(dirs) - 1; i >= 0; i-- {
		if perm := dirs[i].Perm(); perm&0o700 != 0o700 {
			fmt.Fprintf(&script, "chmod %04o %s || exit 1\n", perm, remotePath(path.Join(dst, dirs[i].Name)))
		}
	}
	if script.Len() == 0 {
		return nil
	}
	_, err := c.script(ctx, script.String(), nil, nil)
	return uploadError(err, dst, "modes of directories", c.opts.Username)
}

// scriptError is the error of one of bake's scripts that failed.
type scriptError struct {
	code   int
	stderr string
}

func (e *scriptError) Error() string {
	if e.stderr == "" {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return fmt.Sprintf("%s (exit status %d)", e.stderr, e.code)
}

// strangerError is the error if something other than bake's script ran, such as a forced command or
// a login shell of another kind.
type strangerError struct {
	user string
	code int // -1: unknown, not waited for
	said string
}

func (e *strangerError) Error() string {
	text := fmt.Sprintf("the machine does not run commands for user %q", e.user)
	if e.said != "" {
		text += fmt.Sprintf("; it answers %q", e.said)
	}
	if e.code >= 0 {
		text += fmt.Sprintf(" (exit status %d)", e.code)
	}
	if user := suggestedUser(e.said); user != "" {
		return text + fmt.Sprintf(". Set ssh_username = %q", user)
	}
	return text + ". Check ssh_username: its login shell has to be a POSIX one, without a forced command"
}

// Is makes it match [communicator.ErrNoCommands].
func (e *strangerError) Is(target error) bool { return target == communicator.ErrNoCommands }

// scriptMark is the first line that bake's scripts print. Any output before it comes from the
// start-up files of the login shell.
const scriptMark = "bake-0b5f3c7e-begins"

// shellLine returns the command line that runs text with sh, whatever the login shell is.
func shellLine(text string) string {
	return "exec env LC_ALL=C sh -c " + shellquote.Join("echo; echo "+scriptMark+"; "+text)
}

// afterMark passes on what follows the mark. If the machine asks the user to log in as another
// user, it stops reading, because some machines then wait before they close the session.
type afterMark struct {
	w     io.Writer
	user  string
	begun bool
	said  communicator.Head // the output before the mark
	tail  []byte            // the last bytes, which may be the start of the mark
}

func (a *afterMark) Write(b []byte) (int, error) {
	if a.begun {
		return a.w.Write(b)
	}
	const mark = "\n" + scriptMark + "\n"
	a.tail = append(a.tail, b...)
	i := bytes.Index(a.tail, []byte(mark))
	if i < 0 {
		done := max(0, len(a.tail)-len(mark))
		_, _ = a.said.Write(a.tail[:done])
		a.tail = slices.Clone(a.tail[done:])
		if said := a.before(); suggestedUser(said) != "" {
			return 0, &strangerError{a.user, -1, printable(said)}
		}
		return len(b), nil
	}
	a.begun = true
	rest := a.tail[i+len(mark):]
	a.tail = nil
	if len(rest) > 0 {
		if _, err := a.w.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// before returns the output before the mark.
func (a *afterMark) before() string { return a.said.String() + string(a.tail) }

// script runs text with sh, whatever the login shell is, without a terminal. Its output goes to
// stdout; if stdout is nil, it is returned.
func (c *Client) script(ctx context.Context, text string, stdin io.Reader, stdout io.Writer) (string, error) {
	l, s, err := c.session(ctx)
	if err != nil {
		return "", err
	}
	return c.scriptOver(ctx, l, s, text, stdin, stdout)
}

// scriptOver is like script, in an open session, which it closes.
func (c *Client) scriptOver(ctx context.Context, l *link, s *session, text string, stdin io.Reader, stdout io.Writer) (string, error) {
	out := &communicator.Head{Max: 64 << 10}
	if stdout == nil {
		stdout = out
	}
	marked := &afterMark{w: stdout, user: c.opts.Username, said: communicator.Head{Max: 4 << 10}}
	errOut := &communicator.Head{Max: 4 << 10}
	st, err := c.runOver(ctx, l, s, communicator.Command{Line: shellLine(text), Stdin: stdin, Stdout: marked, Stderr: errOut}, false)
	if stranger := (*strangerError)(nil); errors.As(err, &stranger) {
		return "", stranger
	} else if err != nil {
		return "", err
	}
	if !marked.begun {
		said := printable(marked.before() + "\n" + errOut.String())
		return "", &strangerError{c.opts.Username, st.Code, said}
	}
	if st.Code != 0 {
		return out.String(), &scriptError{st.Code, strings.TrimSpace(errOut.String())}
	}
	return out.String(), nil
}

// remotePath quotes a path as one word for the machine's shell. It leaves "~" or "~user" at the
// start unquoted.
func remotePath(p string) string {
	if strings.HasPrefix(p, "~") {
		home, rest, slash := strings.Cut(p, "/")
		if plainName(home[1:]) {
			if !slash || rest == "" {
				return home
			}
			return home + "/" + shellquote.Join(rest)
		}
	}
	if strings.HasPrefix(p, "-") {
		p = "./" + p
	}
	return shellquote.Join(p)
}

func plainName(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r == '_' || r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}) < 0
}

// uploadError explains why an upload to dst failed.
func uploadError(err error, dst, what, user string) error {
	var failed *scriptError
	if err == nil {
		return nil
	}
	if !errors.As(err, &failed) {
		return fmt.Errorf("upload of %s to %s: %w", what, dst, err)
	}
	return fmt.Errorf("upload of %s to %s: %w", what, dst, explain(failed, dst, user))
}

// explain describes a machine's refusal and its remedy.
func explain(e *scriptError, dst, user string) error {
	switch {
	case e.code == exitNoDir:
		return fmt.Errorf("%w: the directory %s does not exist on the machine; create it first, for example with a shell provisioner: mkdir -p %s", fs.ErrNotExist, dst, dst)
	case e.code == exitIsDir:
		return fmt.Errorf("%w: this is a directory on the machine; end the destination with / to write into it", fs.ErrExist)
	case strings.Contains(e.stderr, "Permission denied"), strings.Contains(e.stderr, "Operation not permitted"):
		return fmt.Errorf("%w: user %q cannot write there: %w; upload to /tmp, and move it from there with sudo in a shell provisioner", fs.ErrPermission, user, e)
	case strings.Contains(e.stderr, "No space left"), strings.Contains(e.stderr, "Disk quota"):
		return fmt.Errorf("the disk of the machine is full: %w; use a larger one, or free some space first", e)
	case strings.Contains(e.stderr, "Read-only file system"):
		return fmt.Errorf("%w: that file system is read-only: %w", fs.ErrPermission, e)
	}
	return e
}
