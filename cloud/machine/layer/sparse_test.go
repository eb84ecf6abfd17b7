package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holed creates a file with data at the given offsets and holes in between.
func holed(t *testing.T, name string, size int64, offsets ...int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range offsets {
		if _, err := f.WriteAt([]byte(fmt.Sprintf("data at %d", at)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func allocated(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func sameContent(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Errorf("%s and %s differ", a, b)
	}
}

// sparseFiles creates files with all kinds of holes.
func sparseFiles(t *testing.T) (dir string, names []string) {
	dir = t.TempDir()
	const m = 1 << 20
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	holed(t, filepath.Join(dir, "all"), 20*m)
	holed(t, filepath.Join(dir, "begin"), 20*m, 19*m)
	holed(t, filepath.Join(dir, "end"), 20*m, 0)
	holed(t, filepath.Join(dir, "sub", "middle"), 20*m+77, 3*m, 5*m+11, 20*m+50)
	holed(t, filepath.Join(dir, "sub", strings.Repeat("ä", 100)), 5*m+1, m)
	odd := " BAKEsparse.realsize= GNU.sparse.name=x"
	holed(t, filepath.Join(dir, odd), 5*m, m)
	return dir, []string{odd, "all", "begin", "end", "sub/middle", "sub/" + strings.Repeat("ä", 100)}
}

// TestHoles checks that a copy of a layer has the same holes.
func TestHoles(t *testing.T) {
	src, names := sparseFiles(t)
	if allocated(t, filepath.Join(src, "all")) > 1<<20 {
		t.Skip("this file system has no holes")
	}
	if err := os.WriteFile(filepath.Join(src, "zz"), []byte("after"), 0o644); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Pack(openDir(t, src), &b); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 1<<20 {
		t.Errorf("the stream has %d bytes", b.Len())
	}
	dst := t.TempDir()
	if err := Clone(openDir(t, src), openDir(t, dst), Options{IgnoreOwner: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "zz") {
		sameContent(t, filepath.Join(src, name), filepath.Join(dst, name))
		if got := allocated(t, filepath.Join(dst, name)); got > 1<<20 {
			t.Errorf("%s takes %d bytes", name, got)
		}
	}
	// GNU tar can read the stream too.
	byTar := t.TempDir()
	cmd := exec.Command("tar", "-xf", "-", "-C", byTar)
	cmd.Stdin = bytes.NewReader(b.Bytes())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	for _, name := range append(names, "zz") {
		sameContent(t, filepath.Join(src, name), filepath.Join(byTar, name))
	}
}

// TestGNUTar unpacks sparse files from streams made by GNU tar, in each of its formats.
func TestGNUTar(t *testing.T) {
	src, names := sparseFiles(t)
	for _, format := range [][]string{{"--format=gnu"}, {"--format=oldgnu"}, {"--format=pax", "--sparse-version=0.0"}, {"--format=pax", "--sparse-version=0.1"}, {"--format=pax", "--sparse-version=1.0"}} {
		t.Run(strings.Join(format, " "), func(t *testing.T) {
			b, err := exec.Command("tar", append(format, "-S", "-C", src, "-cf", "-", ".")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			dst := t.TempDir()
			if err := Unpack(bytes.NewReader(b), openDir(t, dst), Options{IgnoreOwner: true}); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				sameContent(t, filepath.Join(src, name), filepath.Join(dst, name))
				if got := allocated(t, filepath.Join(dst, name)); got > 1<<20 {
					t.Errorf("%s takes %d bytes", name, got)
				}
			}
		})
	}
}

// TestManyHoles has more data segments than a map may contain.
func TestManyHoles(t *testing.T) {
	src, dst, byStream := t.TempDir(), t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(src, "many"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(maxSegments + 500) {
		if _, err := f.WriteAt([]byte{1}, i*2*holeBlock); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if err := Clone(openDir(t, src), openDir(t, dst), Options{IgnoreOwner: true}); err != nil {
		t.Fatal(err)
	}
	sameContent(t, filepath.Join(src, "many"), filepath.Join(dst, "many"))
	var b bytes.Buffer
	if err := Pack(openDir(t, src), &b); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(&b, openDir(t, byStream), Options{IgnoreOwner: true}); err != nil {
		t.Fatal(err)
	}
	sameContent(t, filepath.Join(src, "many"), filepath.Join(byStream, "many"))
}

// TestFarApart has more data segments than a map may contain, with more zeros between them than can
// be processed.
func TestFarApart(t *testing.T) {
	const apart, blocks = 1 << 29, maxSegments + 1
	src, dst := t.TempDir(), t.TempDir()
	holed(t, filepath.Join(src, "far"), 0)
	f, err := os.OpenFile(filepath.Join(src, "far"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range int64(blocks) {
		if _, err := f.WriteAt([]byte{1}, i*apart); err != nil {
			t.Skip("this file system has no files of that size: ", err)
		}
	}
	for what, do := range map[string]func() error{
		"clone": func() error { return Clone(openDir(t, src), openDir(t, dst), Options{IgnoreOwner: true}) },
		"pack": func() error {
			if err := Pack(openDir(t, src), io.Discard); err == nil || !strings.Contains(err.Error(), `"far": it has more than`) {
				return fmt.Errorf("error is %w", err)
			}
			return nil
		},
	} {
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s goes on and on", what)
		}
	}
	copied, err := os.Open(filepath.Join(dst, "far"))
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	st, err := copied.Stat()
	if err != nil || st.Size() != (blocks-1)*apart+1 {
		t.Fatalf("%v, %v", st, err)
	}
	n := int64(0)
	if err := eachSegment(copied, st.Size(), func(s Segment) error {
		b := []byte{0}
		if _, err := copied.ReadAt(b, n*apart); err != nil {
			return err
		}
		if b[0] != 1 || s.Offset != n*apart {
			return fmt.Errorf("block %d is at %d with %v", n, s.Offset, b)
		}
		n++
		return nil
	}); err != nil || n != blocks {
		t.Errorf("%d blocks, %v", n, err)
	}
}

// reserved creates a file whose blocks are all reserved but mostly unused, like a journal.
func reserved(t *testing.T, dir string, size int64) *os.File {
	t.Helper()
	name := filepath.Join(dir, fmt.Sprint("journal", size))
	holed(t, name, size, 0, size/2)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil || allocated(t, name) < size {
		t.Skip("this file system reserves nothing: ", err)
	}
	return f
}

// made returns a new file that copy has filled.
func made(t *testing.T, dir string, copy func(fd int) error) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "copy")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := copy(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestSetAside checks that unused reserved blocks are not copied.
func TestSetAside(t *testing.T) {
	dir, buf := t.TempDir(), make([]byte, 4096)
	f := reserved(t, dir, 8<<20)
	name := made(t, dir, func(fd int) error { return copyData(fd, f, 8<<20, buf) })
	sameContent(t, f.Name(), name)
	if got := allocated(t, name); got > 1<<20 {
		t.Errorf("the copy takes %d bytes", got)
	}
}

// TestShared checks that the copy of a large file shares its blocks, if the file system supports
// that.
func TestShared(t *testing.T) {
	dir, buf := t.TempDir(), make([]byte, 4096)
	for _, size := range []int64{smallFile, 8 << 20} {
		f := reserved(t, dir, size)
		made(t, dir, func(fd int) error {
			if err := unix.IoctlFileClone(fd, int(f.Fd())); err != nil {
				t.Skip("this file system shares no blocks: ", err)
			}
			return nil
		})
		name := made(t, dir, func(fd int) error { return copyFile(fd, f, size, buf) })
		sameContent(t, f.Name(), name)
		if shared := allocated(t, name) == size; shared != (size > smallFile) {
			t.Errorf("of %d bytes the copy has %d allocated", size, allocated(t, name))
		}
	}
}

// TestEndlessHole reads an entry of a few bytes that represents more data than fits on any disk.
func TestEndlessHole(t *testing.T) {
	b := bytes.NewBuffer(sparseStream(t, 1<<62))
	err := Unpack(b, openDir(t, t.TempDir()), Options{IgnoreOwner: true})
	if err == nil || !strings.Contains(err.Error(), "sparse files have more than") {
		t.Errorf("error is %v", err)
	}
}

// sparseStream returns a stream with a file of the given size that is a single hole.
func sparseStream(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	a := NewArchive(&b)
	if err := a.sparse(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: "x", Mode: 0o644, Size: size}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
