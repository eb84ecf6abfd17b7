package sshproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"bake/communicator"
)

// copying is a request to scp on the machine.
type copying struct {
	to   bool   // to the machine, rather than from it
	path string // on the machine
	dir  bool   // path has to be a directory
	tree bool   // directories too
}

// parseCopy reads the command line with which an scp client starts scp on the machine.
func parseCopy(line string) (c copying, ok bool) {
	words := strings.Fields(line)
	if len(words) < 3 || path.Base(words[0]) != "scp" && words[0] != "scp.exe" {
		return c, false
	}
	direction := false
	i := 1
	for ; i < len(words) && strings.HasPrefix(words[i], "-") && words[i] != "--"; i++ {
		for _, flag := range words[i][1:] {
			switch flag {
			case 't', 'f':
				c.to, direction = flag == 't', true
			case 'd':
				c.dir = true
			case 'r':
				c.tree = true
			case 'p', 'v', 'q':
			default:
				return c, false
			}
		}
	}
	if i < len(words) && words[i] == "--" {
		i++
	}
	if !direction || i >= len(words) {
		return c, false
	}
	c.path = unquoted(strings.Join(words[i:], " "))
	return c, true
}

// unquoted removes the quotes that scp clients put around a path for a shell.
func unquoted(p string) string {
	if len(p) >= 2 && (p[0] == '\'' || p[0] == '"') && p[len(p)-1] == p[0] {
		return p[1 : len(p)-1]
	}
	return strings.NewReplacer(`\ `, " ", `\'`, "'", `\"`, `"`, `\\`, `\`).Replace(p)
}

// copy does what scp on the machine would do, using the communicator's own transfers.
func (s *Server) copy(ctx context.Context, rw io.ReadWriter, c copying) (code int, err error) {
	dir, err := os.MkdirTemp("", "bake-scp-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	in := bufio.NewReaderSize(rw, 64<<10)
	if c.to {
		err = s.sink(ctx, in, rw, c, root, dir)
	} else {
		err = s.send(ctx, in, rw, c, root)
	}
	var said *clientError
	if errors.As(err, &said) || errors.Is(err, context.Canceled) {
		return 1, nil // the client has reported the error itself
	}
	if err != nil {
		_, _ = fmt.Fprintf(rw, "\x02%s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		return 1, nil
	}
	return 0, nil
}

// clientError is an error that the client reported.
type clientError struct{ text string }

func (e *clientError) Error() string { return e.text }

// maxMessage is the maximum length of a message of the protocol.
const maxMessage = 8 << 10

// message reads one message, up to the newline.
func message(in *bufio.Reader) (string, error) {
	var b strings.Builder
	for b.Len() < maxMessage {
		c, err := in.ReadByte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return b.String(), nil
		}
		b.WriteByte(c)
	}
	return "", errors.New("a message of scp's protocol is too long")
}

// header parses "MODE SIZE NAME". The name must be a plain file name, without a path.
func header(text string) (mode fs.FileMode, size int64, name string, err error) {
	parts := strings.SplitN(text, " ", 3)
	if len(parts) == 3 {
		var m uint64
		if m, err = strconv.ParseUint(parts[0], 8, 16); err == nil {
			size, err = strconv.ParseInt(parts[1], 10, 64)
		}
		mode, name = fs.FileMode(m).Perm(), parts[2]
	}
	if len(parts) < 3 || err != nil || size < 0 || name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\`) {
		return 0, 0, "", fmt.Errorf("not a message of scp's protocol: %q", text)
	}
	return mode, size, name, nil
}

// sink receives files from the client, and writes them to the machine.
func (s *Server) sink(ctx context.Context, in *bufio.Reader, out io.Writer, c copying, root *os.Root, local string) error {
	ack := func() error {
		_, err := out.Write([]byte{0})
		return err
	}
	if err := ack(); err != nil {
		return err
	}
	at := "." // below root
	var single string
	for {
		kind, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		text, err := message(in)
		if err != nil {
			return err
		}
		switch kind {
		case 'T': // times, which are ignored
		case 'E':
			if at == "." {
				return errors.New("scp's protocol: a directory ends that has not begun")
			}
			at = path.Dir(at)
		case 1, 2:
			return &clientError{text}
		case 'C', 'D':
			mode, size, name, err := header(text)
			if err != nil {
				return err
			}
			to := path.Join(at, name)
			if at == "." {
				single = name
			}
			if kind == 'D' {
				if !c.tree {
					return fmt.Errorf("%s is a directory", name)
				}
				if err := root.MkdirAll(to, mode|0o700); err != nil {
					return err
				}
				at = to
				break
			}
			if err := ack(); err != nil {
				return err
			}
			if err := receive(in, root, to, mode, size); err != nil {
				return err
			}
			if at == "." {
				if err := s.pass(ctx, c, root, local, name); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("not a message of scp's protocol: %q", string(kind)+text)
		}
		if kind == 'E' && at == "." {
			if err := s.pass(ctx, c, root, local, single); err != nil {
				return err
			}
		}
		if err := ack(); err != nil {
			return err
		}
	}
	return nil
}

// receive reads a file of that many bytes, followed by a zero byte, from the client and
// writes it below root.
func receive(in *bufio.Reader, root *os.Root, to string, mode fs.FileMode, size int64) error {
	if err := communicator.WriteFile(root, to, mode|0o600, io.LimitReader(in, size)); err != nil {
		return err
	}
	if err := root.Chmod(to, mode); err != nil {
		return err
	}
	if info, err := root.Stat(to); err != nil || info.Size() != size {
		return io.ErrUnexpectedEOF
	}
	if end, err := in.ReadByte(); err != nil || end != 0 {
		return errors.New("scp's protocol: a file has no end")
	}
	return nil
}

// pass uploads a file or directory in the local directory root to the machine, and deletes it
// here.
func (s *Server) pass(ctx context.Context, c copying, root *os.Root, local, name string) error {
	if err := s.put(ctx, c, name, filepath.Join(local, name)); err != nil {
		return err
	}
	return root.RemoveAll(name)
}

// put uploads one file or directory to the path that scp was given: into it if it is a
// directory, and otherwise under that name.
func (s *Server) put(ctx context.Context, c copying, name, local string) error {
	info, err := os.Stat(local)
	if err != nil {
		return err
	}
	tree := communicator.LocalDir(name, local)
	under := func(name string) fs.FS {
		if info.IsDir() {
			return communicator.LocalDir(name, local)
		}
		return communicator.LocalFile(name, local)
	}
	slashed := strings.ReplaceAll(c.path, `\`, "/")
	if c.dir || strings.HasSuffix(slashed, "/") {
		if !info.IsDir() {
			tree = communicator.LocalFile(name, local)
		}
		return s.Machine.Put(ctx, strings.TrimSuffix(slashed, "/"), tree)
	}
	return s.Machine.Put(ctx, path.Dir(slashed), under(path.Base(slashed)))
}

// send sends a file or directory of the machine to the client.
func (s *Server) send(ctx context.Context, in *bufio.Reader, out io.Writer, c copying, root *os.Root) error {
	if err := acknowledged(in); err != nil {
		return err
	}
	from := strings.TrimSuffix(strings.ReplaceAll(c.path, `\`, "/"), "/")
	if err := s.Machine.Get(ctx, from, root); err != nil {
		return err
	}
	return sendTree(in, out, root, path.Base(from), c.tree)
}

func sendTree(in *bufio.Reader, out io.Writer, root *os.Root, name string, tree bool) error {
	info, err := root.Stat(name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if !tree {
			return fmt.Errorf("%s is a directory", name)
		}
		return sendDir(in, out, root, name, info)
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintf(out, "C%04o %d %s\n", info.Mode().Perm(), info.Size(), path.Base(name)); err != nil {
		return err
	}
	if err := acknowledged(in); err != nil {
		return err
	}
	if _, err := io.CopyN(out, f, info.Size()); err != nil {
		return err
	}
	if _, err := out.Write([]byte{0}); err != nil {
		return err
	}
	return acknowledged(in)
}

func sendDir(in *bufio.Reader, out io.Writer, root *os.Root, name string, info fs.FileInfo) error {
	if _, err := fmt.Fprintf(out, "D%04o 0 %s\n", info.Mode().Perm(), path.Base(name)); err != nil {
		return err
	}
	if err := acknowledged(in); err != nil {
		return err
	}
	list, err := fs.ReadDir(root.FS(), name)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := sendTree(in, out, root, path.Join(name, d.Name()), true); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(out, "E\n"); err != nil {
		return err
	}
	return acknowledged(in)
}

// acknowledged reads the client's answer.
func acknowledged(in *bufio.Reader) error {
	c, err := in.ReadByte()
	if err != nil {
		return err
	}
	if c == 0 {
		return nil
	}
	text, err := message(in)
	if err != nil {
		return err
	}
	return &clientError{text}
}
