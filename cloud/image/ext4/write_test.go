package ext4

import (
	"archive/tar"
	"bytes"
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

// files are entries of an archive of all kinds, with what they hold.
func files() (headers []*tar.Header, contents map[string]string) {
	at := time.Unix(1_700_000_000, 0)
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
	for i := range 1000 { // more names than a block has room for
		add(tar.Header{Name: fmt.Sprintf("many/%d-%s", i, strings.Repeat("n", i%200)), Typeflag: tar.TypeReg, Mode: 0o644})
	}
	var scattered strings.Builder // more extents than an inode has room for
	for i := range 1500 {
		scattered.WriteString(fmt.Sprint(i) + strings.Repeat("z", writeBlock-len(fmt.Sprint(i))) + strings.Repeat("\x00", writeBlock))
	}
	contents["scattered"] = scattered.String()
	add(tar.Header{Name: "scattered", Typeflag: tar.TypeReg, Mode: 0o644})
	return headers, contents
}

// pack is an archive of files.
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

// TestWrite: what is written is read again, and e2fsck finds nothing wrong with it, whatever
// the size.
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
			if err := Write(f, size, pack(t, headers, contents)); err != nil {
				t.Fatal(err)
			}
			if fsck, err := exec.LookPath("e2fsck"); err == nil {
				if out, err := exec.CommandContext(t.Context(), fsck, "-fn", f.Name()).CombinedOutput(); err != nil {
					t.Errorf("e2fsck: %v: %s", err, out)
				}
			} else if !errors.Is(err, exec.ErrNotFound) {
				t.Error(err)
			}
			fs, err := Open(f)
			if err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			if err := fs.WriteTar(&again); err != nil {
				t.Fatal(err)
			}
			compare(t, headers, contents, &again)
		})
	}
}

// compare compares what was put into a file system with what has come out of it.
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
			if want.Name != "./" {
				t.Errorf("%s is not there", want.Name)
			}
			continue
		}
		mode := want.Mode
		if want.Typeflag == tar.TypeLink { // the first name has the rest
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
	if len(got) != len(headers)-1 {
		t.Errorf("%d files, not %d", len(got), len(headers)-1)
	}
}

// TestWriteRefuses: what no file system can hold is an error.
func TestWriteRefuses(t *testing.T) {
	dir := &tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}
	large := &tar.Header{Name: "large", Typeflag: tar.TypeReg, Size: 20 << 20}
	for name, test := range map[string]struct {
		headers []*tar.Header
		want    string
	}{
		"no directory": {[]*tar.Header{{Name: "d/x", Typeflag: tar.TypeReg}}, "its directory does not come before it"},
		"no target":    {[]*tar.Header{{Name: "x", Typeflag: tar.TypeLink, Linkname: "y"}}, "cannot be a link"},
		"a directory":  {[]*tar.Header{dir, {Name: "x", Typeflag: tar.TypeLink, Linkname: "d"}}, "cannot be a link"},
		"twice":        {[]*tar.Header{dir, {Name: "d", Typeflag: tar.TypeReg}}, "there are two"},
		"above":        {[]*tar.Header{{Name: "../../x", Typeflag: tar.TypeReg}, {Name: "x", Typeflag: tar.TypeReg}}, "there are two"},
		"too large":    {[]*tar.Header{large}, "too small"},
		"an attribute": {[]*tar.Header{{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.odd": "1"}}}, "cannot be kept"},
		"a long value": {[]*tar.Header{{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 5000)}}}, "more than 4 KiB"},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		err = Write(f, MinSize, pack(t, test.headers, map[string]string{"large": strings.Repeat("x", 20<<20)}))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(nil, MinSize-1, nil); err == nil {
		t.Error("a file system of nothing is made")
	}
}
