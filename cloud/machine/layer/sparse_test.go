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

	"golang.org/x/sys/unix"
)

// holed makes a file with data at the given offsets and holes between.
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

// sparseFiles are files with holes of all sorts.
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

// TestHoles: a copy of a layer has the holes that the layer has.
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
	// GNU tar reads it too.
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

// TestGNUTar unpacks what GNU tar makes of sparse files, in each of its formats.
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

// TestManyHoles has more stretches of data than a map may name.
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

// TestSetAside: what a file has reserved and not used, as journals do, is not copied.
func TestSetAside(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	name := filepath.Join(src, "journal")
	holed(t, name, 8<<20, 0, 4<<20)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 8<<20); err != nil || allocated(t, name) < 8<<20 {
		t.Skip("this file system reserves nothing: ", err)
	}
	if err := Clone(openDir(t, src), openDir(t, dst), Options{IgnoreOwner: true}); err != nil {
		t.Fatal(err)
	}
	sameContent(t, name, filepath.Join(dst, "journal"))
	if got := allocated(t, filepath.Join(dst, "journal")); got > 1<<20 {
		t.Errorf("the copy takes %d bytes", got)
	}
}

// TestEndlessHole is an entry of a few bytes that stands for more than any disk.
func TestEndlessHole(t *testing.T) {
	b := bytes.NewBuffer(sparseStream(t, 1<<62))
	err := Unpack(b, openDir(t, t.TempDir()), Options{IgnoreOwner: true})
	if err == nil || !strings.Contains(err.Error(), "sparse files have more than") {
		t.Errorf("error is %v", err)
	}
}

// sparseStream holds a file of the given size that is one hole.
func sparseStream(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	p := packer{tw: tar.NewWriter(io.Discard), out: &b, buf: make([]byte, 4096)}
	if err := p.sparse(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: "x", Mode: 0o644, Size: size}, nil, nil); err != nil {
		t.Fatal(err)
	}
	b.Write(make([]byte, 2*blockSize))
	return b.Bytes()
}
