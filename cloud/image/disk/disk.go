// Package disk finds the root file system in a virtual machine's disk image.
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

// Disk is the content of a disk.
type Disk struct {
	io.ReaderAt
	Size int64 // bytes
	File int64 // size of the image file in bytes
}

// Formats are the image formats that [Open] reads. All but the last are also accepted by EC2.
var Formats = []string{"raw", "vhd", "vmdk", "ova", "qcow2"}

// Open returns the content of the disk whose image is in file, which has the given size in bytes.
func Open(file io.ReaderAt, size int64, format string) (Disk, error) {
	d, err := open(file, size, format)
	d.File = size
	return d, err
}

func open(file io.ReaderAt, size int64, format string) (Disk, error) {
	switch format {
	case "raw":
		return Disk{ReaderAt: file, Size: size}, nil
	case "vhd":
		return openVHD(file, size)
	case "vmdk":
		return openVMDK(file, size)
	case "ova":
		return openOVA(file, size)
	case "qcow2":
		return openQCOW2(file)
	}
	return Disk{}, fmt.Errorf("disk images in the format %s are not supported; supported formats are %s: convert it first, for example with qemu-img convert -O qcow2", format, strings.Join(Formats, ", "))
}

// Root returns the file system that the disk boots from: the first one that contains a system, on
// the whole disk or in a partition.
func (d Disk) Root() (*ext4.FS, error) {
	parts, err := d.partitions()
	if err != nil {
		return nil, err
	}
	var problems []error
	var there []string
	for n, p := range append([]extent{{0, d.Size}}, parts...) {
		p.size = min(p.size, d.Size-p.start) // the disk may be truncated
		device := io.NewSectionReader(d, p.start, p.size)
		fs, err := ext4.Open(device, p.size)
		if err == nil {
			var names []string
			if names, err = fs.Root(); err == nil && isSystem(names) {
				return fs, nil
			}
		}
		if err != nil && !errors.Is(err, ext4.ErrNot) {
			problems = append(problems, err)
		}
		if kind := kindOf(device); kind != "" && n == 0 {
			there = append(there, kind+" on the whole disk")
		} else if kind != "" {
			there = append(there, fmt.Sprintf("%s in partition %d", kind, n))
		}
	}
	none := errors.New("no ext4, ext3 or ext2 file system on the disk contains a Linux system")
	if len(there) > 0 {
		none = fmt.Errorf("%w: there is %s", none, strings.Join(there, ", "))
	}
	return nil, errors.Join(append([]error{none}, problems...)...)
}

// isSystem reports whether the names are those of a system's root rather than, for example, /boot.
func isSystem(names []string) bool {
	return slices.Contains(names, "etc") && (slices.Contains(names, "bin") || slices.Contains(names, "usr"))
}

// extent is a part of the disk, in bytes.
type extent struct{ start, size int64 }

const sector = 512

// partitions returns the partitions in the disk's GPT or MBR. A disk without a partition table has
// none.
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
	return d.mbr(head)
}

func (d Disk) gpt(header []byte) ([]extent, error) {
	at, count, size := int64(binary.LittleEndian.Uint64(header[72:]))*sector, int64(binary.LittleEndian.Uint32(header[80:])), int64(binary.LittleEndian.Uint32(header[84:]))
	if size < 128 || size > 4096 || count > 1024 || at < 0 {
		return nil, errors.New("the partition table is damaged")
	}
	table := make([]byte, count*size)
	if _, err := d.ReadAt(table, at); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	var out []extent
	for ; len(table) > 0; table = table[size:] {
		first, last := int64(binary.LittleEndian.Uint64(table[32:])), int64(binary.LittleEndian.Uint64(table[40:]))
		if !bytes.Equal(table[:16], make([]byte, 16)) && first > 0 && last >= first && last < d.Size/sector {
			out = append(out, extent{first * sector, (last - first + 1) * sector})
		}
	}
	return out, nil
}

// maxLogical is the largest number of logical partitions.
const maxLogical = 64

// mbr returns the partitions in the table in the first sector. The tables of logical partitions
// form a chain within the extended partition: each describes one partition and points to the next
// table.
func (d Disk) mbr(table []byte) ([]extent, error) {
	var out []extent
	var at, first int64 // sectors of the current table and of the extended partition
	for range maxLogical {
		next := int64(0)
		for i := range 4 {
			e := table[446+16*i:]
			kind, start, size := e[4], int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
			switch {
			case kind == 0 || size == 0:
			case kind == 0x05, kind == 0x0f, kind == 0x85:
				next = first + start
			default:
				out = append(out, extent{(at + start) * sector, size * sector})
			}
		}
		if next == 0 {
			return out, nil
		}
		if at = next; first == 0 {
			first = next
		}
		table = make([]byte, sector)
		if _, err := d.ReadAt(table, at*sector); err != nil {
			return nil, fmt.Errorf("the partition table is damaged: %w", err)
		}
	}
	return nil, fmt.Errorf("the partition table is damaged: there are more than %d tables of logical partitions, or they form a loop", maxLogical)
}
