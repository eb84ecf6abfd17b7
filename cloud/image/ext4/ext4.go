// Package ext4 reads ext2, ext3 and ext4 file systems in disk images and writes ext4, following the
// kernel's documentation (Documentation/filesystems/ext4).
package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"bake/cloud/machine/layer"
)

// ErrNot is the error if there is no such file system.
var ErrNot = errors.New("no ext2, ext3 or ext4 file system")

// FS is a file system. It is untrusted: no block is read as content more than once, so the total
// content cannot exceed the size of the file system.
type FS struct {
	r           io.ReaderAt
	blockSize   int64
	inodeSize   int64
	perGroup    uint32 // inodes in a block group
	inodes      uint32
	blocks      int64
	free        int64
	groups      int64 // offset of the group descriptors
	descriptor  int64 // size of a group descriptor
	fileTypes   bool  // directory entries contain file types
	roomForMore bool  // inodes are larger than in ext2, with room for attributes

	unread int64 // blocks that may still be read as content
	group  int64 // the group whose inode table is at table, or -1
	table  int64
}

// The incompatible features that a reader must know and that this package supports.
const (
	incompatFileType  = 0x2
	incompatRecover   = 0x4
	incompatExtents   = 0x40
	incompat64        = 0x80
	incompatMMP       = 0x100
	incompatFlexBG    = 0x200
	incompatSeed      = 0x2000
	incompatLargeDir  = 0x4000
	incompatInline    = 0x8000
	incompatCasefold  = 0x20000
	incompatSupported = incompatFileType | incompatExtents | incompat64 | incompatMMP | incompatFlexBG |
		incompatSeed | incompatLargeDir | incompatInline | incompatCasefold
)

// Open reads the superblock of the file system on r, a device of size bytes. The error is [ErrNot]
// if there is none, and describes the problem if the file system is not supported.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	super := make([]byte, 1024)
	if _, err := r.ReadAt(super, 1024); errors.Is(err, io.EOF) {
		return nil, ErrNot
	} else if err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xef53 {
		return nil, ErrNot
	}
	incompat, logBlock := binary.LittleEndian.Uint32(super[0x60:]), binary.LittleEndian.Uint32(super[0x18:])
	switch {
	case incompat&incompatRecover != 0:
		return nil, errors.New("the file system was in use when the disk was copied: its journal contains changes; mount and unmount it first")
	case incompat&^incompatSupported != 0:
		return nil, fmt.Errorf("the file system has unsupported features (%#x)", incompat&^incompatSupported)
	case logBlock > 6:
		return nil, errDamaged("its block size is impossible")
	}
	fs := &FS{
		r: r, blockSize: 1024 << logBlock, inodeSize: 128, perGroup: binary.LittleEndian.Uint32(super[0x28:]), inodes: binary.LittleEndian.Uint32(super),
		fileTypes: incompat&incompatFileType != 0,
	}
	if binary.LittleEndian.Uint32(super[0x4c:]) > 0 { // revision 1 has variable inode sizes
		fs.inodeSize = int64(binary.LittleEndian.Uint16(super[0x58:]))
	}
	blocks, perGroup, first := int64(binary.LittleEndian.Uint32(super[4:])), int64(binary.LittleEndian.Uint32(super[0x20:])), int64(binary.LittleEndian.Uint32(super[0x14:]))
	fs.descriptor, fs.free = 32, int64(binary.LittleEndian.Uint32(super[0xc:]))
	if incompat&incompat64 != 0 {
		fs.descriptor = int64(binary.LittleEndian.Uint16(super[0xfe:]))
		blocks |= int64(binary.LittleEndian.Uint32(super[0x150:])) << 32
		fs.free |= int64(binary.LittleEndian.Uint32(super[0x158:])) << 32
	}
	if fs.inodeSize < 128 || fs.inodeSize > fs.blockSize || fs.perGroup == 0 || perGroup == 0 || fs.descriptor < 32 || fs.descriptor > fs.blockSize || blocks <= first || blocks > 1<<48 {
		return nil, errDamaged("its superblock is inconsistent")
	}
	if blocks > size/fs.blockSize {
		return nil, fmt.Errorf("the file system has %d bytes, and the disk or partition only %d: it is truncated", blocks*fs.blockSize, size)
	}
	fs.roomForMore, fs.blocks, fs.groups, fs.group = fs.inodeSize > 128, blocks, (first+1)*fs.blockSize, -1
	groups := (blocks - first + perGroup - 1) / perGroup
	if int64(fs.inodes) > groups*int64(fs.perGroup) || int64(fs.inodes)*fs.inodeSize > blocks*fs.blockSize || groups*fs.descriptor > blocks*fs.blockSize {
		return nil, errDamaged("its superblock is inconsistent")
	}
	fs.unread = blocks
	return fs, nil
}

// Used returns the number of bytes in use according to the superblock.
func (fs *FS) Used() int64 { return max(0, fs.blocks-fs.free) * fs.blockSize }

// use counts blocks that are read as content.
func (fs *FS) use(blocks int64) error {
	if fs.unread -= blocks; fs.unread < 0 {
		return errDamaged("its files have more blocks than there are: they overlap, or there is a loop")
	}
	return nil
}

// inodeTable returns the first block of a group's inode table.
func (fs *FS) inodeTable(group int64) (int64, error) {
	if group == fs.group {
		return fs.table, nil
	}
	d := make([]byte, fs.descriptor)
	if _, err := fs.r.ReadAt(d, fs.groups+group*fs.descriptor); err != nil {
		return 0, fmt.Errorf("reading the table of block groups: %w", err)
	}
	fs.group, fs.table = group, int64(binary.LittleEndian.Uint32(d[8:]))
	if fs.descriptor >= 64 {
		fs.table |= int64(binary.LittleEndian.Uint32(d[0x28:])) << 32
	}
	return fs.table, nil
}

func errDamaged(what string) error { return fmt.Errorf("the file system is damaged: %s", what) }

// inode is the inode of a file, a directory and so on.
type inode struct {
	number uint32
	raw    []byte
	mode   uint16
	uid    int
	gid    int
	size   int64
	mtime  time.Time
	links  uint16
	flags  uint32
}

const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000
)

// File types in an inode's mode.
const (
	modeKind   = 0xf000
	modeFIFO   = 0x1000
	modeChar   = 0x2000
	modeDir    = 0x4000
	modeBlock  = 0x6000
	modeFile   = 0x8000
	modeLink   = 0xa000
	modeSocket = 0xc000
)

func (fs *FS) inode(number uint32) (*inode, error) {
	if number == 0 || number > fs.inodes {
		return nil, errDamaged(fmt.Sprintf("there is no inode %d", number))
	}
	group, index := (number-1)/fs.perGroup, (number-1)%fs.perGroup
	table, err := fs.inodeTable(int64(group))
	if err != nil {
		return nil, err
	}
	raw := make([]byte, fs.inodeSize)
	if _, err := fs.r.ReadAt(raw, table*fs.blockSize+int64(index)*fs.inodeSize); err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", number, err)
	}
	n := &inode{
		number: number, raw: raw, mode: binary.LittleEndian.Uint16(raw), links: binary.LittleEndian.Uint16(raw[0x1a:]), flags: binary.LittleEndian.Uint32(raw[0x20:]),
		uid: int(binary.LittleEndian.Uint16(raw[2:])) | int(binary.LittleEndian.Uint16(raw[0x78:]))<<16, gid: int(binary.LittleEndian.Uint16(raw[0x18:])) | int(binary.LittleEndian.Uint16(raw[0x7a:]))<<16,
		size: int64(binary.LittleEndian.Uint32(raw[4:])),
	}
	seconds, nanoseconds := int64(int32(binary.LittleEndian.Uint32(raw[0x10:]))), int64(0)
	if kind := n.mode & modeKind; kind == modeFile || kind == modeDir {
		n.size |= int64(binary.LittleEndian.Uint32(raw[0x6c:])) << 32
	}
	if fs.extra(raw) >= 0x8c-0x80 {
		seconds += int64(binary.LittleEndian.Uint32(raw[0x88:])&3) << 32
		nanoseconds = int64(binary.LittleEndian.Uint32(raw[0x88:]) >> 2)
	}
	n.mtime = time.Unix(seconds, nanoseconds)
	if n.size < 0 {
		return nil, errDamaged(fmt.Sprintf("the size of inode %d is negative", number))
	}
	if n.flags&flagEncrypted != 0 {
		return nil, fmt.Errorf("inode %d is encrypted", number)
	}
	return n, nil
}

// extra returns how many bytes of an inode are in use beyond ext2's 128.
func (fs *FS) extra(raw []byte) int {
	if !fs.roomForMore {
		return 0
	}
	return min(int(binary.LittleEndian.Uint16(raw[0x80:])), len(raw)-128)
}

// extent is a run of blocks of a file.
type extent struct {
	from, count int64 // blocks, relative to the file
	at          int64 // block on the disk; 0 means a hole
}

// contents is the content of a file. Holes read as zeros.
type contents struct {
	io.ReaderAt
	size int64
	data []layer.Segment // segments that may contain non-zero bytes, in order
}

// content returns the content of a file. It must be called only once for each file.
func (fs *FS) content(n *inode) (contents, error) {
	if n.flags&flagInline != 0 {
		data, err := fs.inline(n)
		return contents{bytes.NewReader(data), n.size, []layer.Segment{{Offset: 0, Length: n.size}}}, err
	}
	var extents []extent
	var err error
	if n.flags&flagExtents != 0 {
		extents, err = fs.extents(nil, n.raw[0x28:0x28+60], -1)
	} else {
		extents, err = fs.blockMap(n)
	}
	if err != nil {
		return contents{}, fmt.Errorf("inode %d: %w", n.number, err)
	}
	var data []layer.Segment
	for _, e := range extents {
		start, end := e.from*fs.blockSize, min((e.from+e.count)*fs.blockSize, n.size)
		switch last := len(data) - 1; {
		case e.at == 0 || start >= end:
		case last >= 0 && data[last].Offset+data[last].Length == start:
			data[last].Length += end - start
		default:
			data = append(data, layer.Segment{Offset: start, Length: end - start})
		}
	}
	return contents{&reader{fs: fs, extents: extents, size: n.size}, n.size, data}, nil
}

// extents appends the extents in a node of an extent tree. depth is the depth that the parent
// implies, or -1 for the root.
func (fs *FS) extents(out []extent, node []byte, depth int) ([]extent, error) {
	if binary.LittleEndian.Uint16(node) != 0xf30a {
		return nil, errDamaged("an extent tree node is invalid")
	}
	entries, level := int(binary.LittleEndian.Uint16(node[2:])), int(binary.LittleEndian.Uint16(node[6:]))
	if level > 5 || depth >= 0 && level != depth || 12+entries*12 > len(node) {
		return nil, errDamaged("an extent tree node is inconsistent")
	}
	for i := range entries {
		e := node[12+i*12:]
		if level == 0 {
			x := extent{int64(binary.LittleEndian.Uint32(e)), int64(binary.LittleEndian.Uint16(e[4:])), int64(binary.LittleEndian.Uint32(e[8:])) | int64(binary.LittleEndian.Uint16(e[6:]))<<32}
			if x.count > 32768 { // allocated but not written
				x.count, x.at = x.count-32768, 0
			}
			var err error
			if out, err = fs.appendExtent(out, x); err != nil {
				return nil, err
			}
			continue
		}
		block, err := fs.block(int64(binary.LittleEndian.Uint32(e[4:])) | int64(binary.LittleEndian.Uint16(e[8:]))<<32)
		if err == nil {
			err = fs.use(1)
		}
		if err == nil {
			out, err = fs.extents(out, block, level-1)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// appendExtent appends an extent to the extents before it in a file.
func (fs *FS) appendExtent(all []extent, x extent) ([]extent, error) {
	last := len(all) - 1
	switch {
	case x.count == 0 || x.at+x.count > fs.blocks:
		return nil, errDamaged("an extent is invalid")
	case last >= 0 && x.from < all[last].from+all[last].count:
		return nil, errDamaged("extents overlap")
	}
	if err := fs.use(x.count); err != nil {
		return nil, err
	}
	if last >= 0 && x.at != 0 && all[last].at != 0 && x.from == all[last].from+all[last].count && x.at == all[last].at+all[last].count {
		all[last].count += x.count
		return all, nil
	}
	return append(all, x), nil
}

func (fs *FS) block(number int64) ([]byte, error) {
	b := make([]byte, fs.blockSize)
	if _, err := fs.r.ReadAt(b, number*fs.blockSize); err != nil {
		return nil, fmt.Errorf("reading block %d: %w", number, err)
	}
	return b, nil
}

// blockMap reads the block map of a file on ext2 or ext3: twelve direct blocks, followed by trees
// of one, two and three levels.
func (fs *FS) blockMap(n *inode) ([]extent, error) {
	var (
		out   []extent
		next  int64 // number of the next block in the file
		limit = n.size/fs.blockSize + 1
		per   = fs.blockSize / 4
	)
	var tree func(at int64, level int) error
	tree = func(at int64, level int) (err error) {
		covered := int64(1)
		for range level {
			covered *= per
		}
		switch {
		case next >= limit:
			return nil
		case at == 0:
			next += covered
			return nil
		case level == 0:
			out, err = fs.appendExtent(out, extent{next, 1, at})
			next++
			return err
		}
		block, err := fs.block(at)
		if err == nil {
			err = fs.use(1)
		}
		if err != nil {
			return err
		}
		for i := range per {
			if err := tree(int64(binary.LittleEndian.Uint32(block[i*4:])), level-1); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range 15 {
		if err := tree(int64(binary.LittleEndian.Uint32(n.raw[0x28+i*4:])), max(0, i-11)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// reader reads the content of a file.
type reader struct {
	fs      *FS
	extents []extent // sorted
	size    int64
}

// ReadAt implements [io.ReaderAt].
func (r *reader) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = r.read(b[n:], off+int64(n))
		n += k
	}
	return n, err
}

// read reads up to the end of the current extent or hole.
func (r *reader) read(b []byte, off int64) (int, error) {
	if off >= r.size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), r.size-off)]
	bs := r.fs.blockSize
	next := sort.Search(len(r.extents), func(i int) bool { return (r.extents[i].from+r.extents[i].count)*bs > off })
	if next < len(r.extents) {
		e := r.extents[next]
		if start := e.from * bs; start > off {
			b = b[:min(int64(len(b)), start-off)]
		} else {
			b = b[:min(int64(len(b)), (e.from+e.count)*bs-off)]
			if e.at != 0 {
				n, err := r.fs.r.ReadAt(b, e.at*bs+off-start)
				if n == len(b) {
					return n, nil
				}
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return n, err
			}
		}
	}
	clear(b)
	return len(b), nil
}

// maxSmall limits what is read into memory as a whole: directories and symbolic links.
const maxSmall = 64 << 20

// all returns the complete content of a small file.
func (fs *FS) all(n *inode) ([]byte, error) {
	if n.size > maxSmall {
		return nil, errDamaged(fmt.Sprintf("inode %d is too large", n.number))
	}
	c, err := fs.content(n)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(c, 0, c.size))
}

// inline returns the content of a file that is stored in its inode.
func (fs *FS) inline(n *inode) ([]byte, error) {
	attributes, err := fs.attributes(n, true)
	if err != nil {
		return nil, err
	}
	data := append(append([]byte(nil), n.raw[0x28:0x28+60]...), attributes["system.data"]...)
	if int64(len(data)) < n.size {
		return nil, errDamaged(fmt.Sprintf("the content of inode %d is truncated", n.number))
	}
	return data[:n.size], nil
}

// entry is a directory entry.
type entry struct {
	name  string
	inode uint32
}

// entries returns the entries of a directory except "." and "..". Index blocks look like blocks
// without entries.
func (fs *FS) entries(n *inode) ([]entry, error) {
	data, err := fs.all(n)
	if err != nil {
		return nil, err
	}
	var out []entry
	if n.flags&flagInline != 0 {
		if len(data) < 4 {
			return nil, errDamaged(fmt.Sprintf("directory %d is truncated", n.number))
		}
		head := data[4:min(60, len(data))] // after the inode number of the parent
		if out, err = fs.appendEntries(out, n, head); err == nil && len(data) > 60 {
			out, err = fs.appendEntries(out, n, data[60:])
		}
		return out, err
	}
	for len(data) > 0 {
		block := data[:min(int64(len(data)), fs.blockSize)]
		if out, err = fs.appendEntries(out, n, block); err != nil {
			return nil, err
		}
		data = data[len(block):]
	}
	return out, nil
}

func (fs *FS) appendEntries(out []entry, dir *inode, block []byte) ([]entry, error) {
	for len(block) >= 8 {
		length, name := int(binary.LittleEndian.Uint16(block[4:])), int(block[6])
		if !fs.fileTypes {
			name |= int(block[7]) << 8
		}
		if length == 0 && fs.blockSize == 1<<16 {
			length = 1 << 16
		}
		if length < 8 || length > len(block) || 8+name > length {
			return nil, errDamaged(fmt.Sprintf("directory %d is damaged", dir.number))
		}
		number, text := binary.LittleEndian.Uint32(block), string(block[8:8+name])
		if strings.ContainsAny(text, "/\x00") {
			return nil, errDamaged(fmt.Sprintf("directory %d has the name %q", dir.number, text))
		}
		if number != 0 && text != "." && text != ".." && name > 0 {
			out = append(out, entry{text, number})
		}
		block = block[length:]
	}
	return out, nil
}

// prefixes are the prefixes of attribute names, at their number on disk.
var prefixes = []string{
	1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security.", 7: "system.", 8: "system.richacl",
}

// attributes returns the extended attributes of an inode. They include the one with inline content
// only if inline is set.
func (fs *FS) attributes(n *inode, inline bool) (map[string][]byte, error) {
	out := map[string][]byte{}
	if start := 128 + fs.extra(n.raw); fs.roomForMore && start+4 <= len(n.raw) && binary.LittleEndian.Uint32(n.raw[start:]) == 0xea020000 {
		area := n.raw[start+4:]
		if err := readAttributes(out, area, area); err != nil {
			return nil, fmt.Errorf("inode %d: %w", n.number, err)
		}
	}
	if at := int64(binary.LittleEndian.Uint32(n.raw[0x68:])) | int64(binary.LittleEndian.Uint16(n.raw[0x76:]))<<32; at != 0 {
		block, err := fs.block(at)
		if err != nil {
			return nil, err
		}
		if binary.LittleEndian.Uint32(block) != 0xea020000 {
			return nil, errDamaged(fmt.Sprintf("the attributes of inode %d are invalid", n.number))
		}
		if err := readAttributes(out, block[32:], block); err != nil {
			return nil, fmt.Errorf("inode %d: %w", n.number, err)
		}
	}
	if !inline {
		delete(out, "system.data")
	}
	return out, nil
}

// readAttributes parses attribute entries. The offsets of their values are relative to base.
func readAttributes(out map[string][]byte, entries, base []byte) error {
	for len(entries) >= 4 && binary.LittleEndian.Uint32(entries) != 0 {
		if len(entries) < 16 {
			return errDamaged("an attribute is truncated")
		}
		name, offset, size := int(entries[0]), int(binary.LittleEndian.Uint16(entries[2:])), int(binary.LittleEndian.Uint32(entries[8:]))
		if binary.LittleEndian.Uint32(entries[4:]) != 0 {
			return errors.New("attributes that are stored in separate inodes are not supported")
		}
		end := (16 + name + 3) &^ 3
		if end > len(entries) || size < 0 || offset+size > len(base) {
			return errDamaged("an attribute extends beyond its block")
		}
		key := string(entries[16 : 16+name])
		if prefix := int(entries[1]); prefix < len(prefixes) {
			key = prefixes[prefix] + key
		}
		out[key] = base[offset : offset+size]
		entries = entries[end:]
	}
	return nil
}
