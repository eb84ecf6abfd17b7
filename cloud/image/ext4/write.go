package ext4

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"
	"strings"
	"time"
)

// The layout of file systems made by Write: blocks of 4 KiB, groups of 128 MiB with an inode for
// every 16 KiB, no journal.
const (
	writeBlock  = 4096
	writeInode  = 256
	groupBlocks = 8 * writeBlock
	groupInodes = groupBlocks / 4
	tableBlocks = groupInodes * writeInode / writeBlock
	firstInode  = 11
	rootInode   = 2

	maxExtent   = 32768             // blocks
	nodeEntries = writeBlock/12 - 1 // entries in a block of an extent tree
	maxLinks    = 65000
	maxFile     = (1<<32 - 1) * writeBlock // bytes
)

// maxHoles limits the total size of the holes in a file system, in bytes. A few bytes of an archive
// can declare any size, and all of it is processed.
const maxHoles = 1 << 40

// minSize is the size of the smallest file system that Write supports, in bytes.
const minSize = 16 << 20

// Write makes an ext4 file system of size bytes with the files of a tar archive, in which a
// directory must precede its content. The device must read as zeros. If ctx ends, Write fails with
// its cause.
func Write(ctx context.Context, device io.WriterAt, size int64, archive io.Reader) error {
	if size < minSize || size/writeBlock > 1<<32-1 {
		return fmt.Errorf("a file system cannot have a size of %d bytes", size)
	}
	w := newWriter(ctx, device, size)
	for t := tar.NewReader(archive); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return w.finish()
		}
		if err == nil {
			err = w.add(h, t)
		}
		if err != nil {
			return fmt.Errorf("making a file system: %w", err)
		}
	}
}

// node is an inode to be written.
type node struct {
	mode     uint16
	uid, gid int
	size     int64
	mtime    time.Time
	links    int
	flags    uint32
	block    [60]byte // extents, target of a short link, or device number
	blocks   int64    // blocks in use
	acl      uint32   // block with the attributes
	entries  []dirEntry
	parent   uint32
}

// dirEntry is a directory entry.
type dirEntry struct {
	name string
	ino  uint32
	kind byte
}

type writer struct {
	ctx    context.Context // the context of Write
	device io.WriterAt
	blocks int64 // of the whole file system
	groups int64
	gdt    int64 // blocks of the group descriptor table
	nodes  []*node
	names  map[string]uint32 // inode numbers by path
	used   []byte            // bitmap of all blocks
	next   int64             // all blocks before it are in use
	free   int64
	holes  int64 // total size of the holes in files, in bytes
	buf    []byte
}

func newWriter(ctx context.Context, device io.WriterAt, size int64) *writer {
	w := &writer{ctx: ctx, device: device, blocks: size / writeBlock, names: map[string]uint32{}, buf: make([]byte, 64*writeBlock)}
	w.groups = (w.blocks + groupBlocks - 1) / groupBlocks
	w.gdt = (w.groups*32 + writeBlock - 1) / writeBlock
	if last := w.blocks - (w.groups-1)*groupBlocks; w.groups > 1 && last < w.overhead(w.groups-1)+64 {
		w.groups-- // too small for a group's metadata
		w.blocks = w.groups * groupBlocks
		w.gdt = (w.groups*32 + writeBlock - 1) / writeBlock
	}
	w.used = make([]byte, w.groups*writeBlock)
	w.free = w.blocks
	for g := range w.groups {
		for b := range w.overhead(g) {
			w.take(g*groupBlocks + b)
		}
	}
	for b := w.blocks; b < w.groups*groupBlocks; b++ { // these do not exist
		w.used[b/8] |= 1 << (b % 8)
	}
	w.nodes = make([]*node, firstInode) // indexed by inode number; the first ones are reserved
	w.nodes[rootInode] = &node{mode: modeDir | 0o755, links: 2, parent: rootInode}
	w.names[""] = rootInode
	found := w.node(&node{mode: modeDir | 0o700, links: 2, parent: rootInode})
	w.nodes[rootInode].links++
	w.names["lost+found"] = found
	w.nodes[rootInode].entries = []dirEntry{{"lost+found", found, 2}}
	return w
}

// copied reports whether a group contains a backup of the superblock and the group descriptors.
func copied(g int64) bool {
	for _, base := range []int64{3, 5, 7} {
		n := base
		for n < g {
			n *= base
		}
		if n == g {
			return true
		}
	}
	return g <= 1
}

// overhead returns the number of blocks of metadata at the start of a group.
func (w *writer) overhead(g int64) int64 {
	if copied(g) {
		return 1 + w.gdt + 2 + tableBlocks
	}
	return 2 + tableBlocks
}

func (w *writer) take(b int64) {
	w.used[b/8] |= 1 << (b % 8)
	w.free--
}

// alloc allocates a block.
func (w *writer) alloc() (int64, error) {
	for ; w.next < w.blocks; w.next++ {
		if w.used[w.next/8]&(1<<(w.next%8)) == 0 {
			w.take(w.next)
			return w.next, nil
		}
	}
	return 0, errors.New("the volume is too small for what is on it")
}

func (w *writer) write(block int64, data []byte) error {
	_, err := w.device.WriteAt(data, block*writeBlock)
	return err
}

// node adds an inode and returns its number.
func (w *writer) node(n *node) uint32 {
	w.nodes = append(w.nodes, n)
	return uint32(len(w.nodes) - 1)
}

// add adds the file of an archive entry.
func (w *writer) add(h *tar.Header, content io.Reader) error {
	name := strings.Trim(path.Clean("/"+h.Name), "/")
	dir, base := path.Split(name)
	parent, ok := w.names[strings.TrimSuffix(dir, "/")]
	if !ok || w.nodes[parent].mode&modeKind != modeDir {
		return fmt.Errorf("%q: the entry of its directory must come first", h.Name)
	}
	if _, again := w.names[name]; again && (name != "" && name != "lost+found" || h.Typeflag != tar.TypeDir) {
		return fmt.Errorf("%q: it occurs twice", h.Name)
	}
	if len(base) > 255 {
		return fmt.Errorf("%q: its name is too long", h.Name)
	}
	if h.Typeflag == tar.TypeLink {
		return w.link(h, parent, name, base)
	}
	n := &node{mode: uint16(h.Mode & 0o7777), uid: h.Uid, gid: h.Gid, mtime: h.ModTime, links: 1, parent: parent}
	kind, err := w.fill(n, h, content)
	if err == nil {
		err = w.attributes(n, h)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	if name == "" || name == "lost+found" { // these exist already
		was := w.nodes[w.names[name]]
		was.mode, was.uid, was.gid, was.mtime, was.acl, was.blocks = n.mode, n.uid, n.gid, n.mtime, n.acl, n.blocks
		return nil
	}
	ino := w.node(n)
	if kind == 2 {
		n.links = 2
		w.nodes[parent].links++
	}
	w.names[name] = ino
	w.nodes[parent].entries = append(w.nodes[parent].entries, dirEntry{base, ino, kind})
	return nil
}

func (w *writer) link(h *tar.Header, parent uint32, name, base string) error {
	ino, ok := w.names[strings.Trim(path.Clean("/"+h.Linkname), "/")]
	if !ok || w.nodes[ino].mode&modeKind == modeDir || w.nodes[ino].links == maxLinks {
		return fmt.Errorf("%q: it cannot be a link to %q", h.Name, h.Linkname)
	}
	w.nodes[ino].links++
	w.names[name] = ino
	w.nodes[parent].entries = append(w.nodes[parent].entries, dirEntry{base, ino, kindOf(w.nodes[ino].mode)})
	return nil
}

// kindOf returns the file type for a directory entry.
func kindOf(mode uint16) byte {
	return map[uint16]byte{modeFile: 1, modeDir: 2, modeChar: 3, modeBlock: 4, modeFIFO: 5, modeSocket: 6, modeLink: 7}[mode&modeKind]
}

// fill sets the type and content of an inode.
func (w *writer) fill(n *node, h *tar.Header, content io.Reader) (kind byte, err error) {
	switch h.Typeflag {
	case tar.TypeDir:
		n.mode |= modeDir
	case tar.TypeReg:
		n.mode |= modeFile
		n.size = h.Size
		err = w.content(n, content)
	case tar.TypeSymlink:
		n.mode |= modeLink
		n.size = int64(len(h.Linkname))
		switch {
		case len(h.Linkname) < len(n.block):
			copy(n.block[:], h.Linkname)
		case len(h.Linkname) >= writeBlock:
			err = errors.New("its target is too long")
		default:
			err = w.content(n, strings.NewReader(h.Linkname))
		}
	case tar.TypeFifo:
		n.mode |= modeFIFO
	case tar.TypeChar, tar.TypeBlock:
		n.mode |= modeChar
		if h.Typeflag == tar.TypeBlock {
			n.mode = n.mode&^modeKind | modeBlock
		}
		if major, minor := uint32(h.Devmajor), uint32(h.Devminor); major < 256 && minor < 256 {
			binary.LittleEndian.PutUint32(n.block[:], major<<8|minor)
		} else {
			binary.LittleEndian.PutUint32(n.block[4:], minor&0xff|major<<8|(minor&^0xff)<<12)
		}
	default:
		err = fmt.Errorf("entries of the type %q are not supported", h.Typeflag)
	}
	return kindOf(n.mode), err
}

var errHoles = holesError{}

// holesError is the error of files that have too many holes.
type holesError struct{}

func (holesError) Error() string {
	return fmt.Sprintf("with it, the files have more than %d bytes of holes, or more data than fits on the volume", int64(maxHoles))
}

// content writes the content of a file. Blocks of zeros become holes.
func (w *writer) content(n *node, r io.Reader) error {
	switch {
	case n.size > maxFile:
		return fmt.Errorf("it has %d bytes; a file can have at most %d", n.size, int64(maxFile))
	case n.size-w.free*writeBlock > maxHoles-w.holes: // too large even if every block is a hole
		return errHoles
	}
	var all []extent
	for at := int64(0); at*writeBlock < n.size; {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		part := w.buf[:min(int64(len(w.buf)), n.size-at*writeBlock)]
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		whole := (len(part) + writeBlock - 1) / writeBlock * writeBlock
		clear(w.buf[len(part):whole])
		for block := range slices.Chunk(w.buf[:whole], writeBlock) {
			var err error
			if all, err = w.append(all, at, block); err != nil {
				return err
			}
			at++
		}
	}
	for _, e := range all {
		n.blocks += e.count
	}
	return w.extents(n, all)
}

// append writes a block of a file, with the number at, unless it is a hole, and returns the extents
// including it. all are the extents of the blocks before it.
func (w *writer) append(all []extent, at int64, block []byte) ([]extent, error) {
	if block[0] == 0 && bytes.Equal(block[1:], block[:len(block)-1]) { // all zeros
		if w.holes += writeBlock; w.holes > maxHoles {
			return nil, errHoles
		}
		return all, nil
	}
	b, err := w.alloc()
	if err == nil {
		err = w.write(b, block)
	}
	if err != nil {
		return nil, err
	}
	if last := len(all) - 1; last >= 0 && all[last].from+all[last].count == at && all[last].at+all[last].count == b && all[last].count < maxExtent {
		all[last].count++
		return all, nil
	}
	return append(all, extent{at, 1, b}), nil
}

// extents stores the extents of an inode: up to four in the inode itself, otherwise in a tree.
func (w *writer) extents(n *node, all []extent) error {
	n.flags |= flagExtents
	level := uint16(0)
	for ; len(all) > 4; level++ {
		var above []extent
		for part := range slices.Chunk(all, nodeEntries) {
			b, err := w.alloc()
			if err != nil {
				return err
			}
			n.blocks++
			data := make([]byte, writeBlock)
			layOut(data, part, level)
			if err := w.write(b, data); err != nil {
				return err
			}
			above = append(above, extent{from: part[0].from, at: b})
		}
		all = above
	}
	layOut(n.block[:], all, level)
	return nil
}

// layOut encodes a node of an extent tree: extents at level 0, child nodes at higher levels.
func layOut(node []byte, all []extent, level uint16) {
	binary.LittleEndian.PutUint16(node, 0xf30a)
	binary.LittleEndian.PutUint16(node[2:], uint16(len(all)))
	binary.LittleEndian.PutUint16(node[4:], uint16(len(node)/12-1))
	binary.LittleEndian.PutUint16(node[6:], level)
	for i, e := range all {
		at := node[12+12*i:]
		binary.LittleEndian.PutUint32(at, uint32(e.from))
		if level > 0 {
			binary.LittleEndian.PutUint32(at[4:], uint32(e.at))
			binary.LittleEndian.PutUint16(at[8:], uint16(e.at>>32))
			continue
		}
		binary.LittleEndian.PutUint16(at[4:], uint16(e.count))
		binary.LittleEndian.PutUint16(at[6:], uint16(e.at>>32))
		binary.LittleEndian.PutUint32(at[8:], uint32(e.at))
	}
}

// attribute is an extended attribute in its form on disk.
type attribute struct {
	index byte
	name  string
	value []byte
}

// attributes writes the extended attributes of an entry, if any, to a block.
func (w *writer) attributes(n *node, h *tar.Header) error {
	var all []attribute
	room := writeBlock - 32 - 4
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		a := attribute{value: []byte(value)}
		switch name {
		case "system.posix_acl_access":
			a.index, a.value = 2, diskList(a.value)
		case "system.posix_acl_default":
			a.index, a.value = 3, diskList(a.value)
		default:
			for prefix, index := range map[string]byte{"user.": 1, "trusted.": 4, "security.": 6} {
				if rest, ok := strings.CutPrefix(name, prefix); ok {
					a.index, a.name = index, rest
				}
			}
		}
		if a.index == 0 || len(a.name) > 255 {
			return fmt.Errorf("the attribute %q cannot be stored", name)
		}
		room -= 16 + (len(a.name)+3)&^3 + (len(a.value)+3)&^3
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil
	}
	if room < 0 {
		return errors.New("its attributes have more than 4 KiB")
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name)) < 0
	})
	b, err := w.alloc()
	if err != nil {
		return err
	}
	n.acl = uint32(b)
	n.blocks++
	return w.write(b, attributeBlock(all))
}

// attributeBlock encodes attributes: entries from the start of the block, values from the end.
func attributeBlock(all []attribute) []byte {
	data := make([]byte, writeBlock)
	binary.LittleEndian.PutUint32(data, 0xea020000)
	binary.LittleEndian.PutUint32(data[4:], 1) // reference count
	binary.LittleEndian.PutUint32(data[8:], 1) // number of blocks
	at, end, whole := 32, writeBlock, uint32(0)
	for _, a := range all {
		end -= (len(a.value) + 3) &^ 3
		copy(data[end:], a.value)
		sum := uint32(0)
		for i := range len(a.name) {
			sum = sum<<5 ^ sum>>27 ^ uint32(a.name[i])
		}
		for i := 0; i < len(a.value); i += 4 {
			sum = sum<<16 ^ sum>>16 ^ binary.LittleEndian.Uint32(data[end+i:])
		}
		whole = whole<<16 ^ whole>>16 ^ sum
		e := data[at:]
		e[0], e[1] = byte(len(a.name)), a.index
		if len(a.value) > 0 {
			binary.LittleEndian.PutUint16(e[2:], uint16(end))
		}
		binary.LittleEndian.PutUint32(e[8:], uint32(len(a.value)))
		binary.LittleEndian.PutUint32(e[12:], sum)
		copy(e[16:], a.name)
		at += 16 + (len(a.name)+3)&^3
	}
	binary.LittleEndian.PutUint32(data[12:], whole)
	return data
}

// diskList is the inverse of accessList.
func diskList(list []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, 1)
	for list = list[min(4, len(list)):]; len(list) >= 8; list = list[8:] {
		out = append(out, list[:4]...)
		if tag := binary.LittleEndian.Uint16(list); tag == 2 || tag == 8 {
			out = append(out, list[4:8]...)
		}
	}
	return out
}

// finish writes the directories, the inodes and the metadata of the groups.
func (w *writer) finish() error {
	if int64(len(w.nodes)-1) > w.groups*groupInodes {
		return fmt.Errorf("the volume is too small for %d files", len(w.nodes))
	}
	for ino, n := range w.nodes {
		if n != nil && n.mode&modeKind == modeDir {
			if err := w.directory(uint32(ino), n); err != nil {
				return err
			}
		}
	}
	for ino, n := range w.nodes {
		if n == nil {
			continue
		}
		group, index := int64(ino-1)/groupInodes, int64(ino-1)%groupInodes
		if _, err := w.device.WriteAt(n.raw(), w.table(group)*writeBlock+index*writeInode); err != nil {
			return err
		}
	}
	return w.describe()
}

// table returns the first block of a group's inode table.
func (w *writer) table(g int64) int64 { return g*groupBlocks + w.overhead(g) - tableBlocks }

// directory writes the entries of a directory.
func (w *writer) directory(ino uint32, n *node) error {
	all := append([]dirEntry{{".", ino, 2}, {"..", n.parent, 2}}, n.entries...)
	var data bytes.Buffer
	block := make([]byte, 0, writeBlock)
	last := 0
	flush := func() {
		binary.LittleEndian.PutUint16(block[last+4:], uint16(writeBlock-last)) // the last entry extends to the end of the block
		data.Write(block)
		data.Write(make([]byte, writeBlock-len(block)))
		block = block[:0]
	}
	for _, e := range all {
		size := 8 + (len(e.name)+3)&^3
		if len(block)+size > writeBlock {
			flush()
		}
		last = len(block)
		block = binary.LittleEndian.AppendUint32(block, e.ino)
		block = binary.LittleEndian.AppendUint16(block, uint16(size))
		block = append(block, byte(len(e.name)), e.kind)
		block = append(block, e.name...)
		block = append(block, make([]byte, size-8-len(e.name))...)
	}
	flush()
	n.size = int64(data.Len())
	return w.content(n, &data)
}

// raw returns the inode in its form on disk.
func (n *node) raw() []byte {
	raw := make([]byte, writeInode)
	binary.LittleEndian.PutUint16(raw, n.mode)
	binary.LittleEndian.PutUint16(raw[2:], uint16(n.uid))
	binary.LittleEndian.PutUint16(raw[0x78:], uint16(n.uid>>16))
	binary.LittleEndian.PutUint16(raw[0x18:], uint16(n.gid))
	binary.LittleEndian.PutUint16(raw[0x7a:], uint16(n.gid>>16))
	binary.LittleEndian.PutUint32(raw[4:], uint32(n.size))
	binary.LittleEndian.PutUint32(raw[0x6c:], uint32(n.size>>32))
	seconds := n.mtime.Unix()
	if n.mtime.IsZero() {
		seconds = 0
	}
	for _, at := range []int{8, 0xc, 0x10} { // access, change and modification time
		binary.LittleEndian.PutUint32(raw[at:], uint32(seconds))
	}
	epoch := uint32((seconds-int64(int32(seconds)))>>32) & 3
	nanos := uint32(n.mtime.Nanosecond())
	binary.LittleEndian.PutUint16(raw[0x80:], 32)
	for _, at := range []int{0x84, 0x88, 0x8c} {
		binary.LittleEndian.PutUint32(raw[at:], nanos<<2|epoch)
	}
	links := n.links
	if n.mode&modeKind == modeDir && links > maxLinks { // see super
		links = 1
	}
	binary.LittleEndian.PutUint16(raw[0x1a:], uint16(links))
	binary.LittleEndian.PutUint32(raw[0x1c:], uint32(n.blocks*(writeBlock/512)))
	binary.LittleEndian.PutUint16(raw[0x74:], uint16(n.blocks*(writeBlock/512)>>32))
	binary.LittleEndian.PutUint32(raw[0x20:], n.flags)
	copy(raw[0x28:], n.block[:])
	binary.LittleEndian.PutUint32(raw[0x68:], n.acl)
	return raw
}

// describe writes the superblock, the group descriptors, their backups, and the bitmaps.
func (w *writer) describe() error {
	groups := make([]byte, w.gdt*writeBlock)
	for g := range w.groups {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		d, bitmap := groups[g*32:], w.table(g)-2
		free, dirs, inodes := 0, 0, make([]byte, writeBlock)
		for b := range int64(groupBlocks) {
			if at := g*groupBlocks + b; w.used[at/8]&(1<<(at%8)) == 0 {
				free++
			}
		}
		have := min(max(int64(len(w.nodes))-1-g*groupInodes, 0), groupInodes)
		for i := range int64(groupBlocks) {
			if i < have || i >= groupInodes { // past the end
				inodes[i/8] |= 1 << (i % 8)
			}
			if i < have {
				if n := w.nodes[g*groupInodes+i+1]; n != nil && n.mode&modeKind == modeDir {
					dirs++
				}
			}
		}
		binary.LittleEndian.PutUint32(d, uint32(bitmap))
		binary.LittleEndian.PutUint32(d[4:], uint32(bitmap+1))
		binary.LittleEndian.PutUint32(d[8:], uint32(bitmap+2))
		binary.LittleEndian.PutUint16(d[12:], uint16(free))
		binary.LittleEndian.PutUint16(d[14:], uint16(groupInodes-have))
		binary.LittleEndian.PutUint16(d[16:], uint16(dirs))
		if err := errors.Join(w.write(bitmap, w.used[g*writeBlock:(g+1)*writeBlock]), w.write(bitmap+1, inodes)); err != nil {
			return err
		}
	}
	super := w.super()
	for g := range w.groups {
		if !copied(g) {
			continue
		}
		at := g * groupBlocks * writeBlock
		if g == 0 {
			at = 1024
		}
		binary.LittleEndian.PutUint16(super[0x5a:], uint16(g))
		if _, err := w.device.WriteAt(super, at); err != nil {
			return err
		}
		if err := w.write(g*groupBlocks+1, groups); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) super() []byte {
	s := make([]byte, 1024)
	now := uint32(time.Now().Unix())
	for at, v := range map[int]uint32{
		0x00: uint32(w.groups * groupInodes), 0x04: uint32(w.blocks), 0x0c: uint32(w.free), 0x10: uint32(w.groups*groupInodes - int64(len(w.nodes)-1)),
		0x18: 2, 0x1c: 2, 0x20: groupBlocks, 0x24: groupBlocks, 0x28: groupInodes, 0x30: now, 0x40: now,
		0x4c: 1, 0x54: firstInode,
		0x5c: 0x8, // compatible features: extended attributes
		0x60: incompatFileType | incompatExtents,
		// Read-only compatible features: sparse superblocks, large files, huge files, directories
		// with more links than maxLinks (counted as 1), extra inode size.
		0x64: 0x1 | 0x2 | 0x8 | 0x20 | 0x40,
	} {
		binary.LittleEndian.PutUint32(s[at:], v)
	}
	binary.LittleEndian.PutUint16(s[0x36:], 0xffff) // maximal mount count before a check: unlimited
	binary.LittleEndian.PutUint16(s[0x38:], 0xef53)
	binary.LittleEndian.PutUint16(s[0x3a:], 1) // state: clean
	binary.LittleEndian.PutUint16(s[0x3c:], 1) // on errors: continue
	binary.LittleEndian.PutUint16(s[0x58:], writeInode)
	_, _ = rand.Read(s[0x68:0x78]) // the UUID; rand.Read never fails
	s[0x6e], s[0x70] = s[0x6e]&0x0f|0x40, s[0x70]&0x3f|0x80
	binary.LittleEndian.PutUint16(s[0x15c:], 32)
	binary.LittleEndian.PutUint16(s[0x15e:], 32)
	return s
}
