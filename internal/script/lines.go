package script

import (
	"bytes"
	"strings"
	"sync"
	"time"
)

// Lines forwards its input line by line, as a terminal would show it: if a line
// overwrites itself with carriage returns, only the final text is forwarded, without
// trailing blanks.
type Lines struct {
	mu   sync.Mutex
	emit func(string)
	rest []byte

	// Overwritten is called with what a line has shown so far each time that the line
	// starts to overwrite itself, but not more often than a person can read. It may be
	// nil.
	Overwritten func(string)
	told        time.Time
}

// legible is how long a line must have been visible before it is reported as
// overwritten.
const legible = 100 * time.Millisecond

// maxLine is the length at which a line is broken, so that output without line breaks
// does not fill the memory.
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
	l.overwritten()
	if len(l.rest) > maxLine {
		l.line()
	}
	return n, nil
}

// Flush forwards a last line that did not end in a line break.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.line()
	}
}

// overwritten reports the text before the last carriage return. The text after it may be
// half a word, or half a secret.
func (l *Lines) overwritten() {
	end := bytes.LastIndexByte(l.rest, '\r')
	if l.Overwritten == nil || end < 0 || time.Since(l.told) < legible {
		return
	}
	text := l.rest[bytes.LastIndexByte(l.rest[:end], '\r')+1 : end]
	if text = bytes.TrimSpace(text); len(text) > 0 {
		l.told = time.Now()
		l.Overwritten(string(text))
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
