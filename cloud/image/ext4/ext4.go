// Package ext4 reads ext2, ext3 and ext4 file systems out of disk images, as the
// kernel's documentation (Documentation/filesystems/ext4) describes them.
package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrNot is the error for something that is no such file system.
var ErrNot = errors.New("no ext2, ext3 or ext4 file system")

// FS is a file system.
type FS struct {
	r           io.ReaderAt
	blockSize   int64
	inodeSize   int64
	perGroup    uint32 // inodes in a group
	inodes      uint32
	blocks      int64
	tables      []int64 // first block of each group's inode table
	fileTypes   bool    // directory entries say what they name
	roomForMore bool    // inodes are larger than ext2's, so have room for attributes
}

// The features that a reader must know of, and does.
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

var le = binary.LittleEndian

// Open reads the description of the file system that r begins with. The error is
// [ErrNot] if there is none, and says so if it is one that cannot be read.
func Open(r io.ReaderAt) (*FS, error) {
	super := make([]byte, 1024)
	if _, err := r.ReadAt(super, 1024); errors.Is(err, io.EOF) {
		return nil, ErrNot
	} else if err != nil {
		return nil, err
	}
	if le.Uint16(super[0x38:]) != 0xef53 {
		return nil, ErrNot
	}
	incompat, logBlock := le.Uint32(super[0x60:]), le.Uint32(super[0x18:])
	switch {
	case incompat&incompatRecover != 0:
		return nil, errors.New("the file system was in use when the disk was copied: its journal holds changes; mount and unmount it first")
	case incompat&^incompatSupported != 0:
		return nil, fmt.Errorf("the file system has unsupported features (%#x)", incompat&^incompatSupported)
	case logBlock > 6:
		return nil, errDamaged("its block size is impossible")
	}
	fs := &FS{
		r: r, blockSize: 1024 << logBlock, inodeSize: 128, perGroup: le.Uint32(super[0x28:]), inodes: le.Uint32(super),
		fileTypes: incompat&incompatFileType != 0,
	}
	if le.Uint32(super[0x4c:]) > 0 { // the revision that has variable inodes
		fs.inodeSize = int64(le.Uint16(super[0x58:]))
	}
	blocks, perGroup, first := int64(le.Uint32(super[4:])), int64(le.Uint32(super[0x20:])), int64(le.Uint32(super[0x14:]))
	descriptor := int64(32)
	if incompat&incompat64 != 0 {
		descriptor = int64(le.Uint16(super[0xfe:]))
		blocks |= int64(le.Uint32(super[0x150:])) << 32
	}
	if fs.inodeSize < 128 || fs.inodeSize > fs.blockSize || fs.perGroup == 0 || perGroup == 0 || descriptor < 32 || blocks <= first {
		return nil, errDamaged("its superblock is inconsistent")
	}
	fs.roomForMore, fs.blocks = fs.inodeSize > 128, blocks
	groups := (blocks - first + perGroup - 1) / perGroup
	if int64(fs.inodes) > groups*int64(fs.perGroup) || groups > 1<<22 {
		return nil, errDamaged("its superblock is inconsistent")
	}
	table := make([]byte, groups*descriptor)
	if _, err := r.ReadAt(table, (first+1)*fs.blockSize); err != nil {
		return nil, fmt.Errorf("reading the table of block groups: %w", err)
	}
	for g := range groups {
		d := table[g*descriptor:]
		at := int64(le.Uint32(d[8:]))
		if descriptor >= 64 {
			at |= int64(le.Uint32(d[0x28:])) << 32
		}
		fs.tables = append(fs.tables, at)
	}
	return fs, nil
}

func errDamaged(what string) error { return fmt.Errorf("the file system is damaged: %s", what) }

// inode is a file, directory or whatever else has one.
type inode struct {
	number uint32
	raw    []byte
	mode   uint16
	uid    int
	gid    int
	size   int64
	mtime  int64
	links  uint16
	flags  uint32
}

const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000
)

// The kinds of file, in the mode of an inode.
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
	raw := make([]byte, fs.inodeSize)
	if _, err := fs.r.ReadAt(raw, fs.tables[group]*fs.blockSize+int64(index)*fs.inodeSize); err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", number, err)
	}
	n := &inode{
		number: number, raw: raw, mode: le.Uint16(raw), links: le.Uint16(raw[0x1a:]), flags: le.Uint32(raw[0x20:]),
		uid: int(le.Uint16(raw[2:])) | int(le.Uint16(raw[0x78:]))<<16, gid: int(le.Uint16(raw[0x18:])) | int(le.Uint16(raw[0x7a:]))<<16,
		size: int64(le.Uint32(raw[4:])), mtime: int64(int32(le.Uint32(raw[0x10:]))),
	}
	if kind := n.mode & modeKind; kind == modeFile || kind == modeDir {
		n.size |= int64(le.Uint32(raw[0x6c:])) << 32
	}
	if fs.extra(raw) >= 0x8c-0x80 {
		n.mtime += int64(le.Uint32(raw[0x88:])&3) << 32
	}
	if n.size < 0 {
		return nil, errDamaged(fmt.Sprintf("the size of inode %d is negative", number))
	}
	if n.flags&flagEncrypted != 0 {
		return nil, fmt.Errorf("inode %d is encrypted", number)
	}
	return n, nil
}

// extra is how much of an inode is in use beyond ext2's 128 bytes.
func (fs *FS) extra(raw []byte) int {
	if !fs.roomForMore {
		return 0
	}
	return min(int(le.Uint16(raw[0x80:])), len(raw)-128)
}

// extent is a run of blocks of a file.
type extent struct {
	from, count int64 // in the file
	at          int64 // on the disk; 0 is a hole
}

// content returns what a file holds. Holes read as zeros.
func (fs *FS) content(n *inode) (io.Reader, error) {
	if n.flags&flagInline != 0 {
		data, err := fs.inline(n)
		if err != nil {
			return nil, err
		}
		return bytes.NewReader(data), nil
	}
	var extents []extent
	var err error
	if n.flags&flagExtents != 0 {
		nodes := fs.blocks
		extents, err = fs.extents(n.raw[0x28:0x28+60], -1, &nodes)
	} else {
		extents, err = fs.blockMap(n)
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", n.number, err)
	}
	return &reader{fs: fs, extents: extents, size: n.size}, nil
}

// extents reads a node of an extent tree. depth is that which its parent calls
// for, or -1 for the root. nodes is how many more there can be.
func (fs *FS) extents(node []byte, depth int, nodes *int64) ([]extent, error) {
	if *nodes--; *nodes < 0 {
		return nil, errDamaged("an extent tree has a loop")
	}
	if le.Uint16(node) != 0xf30a {
		return nil, errDamaged("an extent tree node is invalid")
	}
	entries, level := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
	if level > 5 || depth >= 0 && level != depth || 12+entries*12 > len(node) {
		return nil, errDamaged("an extent tree node is inconsistent")
	}
	var out []extent
	for i := range entries {
		e := node[12+i*12:]
		if level == 0 {
			x := extent{int64(le.Uint32(e)), int64(le.Uint16(e[4:])), int64(le.Uint32(e[8:])) | int64(le.Uint16(e[6:]))<<32}
			if x.count > 32768 { // reserved, but never written
				x.count, x.at = x.count-32768, 0
			}
			out = append(out, x)
			continue
		}
		block, err := fs.block(int64(le.Uint32(e[4:])) | int64(le.Uint16(e[8:]))<<32)
		if err != nil {
			return nil, err
		}
		below, err := fs.extents(block, level-1, nodes)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

func (fs *FS) block(number int64) ([]byte, error) {
	b := make([]byte, fs.blockSize)
	if _, err := fs.r.ReadAt(b, number*fs.blockSize); err != nil {
		return nil, fmt.Errorf("reading block %d: %w", number, err)
	}
	return b, nil
}

// blockMap reads the block numbers of a file of ext2 or ext3: twelve direct
// ones, and then trees of one, two and three levels.
func (fs *FS) blockMap(n *inode) ([]extent, error) {
	var (
		out   []extent
		next  int64 // block of the file
		limit = (n.size + fs.blockSize - 1) / fs.blockSize
		per   = fs.blockSize / 4
		nodes = fs.blocks // how many more blocks there can be with numbers of others
	)
	add := func(at, count int64) {
		if at != 0 {
			out = append(out, extent{next, count, at})
		}
		next += count
	}
	var tree func(at int64, level int) error
	tree = func(at int64, level int) error {
		covered := int64(1)
		for range level {
			covered *= per
		}
		if next >= limit {
			return nil
		}
		if level == 0 || at == 0 {
			if level > 0 {
				add(0, covered)
				return nil
			}
			add(at, 1)
			return nil
		}
		if nodes--; nodes < 0 {
			return errDamaged("a block map has a loop")
		}
		block, err := fs.block(at)
		if err != nil {
			return err
		}
		for i := range per {
			if err := tree(int64(le.Uint32(block[i*4:])), level-1); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range 15 {
		if err := tree(int64(le.Uint32(n.raw[0x28+i*4:])), max(0, i-11)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// reader reads a file from its start to its end.
type reader struct {
	fs      *FS
	extents []extent // in order
	size    int64
	at      int64
}

func (r *reader) Read(b []byte) (int, error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), r.size-r.at)]
	bs := r.fs.blockSize
	for len(r.extents) > 0 && (r.extents[0].from+r.extents[0].count)*bs <= r.at {
		r.extents = r.extents[1:]
	}
	if len(r.extents) > 0 {
		e := r.extents[0]
		if start := e.from * bs; start > r.at {
			b = b[:min(int64(len(b)), start-r.at)]
		} else {
			b = b[:min(int64(len(b)), (e.from+e.count)*bs-r.at)]
			if e.at != 0 {
				n, err := r.fs.r.ReadAt(b, e.at*bs+r.at-start)
				r.at += int64(n)
				if err == io.EOF && n < len(b) {
					err = io.ErrUnexpectedEOF
				} else if n == len(b) {
					err = nil
				}
				return n, err
			}
		}
	}
	clear(b)
	r.at += int64(len(b))
	return len(b), nil
}

// maxSmall bounds what is read into memory at once: directories and links.
const maxSmall = 64 << 20

// all returns the whole content of something small.
func (fs *FS) all(n *inode) ([]byte, error) {
	if n.size > maxSmall {
		return nil, errDamaged(fmt.Sprintf("inode %d is impossibly large", n.number))
	}
	r, err := fs.content(n)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// inline is the content of a file that is kept in its inode.
func (fs *FS) inline(n *inode) ([]byte, error) {
	attributes, err := fs.attributes(n, true)
	if err != nil {
		return nil, err
	}
	data := append(append([]byte(nil), n.raw[0x28:0x28+60]...), attributes["system.data"]...)
	if int64(len(data)) < n.size {
		return nil, errDamaged(fmt.Sprintf("the content of inode %d is cut off", n.number))
	}
	return data[:n.size], nil
}

// entry is what a directory names.
type entry struct {
	name  string
	inode uint32
}

// entries are those of a directory, but itself and its parent. The blocks of an
// index look like blocks without entries.
func (fs *FS) entries(n *inode) ([]entry, error) {
	data, err := fs.all(n)
	if err != nil {
		return nil, err
	}
	var out []entry
	if n.flags&flagInline != 0 {
		if len(data) < 4 {
			return nil, errDamaged(fmt.Sprintf("directory %d is cut off", n.number))
		}
		head := data[4:min(60, len(data))] // after the number of the parent
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
		length, name := int(le.Uint16(block[4:])), int(block[6])
		if !fs.fileTypes {
			name |= int(block[7]) << 8
		}
		if length == 0 && fs.blockSize == 1<<16 {
			length = 1 << 16
		}
		if length < 8 || length > len(block) || 8+name > length {
			return nil, errDamaged(fmt.Sprintf("directory %d is damaged", dir.number))
		}
		number, text := le.Uint32(block), string(block[8:8+name])
		if number != 0 && text != "." && text != ".." && name > 0 {
			out = append(out, entry{text, number})
		}
		block = block[length:]
	}
	return out, nil
}

// prefixes are the beginnings of the names of attributes, by their number.
var prefixes = map[byte]string{
	1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security.", 7: "system.", 8: "system.richacl",
}

// attributes are the extended attributes of an inode. Inline content is among
// them only if asked for.
func (fs *FS) attributes(n *inode, inline bool) (map[string][]byte, error) {
	out := map[string][]byte{}
	if start := 128 + fs.extra(n.raw); fs.roomForMore && start+4 <= len(n.raw) && le.Uint32(n.raw[start:]) == 0xea020000 {
		area := n.raw[start+4:]
		if err := readAttributes(out, area, area); err != nil {
			return nil, fmt.Errorf("inode %d: %w", n.number, err)
		}
	}
	if at := int64(le.Uint32(n.raw[0x68:])) | int64(le.Uint16(n.raw[0x76:]))<<32; at != 0 {
		block, err := fs.block(at)
		if err != nil {
			return nil, err
		}
		if le.Uint32(block) != 0xea020000 {
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

// readAttributes reads entries whose values are at offsets into base.
func readAttributes(out map[string][]byte, entries, base []byte) error {
	for len(entries) >= 4 && le.Uint32(entries) != 0 {
		if len(entries) < 16 {
			return errDamaged("an attribute is cut off")
		}
		name, offset, size := int(entries[0]), int(le.Uint16(entries[2:])), int(le.Uint32(entries[8:]))
		if le.Uint32(entries[4:]) != 0 {
			return errors.New("an attribute is in an inode of its own, which is not supported")
		}
		end := (16 + name + 3) &^ 3
		if end > len(entries) || size < 0 || offset+size > len(base) {
			return errDamaged("an attribute extends beyond its block")
		}
		key := prefixes[entries[1]] + string(entries[16:16+name])
		out[key] = base[offset : offset+size]
		entries = entries[end:]
	}
	return nil
}
