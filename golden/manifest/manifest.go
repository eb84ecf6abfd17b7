// Package manifest lists the files of a machine: the type, owner, permissions and content
// digest of each.
package manifest

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
)

// Manifest is a list of files.
type Manifest struct {
	files map[string]file // by path
}

// file is a file of any kind. It is comparable.
type file struct {
	kind   byte   // as printed by find: f is a regular file, d a directory, l a link, …
	mode   uint32 // permissions, including set-user-ID and similar bits
	uid    uint32
	gid    uint32
	size   int64    // of a regular file
	sum    [32]byte // likewise: the SHA-256
	read   bool     // sum is known
	target string   // of a link
}

// Len returns the number of files.
func (m *Manifest) Len() int { return len(m.files) }

// The limits of a manifest.
const (
	maxFiles = 1_000_000
	maxLine  = 64 << 10 // bytes of a path, or of a line
	maxBytes = 1 << 30  // bytes of everything that a machine or a document provides
)

// add adds a file, unless there are too many.
func (m *Manifest) add(path string, f file) error {
	if _, again := m.files[path]; !again && len(m.files) == maxFiles {
		return fmt.Errorf("there are more than %d files", maxFiles)
	}
	m.files[path] = f
	return nil
}

// paths returns the paths of all files, in order.
func (m *Manifest) paths() []string {
	all := make([]string, 0, len(m.files))
	for p := range m.files {
		all = append(all, p)
	}
	sort.Strings(all)
	return all
}

// Extension is the end of the name of a file with a manifest.
const Extension = ".files.gz"

// header is the first line of a document.
const header = "bake file manifest 1"

// Write writes the manifest as text compressed with gzip. After a header, it has a line for
// each file with its kind, permissions, owner, group and path, followed by the size and
// SHA-256 ("-" if it could not be read) of a regular file or the target of a link. Paths and
// targets are quoted as in Go. The same manifest makes the same bytes.
func (m *Manifest) Write(w io.Writer) error {
	z := gzip.NewWriter(w)
	b := bufio.NewWriter(z)
	fmt.Fprintln(b, header)
	for _, path := range m.paths() {
		f := m.files[path]
		fmt.Fprintf(b, "%c %04o %d %d %s", f.kind, f.mode, f.uid, f.gid, strconv.QuoteToASCII(path))
		switch {
		case f.kind == regular && f.read:
			fmt.Fprintf(b, " %d %x", f.size, f.sum)
		case f.kind == regular:
			fmt.Fprintf(b, " %d -", f.size)
		case f.kind == link:
			fmt.Fprintf(b, " %s", strconv.QuoteToASCII(f.target))
		}
		fmt.Fprintln(b)
	}
	fmt.Fprintln(b, end)
	return errors.Join(b.Flush(), z.Close())
}

// end is the last line of a document, and of a machine's output.
const end = "end"

// The kinds of files that have further fields.
const (
	regular = 'f'
	link    = 'l'
)

// Parse reads the format of Write.
func Parse(r io.Reader) (*Manifest, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("it is not a file manifest: %w", err)
	}
	m := &Manifest{files: map[string]file{}}
	lines := bufio.NewScanner(io.LimitReader(z, maxBytes))
	lines.Buffer(nil, 8*maxLine) // quoted
	if !lines.Scan() || lines.Text() != header {
		return nil, errors.Join(lines.Err(), errors.New("it is not a file manifest"))
	}
	for lines.Scan() {
		if lines.Text() == end {
			return m, nil
		}
		path, f, err := parseLine(lines.Text())
		if err == nil {
			err = m.add(path, f)
		}
		if err != nil {
			return nil, fmt.Errorf("the file manifest is damaged: %w", err)
		}
	}
	return nil, errors.Join(lines.Err(), errors.New("the file manifest is damaged: it ends early"))
}

func parseLine(line string) (path string, f file, err error) {
	bad := fmt.Errorf("%.100q describes no file", line)
	part := strings.SplitN(line, " ", 5)
	if len(part) != 5 {
		return "", f, bad
	}
	if f, err = parseFile(part[:4]); err != nil {
		return "", f, err
	}
	path, rest, err := unquote(part[4])
	if err != nil {
		return "", f, bad
	}
	switch f.kind {
	case link:
		var after string
		if f.target, after, err = unquote(strings.TrimPrefix(rest, " ")); err != nil || after != "" {
			return "", f, bad
		}
	case regular:
		size, sum, _ := strings.Cut(strings.TrimPrefix(rest, " "), " ")
		if f.size, err = strconv.ParseInt(size, 10, 64); err != nil || f.size < 0 {
			return "", f, bad
		}
		if sum != "-" && !f.digest(sum) {
			return "", f, bad
		}
	default:
		if rest != "" {
			return "", f, bad
		}
	}
	return path, f, nil
}

// unquote reads the quoted text at the start of s.
func unquote(s string) (text, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", err
	}
	text, err = strconv.Unquote(quoted)
	return text, s[len(quoted):], err
}

// parseFile reads a kind, permissions, an owner and a group.
func parseFile(part []string) (f file, err error) {
	mode, err := strconv.ParseUint(part[1], 8, 16)
	uid, err2 := strconv.ParseUint(part[2], 10, 32)
	gid, err3 := strconv.ParseUint(part[3], 10, 32)
	if err := errors.Join(err, err2, err3); err != nil || len(part[0]) != 1 || mode > 0o7777 {
		return f, fmt.Errorf("%.100q describes no file", strings.Join(part, " "))
	}
	return file{kind: part[0][0], mode: uint32(mode), uid: uint32(uid), gid: uint32(gid)}, nil
}

// digest sets the digest from hexadecimal digits, and reports whether they are valid.
func (f *file) digest(text string) bool {
	if len(text) != hex.EncodedLen(len(f.sum)) {
		return false
	}
	_, err := hex.Decode(f.sum[:], []byte(text))
	f.read = err == nil
	return f.read
}
