// Package commtest is the conformance suite of communicators, and the servers
// that it is run against.
package commtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"bake/communicator"
)

// Subject is a communicator under test, for a machine whose files the test can
// see at the same paths and whose shell is a POSIX one.
type Subject struct {
	communicator.Communicator
	Cut func() // cuts the connection; nil if there is none to cut

	// NoModes reports that the communicator does not transfer permission bits.
	NoModes bool
}

// Run runs the suite; start makes a subject for each test.
func Run(t *testing.T, start func(t *testing.T) Subject) {
	tests := []struct {
		name string
		run  func(*testing.T, Subject)
	}{
		{"exit status", exitStatus},
		{"signal", signal},
		{"output and input", outputAndInput},
		{"much output", muchOutput},
		{"binary output and input", binary},
		{"a long line without an end", longLine},
		{"input that nobody reads", unreadInput},
		{"a failing writer", failingWriter},
		{"commands side by side", sideBySide},
		{"cancelled command", cancelled},
		{"cut while a command runs", cutCommand},
		{"cut between commands", cutBetween},
		{"cut during an upload", cutUpload},
		{"cancelled upload", cancelledUpload},
		{"transfers side by side", transfersSideBySide},
		{"put a file", putFile},
		{"put a tree", putTree},
		{"put odd names", putOddNames},
		{"put over what is there", putOver},
		{"put follows links", putLinks},
		{"put into nothing", putNowhere},
		{"put on a directory", putOnDirectory},
		{"put on a full disk", putFull},
		{"put below home", putHome},
		{"get a file", getFile},
		{"get a directory", getDirectory},
		{"get what is in a directory", getContents},
		{"get nothing", getNothing},
		{"get does not leave", getConfined},
		{"closed", closed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, start(t)) })
	}
}

func run(t *testing.T, s Subject, line string) (communicator.Status, string) {
	t.Helper()
	var out bytes.Buffer
	st, err := s.Run(t.Context(), communicator.Command{Line: line, Stdout: &out})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return st, out.String()
}

func exitStatus(t *testing.T, s Subject) {
	for line, want := range map[string]int{"true": 0, "exit 3": 3, "exit 255": 255, "/no/such/command": 127} {
		if st, _ := run(t, s, line); st.Code != want {
			t.Errorf("%s: code %d, want %d", line, st.Code, want)
		}
	}
}

func signal(t *testing.T, s Subject) {
	if st, _ := run(t, s, "kill -9 $$"); st.Code != 137 {
		t.Errorf("got %+v, want code 137", st)
	}
}

func outputAndInput(t *testing.T, s Subject) {
	var out, errOut bytes.Buffer
	st, err := s.Run(t.Context(), communicator.Command{
		Line: "cat; echo oops >&2", Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errOut,
	})
	if err != nil || st.Code != 0 || out.String() != "hello" || errOut.String() != "oops\n" {
		t.Errorf("got %+v, %v, stdout %q, stderr %q", st, err, &out, &errOut)
	}
	if _, got := run(t, s, "cat"); got != "" {
		t.Errorf("without input cat reads %q", got)
	}
}

func muchOutput(t *testing.T, s Subject) {
	const n = 5 << 20
	if _, got := run(t, s, "head -c 5242880 /dev/zero"); len(got) != n {
		t.Errorf("got %d bytes, want %d", len(got), n)
	}
}

// binary checks that bytes are preserved, even if they are special to a terminal or in a
// text encoding.
func binary(t *testing.T, s Subject) {
	var want []byte
	for i := range 256 << 10 {
		want = append(want, byte(i), byte(i>>8))
	}
	want = append(want, "\r\n\x00\xff\xfe\r"...)
	var out bytes.Buffer
	st, err := s.Run(t.Context(), communicator.Command{Line: "cat", Stdin: bytes.NewReader(want), Stdout: &out})
	if err != nil || st.Code != 0 || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got %+v, %v, %d bytes, which are not the %d sent", st, err, out.Len(), len(want))
	}
}

func longLine(t *testing.T, s Subject) {
	const n = 1 << 20
	if _, got := run(t, s, `head -c 1048576 /dev/zero | tr '\0' x`); got != strings.Repeat("x", n) {
		t.Errorf("got %d bytes, want %d", len(got), n)
	}
}

// transfersSideBySide sees that transfers and commands do not disturb each other.
func transfersSideBySide(t *testing.T, s Subject) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 4 {
		name := strings.Repeat("x", i+1)
		content := strings.Repeat(name+"\n", 100000)
		wg.Go(func() {
			put(t, s, dir, communicator.File(name, 0o600, []byte(content)))
			check(t, s, filepath.Join(dir, name), 0o600, content)
			back, err := get(t, s, filepath.Join(dir, name))
			if err != nil {
				t.Error(err)
			}
			check(t, s, filepath.Join(back, name), 0o600, content)
		})
		wg.Go(func() {
			var out bytes.Buffer
			if st, err := s.Run(t.Context(), communicator.Command{Line: "echo " + name, Stdout: &out}); err != nil || st.Code != 0 || out.String() != name+"\n" {
				t.Errorf("got %+v, %v, %q", st, err, &out)
			}
		})
	}
	wg.Wait()
}

// endless is input that never ends and never delivers anything.
type endless struct{ done <-chan struct{} }

func (e endless) Read([]byte) (int, error) {
	<-e.done
	return 0, io.EOF
}

func unreadInput(t *testing.T, s Subject) {
	for name, r := range map[string]io.Reader{
		"endless": endless{t.Context().Done()},
		"large":   bytes.NewReader(make([]byte, 8<<20)),
	} {
		st, err := s.Run(t.Context(), communicator.Command{Line: "exit 4", Stdin: r})
		if err != nil || st.Code != 4 {
			t.Errorf("%s: got %+v, %v", name, st, err)
		}
	}
}

var errFull = errors.New("no more")

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }

func failingWriter(t *testing.T, s Subject) {
	_, err := s.Run(t.Context(), communicator.Command{Line: "cat /dev/zero", Stdout: fullWriter{}})
	if !errors.Is(err, errFull) {
		t.Errorf("got %v, want the writer's error", err)
	}
}

func sideBySide(t *testing.T, s Subject) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var out bytes.Buffer
			st, err := s.Run(t.Context(), communicator.Command{Line: "echo hi", Stdout: &out})
			if err != nil || st.Code != 0 || out.String() != "hi\n" {
				t.Errorf("got %+v, %v, %q", st, err, &out)
			}
		})
	}
	wg.Wait()
}

// started is closed when something is written to it.
type started struct {
	once sync.Once
	ch   chan struct{}
}

func (w *started) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.ch) })
	return len(b), nil
}

func newStarted() *started { return &started{ch: make(chan struct{})} }

func cancelled(t *testing.T, s Subject) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	w := newStarted()
	go func() {
		<-w.ch
		cancel(why)
	}()
	_, err := s.Run(ctx, communicator.Command{Line: "echo go; exec sleep 300", Stdout: w})
	if !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	if st, _ := run(t, s, "exit 5"); st.Code != 5 {
		t.Errorf("afterwards: %+v", st)
	}
}

func needsCut(t *testing.T, s Subject) {
	if s.Cut == nil {
		t.Skip("there is no connection to cut")
	}
}

func cutCommand(t *testing.T, s Subject) {
	needsCut(t, s)
	w := newStarted()
	go func() {
		<-w.ch
		s.Cut()
	}()
	_, err := s.Run(t.Context(), communicator.Command{Line: "echo go; exec sleep 300", Stdout: w})
	if !errors.Is(err, communicator.ErrDisconnected) {
		t.Errorf("got %v, want ErrDisconnected", err)
	}
	if st, _ := run(t, s, "exit 5"); st.Code != 5 {
		t.Errorf("after reconnecting: %+v", st)
	}
}

func cutBetween(t *testing.T, s Subject) {
	needsCut(t, s)
	run(t, s, "true")
	s.Cut()
	// Until the end of the connection has been noticed, a command may still be
	// sent into it.
	deadline := time.Now().Add(time.Minute)
	for {
		st, err := s.Run(t.Context(), communicator.Command{Line: "exit 6"})
		if err == nil && st.Code == 6 {
			return
		}
		if !errors.Is(err, communicator.ErrDisconnected) || time.Now().After(deadline) {
			t.Fatalf("got %+v, %v", st, err)
		}
	}
}

// slowFile is a large file that calls a function after a part of it has been read.
type slowFile struct {
	fs.File
	left int
	call func()
}

type slowFS struct {
	fstest.MapFS
	call func()
}

func (f slowFS) Open(name string) (fs.File, error) {
	file, err := f.MapFS.Open(name)
	if name == "big" {
		file = &slowFile{file, 8 << 20, f.call}
	}
	return file, err
}

func (f *slowFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	if f.left > 0 && f.left <= n {
		f.call()
	}
	f.left -= n
	return n, err
}

func big() fstest.MapFS { return fstest.MapFS{"big": {Data: make([]byte, 64<<20), Mode: 0o644}} }

func cutUpload(t *testing.T, s Subject) {
	needsCut(t, s)
	err := s.Put(t.Context(), t.TempDir(), slowFS{big(), s.Cut})
	if !errors.Is(err, communicator.ErrDisconnected) {
		t.Errorf("got %v, want ErrDisconnected", err)
	}
}

func cancelledUpload(t *testing.T, s Subject) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := s.Put(ctx, t.TempDir(), slowFS{big(), func() { cancel(why) }})
	if !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
}

// check compares the file at a path with the expected mode and content.
func check(t *testing.T, s Subject, path string, mode fs.FileMode, content string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if got := info.Mode().Perm(); got != mode && !s.NoModes {
		t.Errorf("%q has mode %04o, want %04o", path, got, mode)
	}
	if info.IsDir() {
		return
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != content {
		t.Errorf("%q holds %.40q (%d bytes), %v; want %.40q", path, b, len(b), err, content)
	}
}

func put(t *testing.T, s Subject, dst string, src fs.FS) {
	t.Helper()
	if err := s.Put(t.Context(), dst, src); err != nil {
		t.Error(err)
	}
}

func putFile(t *testing.T, s Subject) {
	dir := t.TempDir()
	large := strings.Repeat("0123456789abcdef", 3<<16) + "."
	put(t, s, dir, communicator.File("a", 0o640, []byte("one")))
	put(t, s, dir, communicator.File("b", 0o755, nil))
	put(t, s, dir, communicator.File("c", 0o600, []byte(large)))
	check(t, s, filepath.Join(dir, "a"), 0o640, "one")
	check(t, s, filepath.Join(dir, "b"), 0o755, "")
	check(t, s, filepath.Join(dir, "c"), 0o600, large)
}

func putTree(t *testing.T, s Subject) {
	dir, local := t.TempDir(), t.TempDir()
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "app/closed"), 0o755) })
	files := map[string]fs.FileMode{"a": 0o644, "sub/b": 0o600, "sub/deep/er/c": 0o755, "closed/d": 0o444}
	for name, mode := range files {
		path := filepath.Join(local, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, []byte(name), 0o600)
		os.Chmod(path, mode)
	}
	os.Mkdir(filepath.Join(local, "empty"), 0o700)
	os.Chmod(filepath.Join(local, "sub"), 0o750)
	os.Chmod(filepath.Join(local, "closed"), 0o555)
	t.Cleanup(func() { os.Chmod(filepath.Join(local, "closed"), 0o755) })

	put(t, s, dir, communicator.LocalDir("app", local))
	for name, mode := range files {
		check(t, s, filepath.Join(dir, "app", name), mode, name)
	}
	check(t, s, filepath.Join(dir, "app/empty"), 0o700, "")
	check(t, s, filepath.Join(dir, "app/sub"), 0o750, "")
	check(t, s, filepath.Join(dir, "app/closed"), 0o555, "")

	flat := t.TempDir()
	os.Remove(filepath.Join(local, "closed/d"))
	put(t, s, flat, communicator.LocalDir("", local))
	check(t, s, filepath.Join(flat, "sub/b"), 0o600, "sub/b")
}

var oddNames = []string{"a b", " ", "a\tb", "it's", `say "hi"`, "-n", "$HOME", "*", "\\", "`id`", "grün", "~", "#x;y&z|", strings.Repeat("long", 60)}

func putOddNames(t *testing.T, s Subject) {
	dir := filepath.Join(t.TempDir(), "it's a * dir")
	os.Mkdir(dir, 0o755)
	src := fstest.MapFS{}
	for _, name := range oddNames {
		put(t, s, dir, communicator.File(name, 0o644, []byte(name)))
		check(t, s, filepath.Join(dir, name), 0o644, name)
		src["in "+name+"/"+name] = &fstest.MapFile{Data: []byte(name), Mode: 0o644}
	}
	put(t, s, dir, src)
	for _, name := range oddNames {
		check(t, s, filepath.Join(dir, "in "+name, name), 0o644, name)
	}
}

func putOver(t *testing.T, s Subject) {
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "d"), 0o711)
	os.WriteFile(filepath.Join(dir, "d/kept"), []byte("kept"), 0o644)
	os.WriteFile(filepath.Join(dir, "d/x"), []byte("a longer text than the new one"), 0o600)
	put(t, s, dir, fstest.MapFS{
		"d": {Mode: fs.ModeDir | 0o755}, "d/x": {Data: []byte("new"), Mode: 0o644}, "d/y": {Data: []byte("y"), Mode: 0o600},
	})
	check(t, s, filepath.Join(dir, "d"), 0o711, "")
	check(t, s, filepath.Join(dir, "d/kept"), 0o644, "kept")
	check(t, s, filepath.Join(dir, "d/x"), 0o644, "new")
	check(t, s, filepath.Join(dir, "d/y"), 0o600, "y")
}

func putLinks(t *testing.T, s Subject) {
	dir, local := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(local, "real"), []byte("real"), 0o644)
	os.Mkdir(filepath.Join(local, "sub"), 0o755)
	os.WriteFile(filepath.Join(local, "sub/f"), []byte("f"), 0o644)
	os.Symlink("real", filepath.Join(local, "link"))
	os.Symlink("sub", filepath.Join(local, "sublink"))
	put(t, s, dir, communicator.LocalDir("", local))
	check(t, s, filepath.Join(dir, "link"), 0o644, "real")
	check(t, s, filepath.Join(dir, "sublink/f"), 0o644, "f")
	if info, err := os.Lstat(filepath.Join(dir, "link")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("link is %v, %v", info, err)
	}

	os.Symlink(".", filepath.Join(local, "loop"))
	if err := s.Put(t.Context(), dir, communicator.LocalDir("x", local)); err == nil {
		t.Error("a link to the directory that holds it went up without an error")
	}
}

func putNowhere(t *testing.T, s Subject) {
	missing := filepath.Join(t.TempDir(), "missing")
	for name, src := range map[string]fs.FS{"file": communicator.File("a", 0o644, nil), "tree": big2()} {
		err := s.Put(t.Context(), missing, src)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s: got %v, want that %s does not exist", name, err, missing)
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the directory was made")
	}
}

func big2() fstest.MapFS {
	return fstest.MapFS{"a/b": {Data: make([]byte, 1<<20), Mode: 0o644}, "c": {Mode: 0o644}}
}

func putOnDirectory(t *testing.T, s Subject) {
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "a"), 0o755)
	if err := s.Put(t.Context(), dir, communicator.File("a", 0o644, nil)); err == nil {
		t.Error("a file replaced a directory without an error")
	}
}

func putFull(t *testing.T, s Subject) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	err := s.Put(t.Context(), "/dev", communicator.File("full", 0o666, make([]byte, 1<<20)))
	if err == nil || !strings.Contains(err.Error(), "disk may be full") && !strings.Contains(err.Error(), "disk of the machine is full") {
		t.Errorf("got %v", err)
	}
}

func putHome(t *testing.T, s Subject) {
	_, name := run(t, s, `cd && mktemp -d bakeXXXXXX`)
	name = strings.TrimSpace(name)
	put(t, s, "~/"+name, communicator.File("a", 0o644, []byte("home")))
	put(t, s, name, communicator.File("b", 0o644, []byte("relative")))
	if _, got := run(t, s, "cd; cat "+name+"/a "+name+"/b; rm -r "+name); got != "homerelative" {
		t.Errorf("got %q", got)
	}
}

func get(t *testing.T, s Subject, src string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return dir, s.Get(t.Context(), src, root)
}

func getFile(t *testing.T, s Subject) {
	remote := t.TempDir()
	for _, name := range oddNames {
		os.WriteFile(filepath.Join(remote, name), []byte(name), 0o640)
		dir, err := get(t, s, filepath.Join(remote, name))
		if err != nil {
			t.Error(err)
			continue
		}
		check(t, s, filepath.Join(dir, name), 0o640, name)
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	os.WriteFile(filepath.Join(remote, "large"), large, 0o600)
	dir, err := get(t, s, filepath.Join(remote, "large"))
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, filepath.Join(dir, "large"), 0o600, string(large))
}

func remoteTree(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "tree")
	os.MkdirAll(filepath.Join(dir, "sub/deep"), 0o755)
	os.Chmod(filepath.Join(dir, "sub"), 0o750)
	os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o644)
	os.WriteFile(filepath.Join(dir, "sub/deep/b"), []byte("b"), 0o755)
	os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "hard"))
	os.Symlink("a", filepath.Join(dir, "soft"))
	return dir
}

func checkTree(t *testing.T, s Subject, dir string) {
	t.Helper()
	check(t, s, filepath.Join(dir, "a"), 0o644, "a")
	check(t, s, filepath.Join(dir, "hard"), 0o644, "a")
	check(t, s, filepath.Join(dir, "soft"), 0o644, "a")
	check(t, s, filepath.Join(dir, "sub"), 0o750, "")
	check(t, s, filepath.Join(dir, "sub/deep/b"), 0o755, "b")
	if info, err := os.Lstat(filepath.Join(dir, "soft")); err == nil && !info.Mode().IsRegular() {
		t.Errorf("soft is %s", info.Mode())
	}
}

func getDirectory(t *testing.T, s Subject) {
	dir, err := get(t, s, remoteTree(t))
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, s, filepath.Join(dir, "tree"))
}

func getContents(t *testing.T, s Subject) {
	dir, err := get(t, s, remoteTree(t)+"/.")
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, s, dir)
}

func getNothing(t *testing.T, s Subject) {
	for _, src := range []string{"/no/such/dir/file", t.TempDir() + "/missing"} {
		if _, err := get(t, s, src); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), src) {
			t.Errorf("%s: got %v", src, err)
		}
	}
}

func getConfined(t *testing.T, s Subject) {
	remote, dir, outside := t.TempDir(), t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(remote, "f"), []byte("new"), 0o644)
	os.WriteFile(filepath.Join(outside, "f"), []byte("old"), 0o644)
	os.Symlink(filepath.Join(outside, "f"), filepath.Join(dir, "f"))
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := s.Get(t.Context(), filepath.Join(remote, "f"), root); err == nil {
		t.Error("a download through a link out of its directory succeeded")
	}
	check(t, s, filepath.Join(outside, "f"), 0o644, "old")
}

func closed(t *testing.T, s Subject) {
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Run(t.Context(), communicator.Command{Line: "true"}); err == nil {
		t.Error("a closed communicator runs commands")
	}
}
