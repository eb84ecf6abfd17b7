package rpmdb

import "encoding/binary"

// The file begins with pages of slots; the first two slots are the file's header. A
// slot holds the number of a package, and the position of its blob in blocks.
const (
	ndbMagic     = "RpmP"
	ndbSlotMagic = "Slot"
	ndbBlobMagic = "BlbS"
	ndbPage      = 4096
	ndbBlock     = 16 // bytes; also the size of a slot, and of the header of a blob
)

func ndbBlobs(db []byte, yield func([]byte) error) error {
	if len(db) < ndbPage {
		return damaged("it has %d bytes", len(db))
	}
	if v := binary.LittleEndian.Uint32(db[4:]); v != 0 {
		return damaged("its version is %d", v)
	}
	slots, ok := section(db, 0, int64(binary.LittleEndian.Uint32(db[12:]))*ndbPage)
	if !ok {
		return damaged("its slots are cut off")
	}
	total := 0
	for at := 2 * ndbBlock; at < len(slots); at += ndbBlock {
		slot := slots[at : at+ndbBlock]
		if string(slot[:4]) != ndbSlotMagic {
			return damaged("there is no slot at %d", at)
		}
		index := binary.LittleEndian.Uint32(slot[4:])
		if index == 0 {
			continue // free
		}
		off := int64(binary.LittleEndian.Uint32(slot[8:])) * ndbBlock
		head, ok := section(db, off, ndbBlock)
		if !ok || string(head[:4]) != ndbBlobMagic || binary.LittleEndian.Uint32(head[4:]) != index {
			return damaged("there is no package at %d", off)
		}
		blob, ok := section(db, off+ndbBlock, int64(binary.LittleEndian.Uint32(head[12:])))
		if total += len(blob); !ok || total > len(db) {
			return damaged("the package at %d is cut off", off)
		}
		if err := yield(blob); err != nil {
			return err
		}
	}
	return nil
}
