package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openDir(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func stream(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, strings.Repeat("x", int(h.Size)))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReplace unpacks entries that occur twice: the later one wins.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	b := stream(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "a", Mode: 0o500},
		tar.Header{Typeflag: tar.TypeReg, Name: "a/b/c", Mode: 0o644, Size: 3},
		tar.Header{Typeflag: tar.TypeReg, Name: "a/b/c", Mode: 0o600, Size: 5},
		tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "d/e", Mode: 0o644, Size: 1},
		tar.Header{Typeflag: tar.TypeReg, Name: "d", Mode: 0o644, Size: 2},
		tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: 2},
		tar.Header{Typeflag: tar.TypeDir, Name: "f", Mode: 0o711},
	)
	if err := Unpack(bytes.NewReader(b), openDir(t, dir), Options{IgnoreOwner: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode os.FileMode
		size int64
	}{"a": {os.ModeDir | 0o500, -1}, "a/b/c": {0o600, 5}, "d": {0o644, 2}, "f": {os.ModeDir | 0o711, -1}} {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if st.Mode() != want.mode || want.size >= 0 && st.Size() != want.size {
			t.Errorf("%s is %v with %d bytes", name, st.Mode(), st.Size())
		}
	}
}

// TestMerge merges three layers, as a copy and as a stream: a name that is deleted, replaced or in an
// opaque directory hides what lies below it, in all lower layers, and nothing else.
func TestMerge(t *testing.T) {
	dir := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
	}
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
	}
	var layers []*os.File
	for _, entries := range [][]tar.Header{
		{dir("./", 0o755), dir("both", 0o700), file("both/top"), file("deleted/.wh.b"), file("tofile"), dir("todir", 0o755), file("todir/new"), file(".wh.first")},
		{dir("./", 0o711), dir("both", 0o750), file("both/middle"), file(".wh.again"), dir("opaque", 0o755), file("opaque/.wh..wh..opq"), file("opaque/middle")},
		{dir("./", 0o700), file("again/x"), dir("both", 0o755), file("both/bottom"), file("both/top"), file("deleted/a"), file("deleted/b"), file("opaque/bottom"),
			file("tofile/x"), file("todir"), file("first"), link("second", "first"), link("third", "first")},
	} {
		layer := openDir(t, t.TempDir())
		if err := Unpack(bytes.NewReader(stream(t, entries...)), layer, Options{IgnoreOwner: true}); err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layer)
	}
	copied := openDir(t, t.TempDir())
	var ofCopy, merged bytes.Buffer
	err := errors.Join(Merge(layers, copied, Options{IgnoreOwner: true}), Pack(copied, &ofCopy), PackMerged(layers, &merged))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(bytes.NewReader(merged.Bytes())); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		got = append(got, strings.TrimSuffix(fmt.Sprintf("%s %o %s", h.Name, h.Mode, h.Linkname), " "))
	}
	want := []string{"./ 755", "both/ 700", "both/bottom 644", "both/middle 644", "both/top 644", "deleted/ 755", "deleted/a 644",
		"opaque/ 755", "opaque/middle 644", "second 644", "third 644 second", "todir/ 755", "todir/new 644", "tofile 644"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if !bytes.Equal(ofCopy.Bytes(), merged.Bytes()) {
		t.Error("the copy is not what the stream has")
	}
}

func TestPackRefusesWhatItCannotSay(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".wh.x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Pack(openDir(t, dir), io.Discard); err == nil || !strings.Contains(err.Error(), ".wh.x") {
		t.Errorf("error is %v", err)
	}
}

// TestNames checks that an error names its entry once, and no operation.
func TestNames(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	dst := openDir(t, t.TempDir())
	if err := os.Remove(dst.Name()); err != nil {
		t.Fatal(err)
	}
	err := Clone(openDir(t, src), dst, Options{IgnoreOwner: true})
	if err == nil || err.Error() != "create file: no such file or directory" {
		t.Errorf("error is %v", err)
	}
	err = Unpack(bytes.NewReader(stream(t, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "b"})), openDir(t, t.TempDir()), Options{IgnoreOwner: true})
	if err == nil || err.Error() != `"a": link to "b": no such file or directory` {
		t.Errorf("error is %v", err)
	}
}

// TestSecondNames checks that a file that is omitted is omitted under all of its names.
func TestSecondNames(t *testing.T) {
	devices := stream(t,
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o644, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeLink, Name: "zero", Linkname: "null"},
		tar.Header{Typeflag: tar.TypeLink, Name: "again", Linkname: "zero"},
	)
	dir := t.TempDir()
	err := withoutDevices(func() error {
		return Unpack(bytes.NewReader(devices), openDir(t, dir), Options{IgnoreOwner: true})
	})
	if names, readErr := os.ReadDir(dir); err != nil || readErr != nil || len(names) != 0 {
		t.Errorf("%v, %v, %v", names, err, readErr)
	}
}

// withoutDevices calls f in a thread that may not create device nodes.
func withoutDevices(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends here too
		header, able := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		err := unix.Capget(&header, &able[0])
		able[0].Effective &^= 1 << unix.CAP_MKNOD
		if err == nil {
			err = unix.Capset(&header, &able[0])
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// TestNoLongerAFile replaces a file between two system calls.
func TestNoLongerAFile(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "file"), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		w := walker{to: &Archive{}}
		done <- w.file(int(openDir(t, dir).Fd()), "file", &tar.Header{Name: "file"})
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "the layer changed while it was read") {
			t.Errorf("error is %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for somebody who writes to the FIFO")
	}
}

// TestCutAnywhere truncates a stream at every block: the result is never accepted as complete.
func TestCutAnywhere(t *testing.T) {
	b := stream(t,
		tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644, Size: 700},
		tar.Header{Typeflag: tar.TypeReg, Name: "b", Mode: 0o644, Size: 1},
	)
	for n := 0; n < len(b)-2*blockSize; n += 100 {
		if err := Unpack(bytes.NewReader(b[:n]), openDir(t, t.TempDir()), Options{IgnoreOwner: true}); err == nil {
			t.Errorf("the first %d of %d bytes were unpacked", n, len(b))
		}
	}
}

// FuzzUnpack unpacks arbitrary data. Nothing outside of the directory may be written.
func FuzzUnpack(f *testing.F) {
	f.Add(stream(f, tar.Header{Typeflag: tar.TypeReg, Name: "a/b", Mode: 0o644, Size: 9}))
	f.Add(stream(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, tar.Header{Typeflag: tar.TypeReg, Name: "l/x", Size: 1}))
	f.Add(stream(f, tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../x"}))
	f.Add(stream(f, tar.Header{Typeflag: tar.TypeReg, Name: ".wh..wh..opq"}, tar.Header{Typeflag: tar.TypeReg, Name: ".wh...", Size: 0}))
	f.Add(sparseStream(f, 1<<20))
	f.Fuzz(func(t *testing.T, b []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "layer")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		err := Unpack(bytes.NewReader(b), openDir(t, dir), Options{IgnoreOwner: true, maxHoles: 16 << 20})
		names, readErr := os.ReadDir(parent)
		if readErr != nil || len(names) != 1 {
			t.Fatalf("beside the layer: %v, %v", names, readErr)
		}
		if err == nil {
			if err := Pack(openDir(t, dir), io.Discard); err != nil && !strings.Contains(err.Error(), "marks a deletion") {
				t.Errorf("what was unpacked does not pack: %v", err)
			}
		}
	})
}
