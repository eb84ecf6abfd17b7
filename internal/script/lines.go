package script

import (
	"bytes"
	"strings"
	"sync"
)

// Lines passes what is written to it on line by line, as a terminal would show
// it: of a line that overwrites itself with carriage returns only what is left
// at the end, without blanks at its end.
type Lines struct {
	mu   sync.Mutex
	emit func(string)
	rest []byte
}

// maxLine is how long a line may grow before it is broken, so that output
// without line breaks does not fill the memory.
const maxLine = 1 << 20

// NewLines returns a writer that calls emit for each line.
func NewLines(emit func(line string)) *Lines { return &Lines{emit: emit} }

// Write implements [io.Writer].
func (l *Lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(b)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		l.rest = append(l.rest, b[:i]...)
		l.line()
		b = b[i+1:]
	}
	l.rest = append(l.rest, b...)
	if len(l.rest) > maxLine {
		l.line()
	}
	return n, nil
}

// Flush passes on a last line that did not end in a line break.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.line()
	}
}

func (l *Lines) line() {
	text := strings.TrimRight(string(l.rest), " \t\r\v\f")
	l.rest = l.rest[:0]
	if i := strings.LastIndexByte(text, '\r'); i >= 0 {
		text = text[i+1:]
	}
	l.emit(text)
}
