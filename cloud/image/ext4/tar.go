package ext4

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"

	"bake/cloud/machine/layer"
)

// Root returns the names in the root directory.
func (fs *FS) Root() ([]string, error) {
	root, err := fs.inode(rootInode)
	if err != nil {
		return nil, err
	}
	entries, err := fs.entries(root)
	var out []string
	for _, e := range entries {
		out = append(out, e.name)
	}
	return out, err
}

// maxPath is the length of the longest path that Linux accepts.
const maxPath = 4095

// WriteTar writes all files as a tar archive, with owners, modes, times, links, holes and extended
// attributes. It leaves out lost+found and sockets, which are useless without the process that
// listens.
func (fs *FS) WriteTar(w io.Writer) error {
	fs.unread = fs.blocks
	t := &tarWriter{fs: fs, w: layer.NewArchive(w), seen: map[uint32]string{}}
	if err := t.entry(".", rootInode); err != nil {
		return err
	}
	return t.w.Close()
}

type tarWriter struct {
	fs   *FS
	w    *layer.Archive
	seen map[uint32]string // first path of each inode
}

func (t *tarWriter) directory(name string, n *inode) error {
	entries, err := t.fs.entries(n)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name == "." && e.name == "lost+found" {
			continue
		}
		if err := t.entry(path.Join(name, e.name), e.inode); err != nil {
			return fmt.Errorf("/%s: %w", path.Join(name, e.name), err)
		}
	}
	return nil
}

func (t *tarWriter) entry(name string, number uint32) error {
	switch {
	case len(name) > maxPath:
		return fmt.Errorf("its path has more than %d bytes", maxPath)
	case layer.MarksDeletion(path.Base(name)):
		return errors.New("in an image, a file of this name marks a deletion: rename or delete it")
	}
	n, err := t.fs.inode(number)
	if err != nil {
		return err
	}
	h := &tar.Header{
		Name: name, Mode: int64(n.mode & 0o7777), Uid: n.uid, Gid: n.gid, ModTime: n.mtime, Format: tar.FormatPAX,
	}
	kind := n.mode & modeKind
	if number == rootInode && kind != modeDir {
		return errDamaged("its root is not a directory")
	}
	if first, ok := t.seen[number]; ok {
		if kind == modeDir {
			return errDamaged(fmt.Sprintf("it is also the directory /%s", first))
		}
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return t.w.Entry(h)
	}
	t.seen[number] = name
	attributes, err := t.fs.attributes(n, false)
	if err != nil {
		return err
	}
	for k, v := range attributes {
		if k == "system.posix_acl_access" || k == "system.posix_acl_default" {
			v = accessList(v)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = string(v)
	}
	switch kind {
	case modeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case modeLink:
		if h.Linkname, err = t.fs.linkTarget(n); err != nil {
			return err
		}
		h.Typeflag = tar.TypeSymlink
	case modeFile:
		content, err := t.fs.content(n)
		if err != nil {
			return err
		}
		h.Typeflag, h.Size = tar.TypeReg, n.size
		return t.w.File(h, content, content.data)
	case modeFIFO:
		h.Typeflag = tar.TypeFifo
	case modeChar, modeBlock:
		h.Typeflag = tar.TypeChar
		if kind == modeBlock {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = device(n)
	case modeSocket:
		return nil
	default:
		return errDamaged(fmt.Sprintf("inode %d has no known type", number))
	}
	if err := t.w.Entry(h); err != nil || kind != modeDir {
		return err
	}
	return t.directory(name, n)
}

// linkTarget returns the target of a symbolic link. Short targets are stored in place of the block
// numbers.
func (fs *FS) linkTarget(n *inode) (string, error) {
	if n.size < 60 && n.flags&(flagExtents|flagInline) == 0 {
		return string(n.raw[0x28 : 0x28+n.size]), nil
	}
	target, err := fs.all(n)
	return string(target), err
}

// accessList converts an access control list from its form on disk, where only named users and
// groups have ids, to the form of the extended attribute.
func accessList(disk []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for disk = disk[min(4, len(disk)):]; len(disk) >= 4; {
		out = append(out, disk[:4]...)
		if tag := binary.LittleEndian.Uint16(disk); (tag == 2 || tag == 8) && len(disk) >= 8 {
			out, disk = append(out, disk[4:8]...), disk[8:]
			continue
		}
		out, disk = binary.LittleEndian.AppendUint32(out, 1<<32-1), disk[4:]
	}
	return out
}

// device returns a device number in the old or the new encoding.
func device(n *inode) (major, minor int64) {
	if old := binary.LittleEndian.Uint32(n.raw[0x28:]); old != 0 {
		return int64(old >> 8 & 0xff), int64(old & 0xff)
	}
	d := int64(binary.LittleEndian.Uint32(n.raw[0x2c:]))
	return d >> 8 & 0xfff, d&0xff | d>>12&0xfff00
}
