package ssh

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"

	"bake/communicator"
)

// How SFTP is used. The library's own defaults wait for the answer to each 32 KB.
const (
	sftpRequests = 64 // in flight per file
	sftpFiles    = 16 // at a time
	sftpPacket   = 32 << 10
	opensshSFTP  = 255 << 10 // what OpenSSH takes, with room for the header
)

// sftp starts the SFTP subsystem. Its streams end when stop is called, whatever the
// machine does.
func (c *Client) sftp(ctx context.Context) (l *link, client *sftp.Client, watch *sftpWatch, stop func(), err error) {
	l, s, err := c.session(ctx)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	alive, rest := context.WithCancel(ctx)
	go c.keepAlive(alive, l)
	fromMachine, in := io.Pipe()
	out, toMachine := io.Pipe()
	end := func() {
		rest()
		_ = in.CloseWithError(io.ErrClosedPipe)
		_ = out.CloseWithError(io.ErrClosedPipe)
		s.close()
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	if err := s.request(ctx, "subsystem", struct{ Name string }{"sftp"}); errors.Is(err, errRefused) {
		return nil, nil, nil, nil, fmt.Errorf(`the machine at %s has no SFTP subsystem; set ssh_file_transfer_method = "scp"`, l.addr)
	} else if err != nil {
		return nil, nil, nil, nil, c.lost(ctx, l, err)
	}
	errOut := &communicator.Head{Max: 4 << 10}
	silent := make(chan struct{})
	go func() {
		defer close(silent)
		_, _ = io.Copy(errOut, s.Stderr())
	}()
	go func() {
		_, err := io.CopyBuffer(in, struct{ io.Reader }{s.Channel}, make([]byte, streamBuffer))
		_ = in.CloseWithError(err)
	}()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{s.Channel}, out, make([]byte, streamBuffer))
		_ = out.CloseWithError(err)
		_ = s.CloseWrite()
	}()
	packet := sftpPacket
	if bytes.Contains(l.ServerVersion(), []byte("OpenSSH")) {
		packet = opensshSFTP
	}
	watch = &sftpWatch{}
	answers := &sftpAnswers{Reader: bufio.NewReaderSize(fromMachine, sftpPacket), watch: watch}
	client, err = within(ctx, func() (*sftp.Client, error) {
		return sftp.NewClientPipe(answers, watchedWriter{toMachine, watch},
			sftp.MaxPacketUnchecked(packet), sftp.MaxConcurrentRequestsPerFile(sftpRequests),
			sftp.UseConcurrentWrites(true), sftp.UseConcurrentReads(true))
	}, nil)
	if err == nil {
		go c.attend(alive, l, watch, end)
		return l, client, watch, end, nil
	}
	return nil, nil, nil, nil, c.sftpError(ctx, l, err, answers, silent, errOut)
}

// sftpError returns why no SFTP session was established; err is how the attempt ended. errOut holds
// the subsystem's standard error, completely once silent is closed.
func (c *Client) sftpError(ctx context.Context, l *link, err error, answers *sftpAnswers, silent <-chan struct{}, errOut *communicator.Head) error {
	switch {
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.Is(err, errSilent):
		return fmt.Errorf(`the SFTP subsystem of the machine at %s does not answer: %w; set ssh_file_transfer_method = "scp"`, l.addr, err)
	case answers.noise != "":
		return c.noisy(answers.noise)
	case l.isDown():
		return c.lost(ctx, l, err)
	}
	// It has ended instead of answering.
	var said string
	select {
	case <-silent:
		said = printable(errOut.String())
	case <-time.After(time.Second):
	}
	if l.isDown() {
		return c.lost(ctx, l, err)
	}
	return fmt.Errorf(`the SFTP subsystem of the machine at %s ended immediately (%w): %q; set ssh_file_transfer_method = "scp"`, l.addr, err, said)
}

// noisy explains text where SFTP should be.
func (c *Client) noisy(text string) error {
	if suggestedUser(text) != "" {
		return &strangerError{c.opts.Username, -1, text}
	}
	return fmt.Errorf("the machine sends text where SFTP should begin: %q. A start-up file of user %q's login shell, such as ~/.bashrc, or a forced command prints it. "+
		`Print only in interactive shells, or set ssh_file_transfer_method = "scp"`, text, c.opts.Username)
}

// sftpAnswers detects that the other side is not an SFTP server: the first packet must be of type 2
// and short.
type sftpAnswers struct {
	*bufio.Reader
	watch   *sftpWatch
	checked bool
	noise   string
}

var errNoise = errors.New("this is not SFTP")

func (a *sftpAnswers) Read(b []byte) (int, error) {
	if !a.checked {
		const version, longest = 2, 256 << 10
		head, err := a.Peek(5)
		if len(head) > 0 && (len(head) < 5 || head[4] != version || binary.BigEndian.Uint32(head) > longest) {
			said, _ := a.Peek(max(len(head), a.Buffered()))
			said, _, _ = bytes.Cut(said, []byte{0})
			if a.noise = printable(string(said)); a.noise == "" {
				a.noise = fmt.Sprintf("%x", head)
			}
			return 0, errNoise
		}
		if err != nil {
			return 0, err
		}
		a.checked = true
	}
	n, err := a.Reader.Read(b)
	if wrong := a.watch.received(b[:n]); wrong != nil {
		return 0, wrong
	}
	return n, err
}

// withSFTP runs fn with an SFTP client, whose operations fail when ctx ends.
func (c *Client) withSFTP(ctx context.Context, fn func(*sftp.Client) error) error {
	l, client, watch, stop, err := c.sftp(ctx)
	if err != nil {
		return err
	}
	over := context.AfterFunc(ctx, stop)
	err = fn(client)
	if over() {
		stop()
	}
	_ = client.Close() // its streams have ended
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if why := watch.ended(); err != nil && why != nil {
		return why
	}
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return l.disconnected(err)
	}
	return err
}

// sftpPath converts a path for the shell to one for SFTP, where relative paths start at the home
// directory.
func sftpPath(p string) (string, error) {
	switch {
	case p == "~" || p == "~/":
		return ".", nil
	case strings.HasPrefix(p, "~/"):
		return p[2:], nil
	case strings.HasPrefix(p, "~"):
		return "", fmt.Errorf("%s: SFTP does not support ~USER; write the full path", p)
	}
	return p, nil
}

func (c *Client) putSFTP(ctx context.Context, dst string, src fs.FS, dirs, files []communicator.Entry) error {
	to, err := sftpPath(dst)
	if err != nil {
		return fmt.Errorf("upload to %w", err)
	}
	m := newMeter(ctx, c.scope, files)
	var mu sync.Mutex
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		m.add(n)
	}
	err = c.withSFTP(ctx, func(client *sftp.Client) error {
		if info, err := client.Stat(to); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			return &scriptError{code: exitNoDir}
		} else if err != nil {
			return err
		}
		var made []communicator.Entry
		for _, d := range dirs {
			name := path.Join(to, d.Name)
			if info, err := client.Stat(name); err == nil && info.IsDir() {
				continue
			}
			if err := client.Mkdir(name); err != nil {
				return sftpError(err, d.Name)
			}
			made = append(made, d)
		}
		var g errgroup.Group
		g.SetLimit(sftpFiles)
		for _, f := range files {
			g.Go(func() error {
				return sftpError(putOneSFTP(client, path.Join(to, f.Name), src, f, count), f.Name)
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for i := len(made) - 1; i >= 0; i-- {
			if err := client.Chmod(path.Join(to, made[i].Name), made[i].Perm()); err != nil {
				return sftpError(err, made[i].Name)
			}
		}
		return nil
	})
	what := fmt.Sprintf("%d files and directories", len(dirs)+len(files))
	if len(dirs) == 0 && len(files) == 1 {
		what = files[0].Name
	}
	return uploadError(err, dst, what, c.opts.Username)
}

// sftpError translates the status codes of SFTP into the messages of a shell.
func sftpError(err error, name string) error {
	var status *sftp.StatusError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return &scriptError{1, name + ": Permission denied"}
	case errors.As(err, &status) && status.FxCode() == sftp.ErrSSHFxFailure:
		return &scriptError{1, name + ": SFTP reports only a failure; the disk may be full, or a directory may be in the file's place"}
	}
	return fmt.Errorf("%s: %w", name, err)
}

func putOneSFTP(client *sftp.Client, to string, src fs.FS, e communicator.Entry, count func(int)) error {
	in, err := src.Open(e.Name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := client.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	n, err := out.ReadFromWithConcurrency(&counted{in, count}, sftpRequests)
	if err == nil && n != e.Info.Size() {
		err = errors.New("the local file changed while it was read")
	}
	if err == nil {
		err = out.Chmod(e.Perm())
		if errors.Is(err, fs.ErrPermission) {
			err = nil // a file of another user keeps its mode, as scp has it
		}
	}
	return errors.Join(err, out.Close())
}

type counted struct {
	io.Reader
	count func(int)
}

func (r *counted) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.count(n)
	return n, err
}

func (c *Client) getSFTP(ctx context.Context, src string, dst *os.Root) error {
	from, err := sftpPath(src)
	if err != nil {
		return fmt.Errorf("download of %w", err)
	}
	err = c.withSFTP(ctx, func(client *sftp.Client) error {
		return getTreeSFTP(client, from, path.Base(from), dst)
	})
	if err != nil {
		return fmt.Errorf("download of %s: %w", src, err)
	}
	return nil
}

func getTreeSFTP(client *sftp.Client, from, name string, dst *os.Root) error {
	info, err := client.Stat(from)
	if err != nil {
		return err
	}
	switch {
	case info.Mode().IsRegular():
		return getOneSFTP(client, from, name, info, dst)
	case !info.IsDir():
		return fmt.Errorf("%s is neither a file nor a directory on the machine", from)
	}
	if name != "." {
		if err := communicator.CheckNesting(name); err != nil {
			return err
		}
		if err := dst.MkdirAll(name, info.Mode().Perm()|0o700); err != nil {
			return err
		}
	}
	list, err := client.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() == "." || e.Name() == ".." { // what is left of names such as "" and "x/.."
			return fmt.Errorf("the machine lists something in %s that is not the name of a file", from)
		}
		if err := getTreeSFTP(client, path.Join(from, e.Name()), path.Join(name, e.Name()), dst); err != nil {
			return err
		}
	}
	if name == "." {
		return nil
	}
	return dst.Chmod(name, info.Mode().Perm())
}

// maxSizeless is how much is read of a file of size 0. Such are the files of a kernel.
const maxSizeless = 64 << 20

// getOneSFTP downloads a file. Of a file that grows meanwhile, or never ends, it reads as much as
// its size was.
func getOneSFTP(client *sftp.Client, from, name string, info fs.FileInfo, dst *os.Root) (err error) {
	f, err := client.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	local, err := communicator.CreateFile(dst, name, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Finish(err)) }()
	size := info.Size()
	to := &bounded{w: local.File, left: size}
	if size == 0 {
		to.left = maxSizeless
	}
	n, err := f.WriteTo(to)
	switch {
	case errors.Is(err, errFull) && size == 0:
		return fmt.Errorf("%s has the size 0 on the machine, and more than %d MiB in it", from, maxSizeless>>20)
	case errors.Is(err, errFull):
		return nil
	case err != nil:
		return err
	case n < size: // or the machine's server answers with less than was requested, so that parts are missing
		return fmt.Errorf("the machine sent %d of %d bytes of %s; the file may have changed while it was read", n, size, from)
	}
	return nil
}

// errFull is the error of a write to a full bounded.
var errFull = errors.New("no more is wanted")

// bounded is a writer that accepts left more bytes.
type bounded struct {
	w    io.Writer
	left int64
}

// Write implements [io.Writer].
func (o *bounded) Write(b []byte) (int, error) {
	n, err := o.w.Write(b[:min(int64(len(b)), o.left)])
	if o.left -= int64(n); err == nil && n < len(b) {
		err = errFull
	}
	return n, err
}
