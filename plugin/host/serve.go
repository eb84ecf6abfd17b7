package host

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bake/communicator"
	"bake/plugin/wire"
)

// served answers a plugin's calls of Communicator with bake's communicator.
type served struct {
	communicator.Communicator
	proc    *process
	ctx     context.Context // its end cancels the work in progress
	windows bool

	running sync.WaitGroup // commands

	mu  sync.Mutex
	err error // the last error
}

func serveMachine(ctx context.Context, proc *process, c communicator.Communicator) *served {
	s := &served{Communicator: c, proc: proc, ctx: ctx}
	if d, ok := c.(communicator.Describer); ok {
		s.windows = d.Describe().WinRM
	}
	return s
}

// within returns the context of an operation. It ends with the connection to the plugin. It also
// ends with a cancellation, unless the plugin started the operation after the cancellation. So a
// plugin can clean up.
func (s *served) within(conn context.Context) (context.Context, context.CancelFunc) {
	if s.ctx.Err() != nil {
		return context.WithCancel(conn)
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	stop := context.AfterFunc(conn, func() { cancel(context.Cause(conn)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// failed keeps an error, because only its text survives the wire.
func (s *served) failed(err error) error {
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}
	return err
}

func (s *served) lastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *served) methods() wire.Methods {
	return wire.Methods{
		"Communicator.Start":       wire.Handle(s.start),
		"Communicator.Upload":      wire.Handle(s.upload),
		"Communicator.UploadDir":   wire.Handle(s.uploadDir),
		"Communicator.Download":    wire.Handle(s.download),
		"Communicator.DownloadDir": wire.Handle(s.downloadDir),
	}
}

// start runs a command and returns once it has begun.
func (s *served) start(ctx context.Context, a startArgs) (_ any, err error) {
	cmd := communicator.Command{Line: a.Command}
	var streams []io.Closer
	closeAll := func() {
		for _, c := range streams {
			c.Close()
		}
	}
	dial := func(id uint32) io.ReadWriter {
		if id == 0 || err != nil {
			return nil
		}
		var conn *wire.Conn
		if conn, err = s.proc.mux.Dial(ctx, id); err != nil {
			return nil
		}
		streams = append(streams, conn)
		return conn
	}
	if in := dial(a.StdinStreamId); in != nil {
		cmd.Stdin = in
	}
	if out := dial(a.StdoutStreamId); out != nil {
		cmd.Stdout = out
	}
	if out := dial(a.StderrStreamId); out != nil {
		cmd.Stderr = out
	}
	if err != nil {
		closeAll()
		return nil, err
	}
	answer, err := s.proc.mux.Dial(ctx, a.ResponseStreamId)
	if err != nil {
		closeAll()
		return nil, err
	}
	s.running.Go(func() {
		defer answer.Close()
		ctx, cancel := s.within(s.proc.life)
		defer cancel()
		st, err := s.Run(ctx, cmd)
		closeAll()
		if s.failed(err) != nil {
			st.Code = disconnected
		}
		_ = gob.NewEncoder(answer).Encode(commandFinished{st.Code})
	})
	return nil, nil
}

// slashed returns a path of the machine with slashes.
func (s *served) slashed(p string) string {
	if s.windows {
		p = strings.ReplaceAll(p, `\`, "/")
	}
	return p
}

// upload uploads a file to the machine. It stores the file on the host's disk first, because the
// transfer may have to be repeated.
func (s *served) upload(conn context.Context, a uploadArgs) (any, error) {
	ctx, cancel := s.within(conn)
	defer cancel()
	in, err := s.proc.mux.Dial(ctx, a.ReaderStreamId)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	defer context.AfterFunc(ctx, func() { in.Close() })()
	dir, err := os.MkdirTemp("", "bake-upload-") // nobody else may read it, whatever the mode of the file
	if err != nil {
		return nil, s.failed(err)
	}
	defer os.RemoveAll(dir)
	tmp, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return nil, s.failed(err)
	}
	mode := fs.FileMode(0o644)
	if a.FileInfo != nil {
		mode = a.FileInfo.M.Perm()
	}
	_, err = io.Copy(tmp, in)
	if why := context.Cause(ctx); why != nil { // the data may be incomplete
		err = why
	}
	if err := errors.Join(err, tmp.Chmod(mode|0o400), tmp.Close()); err != nil {
		return nil, s.failed(err)
	}
	to, name := path.Split(s.slashed(a.Path))
	switch {
	case name == "" && a.FileInfo != nil:
		name = path.Base(s.slashed(a.FileInfo.N))
	case name == "":
		return nil, fmt.Errorf("%s is a directory, and the file has no name", a.Path)
	}
	return nil, s.failed(s.Put(ctx, orHere(to), communicator.LocalFile(name, tmp.Name())))
}

// orHere returns dir, or "." if it is empty.
func orHere(dir string) string {
	if dir == "" {
		return "."
	}
	return dir
}

// uploadDir uploads a directory of the host to the machine, or only its content if its name ends in
// a slash.
func (s *served) uploadDir(conn context.Context, a dirArgs) (any, error) {
	ctx, cancel := s.within(conn)
	defer cancel()
	if a.Src == "" {
		return nil, errors.New("no directory to upload")
	}
	name := ""
	if !os.IsPathSeparator(a.Src[len(a.Src)-1]) {
		whole, err := filepath.Abs(a.Src)
		if err != nil {
			return nil, err
		}
		name = filepath.Base(whole)
	}
	tree := communicator.LocalDir(name, a.Src)
	if len(a.Exclude) > 0 {
		tree = without{tree, name, a.Exclude}
	}
	return nil, s.failed(s.Put(ctx, orHere(s.slashed(a.Dst)), tree))
}

// without is a tree without the files and directories whose path below top, or whose name,
// matches one of the patterns.
type without struct {
	fs.FS
	top      string
	patterns []string
}

// ReadDir implements [fs.ReadDirFS].
func (w without) ReadDir(dir string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(w.FS, dir)
	return slices.DeleteFunc(list, func(e fs.DirEntry) bool {
		below := strings.TrimPrefix(strings.TrimPrefix(path.Join(dir, e.Name()), w.top), "/")
		return slices.ContainsFunc(w.patterns, func(pattern string) bool {
			whole, _ := path.Match(strings.Trim(pattern, "/"), below)
			name, _ := path.Match(pattern, e.Name())
			return whole || name
		})
	}), err
}

// Stat implements [fs.StatFS].
func (w without) Stat(name string) (fs.FileInfo, error) { return fs.Stat(w.FS, name) }

// download sends a file of the machine.
func (s *served) download(conn context.Context, a downloadArgs) (any, error) {
	ctx, cancel := s.within(conn)
	defer cancel()
	out, err := s.proc.mux.Dial(ctx, a.WriterStreamId)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	tmp, err := os.MkdirTemp("", "bake-download-")
	if err != nil {
		return nil, s.failed(err)
	}
	defer os.RemoveAll(tmp)
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return nil, s.failed(err)
	}
	defer root.Close()
	src := s.slashed(a.Path)
	if err := s.Get(ctx, src, root); err != nil {
		return nil, s.failed(err)
	}
	f, err := root.Open(path.Base(src))
	if err != nil {
		return nil, s.failed(err)
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { out.Close() })()
	if _, err := io.Copy(out, f); err != nil {
		return nil, fmt.Errorf("%s: %w", a.Path, err)
	}
	return nil, nil
}

// downloadDir downloads a directory of the machine to the host, or only its content if its name
// ends in a slash.
func (s *served) downloadDir(conn context.Context, a dirArgs) (any, error) {
	ctx, cancel := s.within(conn)
	defer cancel()
	if a.Dst == "" || a.Src == "" {
		return nil, errors.New("no directory to download, or none to download to")
	}
	if len(a.Exclude) > 0 {
		return nil, errors.New("a download cannot leave anything out")
	}
	if err := os.MkdirAll(a.Dst, 0o755); err != nil {
		return nil, s.failed(err)
	}
	root, err := os.OpenRoot(a.Dst)
	if err != nil {
		return nil, s.failed(err)
	}
	defer root.Close()
	src := s.slashed(a.Src)
	if strings.HasSuffix(src, "/") {
		src += "."
	}
	return nil, s.failed(s.Get(ctx, src, root))
}
