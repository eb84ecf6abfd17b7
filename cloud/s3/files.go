package s3

import (
	"crypto/md5" // S3's entity tags are MD5
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"bake/cloud/durable"
	"bake/cloud/machine/layer"
	"bake/cloud/wire"
)

// The number and size of the parts of a file: at most as many parts as an upload can have, of a
// size that is a power of two, so that the regular structures of a disk image recur at the same
// offsets in its parts.
const (
	filePart  = 8 << 20
	fileParts = 10000
)

// maxKnown is the maximum amount of data in a part whose checksum is cached for identical parts.
const maxKnown = 1 << 20

// StoreFile creates an object with the content of a file, for the cloud's other services. Its
// entity tag is that of an upload in parts. Holes are neither read nor written, and parts with the
// same data as an earlier one are not hashed again. StoreFile calls said with the number of bytes
// written and the file's size, the last time before the object becomes visible. If said returns an
// error, an existing object stays unchanged.
func (s *Service) StoreFile(caller wire.Caller, bucket, key string, header http.Header, f *os.File, said func(done, of int64) error) error {
	q := &request{Request: &http.Request{Header: header}, w: nowhere{http.Header{}}, caller: caller, bucket: bucket, key: key}
	o, err := newObject(q)
	if err != nil {
		return err
	}
	if err := s.checked(q); err != nil {
		return err
	}
	to, err := os.CreateTemp(s.path(bucket, "uploads"), durable.Temp)
	if err != nil {
		return err
	}
	o.ETag, o.Size, err = copyParts(to, f, said)
	if err = errors.Join(err, to.Sync(), to.Close()); err == nil {
		err = said(o.Size, o.Size)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to.Name()))
	}
	return s.guarded.Update(func(b *buckets) error { return b.place(q, o, to.Name()) })
}

// copyParts copies a file to an empty one and returns the entity tag and the size. It calls said
// after each part except the last.
func copyParts(to, from *os.File, said func(done, of int64) error) (tag string, size int64, err error) {
	info, err := from.Stat()
	if err != nil {
		return "", 0, err
	}
	size = info.Size()
	data, err := layer.Segments(from, size)
	if err == nil {
		err = to.Truncate(size)
	}
	if err != nil {
		return "", 0, err
	}
	part := int64(filePart)
	for size > part*fileParts {
		part *= 2
	}
	sums, known, count := md5.New(), map[[sha256.Size]byte][]byte{}, 0
	for start := int64(0); start == 0 || start < size; start += part {
		end := min(start+part, size)
		sum, err := copyPart(to, from, start, end, within(&data, start, end), known)
		if err != nil {
			return "", 0, err
		}
		sums.Write(sum)
		count++
		if end == size {
			break
		}
		if err := said(end, size); err != nil {
			return "", 0, err
		}
	}
	return fmt.Sprintf(`"%x-%d"`, sums.Sum(nil), count), size, nil
}

// within removes the segments from start to end from the beginning of data and returns them.
func within(data *[]layer.Segment, start, end int64) (in []layer.Segment) {
	for len(*data) > 0 {
		s := (*data)[0]
		at, to := max(s.Offset, start), min(s.Offset+s.Length, end)
		if at >= to {
			break
		}
		in = append(in, layer.Segment{Offset: at, Length: to - at})
		if s.Offset+s.Length > end {
			break
		}
		*data = (*data)[1:]
	}
	return in
}

// copyPart copies a part of a file and returns its MD5. known caches the MD5 of parts with little
// data, keyed by a digest of the data and its offsets.
func copyPart(to, from *os.File, start, end int64, data []layer.Segment, known map[[sha256.Size]byte][]byte) ([]byte, error) {
	amount := int64(0)
	like := sha256.New()
	place := func(n int64) { like.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	place(end - start)
	for _, s := range data {
		amount += s.Length
		place(s.Offset - start)
		place(s.Length)
	}
	if amount <= maxKnown {
		for _, s := range data {
			if _, err := io.Copy(like, io.NewSectionReader(from, s.Offset, s.Length)); err != nil {
				return nil, err
			}
		}
	}
	key := [sha256.Size]byte(like.Sum(nil))
	sum, ok := known[key]
	hash := md5.New()
	zeros := func(n int64) {
		if !ok {
			hashZeros(hash, n)
		}
	}
	at := start
	for _, s := range data {
		zeros(s.Offset - at)
		var both io.Writer = io.NewOffsetWriter(to, s.Offset)
		if !ok {
			both = io.MultiWriter(both, hash)
		}
		if n, err := io.Copy(both, io.NewSectionReader(from, s.Offset, s.Length)); err != nil || n < s.Length {
			return nil, errors.Join(fmt.Errorf("the file could be read only up to %d bytes", s.Offset+n), err)
		}
		at = s.Offset + s.Length
	}
	if zeros(end - at); ok {
		return sum, nil
	}
	sum = hash.Sum(nil)
	if amount <= maxKnown {
		known[key] = sum
	}
	return sum, nil
}

func hashZeros(hash io.Writer, n int64) {
	zeros := make([]byte, 64<<10)
	for ; n > 0; n -= int64(len(zeros)) {
		_, _ = hash.Write(zeros[:min(n, int64(len(zeros)))]) // never fails
	}
}
