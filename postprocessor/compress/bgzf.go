package compress

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
)

// bgzfWriter writes the Blocked GNU Zip Format of the SAM specification: gzip members of at
// most 64 KiB, each with its length in a header field, so that readers can seek.
type bgzfWriter struct {
	w     io.Writer
	level int
	block []byte
}

// bgzfBlock is the amount of data in a member, which stays below 64 KiB even if the
// data cannot be compressed.
const bgzfBlock = 0xff00

func newBGZF(w io.Writer, level int) *bgzfWriter { return &bgzfWriter{w: w, level: level} }

// Write implements [io.Writer].
func (b *bgzfWriter) Write(p []byte) (int, error) {
	for written := 0; ; {
		n := min(len(p)-written, bgzfBlock-len(b.block))
		b.block = append(b.block, p[written:written+n]...)
		if written += n; written == len(p) {
			return written, nil
		}
		if err := b.flush(); err != nil {
			return written, err
		}
	}
}

func (b *bgzfWriter) flush() error {
	var member bytes.Buffer
	z, err := gzip.NewWriterLevel(&member, b.level)
	if err != nil {
		return err
	}
	z.Extra = []byte{'B', 'C', 2, 0, 0, 0}
	if _, err := z.Write(b.block); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	// The value of the field comes after the header, the length of all fields, and the field's
	// name and length.
	binary.LittleEndian.PutUint16(member.Bytes()[16:], uint16(member.Len()-1))
	b.block = b.block[:0]
	_, err = b.w.Write(member.Bytes())
	return err
}

// bgzfEnd is the empty member that marks the end, exactly as in the specification.
var bgzfEnd = []byte("\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x06\x00BC\x02\x00\x1b\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00")

// Close writes the remaining data and the end marker.
func (b *bgzfWriter) Close() error {
	if len(b.block) > 0 {
		if err := b.flush(); err != nil {
			return err
		}
	}
	_, err := b.w.Write(bgzfEnd)
	return err
}
