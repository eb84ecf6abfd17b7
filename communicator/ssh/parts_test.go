package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
)

// farConn is a connection that delays the data sent on it.
type farConn struct {
	net.Conn
	sent     chan []byte
	received chan []byte
	rest     []byte
	gone     chan struct{}
	once     sync.Once
}

// farAway delays both directions of a connection.
func farAway(conn net.Conn, delay time.Duration) net.Conn {
	c := &farConn{Conn: conn, sent: make(chan []byte, 1<<16), received: make(chan []byte, 1<<16), gone: make(chan struct{})}
	later := func(in chan []byte, out func([]byte) error) {
		type piece struct {
			b   []byte
			due time.Time
		}
		queue := make(chan piece, 1<<16)
		go func() {
			defer close(queue)
			for b := range in {
				queue <- piece{b, time.Now().Add(delay)}
			}
		}()
		for p := range queue {
			time.Sleep(time.Until(p.due))
			if out(p.b) != nil {
				return
			}
		}
	}
	arrived := make(chan []byte, 1<<16)
	go later(c.sent, func(b []byte) error { _, err := conn.Write(b); return err })
	go func() {
		defer close(arrived)
		for {
			b := make([]byte, 64<<10)
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			arrived <- b[:n]
		}
	}()
	go func() {
		defer close(c.received)
		later(arrived, func(b []byte) error {
			select {
			case c.received <- b:
				return nil
			case <-c.gone:
				return net.ErrClosed
			}
		})
	}()
	return c
}

func (c *farConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case next, ok := <-c.received:
			if !ok {
				return 0, net.ErrClosed
			}
			c.rest = next
		case <-c.gone:
			return 0, net.ErrClosed
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *farConn) Write(b []byte) (int, error) {
	select {
	case c.sent <- bytes.Clone(b):
		return len(b), nil
	case <-c.gone:
		return 0, net.ErrClosed
	}
}

func (c *farConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

// far connects to an OpenSSH server over a slow link.
func far(t *testing.T, extra ...string) (communicator.Communicator, *commtest.Server) {
	t.Helper()
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey(), extra...)
	return connect(t, t.Context(), options(srv), ssh.Target{
		Signers: []gossh.Signer{key.Signer},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return farAway(conn, 5*time.Millisecond), nil
		},
	}), srv
}

// noise returns a file with unique content.
func noise(t *testing.T, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(content)
	path = filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(path, content, 0o640); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// holds compares a file, and checks that there is nothing next to it.
func holds(t *testing.T, path string, content []byte, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%s holds %d bytes that are not the %d sent, %v", path, len(got), len(content), err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm() != mode {
		t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), mode)
	}
	if list, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".bake-part-*")); len(list) > 0 {
		t.Errorf("%q is left", list)
	}
}

// A large file is uploaded to a distant machine in parts, whatever exists there and however many
// sessions the machine allows.
func TestUploadInParts(t *testing.T) {
	path, content := noise(t, 9<<20+12345)
	for _, sessions := range []string{"1", "4"} {
		c, _ := far(t, "MaxSessions "+sessions)
		dir := t.TempDir()
		if err := c.Put(t.Context(), dir, communicator.LocalFile("it's new", path)); err != nil {
			t.Fatal(err)
		}
		holds(t, filepath.Join(dir, "it's new"), content, 0o640)
		// The target of a link is written, and the link stays.
		if err := os.Symlink("it's new", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), dir, communicator.LocalFile("link", path)); err != nil {
			t.Fatal(err)
		}
		holds(t, filepath.Join(dir, "it's new"), content, 0o640)
		if info, err := os.Lstat(filepath.Join(dir, "link")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("the link is %v, %v", info, err)
		}
	}
}

// A large file is downloaded from a distant machine in parts, too.
func TestDownloadInParts(t *testing.T) {
	real, err := exec.LookPath("dd")
	if err != nil {
		t.Skip(err)
	}
	bin := t.TempDir()
	program(t, bin, "dd", fmt.Sprintf("echo used >>%s/count\nexec %s \"$@\"\n", bin, real))
	path, content := noise(t, 20<<20+54321)
	name := filepath.Join(t.TempDir(), "it's new")
	if err := os.Rename(path, name); err != nil {
		t.Fatal(err)
	}
	c, srv := far(t, "SetEnv SHLVL=2 PATH="+bin+":"+os.Getenv("PATH"), "MaxSessions 3")
	back := t.TempDir()
	root, err := os.OpenRoot(back)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := c.Get(t.Context(), name, root); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(back, "it's new"), content, 0o640)
	if used, err := os.ReadFile(filepath.Join(bin, "count")); err != nil || bytes.Count(used, []byte("used")) < 10 {
		t.Errorf("it did not come in parts: %q, %v", used, err)
	}
	// It is downloaded completely even if the connection breaks.
	if err := os.Remove(filepath.Join(back, "it's new")); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Get(t.Context(), name, root) }()
	for {
		if info, err := os.Stat(filepath.Join(back, "it's new")); err == nil && info.Size() > 4<<20 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	srv.Cut()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(back, "it's new"), content, 0o640)
}

// program writes a script that replaces a program of the machine.
func program(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// An existing file is overwritten in place, so that the disk need not hold both versions.
func TestPartsInPlace(t *testing.T) {
	real, err := exec.LookPath("dd")
	if err != nil {
		t.Skip(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	program(t, bin, "dd", fmt.Sprintf("echo \"$@\" >>%s/log\nexec %s \"$@\"\n", bin, real))
	path, content := noise(t, 9<<20)
	to := filepath.Join(dir, "x")
	if err := os.WriteFile(to, make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := far(t, "SetEnv SHLVL=2 PATH="+bin+":"+os.Getenv("PATH"))
	if err := c.Put(t.Context(), dir, communicator.LocalFile("x", path)); err != nil {
		t.Fatal(err)
	}
	holds(t, to, content, 0o640)
	log, err := os.ReadFile(filepath.Join(bin, "log"))
	if err != nil || bytes.Count(log, []byte("of="+to)) < 5 || bytes.Contains(log, []byte("bake-part")) {
		t.Errorf("it was written by\n%s%v", log, err)
	}
}

// Concurrent uploads to the same name do not mix: the file is one of them.
func TestPartsAtOnce(t *testing.T) {
	one, first := noise(t, 9<<20)
	two, second := noise(t, 9<<20+1)
	c, _ := far(t)
	dir := t.TempDir()
	var both sync.WaitGroup
	for _, path := range []string{one, two} {
		both.Go(func() {
			if err := c.Put(t.Context(), dir, communicator.LocalFile("x", path)); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if got, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || !bytes.Equal(got, first) && !bytes.Equal(got, second) {
		t.Errorf("%d bytes are there that are none of the files, %v", len(got), err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%v are there", list)
	}
}

// "~" is the home of the login user for files that are sent in parts, too.
func TestPartsBelowHome(t *testing.T) {
	path, content := noise(t, 9<<20)
	c, _ := far(t)
	var out bytes.Buffer
	if _, err := c.Run(t.Context(), communicator.Command{Line: "cd && mktemp -d bakeXXXXXX", Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSpace(out.String())
	defer func() {
		_, _ = c.Run(context.WithoutCancel(t.Context()), communicator.Command{Line: "cd && rm -r " + name})
	}()
	back := t.TempDir()
	root, err := os.OpenRoot(back)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := errors.Join(
		c.Put(t.Context(), "~/"+name, communicator.LocalFile("it's new", path)),
		c.Get(t.Context(), "~/"+name+"/it's new", root),
	); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(back, "it's new"), content, 0o640)
}

// A file of another user that the login user may write to gets new content, and keeps its mode.
// Since root may change any file, a chmod that fails simulates that user.
func TestFileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "chmod"), []byte("#!/bin/sh\ncase $2 in */foreign|*/own) echo chmod: not permitted >&2; exit 1;; esac\nexec /bin/chmod \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, _ := far(t, "SetEnv HOME="+bin+" PATH="+bin+":/usr/bin:/bin")
	for _, size := range []int{100, 9 << 20} {
		path, content := noise(t, size)
		dir := t.TempDir()
		foreign := filepath.Join(dir, "foreign")
		if err := errors.Join(os.WriteFile(foreign, []byte("before"), 0o606), os.Chmod(foreign, 0o606), os.Chown(foreign, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), dir, communicator.LocalFile("foreign", path)); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		holds(t, foreign, content, 0o606)
		err := c.Put(t.Context(), dir, communicator.LocalFile("own", path))
		if err == nil || !strings.Contains(err.Error(), "not permitted") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// In a tree, only large files are sent in parts.
func TestTreeWithLargeFile(t *testing.T) {
	path, content := noise(t, 10<<20)
	local := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"a/small": 0o600, "a/b/other": 0o755} {
		file := filepath.Join(local, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, []byte(name), 0o600), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(path, filepath.Join(local, "a/b/large")); err != nil {
		t.Fatal(err)
	}
	c, _ := far(t)
	dir := t.TempDir()
	if err := c.Put(t.Context(), dir, communicator.LocalDir("tree", local)); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(dir, "tree/a/b/large"), content, 0o640)
	holds(t, filepath.Join(dir, "tree/a/small"), []byte("a/small"), 0o600)
	holds(t, filepath.Join(dir, "tree/a/b/other"), []byte("a/b/other"), 0o755)
	back := t.TempDir()
	root, err := os.OpenRoot(back)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := c.Get(t.Context(), filepath.Join(dir, "tree"), root); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(back, "tree/a/b/large"), content, 0o640)
}

// A tree of small files takes one command on a machine with GNU tar.
func TestSmallTreeInOneCommand(t *testing.T) {
	real, err := exec.LookPath("env")
	if err != nil {
		t.Skip(err)
	}
	bin, local, dir := t.TempDir(), t.TempDir(), t.TempDir()
	program(t, bin, "env", fmt.Sprintf("echo one >>%s/count\nexec %s \"$@\"\n", bin, real))
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(local, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey(), "SetEnv SHLVL=2 PATH="+bin+":"+os.Getenv("PATH"))
	c := connect(t, t.Context(), options(srv), ssh.Target{Signers: []gossh.Signer{key.Signer}})
	if err := c.Put(t.Context(), dir, communicator.LocalDir("", local)); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(dir, "b"), []byte("b"), 0o600)
	if count, err := os.ReadFile(filepath.Join(bin, "count")); err != nil || string(count) != "one\n" {
		t.Errorf("it took these commands, %v:\n%s", err, count)
	}
}

// What was lost with a connection is sent again, even repeatedly.
func TestCutPartIsRepeated(t *testing.T) {
	path, content := noise(t, 20<<20)
	c, srv := far(t)
	dir := t.TempDir()
	cuts, done := 0, make(chan error, 1)
	go func() { done <- c.Put(t.Context(), dir, communicator.LocalFile("x", path)) }()
	for size := int64(0); cuts < 2; {
		select {
		case err := <-done:
			t.Fatalf("over after %d cuts: %v", cuts, err)
		case <-time.After(time.Millisecond):
		}
		parts, _ := filepath.Glob(filepath.Join(dir, ".bake-part-*"))
		if len(parts) == 0 {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
			t.Error("the file is there before it is whole")
		}
		if info, err := os.Stat(parts[0]); err == nil && info.Size() > size+(2<<20) {
			size = info.Size()
			srv.Cut()
			cuts++
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(dir, "x"), content, 0o640)
}

// A full disk, and a directory that cannot be written to, are named in the error, and no
// incomplete file is left under the final name.
func TestPartsThatCannotBeWritten(t *testing.T) {
	path, _ := noise(t, 10<<20)
	c, _ := far(t)
	if _, err := os.Stat("/dev/full"); err == nil {
		err := c.Put(t.Context(), "/dev", communicator.LocalFile("full", path))
		want(t, err, "disk of the machine is full")
	}
	err := c.Put(t.Context(), "/no/such/dir", communicator.LocalFile("x", path))
	want(t, err, "does not exist on the machine")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	err = c.Put(t.Context(), dir, communicator.LocalFile("x", path))
	want(t, err, "this is a directory on the machine")
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Put(ctx, dir, communicator.LocalFile("y", path)) }()
	for {
		if parts, _ := filepath.Glob(filepath.Join(dir, ".bake-part-*")); len(parts) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%v are left", list)
	}
}

// cutFile is a file that calls cut in its middle.
type cutFile struct {
	fs.File
	left int
	cut  func()
}

func (f *cutFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	if f.left > 0 && f.left <= n {
		f.cut()
	}
	f.left -= n
	return n, err
}

type cutFS struct {
	fs.FS
	cut func()
}

func (c cutFS) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	if name == "big" {
		f = &cutFile{f, 8 << 20, c.cut}
	}
	return f, err
}

// A file that was truncated by a lost connection is not left as if it were complete.
func TestCutStream(t *testing.T) {
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey())
	c := connect(t, t.Context(), options(srv), ssh.Target{Signers: []gossh.Signer{key.Signer}})
	dir := t.TempDir()
	err := c.Put(t.Context(), dir, cutFS{communicator.File("big", 0o644, make([]byte, 32<<20)), srv.Cut})
	if !errors.Is(err, communicator.ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		info, err := os.Stat(filepath.Join(dir, "big"))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are left, with mode %o", info.Size(), info.Mode())
		}
	}
}

// lines counts numbered lines without storing them.
type lines struct {
	next  int
	rest  []byte
	wrong string
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			l.rest = bytes.Clone(l.rest)
			return len(b), nil
		}
		if l.next++; string(line) != strconv.Itoa(l.next) && l.wrong == "" {
			l.wrong = string(line)
		}
		l.rest = rest
	}
}

// Of a million lines none is lost, and none is stored.
func TestMillionLines(t *testing.T) {
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey())
	c := connect(t, t.Context(), options(srv), ssh.Target{Signers: []gossh.Signer{key.Signer}})
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse)
	}
	before := heap()
	var out lines
	if _, err := c.Run(t.Context(), communicator.Command{Line: "seq 1000000", Stdout: &out}); err != nil || out.next != 1000000 || out.wrong != "" {
		t.Errorf("%d lines, %v; %q is out of place", out.next, err, out.wrong)
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}
