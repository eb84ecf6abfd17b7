package image_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"bake/cloud/image"
	"bake/cloud/image/disk"
	"bake/cloud/machine/machinetest"
)

// packed returns a layer as a tar.
func packed(t *testing.T, s *image.Store, id image.LayerID) []byte {
	t.Helper()
	path, err := s.Path(id)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := (&machinetest.Driver{}).Pack(t.Context(), path, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// systemDir creates a directory with files of all kinds that do not require root.
func systemDir(t *testing.T) string {
	t.Helper()
	dir := makeUpper(t, "bin/sh", "etc/motd", "etc/empty", "var/holes")
	at := time.Unix(1_700_000_000, 123_456_789)
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0\nann:x:1000:1000\n"), 0o600),
		os.Link(filepath.Join(dir, "bin/sh"), filepath.Join(dir, "bin/ash")),
		os.Symlink("../bin/sh", filepath.Join(dir, "etc/shell")),
		os.Symlink(strings.Repeat("../", 40)+"x", filepath.Join(dir, "etc/long")),
		unix.Mkfifo(filepath.Join(dir, "var/pipe"), 0o600),
		os.Truncate(filepath.Join(dir, "etc/empty"), 0),
		os.Truncate(filepath.Join(dir, "var/holes"), 30<<20),
		unix.Setxattr(filepath.Join(dir, "etc/motd"), "user.note", []byte("kept"), 0),
		os.Chmod(filepath.Join(dir, "bin"), 0o751|os.ModeSetgid),
		os.Chmod(dir, 0o711),
	)
	for _, name := range []string{"etc/motd", "var/holes", "var", "etc", "bin", "."} {
		err = errors.Join(err, os.Chtimes(filepath.Join(dir, name), at, at))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestImportDiskBase checks that a base made from an exported disk has the same content, byte for
// byte.
func TestImportDiskBase(t *testing.T) {
	s, ctx := openStore(t, t.TempDir()), t.Context()
	id, err := freeze(ctx, s, systemDir(t))
	if err != nil {
		t.Fatal(err)
	}
	var reports []image.Progress
	o := image.ImportOptions{Name: "disk", Source: "disk.raw", Progress: func(p image.Progress) { reports = append(reports, p) }}
	var base image.Base
	const size = 1<<30 + 1<<20
	err = s.ExportDisk(ctx, []image.LayerID{id}, size, func(_, _ int64) {}, func(f *os.File) error {
		if format := disk.Detect(f, size); format != "raw" {
			t.Errorf("the disk is taken for %q", format)
		}
		d, err := disk.Open(f, size, "raw")
		if err != nil {
			return err
		}
		base, err = s.ImportDiskBase(ctx, d, o)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if base.User != "ann" || base.Size != 2 || len(base.Layers) != 1 {
		t.Errorf("%+v", base)
	}
	if last := reports[len(reports)-1]; last.Done == 0 || last.Total == 0 {
		t.Errorf("the last report is %+v", last)
	}
	if want, got := packed(t, s, id), packed(t, s, base.Layers[0]); !bytes.Equal(want, got) {
		t.Errorf("the layer of %d bytes has become one of %d", len(want), len(got))
	}
}

// TestImportDiskRefuses checks that nothing remains of an import that is refused.
func TestImportDiskRefuses(t *testing.T) {
	dir := t.TempDir()
	s, ctx := openStore(t, dir), t.Context()
	id, err := freeze(ctx, s, systemDir(t))
	if err != nil {
		t.Fatal(err)
	}
	before := len(work(t, dir))
	err = s.ExportDisk(ctx, []image.LayerID{id}, 64<<20, func(_, _ int64) {}, func(f *os.File) error {
		content, err := os.ReadFile(f.Name())
		if err != nil {
			return err
		}
		here := len(work(t, dir))
		for want, broken := range map[string][]byte{
			"is truncated":            content[:len(content)/2],
			"file system is damaged":  bytes.ReplaceAll(content, []byte{0x0a, 0xf3, 1, 0}, []byte{0, 0, 1, 0}),
			"contains a Linux system": make([]byte, 1<<20),
			`has the name "m/td"`:     bytes.ReplaceAll(content, []byte("\x04\x01motd"), []byte("\x04\x01m/td")),
		} {
			d, err := disk.Open(bytes.NewReader(broken), int64(len(broken)), "raw")
			if err != nil {
				return err
			}
			_, err = s.ImportDiskBase(ctx, d, image.ImportOptions{Name: "refused"})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		if left := work(t, dir); len(left) != here {
			t.Errorf("what is left: %q", left)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left := work(t, dir); len(left) != before {
		t.Errorf("what is left: %q", left)
	}
}

// TestUnpackDisk: a compressed disk becomes a file without a name that takes no more room than
// what is on it; a truncated one is an error; any other file is left alone.
func TestUnpackDisk(t *testing.T) {
	dir := t.TempDir()
	s, ctx := openStore(t, dir), t.Context()
	before := len(work(t, dir))
	content := make([]byte, 3<<20+7)
	copy(content[510:], "\x55\xaa")
	copy(content[1<<20:], "in the middle")
	content[len(content)-1] = 1
	compressed := func(to func(io.Writer) (io.WriteCloser, error), plain []byte) []byte {
		t.Helper()
		var b bytes.Buffer
		w, err := to(&b)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(plain)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	toGzip := func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }
	files := map[string][]byte{
		"gzip": compressed(toGzip, content),
		"xz":   compressed(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }, content),
		"zstd": compressed(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }, content),
	}
	if path, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.CommandContext(ctx, path, "-c")
		cmd.Stdin = bytes.NewReader(content)
		if files["bzip2"], err = cmd.Output(); err != nil {
			t.Fatal(err)
		}
	}
	file := func(packed []byte) *os.File {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "packed"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(packed, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	unpack := func(packed []byte) (*os.File, *os.File) {
		t.Helper()
		f := file(packed)
		out, err := s.UnpackDisk(ctx, f, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f, out
	}
	for name, packed := range files {
		f, out := unpack(packed)
		if out == nil {
			t.Errorf("%s: not taken for a disk", name)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(out, 0, 1<<30))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes are not what was packed: %v", name, len(got), err)
		}
		var info unix.Stat_t
		if err := unix.Fstat(int(out.Fd()), &info); err != nil || info.Blocks*512 > 1<<20 || info.Nlink != 0 {
			t.Errorf("%s: it takes %d blocks and has %d names: %v", name, info.Blocks, info.Nlink, err)
		}
		part := file(packed[:len(packed)-len(packed)/4])
		if cut, err := s.UnpackDisk(ctx, part, nil); cut != nil || err == nil && name != "bzip2" { // whose only block is not complete
			t.Errorf("%s: a truncated disk is unpacked: %v", name, err)
		}
		_ = part.Close()
		if err := errors.Join(out.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	}
	for name, other := range map[string][]byte{"plain": content, "an archive": compressed(toGzip, []byte("no disk")), "empty": nil} {
		f, out := unpack(other)
		if at, err := f.Seek(0, io.SeekCurrent); out != nil || at != 0 || err != nil {
			t.Errorf("%s: %v, at %d, %v", name, out, at, err)
		}
		_ = f.Close()
	}
	if left := work(t, dir); len(left) != before {
		t.Errorf("what is left: %q", left)
	}
}

// TestUnpackDiskFormats: a compressed disk is recognized whatever its format.
func TestUnpackDiskFormats(t *testing.T) {
	s := openStore(t, t.TempDir())
	names, err := filepath.Glob("disk/testdata/*.gz")
	if err != nil || len(names) < 12 {
		t.Fatalf("%q, %v", names, err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.UnpackDisk(t.Context(), f, nil)
		if err != nil || out == nil {
			t.Fatalf("%s: %v, %v", name, out, err)
		}
		info, err := out.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := disk.Detect(out, info.Size()), strings.TrimPrefix(filepath.Ext(strings.TrimSuffix(name, ".gz")), "."); got != want {
			t.Errorf("%s is taken for %q", name, got)
		}
		if err := errors.Join(out.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestUnpackDiskSparse: zeros on a disk take no room, so that however many there are, they are no
// decompression bomb; what does take room is.
func TestUnpackDiskSparse(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	before := len(work(t, dir))
	for _, test := range []struct {
		content byte
		want    string
	}{{0, ""}, {1, "decompression bomb"}} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			t.Fatal(err)
		}
		block := bytes.Repeat([]byte{test.content}, 1<<20)
		copy(block[510:], "\x55\xaa")
		for range 1<<10 + 8 {
			if _, err := w.Write(block); err != nil {
				t.Fatal(err)
			}
			copy(block[510:], []byte{test.content, test.content})
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		out, err := s.UnpackDisk(t.Context(), f, nil)
		if (out != nil) != (test.want == "") || err != nil && (test.want == "" || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("a disk of bytes %d: %v, %v", test.content, out, err)
		}
		_ = out.Close()
	}
	if left := work(t, dir); len(left) != before {
		t.Errorf("what is left: %q", left)
	}
}

// TestUnpackDiskCut: a compressed disk that is cut off is refused, and not taken for a smaller one.
func TestUnpackDiskCut(t *testing.T) {
	s := openStore(t, t.TempDir())
	content := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(content)
	copy(content[510:], "\x55\xaa")
	for name, to := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := to(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Close(), f.Truncate(600<<10)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if out, err := s.UnpackDisk(t.Context(), f, nil); out != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
}
