package ext4_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bake/cloud/image/ext4"
)

// makeTree creates files in dir, of all kinds that do not require root.
func makeTree(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, data []byte, mode os.FileMode) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(os.WriteFile(filepath.Join(dir, name), data, 0o600))
		must(os.Chmod(filepath.Join(dir, name), mode))
	}
	random := rand.New(rand.NewPCG(1, 2))
	large := make([]byte, 3<<20+17)
	for i := range large {
		large[i] = byte(random.Uint32())
	}
	write("bin/sh", []byte("#!"), 0o755)
	write("bin/sudo", []byte("setuid"), 0o4755|os.ModeSetuid)
	write("empty", nil, 0o644)
	write("tiny", []byte("inline"), 0o644)
	write("inline-100", bytes.Repeat([]byte("x"), 100), 0o644)
	write("large", large, 0o640)
	write("a/b/c/deep", []byte("deep"), 0o444)
	for i := range 700 { // sufficient for an index
		write(fmt.Sprintf("many/file-%04d-%s", i, strings.Repeat("n", i%120)), []byte{byte(i)}, 0o644)
	}
	// Holes at the start, in the middle and at the end, and many extents.
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	for i := range 400 {
		_, err := sparse.WriteAt([]byte("block"), int64(2*i+1)*4096)
		must(err)
	}
	must(sparse.Truncate(900 * 4096))
	must(sparse.Close())
	must(os.Symlink("bin/sh", filepath.Join(dir, "link")))
	must(os.Symlink("/"+strings.Repeat("long/", 30), filepath.Join(dir, "long-link")))
	must(os.Link(filepath.Join(dir, "large"), filepath.Join(dir, "large-again")))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(os.Chmod(filepath.Join(dir, "a"), 0o1777|os.ModeSticky))
}

// item is what a test compares of a file.
type item struct{ Mode, Link, Sum string }

func sum(r io.Reader) string {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return fmt.Sprintf("%d bytes, %x, %v", n, h.Sum(nil)[:6], err)
}

func onDisk(t *testing.T, dir string) map[string]item {
	t.Helper()
	out := map[string]item{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		it := item{Mode: info.Mode().String()}
		switch {
		case info.Mode().Type() == fs.ModeSymlink:
			it.Link, err = os.Readlink(name)
		case info.Mode().IsRegular():
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			it.Sum = sum(f)
		}
		out[rel] = it
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func inTar(t *testing.T, r io.Reader) map[string]item {
	t.Helper()
	out := map[string]item{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if name == "." {
			continue // its mode depends on the program that made the file system
		}
		if h.Typeflag == tar.TypeLink {
			out[name] = out[h.Linkname]
			continue
		}
		it := item{Mode: h.FileInfo().Mode().String(), Link: h.Linkname}
		if h.Typeflag == tar.TypeReg {
			it.Sum = sum(tr)
		}
		out[name] = it
	}
}

func makeDisk(t *testing.T, tree string, options ...string) string {
	t.Helper()
	tool, err := exec.LookPath("mke2fs")
	if err != nil {
		if tool, err = exec.LookPath("/usr/sbin/mke2fs"); err != nil {
			t.Skip("there is no mke2fs here to make file systems with")
		}
	}
	disk := filepath.Join(t.TempDir(), "disk")
	args := append([]string{"-q", "-F", "-d", tree}, options...)
	if out, err := exec.Command(tool, append(args, disk, "48M")...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return disk
}

// TestWriteTar reads file systems made by e2fsprogs.
func TestWriteTar(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	makeTree(t, tree)
	want := onDisk(t, tree)
	for name, options := range map[string][]string{
		"ext4":            {"-t", "ext4"},
		"small blocks":    {"-t", "ext4", "-b", "1024"},
		"small inodes":    {"-t", "ext4", "-I", "128"},
		"inline data":     {"-t", "ext4", "-O", "inline_data", "-I", "256"},
		"without 64 bits": {"-t", "ext4", "-O", "^64bit,^metadata_csum"},
		"ext3":            {"-t", "ext3", "-b", "1024"},
		"ext2":            {"-t", "ext2", "-O", "^filetype", "-b", "4096"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(makeDisk(t, tree, options...))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fsys, err := ext4.Open(f, sizeOf(t, f))
			if err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			if err := fsys.WriteTar(&archive); err != nil {
				t.Fatal(err)
			}
			want, got := maps.Clone(want), inTar(t, &archive)
			if name == "inline data" { // here mke2fs omits the hole at the end
				delete(want, "sparse")
				delete(got, "sparse")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the tree differs (-made +read):\n%s", diff)
			}
		})
	}
}

// TestAttributes reads owners, device numbers and extended attributes, which debugfs can write
// without root.
func TestAttributes(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "ping"), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	disk := makeDisk(t, tree, "-t", "ext4")
	commands := "sif ping uid 70000\nsif ping gid 33\nea_set ping security.capability cap\nea_set ping user.note " + strings.Repeat("n", 300) +
		"\nmknod null c 1 3\nmknod disk b 259 3\n"
	debugfs := exec.Command("/usr/sbin/debugfs", "-w", "-f", "-", disk)
	debugfs.Stdin = strings.NewReader(commands)
	if out, err := debugfs.CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsys, err := ext4.Open(f, sizeOf(t, f))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := fsys.WriteTar(&archive); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for tr := tar.NewReader(&archive); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = fmt.Sprint(h.Uid, h.Gid, h.Devmajor, h.Devminor, h.PAXRecords["SCHILY.xattr.security.capability"], len(h.PAXRecords["SCHILY.xattr.user.note"]))
	}
	want := map[string]string{"./": fmt.Sprint(0, 0, 0, 0, "", 0), "ping": fmt.Sprint(70000, 33, 0, 0, "cap", 300), "null": fmt.Sprint(0, 0, 1, 3, "", 0), "disk": fmt.Sprint(0, 0, 259, 3, "", 0)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// FuzzOpen reads damaged file systems.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, patch []byte, at, at2 uint32) {
		disk := small(t)
		for i, b := range patch {
			where := int64(at) + int64(i)
			if i >= len(patch)/2 {
				where = int64(at2) + int64(i)
			}
			disk[where%int64(len(disk))] = b
		}
		fsys, err := ext4.Open(bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			return
		}
		written := limited{left: 64 << 20}
		if _ = fsys.WriteTar(&written); written.left < 0 { // any other error is acceptable
			t.Error("256 KiB hold more than 64 MiB")
		}
	})
}

// limited is a writer that fails after left bytes.
type limited struct{ left int }

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

// small returns a copy of a file system of 256 KiB.
func small(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/small.ext4")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func sizeOf(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
