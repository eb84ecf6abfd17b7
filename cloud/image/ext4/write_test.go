package ext4

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// files returns archive entries of all kinds, and their contents.
func files() (headers []*tar.Header, contents map[string]string) {
	at := time.Unix(1_700_000_000, 123_456_789)
	contents = map[string]string{"etc/passwd": "root:x:0:0\n", "empty": "", "holes": strings.Repeat("\x00", 3*writeBlock) + "x" + strings.Repeat("\x00", 50*writeBlock) + "y"}
	add := func(h tar.Header) {
		h.ModTime, h.Format = at, tar.FormatPAX
		h.Size = int64(len(contents[h.Name]))
		headers = append(headers, &h)
	}
	add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755})
	add(tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 7, Gid: 100_000})
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00", "SCHILY.xattr.user.b": "1", "SCHILY.xattr.user.a": "", "SCHILY.xattr.user.longer": "value",
		"SCHILY.xattr.system.posix_acl_access": "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"}})
	add(tar.Header{Name: "empty", Typeflag: tar.TypeReg, Mode: 0o4755})
	add(tar.Header{Name: "holes", Typeflag: tar.TypeReg, Mode: 0o600, Uid: 1000, Gid: 1000})
	add(tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "etc/passwd"})
	add(tar.Header{Name: "short", Typeflag: tar.TypeSymlink, Linkname: "etc/passwd", Mode: 0o777})
	add(tar.Header{Name: "long", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("../", 40) + "x", Mode: 0o777})
	add(tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600})
	add(tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3})
	add(tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 259, Devminor: 70000})
	add(tar.Header{Name: "many/", Typeflag: tar.TypeDir, Mode: 0o755})
	for i := range 1000 { // more names than fit into a block
		add(tar.Header{Name: fmt.Sprintf("many/%d-%s", i, strings.Repeat("n", i%200)), Typeflag: tar.TypeReg, Mode: 0o644})
	}
	var scattered strings.Builder // more extents than fit into an inode
	for i := range 1500 {
		scattered.WriteString(fmt.Sprint(i) + strings.Repeat("z", writeBlock-len(fmt.Sprint(i))) + strings.Repeat("\x00", writeBlock))
	}
	contents["scattered"] = scattered.String()
	add(tar.Header{Name: "scattered", Typeflag: tar.TypeReg, Mode: 0o644})
	return headers, contents
}

// pack returns an archive of files.
func pack(t *testing.T, headers []*tar.Header, contents map[string]string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, contents[h.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// check runs e2fsck on a file system.
func check(t *testing.T, disk string) {
	t.Helper()
	fsck, err := exec.LookPath("/usr/sbin/e2fsck") // not in every user's PATH
	if err != nil {
		if fsck, err = exec.LookPath("e2fsck"); err != nil {
			t.Skip("there is no e2fsck here to check file systems with")
		}
	}
	if out, err := exec.CommandContext(t.Context(), fsck, "-fn", disk).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
}

// TestWrite checks that written file systems of several sizes can be read again, and that e2fsck
// finds no errors in them.
func TestWrite(t *testing.T) {
	headers, contents := files()
	for _, size := range []int64{32 << 20, 128<<20 + 4096, 1<<30 - 512, 3 << 30} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			if err := Write(t.Context(), f, size, pack(t, headers, contents)); err != nil {
				t.Fatal(err)
			}
			fs, err := Open(f, size)
			if err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			if err := fs.WriteTar(&again); err != nil {
				t.Fatal(err)
			}
			compare(t, headers, contents, &again)
			check(t, f.Name())
		})
	}
}

// compare compares an archive that was written to a file system with the archive that was read from
// it.
func compare(t *testing.T, headers []*tar.Header, contents map[string]string, archive io.Reader) {
	t.Helper()
	got := map[string]*tar.Header{}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && string(data) != contents[h.Name] {
			t.Errorf("%s holds %d bytes: %.40q", h.Name, len(data), data)
		}
		got[h.Name] = h
	}
	for _, want := range headers {
		h := got[want.Name]
		if h == nil {
			t.Errorf("%s is not there", want.Name)
			continue
		}
		mode := want.Mode
		if want.Typeflag == tar.TypeLink { // the first name has the other attributes
			mode = h.Mode
		}
		if h.Typeflag != want.Typeflag || h.Mode != mode || h.Linkname != want.Linkname || h.Devmajor != want.Devmajor || h.Devminor != want.Devminor ||
			want.Typeflag != tar.TypeLink && (h.Uid != want.Uid || h.Gid != want.Gid || !h.ModTime.Equal(want.ModTime)) {
			t.Errorf("%s is %+v", want.Name, h)
		}
		if len(want.PAXRecords) > 0 {
			for _, key := range slices.Sorted(maps.Keys(want.PAXRecords)) {
				if h.PAXRecords[key] != want.PAXRecords[key] {
					t.Errorf("%s: %s is %q, not %q", want.Name, key, h.PAXRecords[key], want.PAXRecords[key])
				}
			}
		}
	}
	if len(got) != len(headers) {
		t.Errorf("%d files, not %d", len(got), len(headers))
	}
}

// TestWriteRefuses checks that archives that a file system cannot hold are errors.
func TestWriteRefuses(t *testing.T) {
	dir := &tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}
	large := &tar.Header{Name: "large", Typeflag: tar.TypeReg, Size: 20 << 20}
	for name, test := range map[string]struct {
		headers []*tar.Header
		want    string
	}{
		"no directory": {[]*tar.Header{{Name: "d/x", Typeflag: tar.TypeReg}}, "the entry of its directory must come first"},
		"no target":    {[]*tar.Header{{Name: "x", Typeflag: tar.TypeLink, Linkname: "y"}}, "cannot be a link"},
		"a directory":  {[]*tar.Header{dir, {Name: "x", Typeflag: tar.TypeLink, Linkname: "d"}}, "cannot be a link"},
		"twice":        {[]*tar.Header{dir, {Name: "d", Typeflag: tar.TypeReg}}, "it occurs twice"},
		"above":        {[]*tar.Header{{Name: "../../x", Typeflag: tar.TypeReg}, {Name: "x", Typeflag: tar.TypeReg}}, "it occurs twice"},
		"too large":    {[]*tar.Header{large}, "too small"},
		"an attribute": {[]*tar.Header{{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.odd": "1"}}}, "cannot be stored"},
		"a long value": {[]*tar.Header{{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 5000)}}}, "more than 4 KiB"},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		err = Write(t.Context(), f, minSize, pack(t, test.headers, map[string]string{"large": strings.Repeat("x", 20<<20)}))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(t.Context(), nil, minSize-1, nil); err == nil {
		t.Error("a file system of nothing is made")
	}
}

// nothing is a device that discards all writes.
type nothing struct{}

func (nothing) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// endless is a reader of zeros. It calls called at each read, and fails if that does.
type endless struct{ called func() error }

func (e endless) Read(p []byte) (int, error) {
	if err := e.called(); err != nil {
		return 0, err
	}
	clear(p)
	return len(p), nil
}

// TestWriteEnds checks that writing a file of holes ends soon after it is cancelled.
func TestWriteEnds(t *testing.T) {
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "large", Typeflag: tar.TypeReg, Size: 1 << 39}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop, reads := errors.New("stop"), 0
	err := Write(ctx, nothing{}, minSize, io.MultiReader(&head, endless{func() error {
		if reads++; reads == 10 {
			cancel(stop)
		}
		if reads > 1000 {
			return errors.New("it is read on")
		}
		return nil
	}}))
	if !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// TestWriteBounds checks that files that are too large or have too many holes are rejected, by
// name, before they are read.
func TestWriteBounds(t *testing.T) {
	unread := endless{func() error { return errors.New("it is read") }}
	for _, test := range []struct {
		size, holes int64 // of the file, and of the files before it
		want        string
	}{
		{maxFile + 1, 0, "at most 17592186040320"},
		{maxFile, 0, "more than"},
		{1<<40 + 1, 0, "it is read"}, // its data might fit
		{1<<40 + minSize, 0, "more than"},
		{1 << 39, 1<<39 + minSize, "more than"},
	} {
		w := newWriter(t.Context(), nothing{}, minSize)
		w.holes = test.holes
		err := w.add(&tar.Header{Name: "large", Typeflag: tar.TypeReg, Size: test.size}, unread)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), `"large": `) {
			t.Errorf("%d bytes: %v, want %q", test.size, err, test.want)
		}
	}
	w := newWriter(t.Context(), nothing{}, minSize)
	w.holes = maxHoles - 10*writeBlock
	err := w.content(&node{size: 11 * writeBlock}, endless{func() error { return nil }})
	if !errors.Is(err, errHoles) {
		t.Errorf("a file with one hole too many: %v", err)
	}
}

// TestManyDirectories checks that a directory with more links than can be counted has a link count
// of 1, as the feature dir_nlink defines.
func TestManyDirectories(t *testing.T) {
	for _, test := range []struct {
		mode  uint16
		links int
		want  uint16
	}{{modeDir, maxLinks, maxLinks}, {modeDir, maxLinks + 1, 1}, {modeDir, 1<<16 + 2, 1}, {modeFile, maxLinks, maxLinks}} {
		if raw := (&node{mode: test.mode, links: test.links}).raw(); binary.LittleEndian.Uint16(raw[0x1a:]) != test.want {
			t.Errorf("%d links of %#x are %d, want %d", test.links, test.mode, binary.LittleEndian.Uint16(raw[0x1a:]), test.want)
		}
	}
	if s := newWriter(t.Context(), nothing{}, minSize).super(); binary.LittleEndian.Uint32(s[0x64:])&0x20 == 0 {
		t.Error("the file system does not say that it has such directories")
	}
}
