package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// holeBlock is the unit in which zeros of a sparse file become holes: the allocation unit of
	// file systems.
	holeBlock = 4096

	// maxSegments is the largest number of data segments of a sparse file in a stream. Readers
	// accept a map of at most a megabyte.
	maxSegments = 20000

	// maxHoles is the largest total size of the sparse files of a stream, in bytes. A few bytes of
	// tar can declare any size, and all of it is processed, at some gigabytes a second.
	maxHoles = 1 << 40
)

// sparsePrefix starts the keys of the records that describe a sparse file.
const sparsePrefix = "GNU.sparse."

// Segment is a range of data in a sparse file, in bytes.
type Segment struct{ Offset, Length int64 }

// isSparse reports whether an entry of a tar stream is a file with holes, in one of GNU tar's
// formats. Reading the entry returns zeros for the holes.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if h.Typeflag == tar.TypeReg && strings.HasPrefix(key, sparsePrefix) {
			return true
		}
	}
	return false
}

// sparseBytes is the number of bytes of sparse files in a stream.
type sparseBytes int64

// add counts a sparse file, and reports that there are more than limit bytes in total.
func (n *sparseBytes) add(h *tar.Header, limit int64) error {
	if *n += sparseBytes(h.Size); int64(*n) > limit || *n < 0 {
		return fmt.Errorf("the sparse files have more than %d bytes in total", limit)
	}
	return nil
}

// CheckHoles reads a stream of [Pack] to its end and reports sparse files that [Unpack] refuses.
func CheckHoles(r io.Reader) error {
	var total sparseBytes
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if isSparse(h) {
			if err := total.add(h, maxHoles); err != nil {
				return named(h.Name, err)
			}
		}
	}
}

// SparseWriter writes to a new file, except blocks that contain only zeros, which become holes. When
// everything is written, the caller sets the size of the file to Size, since a hole at its end does
// not.
type SparseWriter struct {
	File *os.File
	Size int64 // bytes written
}

// Write implements [io.Writer].
func (w *SparseWriter) Write(b []byte) (int, error) {
	if err := writeSparse(int(w.File.Fd()), b, w.Size); err != nil {
		return 0, err
	}
	w.Size += int64(len(b))
	return len(b), nil
}

// writeSparse writes b at offset, except blocks that contain only zeros.
func writeSparse(fd int, b []byte, offset int64) error {
	zeros := make([]byte, holeBlock)
	for len(b) > 0 {
		n := 0 // bytes of the same kind: data or zeros
		zero := false
		for n < len(b) {
			block := b[n:min(n+holeBlock, len(b))]
			is := bytes.Equal(block, zeros[:len(block)])
			if n > 0 && is != zero {
				break
			}
			zero = is
			n += len(block)
		}
		for data := b[:n]; !zero && len(data) > 0; {
			k, err := unix.Pwrite(fd, data, offset+int64(n-len(data)))
			if err != nil && err != unix.EINTR {
				return err
			}
			data = data[max(k, 0):]
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// eachSegment calls do for the data segments of an open file of the given size, in order. If the
// file system does not report holes, the whole file is one segment.
func eachSegment(f *os.File, size int64, do func(Segment) error) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if s, ok := st.Sys().(*syscall.Stat_t); ok && s.Blocks*512 >= size {
		return do(Segment{0, size})
	}
	fd := int(f.Fd())
	for at := int64(0); at < size; {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO { // only a hole from here on
			return nil
		}
		if err == unix.EINVAL || err == unix.EOPNOTSUPP {
			return do(Segment{at, size - at})
		}
		if err != nil {
			return fmt.Errorf("look for holes: %w", err)
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("look for holes: %w", err)
		}
		if data >= size {
			return nil
		}
		at = min(hole, size)
		if err := do(Segment{data, at - data}); err != nil {
			return err
		}
	}
	return nil
}

// Segments returns the data segments of an open file of the given size, in order.
func Segments(f *os.File, size int64) (all []Segment, err error) {
	err = eachSegment(f, size, func(s Segment) error {
		all = append(all, s)
		return nil
	})
	return all, err
}

// joined returns data segments for a stream. If there are too many, the smallest holes count as
// data.
func joined(all []Segment) ([]Segment, error) {
	var filled int64
	for _, s := range all {
		filled -= s.Length
	}
	for gap := int64(holeBlock); len(all) > maxSegments; gap *= 2 {
		kept := all[:1]
		for _, s := range all[1:] {
			last := &kept[len(kept)-1]
			if s.Offset-(last.Offset+last.Length) <= gap {
				last.Length = s.Offset + s.Length - last.Offset
			} else {
				kept = append(kept, s)
			}
		}
		all = kept
	}
	for _, s := range all {
		filled += s.Length
	}
	if filled > maxHoles {
		return nil, fmt.Errorf("it has more than %d separate data segments", maxSegments)
	}
	return all, nil
}

// smallFile is the size of the largest file that is copied even if its blocks could be shared.
// Before a file system shares new blocks, it writes them to the disk and waits.
const smallFile = 128 << 10

// copyFile copies the content of f to the new file fd. It shares the blocks if the file system can,
// and copies the data otherwise.
func copyFile(fd int, f *os.File, size int64, buf []byte) error {
	if size > smallFile && unix.IoctlFileClone(fd, int(f.Fd())) == nil {
		return nil
	}
	return copyData(fd, f, size, buf)
}

// copyData copies the data of f to the new file fd. Blocks of zeros become holes, because journals
// reserve blocks that they do not use.
func copyData(fd int, f *os.File, size int64, buf []byte) error {
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	return eachSegment(f, size, func(s Segment) error {
		for end := s.Offset + s.Length; s.Offset < end; {
			n, err := f.ReadAt(buf[:min(end-s.Offset, int64(len(buf)))], s.Offset)
			if n == 0 && err == io.EOF {
				return errors.New("the file shrank while it was read")
			}
			if n == 0 {
				return err
			}
			if err := writeSparse(fd, buf[:n], s.Offset); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			s.Offset += int64(n)
		}
		return nil
	})
}

// sparse writes a file with holes as GNU tar does in its PAX format 1.0: a map of the segments
// first, then only their data. The library cannot write such entries, so this bypasses it.
func (a *Archive) sparse(h *tar.Header, content io.ReaderAt, data []Segment) error {
	size := h.Size
	// The last segment must end at the end of the file.
	if len(data) == 0 || data[len(data)-1].Offset+data[len(data)-1].Length < size {
		data = append(data, Segment{size, 0})
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%d\n", len(data))
	var stored int64
	for _, s := range data {
		fmt.Fprintf(&table, "%d\n%d\n", s.Offset, s.Length)
		stored += s.Length
	}
	table.WriteString(strings.Repeat("\x00", padding(int64(table.Len()))))
	stored += int64(table.Len())

	// The library refuses to write records with this prefix, so it writes a prefix of the same
	// length, which is then replaced.
	placeholder := "BAKEsparse."
	outer := *h
	outer.PAXRecords = map[string]string{
		placeholder + "major": "1", placeholder + "minor": "0",
		placeholder + "name": h.Name, placeholder + "realsize": strconv.FormatInt(size, 10),
	}
	for key, value := range h.PAXRecords {
		outer.PAXRecords[key] = value
	}
	dir, base := path.Split(h.Name)
	outer.Name, outer.Size = dir+"GNUSparseFile.0/"+base, stored
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(&outer); err != nil {
		return err
	}
	if err := a.tw.Flush(); err != nil {
		return err
	}
	renameRecords(header.Bytes()[blockSize:], placeholder, sparsePrefix)
	if _, err := a.out.Write(append(header.Bytes(), table.String()...)); err != nil {
		return err
	}
	for _, s := range data {
		n, err := io.CopyBuffer(onlyWriter{a.out}, io.NewSectionReader(content, s.Offset, s.Length), a.buf)
		if err == nil && n < s.Length {
			err = errors.New("the file shrank while it was read")
		}
		if err != nil {
			return err
		}
	}
	_, err := a.out.Write(make([]byte, padding(stored)))
	return err
}

// renameRecords changes the prefix of the keys of PAX records ("LENGTH KEY=VALUE\n") to another one
// of the same length.
func renameRecords(records []byte, from, to string) {
	for {
		digits, rest, ok := bytes.Cut(records, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n > len(records) {
			return // the padding
		}
		if bytes.HasPrefix(rest, []byte(from)) {
			copy(rest, to)
		}
		records = records[n:]
	}
}

// padding returns the number of bytes that fill up a tar block after n bytes.
func padding(n int64) int { return int(-n & (blockSize - 1)) }

// hasHoles reports whether a file of the given size has any holes.
func hasHoles(data []Segment, size int64) bool {
	return size > 0 && !slices.Equal(data, []Segment{{0, size}})
}
