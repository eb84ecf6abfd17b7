// Package disk finds the root file system in an image of a virtual machine's disk.
package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bake/cloud/image/ext4"
)

var le, be = binary.LittleEndian, binary.BigEndian

// Disk is the content of a disk.
type Disk struct {
	io.ReaderAt
	Size int64 // bytes
}

// Formats are the image formats that [Open] reads, in the words of EC2's ImportImage.
var Formats = []string{"raw", "vhd", "vmdk", "ova"}

// Open returns the content of a disk whose image is in a file of some size.
func Open(file io.ReaderAt, size int64, format string) (Disk, error) {
	switch format {
	case "raw":
		return Disk{file, size}, nil
	case "vhd":
		return openVHD(file, size)
	case "vmdk":
		return openVMDK(file, size)
	case "ova":
		return openOVA(file, size)
	}
	return Disk{}, fmt.Errorf("disk images in the format %s are not supported; supported formats are %s", format, strings.Join(Formats, ", "))
}

// Root returns the file system from which the disk boots: the first one that
// holds a system, on the whole disk or in a partition.
func (d Disk) Root() (*ext4.FS, error) {
	parts, err := d.partitions()
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, p := range append([]extent{{0, d.Size}}, parts...) {
		fs, err := ext4.Open(io.NewSectionReader(d, p.start, p.size))
		if err == nil {
			var names []string
			if names, err = fs.Root(); err == nil && isSystem(names) {
				return fs, nil
			}
		}
		if err != nil && !errors.Is(err, ext4.ErrNot) {
			problems = append(problems, err)
		}
	}
	return nil, errors.Join(append([]error{errors.New("no ext4, ext3 or ext2 file system on the disk holds a Linux system")}, problems...)...)
}

// isSystem tells the root of a system from other file systems, such as /boot.
func isSystem(names []string) bool {
	return slices.Contains(names, "etc") && (slices.Contains(names, "bin") || slices.Contains(names, "usr"))
}

// extent is a part of the disk, in bytes.
type extent struct{ start, size int64 }

const sector = 512

// partitions are those of the disk's partition table, GPT or MBR. A disk may have none.
func (d Disk) partitions() ([]extent, error) {
	head := make([]byte, 2*sector)
	if _, err := d.ReadAt(head, 0); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if string(head[sector:sector+8]) == "EFI PART" {
		return d.gpt(head[sector:])
	}
	if head[510] != 0x55 || head[511] != 0xaa {
		return nil, nil
	}
	return d.mbr(head, 0, 0, 0)
}

func (d Disk) gpt(header []byte) ([]extent, error) {
	at, count, size := int64(le.Uint64(header[72:]))*sector, int64(le.Uint32(header[80:])), int64(le.Uint32(header[84:]))
	if size < 128 || size > 4096 || count > 1024 || at < 0 {
		return nil, errors.New("the partition table is damaged")
	}
	table := make([]byte, count*size)
	if _, err := d.ReadAt(table, at); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	var out []extent
	for ; len(table) > 0; table = table[size:] {
		first, last := int64(le.Uint64(table[32:])), int64(le.Uint64(table[40:]))
		if !bytes.Equal(table[:16], make([]byte, 16)) && first > 0 && last >= first && last < d.Size/sector {
			out = append(out, extent{first * sector, (last - first + 1) * sector})
		}
	}
	return out, nil
}

// mbr reads a table at a sector; the tables of logical partitions form a chain
// within the extended one that begins at first.
func (d Disk) mbr(table []byte, at, first int64, depth int) ([]extent, error) {
	var out []extent
	for i := range 4 {
		e := table[446+16*i:]
		kind, start, size := e[4], int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))
		if kind == 0 || size == 0 {
			continue
		}
		if kind != 0x05 && kind != 0x0f && kind != 0x85 {
			out = append(out, extent{(at + start) * sector, size * sector})
			continue
		}
		next := first + start
		if first == 0 {
			first = start
		}
		below := make([]byte, sector)
		if _, err := d.ReadAt(below, next*sector); err != nil || depth > 64 {
			return nil, errors.Join(errors.New("the partition table is damaged"), err)
		}
		logical, err := d.mbr(below, next, first, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, logical...)
	}
	return out, nil
}
