package goss

import (
	"bytes"
	"sort"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"bake/internal/prose"
)

// source is a file as written, and as rendered by its template.
type source struct {
	name     string
	written  text
	rendered text
	lines    []int // for each line of rendered the line of written it comes from, from 1; nil: they are the same
}

// text is a text with the positions of its lines.
type text struct {
	bytes  []byte
	starts []int
}

func newText(b []byte) text {
	t := text{b, []int{0}}
	for i, c := range b {
		if c == '\n' {
			t.starts = append(t.starts, i+1)
		}
	}
	return t
}

// line returns line n, counted from 1, and the offset of its first byte.
func (t text) line(n int) (content []byte, offset int) {
	if n < 1 || n > len(t.starts) {
		return nil, len(t.bytes)
	}
	offset = t.starts[n-1]
	content, _, _ = bytes.Cut(t.bytes[offset:], []byte("\n"))
	return bytes.TrimSuffix(content, []byte("\r")), offset
}

// place returns the line and the column in characters, both from 1, of a byte.
func (t text) place(offset int) (line, column int) {
	offset = min(offset, len(t.bytes))
	line = sort.SearchInts(t.starts, offset+1)
	return line, utf8.RuneCount(t.bytes[t.starts[line-1]:offset]) + 1
}

// at returns the range in the file of a text of length bytes in the rendered text, at a
// line and a column in characters, both from 1. If the template changed the line, the
// range is the whole line.
func (s *source) at(n, column, length int) hcl.Range {
	made, _ := s.rendered.line(n)
	if s.lines != nil {
		n = s.lines[min(max(n, 1), len(s.lines))-1]
	}
	text, offset := s.written.line(n)
	start, end := 0, len(text)
	if bytes.Equal(text, made) && column > 0 {
		for ; column > 1 && start < len(text); column-- {
			_, size := utf8.DecodeRune(text[start:])
			start += size
		}
		if length > 0 {
			end = min(start+length, len(text))
		}
	} else {
		start = len(text) - len(bytes.TrimLeft(text, " \t"))
	}
	pos := func(i int) hcl.Pos {
		return hcl.Pos{Line: n, Column: utf8.RuneCount(text[:i]) + 1, Byte: offset + i}
	}
	return hcl.Range{Filename: s.name, Start: pos(start), End: pos(end)}
}

func fault(at hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: prose.Sprintf(format, args...), Subject: &at}
}

func hint(at hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	d := fault(at, summary, format, args...)
	d.Severity = hcl.DiagWarning
	return d
}
