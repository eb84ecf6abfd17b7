package rpmdb

import (
	"bytes"
	"encoding/binary"
	"math"
)

// This reads the rows of one table in SQLite's format
// (https://www.sqlite.org/fileformat2.html).
const (
	sqliteMagic    = "SQLite format 3\x00"
	sqliteTable    = "Packages"
	pageInterior   = 5
	pageLeaf       = 13
	walIntro       = 32
	walFrame       = 24
	walMagic       = 0x377f0682 // or, with checksums of big-endian words, one more
	maxDepthOfTree = 32
)

type sqlite struct {
	db      []byte
	size    int64            // of a page
	usable  int64            // bytes of a page
	changed map[int64][]byte // pages of the log
	seen    map[int64]bool   // pages of trees; each can be in one place only
	taken   int              // bytes of all records so far
}

func sqliteBlobs(db, log []byte, yield func([]byte) error) error {
	if len(db) < 512 {
		return damaged("it has %d bytes", len(db))
	}
	s := &sqlite{db: db, size: int64(binary.BigEndian.Uint16(db[16:])), seen: map[int64]bool{}}
	if s.size == 1 {
		s.size = 1 << 16
	}
	if s.size < 512 || s.size&(s.size-1) != 0 {
		return damaged("its pages have %d bytes", s.size)
	}
	s.usable = s.size - int64(db[20])
	s.changed = pagesOfLog(log, s.size)
	root := int64(0)
	err := s.rows(1, 0, func(record []byte) error {
		if c := columns(record, 4); len(c) == 4 && string(c[0].data) == "table" && string(c[1].data) == sqliteTable {
			root = c[3].number()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return damaged("it has no table %s", sqliteTable)
	}
	return s.rows(root, 0, func(record []byte) error {
		c := columns(record, 2) // hnum, which is the number of the row, and blob
		if len(c) != 2 {
			return damaged("a row is cut off")
		}
		return yield(c[1].data)
	})
}

// page returns a page; the first one has the number 1.
func (s *sqlite) page(n int64) ([]byte, error) {
	if p, ok := s.changed[n]; ok {
		return p, nil
	}
	if n > 0 && n < math.MaxUint32 {
		if p, ok := section(s.db, (n-1)*s.size, s.size); ok {
			return p, nil
		}
	}
	return nil, damaged("page %d is missing", n)
}

// rows yields the rows of the tree whose root is a page.
func (s *sqlite) rows(n int64, depth int, yield func(record []byte) error) error {
	if s.seen[n] || depth > maxDepthOfTree {
		return damaged("page %d is in two places", n)
	}
	s.seen[n] = true
	page, err := s.page(n)
	if err != nil {
		return err
	}
	head := int64(0)
	if n == 1 {
		head = 100 // the header of the file
	}
	kind, count, intro := page[head], int64(binary.BigEndian.Uint16(page[head+3:])), int64(8)
	if kind == pageInterior {
		intro = 12
	} else if kind != pageLeaf {
		return damaged("page %d is of type %d", n, kind)
	}
	cells, ok := section(page, head+intro, 2*count)
	if !ok {
		return damaged("page %d has %d cells", n, count)
	}
	for ; len(cells) > 0; cells = cells[2:] {
		at := int64(binary.BigEndian.Uint16(cells))
		if kind == pageInterior {
			child, ok := section(page, at, 4)
			if !ok {
				return damaged("a cell of page %d is outside of it", n)
			}
			if err := s.rows(int64(binary.BigEndian.Uint32(child)), depth+1, yield); err != nil {
				return err
			}
			continue
		}
		record, err := s.record(page, at)
		if err != nil {
			return err
		}
		if err := yield(record); err != nil {
			return err
		}
	}
	if kind == pageInterior {
		return s.rows(int64(binary.BigEndian.Uint32(page[head+8:])), depth+1, yield)
	}
	return nil
}

// record returns the record in a cell of a leaf page. The end of a record may be on
// overflow pages.
func (s *sqlite) record(page []byte, at int64) ([]byte, error) {
	cell, ok := section(page, at, s.usable-at)
	if !ok {
		return nil, damaged("a cell is outside of its page")
	}
	size, n := varint(cell)
	_, m := varint(cell[n:]) // number of the row
	if n == 0 || m == 0 || size < 0 {
		return nil, damaged("a cell is cut off")
	}
	cell = cell[n+m:]
	local := size
	if most := s.usable - 35; size > most {
		least := (s.usable-12)*32/255 - 23
		if local = least + (size-least)%(s.usable-4); local > most {
			local = least
		}
	}
	record, ok := section(cell, 0, local)
	if !ok {
		return nil, damaged("a cell is cut off")
	}
	if limit := len(s.db) + len(s.changed)*int(s.size); size > int64(limit-s.taken) {
		return nil, damaged("its packages are larger than itself")
	}
	s.taken += int(size)
	if local == size {
		return record, nil
	}
	next, ok := section(cell, local, 4)
	if !ok {
		return nil, damaged("a cell is cut off")
	}
	record = bytes.Clone(record)
	for int64(len(record)) < size {
		p, err := s.page(int64(binary.BigEndian.Uint32(next)))
		if err != nil {
			return nil, err
		}
		next = p[:4]
		record = append(record, p[4:min(s.usable, 4+size-int64(len(record)))]...)
	}
	return record, nil
}

// column is a value of a row.
type column struct {
	kind int64
	data []byte
}

// number returns the value of an integer.
func (c column) number() (n int64) {
	switch {
	case c.kind >= 1 && c.kind <= 6:
		for i, b := range c.data {
			if n = n<<8 | int64(b); i == 0 {
				n = int64(int8(b)) // the sign
			}
		}
	case c.kind == 9:
		n = 1
	}
	return n
}

// columns returns the first columns of a record, at most n; fewer if it is cut off.
func columns(record []byte, n int) (list []column) {
	size, at := varint(record)
	head, ok := section(record, int64(at), size-int64(at))
	if !ok {
		return nil
	}
	rest := record[size:]
	for len(head) > 0 && len(list) < n {
		kind, used := varint(head)
		if used == 0 {
			return list
		}
		head = head[used:]
		length := int64(0)
		switch {
		case kind >= 1 && kind <= 7:
			length = []int64{1, 2, 3, 4, 6, 8, 8}[kind-1]
		case kind >= 12:
			length = (kind - 12) / 2
		}
		data, ok := section(rest, 0, length)
		if !ok {
			return list
		}
		list, rest = append(list, column{kind, data}), rest[length:]
	}
	return list
}

// varint decodes a variable-length integer of SQLite. n is its length in bytes, or 0 if it
// is cut off.
func varint(b []byte) (v int64, n int) {
	for i := range min(len(b), 9) {
		if i == 8 {
			return v<<8 | int64(b[i]), 9
		}
		v = v<<7 | int64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// pagesOfLog returns the pages of a write-ahead log that are committed, by number. The
// log ends at the first wrong checksum.
func pagesOfLog(log []byte, size int64) map[int64][]byte {
	committed, open := map[int64][]byte{}, map[int64][]byte{}
	if len(log) < walIntro || int64(binary.BigEndian.Uint32(log[8:])) != size {
		return committed
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch binary.BigEndian.Uint32(log) {
	case walMagic:
	case walMagic + 1:
		order = binary.BigEndian
	default:
		return committed
	}
	var sum [2]uint32
	add := func(b []byte) {
		for ; len(b) >= 8; b = b[8:] {
			sum[0] += order.Uint32(b) + sum[1]
			sum[1] += order.Uint32(b[4:]) + sum[0]
		}
	}
	is := func(b []byte) bool {
		return binary.BigEndian.Uint32(b) == sum[0] && binary.BigEndian.Uint32(b[4:]) == sum[1]
	}
	if add(log[:24]); !is(log[24:]) {
		return committed
	}
	salt := log[16:24]
	for at := int64(walIntro); ; at += walFrame + size {
		frame, ok := section(log, at, walFrame+size)
		if !ok || !bytes.Equal(frame[8:16], salt) {
			return committed
		}
		add(frame[:8])
		if add(frame[walFrame:]); !is(frame[16:]) {
			return committed
		}
		open[int64(binary.BigEndian.Uint32(frame))] = frame[walFrame:]
		if binary.BigEndian.Uint32(frame[4:]) != 0 { // the end of a transaction
			for n, page := range open {
				committed[n] = page
			}
			clear(open)
		}
	}
}
