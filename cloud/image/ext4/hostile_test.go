package ext4

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// made returns a file system with the directory etc (inode 12) and in it the files a and b (inodes
// 13 and 14) of eight blocks each.
func made(t *testing.T) []byte {
	t.Helper()
	content := strings.Repeat("data", 8*writeBlock/4)
	headers := []*tar.Header{
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "etc/a", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))},
		{Name: "etc/b", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))},
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(minSize); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), f, minSize, pack(t, headers, map[string]string{"etc/a": content, "etc/b": content})); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// count counts the bytes written to it and fails after a limit.
type count struct{ n, limit int }

func (c *count) Write(p []byte) (int, error) {
	if c.n += len(p); c.n > c.limit {
		return 0, os.ErrDeadlineExceeded
	}
	return len(p), nil
}

// TestHostile checks that inconsistent file systems are rejected, and that the amount of data read
// from them is limited.
func TestHostile(t *testing.T) {
	for name, test := range map[string]struct {
		change func(disk []byte, inode func(n int) []byte)
		want   string // the expected error; "" if only the size is checked
	}{
		"untouched":       {func([]byte, func(int) []byte) {}, ""},
		"a hole of 16 TB": {func(_ []byte, inode func(int) []byte) { binary.LittleEndian.PutUint32(inode(13)[0x6c:], 1<<12) }, ""},
		"a cut": {func(disk []byte, _ func(int) []byte) {
			binary.LittleEndian.PutUint32(disk[1024+4:], minSize/writeBlock+1)
		}, "it is truncated"},
		"more blocks than there are": {func(_ []byte, inode func(int) []byte) {
			for n := 13; n <= 14; n++ { // each has most of the blocks
				binary.LittleEndian.PutUint32(inode(n)[4:], 3000*writeBlock)
				layOut(inode(n)[0x28:][:60], []extent{{0, 3000, 1}}, 0)
			}
		}, "they overlap"},
		"overlapping extents": {func(_ []byte, inode func(int) []byte) {
			layOut(inode(13)[0x28:][:60], []extent{{0, 8, 600}, {4, 8, 600}}, 0)
		}, "extents overlap"},
		"extents beyond": {func(_ []byte, inode func(int) []byte) {
			layOut(inode(13)[0x28:][:60], []extent{{0, 8, minSize/writeBlock - 4}}, 0)
		}, "an extent is invalid"},
		"a tree that contains itself": {func(disk []byte, inode func(int) []byte) { // one node for each level, each with 340 times the entries of the one below
			node := make([]extent, nodeEntries)
			for level := range 5 {
				at := int64(3000 + level)
				for i := range node {
					node[i] = extent{from: int64(i), at: at - 1, count: 1}
				}
				layOut(disk[at*writeBlock:][:writeBlock], node, uint16(level))
			}
			layOut(disk[3000*writeBlock:][:writeBlock], nil, 0)
			layOut(inode(13)[0x28:][:60], []extent{{from: 0, at: 3004}}, 5)
		}, "there is a loop"},
		"a map of blocks that contains itself": {func(disk []byte, inode func(int) []byte) {
			n := inode(13)
			binary.LittleEndian.PutUint32(n[0x20:], 0) // no extents
			binary.LittleEndian.PutUint32(n[0x6c:], 1<<10)
			for at := range writeBlock / 4 {
				binary.LittleEndian.PutUint32(disk[3000*writeBlock+4*at:], 3000)
			}
			clear(n[0x28:][:60])
			binary.LittleEndian.PutUint32(n[0x28+14*4:], 3000)
		}, "there is a loop"},
		"a directory in itself": {func(disk []byte, _ func(int) []byte) { binary.LittleEndian.PutUint32(named(disk), 12) }, "it is also the directory /etc"},
		"a name with a slash":   {func(disk []byte, _ func(int) []byte) { copy(named(disk)[8:], "/") }, `has the name "/"`},
		"a link of 1 GB": {func(_ []byte, inode func(int) []byte) {
			binary.LittleEndian.PutUint16(inode(13), modeLink|0o777)
			binary.LittleEndian.PutUint32(inode(13)[4:], 1<<30)
		}, "is too large"},
		"large group entries": {func(disk []byte, _ func(int) []byte) {
			binary.LittleEndian.PutUint32(disk[1024+0x60:], 0x42|incompat64)
			binary.LittleEndian.PutUint16(disk[1024+0xfe:], 65535)
		}, "superblock is inconsistent"},
		"many small groups": {func(disk []byte, _ func(int) []byte) {
			binary.LittleEndian.PutUint32(disk[1024+0x20:], 1)
			binary.LittleEndian.PutUint32(disk[1024+0x28:], 1)
			binary.LittleEndian.PutUint32(disk[1024:], 4000)
		}, ""},
		"many inodes": {func(disk []byte, _ func(int) []byte) {
			binary.LittleEndian.PutUint32(disk[1024:], 1<<31)
			binary.LittleEndian.PutUint32(disk[1024+0x28:], 1<<31)
		}, "superblock is inconsistent"},
	} {
		t.Run(name, func(t *testing.T) {
			disk := made(t)
			table := int(binary.LittleEndian.Uint32(disk[writeBlock+8:]))
			test.change(disk, func(n int) []byte { return disk[table*writeBlock+(n-1)*writeInode:][:writeInode] })
			fs, err := Open(bytes.NewReader(disk), int64(len(disk)))
			written := count{limit: 2 * minSize}
			if err == nil {
				err = fs.WriteTar(&written)
			}
			if test.want == "" && written.n > written.limit || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%d bytes, %v; want %q", written.n, err, test.want)
			}
		})
	}
}

// named returns the entry of the file b in its directory, where it is the last one.
func named(disk []byte) []byte {
	rest := binary.LittleEndian.AppendUint16(nil, writeBlock-12-12-12)
	return disk[bytes.Index(disk, slices.Concat([]byte{14, 0, 0, 0}, rest, []byte{1, 1, 'b'})):]
}

// TestNames checks that file names with a special meaning in layers are rejected, and paths that
// are too long.
func TestNames(t *testing.T) {
	deep := []*tar.Header{}
	path := ""
	for range 20 {
		path += strings.Repeat("d", 250) + "/"
		deep = append(deep, &tar.Header{Name: path, Typeflag: tar.TypeDir, Mode: 0o755})
	}
	for want, headers := range map[string][]*tar.Header{
		"more than 4095 bytes": deep,
		"marks a deletion":     {{Name: ".wh.x", Typeflag: tar.TypeReg}},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := Write(t.Context(), f, minSize, pack(t, headers, nil)); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(minSize); err != nil {
			t.Fatal(err)
		}
		fs, err := Open(f, minSize)
		if err != nil {
			t.Fatal(err)
		}
		if err := fs.WriteTar(&count{limit: minSize}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
