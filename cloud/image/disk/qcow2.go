package disk

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// qcow2Offset masks the file offset in a table entry.
const qcow2Offset = 1<<56 - 1<<9

// openQCOW2 reads QEMU's image format, versions 2 and 3 (docs/interop/qcow2 in QEMU's source),
// without snapshots.
func openQCOW2(file io.ReaderAt) (Disk, error) {
	header := make([]byte, 112)
	if n, err := file.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) || n < 72 || string(header[:4]) != "QFI\xfb" {
		return Disk{}, errors.New("not a QCOW2 image: its header is missing")
	}
	version, bits, size := binary.BigEndian.Uint32(header[4:]), binary.BigEndian.Uint32(header[20:]), int64(binary.BigEndian.Uint64(header[24:]))
	entries, at := int64(binary.BigEndian.Uint32(header[36:])), int64(binary.BigEndian.Uint64(header[40:]))
	var features uint64
	zstandard := false
	if version == 3 {
		features = binary.BigEndian.Uint64(header[72:])
		zstandard = features&8 != 0 && header[104] == 1
	}
	switch {
	case version != 2 && version != 3:
		return Disk{}, fmt.Errorf("QCOW2 images of version %d are not supported", version)
	case binary.BigEndian.Uint64(header[8:]) != 0:
		return Disk{}, errors.New("the QCOW2 image has a backing file; use qemu-img convert to merge the two")
	case binary.BigEndian.Uint32(header[32:]) != 0:
		return Disk{}, errors.New("the QCOW2 image is encrypted; qemu-img convert decrypts it")
	case features&2 != 0:
		return Disk{}, errors.New("the QCOW2 image is marked as damaged; qemu-img check may repair it")
	case features&^(1|8) != 0 || features&8 != 0 && header[104] > 1:
		return Disk{}, fmt.Errorf("the QCOW2 image has unsupported features (%#x)", features)
	case bits < 9 || bits > 21 || size < 0 || size > maxDisk || at < 0 || entries*8 > maxTable:
		return Disk{}, errors.New("the QCOW2 image is damaged: its header is inconsistent")
	}
	cluster := int64(1) << bits
	count := (size + cluster - 1) / cluster
	if entries < (count+cluster/8-1)/(cluster/8) {
		return Disk{}, errors.New("the QCOW2 image is damaged: its table is too small for its disk")
	}
	top := make([]byte, entries*8)
	if _, err := file.ReadAt(top, at); err != nil && len(top) > 0 {
		return Disk{}, fmt.Errorf("the QCOW2 image is damaged: reading its table: %w", err)
	}
	var below table
	return Disk{ReaderAt: newBlocks(file, cluster, count, func(n int64) (place, error) {
		at := int64(binary.BigEndian.Uint64(top[n/(cluster/8)*8:]) & qcow2Offset)
		if at == 0 {
			return place{}, nil
		}
		data, err := below.load(file, at, cluster)
		if err != nil {
			return place{}, err
		}
		entry := binary.BigEndian.Uint64(data[n%(cluster/8)*8:])
		switch {
		case entry&(1<<62) != 0:
			low := 62 - (bits - 8) // number of bits of the offset; the remaining bits are the number of additional sectors
			at := int64(entry & (1<<low - 1))
			end := at&^(sector-1) + sector*(1+int64(entry&(1<<62-1)>>low))
			return place{unpack: func() ([]byte, error) { return inflate(io.NewSectionReader(file, at, end-at), cluster, zstandard) }}, nil
		case entry&1 != 0: // all zeros
			return place{}, nil
		}
		return place{at: int64(entry & qcow2Offset)}, nil
	}), Size: size}, nil
}

// inflate returns a decompressed cluster of the given size.
func inflate(r io.Reader, size int64, zstandard bool) ([]byte, error) {
	if !zstandard {
		return readBlock(flate.NewReader(r), size)
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return readBlock(z, size)
}

// Detect returns the format of a disk image, judging by its content, or "" if it is not a known
// one. For all formats but VHD of a fixed size, the first 128 KiB are enough.
func Detect(file io.ReaderAt, size int64) (format string) {
	at := func(offset int64, magic string) bool {
		b := make([]byte, len(magic))
		_, err := file.ReadAt(b, offset)
		return offset >= 0 && (err == nil || errors.Is(err, io.EOF)) && bytes.Equal(b, []byte(magic))
	}
	switch {
	case at(0, "QFI\xfb"):
		return "qcow2"
	case at(0, "KDMV"), at(0, "# Disk DescriptorFile"):
		return "vmdk"
	case at(0, "vhdxfile"):
		return "vhdx"
	case at(0, "conectix"), at(size-sector, "conectix"):
		return "vhd"
	case at(257, "ustar"):
		if isOVA(file, size) {
			return "ova"
		}
		return ""
	case at(510, "\x55\xaa"), at(sector, "EFI PART"):
		return "raw"
	}
	if kindOf(file) != "" {
		return "raw"
	}
	return ""
}

// kindOf returns the name of the file system, or of other known content, at the start of a device;
// "" if unknown.
func kindOf(r io.ReaderAt) string {
	for _, known := range []struct {
		name   string
		offset int64
		magic  string
	}{
		{"ext", 1080, "\x53\xef"}, {"XFS", 0, "XFSB"}, {"Btrfs", 0x10040, "_BHRfS_M"}, {"F2FS", 1024, "\x10\x20\xf5\xf2"}, {"SquashFS", 0, "hsqs"},
		{"an LVM volume", 512, "LABELONE"}, {"an encrypted volume", 0, "LUKS\xba\xbe"}, {"NTFS", 3, "NTFS    "}, {"FAT", 82, "FAT32"}, {"FAT", 54, "FAT1"},
		{"swap", 4086, "SWAPSPACE2"}, {"ISO 9660", 0x8001, "CD001"},
	} {
		b := make([]byte, len(known.magic))
		if _, err := r.ReadAt(b, known.offset); (err == nil || errors.Is(err, io.EOF)) && string(b) == known.magic {
			return known.name
		}
	}
	return ""
}
