package disk

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	maxTable   = 64 << 20 // bytes of the tables of an image: sufficient for a disk of maxDisk
	maxCluster = 2 << 20  // bytes of a block or a compressed cluster
	maxDisk    = 64 << 40 // bytes, as on EC2
)

// blocks is a disk that the image file stores in blocks of a fixed size, in any order.
type blocks struct {
	file  io.ReaderAt
	size  int64 // of a block
	count int64
	find  func(n int64) (place, error)

	mu   sync.Mutex
	last int64 // number of the compressed block in the cache, or -1
	data []byte
}

// place is the location of a block.
type place struct {
	at     int64                  // offset in the file; 0 if the block is all zeros
	unpack func() ([]byte, error) // set instead of at if the block is compressed
}

func newBlocks(file io.ReaderAt, size, count int64, find func(n int64) (place, error)) *blocks {
	return &blocks{file: file, size: size, count: count, find: find, last: -1}
}

// ReadAt implements [io.ReaderAt].
func (b *blocks) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	read := 0
	for read < len(p) {
		n, at := (off+int64(read))/b.size, (off+int64(read))%b.size
		if off < 0 || n >= b.count {
			return read, io.EOF
		}
		part := p[read:min(int64(len(p)), int64(read)+b.size-at)]
		if err := b.read(part, n, at); err != nil {
			return read, err
		}
		read += len(part)
	}
	return read, nil
}

// read reads from block n, starting at the offset at in the block.
func (b *blocks) read(part []byte, n, at int64) error {
	if b.last == n {
		copy(part, b.data[at:])
		return nil
	}
	where, err := b.find(n)
	switch {
	case err != nil:
		return err
	case where.unpack != nil:
		var data []byte
		if data, err = where.unpack(); err == nil {
			b.last, b.data = n, data
			copy(part, data[at:])
		}
	case where.at == 0:
		clear(part)
	default:
		var k int
		if k, err = b.file.ReadAt(part, where.at+at); k == len(part) {
			err = nil
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		return fmt.Errorf("the image is damaged: block %d: %w", n, err)
	}
	return nil
}

// table caches one of several tables of block locations, the last one used.
type table struct {
	held int64 // offset of the cached table in the file, or 0
	data []byte
}

// load returns the table of size bytes at the offset at, which is not 0.
func (t *table) load(file io.ReaderAt, at, size int64) ([]byte, error) {
	if t.held == at {
		return t.data, nil
	}
	if t.held = 0; t.data == nil {
		t.data = make([]byte, size)
	}
	if _, err := file.ReadAt(t.data, at); err != nil {
		return nil, fmt.Errorf("the table of blocks at %d: %w", at, err)
	}
	t.held = at
	return t.data, nil
}

// openVHD reads fixed and dynamic disks in the Virtual Hard Disk Image Format (Microsoft, 2006). A
// fixed disk is the raw content with a footer.
func openVHD(file io.ReaderAt, size int64) (Disk, error) {
	footer := make([]byte, 512)
	if _, err := file.ReadAt(footer, size-512); err != nil || size < 512 || string(footer[:8]) != "conectix" {
		return Disk{}, errors.New("not a VHD image: the footer is missing")
	}
	length := int64(binary.BigEndian.Uint64(footer[48:]))
	switch kind := binary.BigEndian.Uint32(footer[60:]); kind {
	case 2:
		return Disk{ReaderAt: file, Size: min(length, size-512)}, nil
	case 3:
	default:
		return Disk{}, fmt.Errorf("VHD images of type %d, such as those with a parent, are not supported", kind)
	}
	header := make([]byte, 1024)
	if _, err := file.ReadAt(header, int64(binary.BigEndian.Uint64(footer[16:]))); err != nil || string(header[:8]) != "cxsparse" {
		return Disk{}, errors.New("the VHD image is damaged: it has no dynamic disk header")
	}
	count, block := int64(binary.BigEndian.Uint32(header[28:])), int64(binary.BigEndian.Uint32(header[32:]))
	if block < sector || block%sector != 0 || block > 32*maxCluster || count*4 > maxTable || length < 0 || length > count*block {
		return Disk{}, errors.New("the VHD image is damaged: its header is inconsistent")
	}
	table := make([]byte, count*4)
	if _, err := file.ReadAt(table, int64(binary.BigEndian.Uint64(header[16:]))); err != nil {
		return Disk{}, fmt.Errorf("reading the VHD image's table: %w", err)
	}
	bitmap := (block/sector/8 + sector - 1) / sector * sector // bitmap of the sectors in use in a block
	return Disk{ReaderAt: newBlocks(file, block, count, func(n int64) (place, error) {
		at := binary.BigEndian.Uint32(table[n*4:])
		if at == 1<<32-1 {
			return place{}, nil
		}
		return place{at: int64(at)*sector + bitmap}, nil
	}), Size: length}, nil
}

// openVMDK reads sparse extents in the Virtual Disk Format 5.0 (VMware, 2011): those that
// hypervisors write and the stream-optimized ones in OVF packages.
func openVMDK(file io.ReaderAt, size int64) (Disk, error) {
	damaged := func(what string) (Disk, error) { return Disk{}, errors.New("the VMDK image is damaged: " + what) }
	header := make([]byte, 512)
	if _, err := file.ReadAt(header, 0); err != nil || string(header[:4]) != "KDMV" {
		return Disk{}, errors.New("not a sparse VMDK image; a descriptor that refers to other files cannot be imported")
	}
	const atEnd = 1<<64 - 1
	if binary.LittleEndian.Uint64(header[56:]) == atEnd { // written as a stream: the complete header is at the end
		if _, err := file.ReadAt(header, size-1024); err != nil || string(header[:4]) != "KDMV" {
			return damaged("its footer is missing")
		}
	}
	flags, capacity, grain := binary.LittleEndian.Uint32(header[8:]), int64(binary.LittleEndian.Uint64(header[12:])), int64(binary.LittleEndian.Uint64(header[20:]))
	entries, directory := int64(binary.LittleEndian.Uint32(header[44:])), int64(binary.LittleEndian.Uint64(header[56:]))
	compressed := flags&(1<<16) != 0
	if grain < 1 || grain > maxCluster/sector || entries < 1 || entries > 1<<16 || capacity < 0 || capacity > maxDisk/sector || directory < 0 {
		return damaged("its header is inconsistent")
	}
	grains := (capacity + grain - 1) / grain
	tables := (grains + entries - 1) / entries
	if tables*4 > maxTable {
		return damaged("its header is inconsistent")
	}
	top := make([]byte, tables*4)
	if _, err := file.ReadAt(top, directory*sector); err != nil {
		return damaged("its grain directory is truncated")
	}
	var below table
	return Disk{ReaderAt: newBlocks(file, grain*sector, grains, func(n int64) (place, error) {
		at := int64(binary.LittleEndian.Uint32(top[n/entries*4:]))
		if at == 0 {
			return place{}, nil
		}
		data, err := below.load(file, at*sector, entries*4)
		if err != nil {
			return place{}, err
		}
		if at = int64(binary.LittleEndian.Uint32(data[n%entries*4:])); at <= 1 { // 0 is unallocated, 1 is all zeros
			return place{}, nil
		}
		if !compressed {
			return place{at: at * sector}, nil
		}
		return place{unpack: func() ([]byte, error) { return readGrain(file, at*sector, grain*sector) }}, nil
	}), Size: capacity * sector}, nil
}

// readGrain reads a compressed grain.
func readGrain(file io.ReaderAt, at, size int64) ([]byte, error) {
	marker := make([]byte, 12) // the grain's sector on the disk and the size of the data
	if _, err := file.ReadAt(marker, at); err != nil {
		return nil, err
	}
	z, err := zlib.NewReader(io.NewSectionReader(file, at+12, int64(binary.LittleEndian.Uint32(marker[8:]))))
	if err != nil {
		return nil, err
	}
	return readBlock(z, size)
}

// readBlock reads a decompressed block of the given size; the last block of a disk may be shorter.
func readBlock(r io.Reader, size int64) ([]byte, error) {
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return data, nil
}

// isOVA reports whether a tar archive is an OVA, judging by its first file: the descriptor, or what
// belongs to it.
func isOVA(file io.ReaderAt, size int64) bool {
	for archive := tar.NewReader(io.NewSectionReader(file, 0, size)); ; {
		h, err := archive.Next()
		if err != nil {
			return false
		}
		if h.Typeflag != tar.TypeDir {
			return slices.Contains([]string{".ovf", ".vmdk", ".mf", ".cert"}, strings.ToLower(path.Ext(h.Name)))
		}
	}
}

// openOVA opens the first disk in an OVA, a tar archive (DMTF DSP0243).
func openOVA(file io.ReaderAt, size int64) (Disk, error) {
	r := io.NewSectionReader(file, 0, size)
	var others []string
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return Disk{}, fmt.Errorf("the OVA archive contains no .vmdk file, but %.300s", cmp.Or(strings.Join(others, ", "), "nothing"))
		}
		if err != nil {
			return Disk{}, fmt.Errorf("not an OVA archive: %w", err)
		}
		if !strings.EqualFold(path.Ext(h.Name), ".vmdk") {
			if len(others) < 10 {
				others = append(others, strconv.Quote(h.Name))
			}
			continue
		}
		at, err := r.Seek(0, io.SeekCurrent) // the content follows the header
		if err != nil {
			return Disk{}, err
		}
		disk := io.NewSectionReader(file, at, h.Size)
		if head := make([]byte, 4); h.Size > 4 {
			if _, err := disk.ReadAt(head, 0); err == nil && bytes.Equal(head, []byte("KDMV")) {
				return openVMDK(disk, h.Size)
			}
		}
		return Disk{ReaderAt: disk, Size: h.Size}, nil // a flat extent contains the raw disk
	}
}
