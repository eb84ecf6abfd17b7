package rpmdb

import (
	"encoding/binary"
)

// A Berkeley DB hash database: its pages hold pairs of a number and a header; long
// headers are in separate chains of pages.
const (
	berkeleyMagic    = 0x061561
	berkeleyIntro    = 26 // bytes before the data on a page
	pageHashUnsorted = 2
	pageOverflow     = 7
	pageHash         = 13
	itemKeyData      = 1
	itemOffPage      = 3
)

// berkeleyOrder returns the byte order of a database, which is that of the machine that
// made it; nil if it is not a Berkeley DB.
func berkeleyOrder(db []byte) binary.ByteOrder {
	if len(db) >= 72 {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			if order.Uint32(db[12:]) == berkeleyMagic {
				return order
			}
		}
	}
	return nil
}

type berkeley struct {
	db    []byte
	order binary.ByteOrder
	size  int64 // of a page
	taken int   // bytes of all values so far
}

func berkeleyBlobs(db []byte, yield func([]byte) error) error {
	order := berkeleyOrder(db)
	b := &berkeley{db: db, order: order, size: int64(order.Uint32(db[20:]))}
	if b.size < 512 || b.size > 1<<16 || b.size&(b.size-1) != 0 {
		return damaged("its pages have %d bytes", b.size)
	}
	for n := int64(1); n < int64(len(db))/b.size; n++ {
		page, _ := section(db, n*b.size, b.size)
		if kind := page[25]; kind != pageHash && kind != pageHashUnsorted {
			continue
		}
		if err := b.pairs(page, yield); err != nil {
			return err
		}
	}
	return nil
}

// pairs yields the values on a page. The page's index says where keys and values are;
// they fill it from its end.
func (b *berkeley) pairs(page []byte, yield func([]byte) error) error {
	count := int64(b.order.Uint16(page[20:]))
	index, ok := section(page, berkeleyIntro, 2*count)
	if !ok || count%2 != 0 {
		return damaged("a page has an index of %d", count)
	}
	for i := int64(1); i < count; i += 2 {
		at := int64(b.order.Uint16(index[2*i:]))
		end := int64(b.order.Uint16(index[2*i-2:])) // where its key begins
		item, ok := section(page, at, end-at)
		if !ok || len(item) == 0 {
			return damaged("an item is outside of its page")
		}
		var blob []byte
		switch item[0] {
		case itemKeyData:
			blob = item[1:]
			if b.taken += len(blob); b.taken > len(b.db) {
				return damaged("its packages are larger than itself")
			}
		case itemOffPage:
			if len(item) < 12 {
				return damaged("an item has %d bytes", len(item))
			}
			var err error
			if blob, err = b.chain(int64(b.order.Uint32(item[4:])), int64(b.order.Uint32(item[8:]))); err != nil {
				return err
			}
		default:
			return damaged("an item is of type %d", item[0])
		}
		if len(blob) <= headerIntro {
			continue // the number that the next package will get
		}
		if err := yield(blob); err != nil {
			return err
		}
	}
	return nil
}

// chain returns the size bytes in the chain of pages that starts at a page.
func (b *berkeley) chain(page, size int64) ([]byte, error) {
	if b.taken += int(size); size > int64(len(b.db)) || b.taken > len(b.db) {
		return nil, damaged("its packages are larger than itself")
	}
	var blob []byte
	for page != 0 && int64(len(blob)) < size {
		p, ok := section(b.db, page*b.size, b.size)
		if !ok || p[25] != pageOverflow {
			return nil, damaged("page %d is missing", page)
		}
		part, ok := section(p, berkeleyIntro, int64(b.order.Uint16(p[22:])))
		if !ok || len(part) == 0 {
			return nil, damaged("page %d is not whole", page)
		}
		blob = append(blob, part...)
		page = int64(b.order.Uint32(p[16:]))
	}
	if int64(len(blob)) < size {
		return nil, damaged("a package is cut off")
	}
	return blob[:size], nil
}
