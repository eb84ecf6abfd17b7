package disk

import (
	"archive/tar"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
)

// maxTable bounds the tables of an image: enough for a disk of 16 TiB.
const maxTable = 64 << 20

// blocks is a disk whose image holds it in blocks of one size, in any order.
type blocks struct {
	size  int64 // of a block
	count int64
	// load returns the content of a block, or nil if it is all zeros.
	load func(n int64) ([]byte, error)

	mu   sync.Mutex
	last int64 // the block that is held, or -1
	data []byte
}

func newBlocks(size, count int64, load func(n int64) ([]byte, error)) *blocks {
	return &blocks{size: size, count: count, load: load, last: -1}
}

// ReadAt implements [io.ReaderAt].
func (b *blocks) ReadAt(p []byte, off int64) (int, error) {
	read := 0
	for read < len(p) {
		n, at := (off+int64(read))/b.size, (off+int64(read))%b.size
		if off < 0 || n >= b.count {
			return read, io.EOF
		}
		data, err := b.block(n)
		if err != nil {
			return read, err
		}
		part := p[read:min(int64(len(p)), int64(read)+b.size-at)]
		if data == nil {
			clear(part)
		} else {
			copy(part, data[at:])
		}
		read += len(part)
	}
	return read, nil
}

func (b *blocks) block(n int64) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != n {
		data, err := b.load(n)
		if err != nil {
			return nil, err
		}
		b.last, b.data = n, data
	}
	return b.data, nil
}

// openVHD reads the Virtual Hard Disk Image Format (Microsoft, 2006): fixed,
// which is the disk and a footer, and dynamic.
func openVHD(file io.ReaderAt, size int64) (Disk, error) {
	footer := make([]byte, 512)
	if _, err := file.ReadAt(footer, size-512); err != nil || size < 512 || string(footer[:8]) != "conectix" {
		return Disk{}, errors.New("not a VHD image: the footer is missing")
	}
	length := int64(be.Uint64(footer[48:]))
	switch kind := be.Uint32(footer[60:]); kind {
	case 2:
		return Disk{file, min(length, size-512)}, nil
	case 3:
	default:
		return Disk{}, fmt.Errorf("VHD images of type %d, such as those with a parent, are not supported", kind)
	}
	header := make([]byte, 1024)
	if _, err := file.ReadAt(header, int64(be.Uint64(footer[16:]))); err != nil || string(header[:8]) != "cxsparse" {
		return Disk{}, errors.New("the VHD image is damaged: it has no dynamic disk header")
	}
	count, block := int64(be.Uint32(header[28:])), int64(be.Uint32(header[32:]))
	if block < sector || block%sector != 0 || block > maxTable || count*4 > maxTable || length < 0 || length > count*block {
		return Disk{}, errors.New("the VHD image is damaged: its header is inconsistent")
	}
	table := make([]byte, count*4)
	if _, err := file.ReadAt(table, int64(be.Uint64(header[16:]))); err != nil {
		return Disk{}, fmt.Errorf("reading the VHD image's table: %w", err)
	}
	bitmap := (block/sector/8 + sector - 1) / sector * sector // which of a block's sectors are in use
	return Disk{newBlocks(block, count, func(n int64) ([]byte, error) {
		at := be.Uint32(table[n*4:])
		if at == 1<<32-1 {
			return nil, nil
		}
		data := make([]byte, block)
		if _, err := file.ReadAt(data, int64(at)*sector+bitmap); err != nil {
			return nil, fmt.Errorf("the VHD image is damaged: block %d: %w", n, err)
		}
		return data, nil
	}), length}, nil
}

// openVMDK reads sparse extents of the Virtual Disk Format 5.0 (VMware, 2011):
// those that hypervisors write and the compressed ones of OVF packages.
func openVMDK(file io.ReaderAt, size int64) (Disk, error) {
	damaged := func(what string) (Disk, error) { return Disk{}, errors.New("the VMDK image is damaged: " + what) }
	header := make([]byte, 512)
	if _, err := file.ReadAt(header, 0); err != nil || string(header[:4]) != "KDMV" {
		return Disk{}, errors.New("not a sparse VMDK image; a descriptor that refers to other files cannot be imported")
	}
	const atEnd = 1<<64 - 1
	if le.Uint64(header[56:]) == atEnd { // written in one go: the header that knows is at the end
		if _, err := file.ReadAt(header, size-1024); err != nil || string(header[:4]) != "KDMV" {
			return damaged("its footer is missing")
		}
	}
	flags, capacity, grain := le.Uint32(header[8:]), int64(le.Uint64(header[12:])), int64(le.Uint64(header[20:]))
	entries, directory := int64(le.Uint32(header[44:])), int64(le.Uint64(header[56:]))
	compressed := flags&(1<<16) != 0
	if grain < 1 || grain > 1<<16 || entries < 1 || entries > 1<<16 || capacity < 0 || directory < 0 {
		return damaged("its header is inconsistent")
	}
	grains := (capacity + grain - 1) / grain
	tables := (grains + entries - 1) / entries
	if tables*4 > maxTable {
		return damaged("its header is inconsistent")
	}
	top := make([]byte, tables*4)
	if _, err := file.ReadAt(top, directory*sector); err != nil {
		return damaged("its grain directory is cut off")
	}
	var held int64 = -1
	table := make([]byte, entries*4)
	return Disk{newBlocks(grain*sector, grains, func(n int64) ([]byte, error) {
		if which := n / entries; which != held {
			at := int64(le.Uint32(top[which*4:]))
			if at == 0 {
				return nil, nil
			}
			held = -1
			if _, err := file.ReadAt(table, at*sector); err != nil {
				return nil, fmt.Errorf("the VMDK image is damaged: grain table %d: %w", which, err)
			}
			held = which
		}
		at := int64(le.Uint32(table[n%entries*4:]))
		if at <= 1 { // nothing, or zeros
			return nil, nil
		}
		data, err := readGrain(file, at*sector, grain*sector, compressed)
		if err != nil {
			return nil, fmt.Errorf("the VMDK image is damaged: grain %d: %w", n, err)
		}
		return data, nil
	}), capacity * sector}, nil
}

func readGrain(file io.ReaderAt, at, size int64, compressed bool) ([]byte, error) {
	data := make([]byte, size)
	if !compressed {
		_, err := file.ReadAt(data, at)
		return data, err
	}
	marker := make([]byte, 12) // its place on the disk, and the size of what follows
	if _, err := file.ReadAt(marker, at); err != nil {
		return nil, err
	}
	z, err := zlib.NewReader(io.NewSectionReader(file, at+12, int64(le.Uint32(marker[8:]))))
	if err != nil {
		return nil, err
	}
	n, err := io.ReadFull(z, data)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		clear(data[n:]) // the last grain of a disk may be short
		err = nil
	}
	return data, err
}

// openOVA finds the first disk of a machine in a tar archive (DMTF DSP0243).
func openOVA(file io.ReaderAt, size int64) (Disk, error) {
	r := io.NewSectionReader(file, 0, size)
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return Disk{}, errors.New("the OVA archive contains no .vmdk file")
		}
		if err != nil {
			return Disk{}, fmt.Errorf("not an OVA archive: %w", err)
		}
		if path.Ext(h.Name) != ".vmdk" {
			continue
		}
		at, err := r.Seek(0, io.SeekCurrent) // the content follows its header
		if err != nil {
			return Disk{}, err
		}
		disk := io.NewSectionReader(file, at, h.Size)
		if head := make([]byte, 4); h.Size > 4 {
			if _, err := disk.ReadAt(head, 0); err == nil && bytes.Equal(head, []byte("KDMV")) {
				return openVMDK(disk, h.Size)
			}
		}
		return Disk{disk, h.Size}, nil // a flat extent is the disk itself
	}
}
