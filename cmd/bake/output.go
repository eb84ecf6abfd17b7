package main

import (
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/term"

	"bake/internal/terminal"
)

// output is standard output or standard error. It detects when its reader has gone away,
// as in "bake build | head", and when a write fails, as on a full disk.
type output struct {
	io.Writer
	once sync.Once
	gone chan struct{} // closed when a write has found no reader
	lost atomic.Pointer[error]
}

func newOutput(w io.Writer) *output { return &output{Writer: w, gone: make(chan struct{})} }

// Write implements [io.Writer].
func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	switch {
	case terminal.Unread(err):
		o.once.Do(func() { close(o.gone) })
	case err != nil:
		o.lost.CompareAndSwap(nil, &err)
	}
	return n, err
}

// failure returns the error of the first write that failed for a reason other than a
// missing reader, or nil.
func (o *output) failure() error {
	if err := o.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// unread reports whether a write has found no reader.
func (o *output) unread() bool {
	select {
	case <-o.gone:
		return true
	default:
		return false
	}
}

// file returns the file that o writes to, or nil if o does not write to a file.
func (o *output) file() *os.File {
	f, _ := o.Writer.(*os.File)
	return f
}

// draws reports whether o is a terminal that understands escape sequences.
func (o *output) draws() bool { return terminal.Draws(o.Writer) }

// colors reports whether colors can be written to o: it is a terminal that supports them,
// or its content may be shown on one later.
func (o *output) colors() bool { return o.draws() || !terminal.Is(o.Writer) }

// columns returns the width of o, 0 if it is no terminal.
func (o *output) columns() int {
	if !terminal.Is(o.Writer) {
		return 0
	}
	width, _ := o.size()
	return width
}

// helpColumns returns how many columns help has on o.
func (o *output) helpColumns() int {
	if width := o.columns(); width > 0 {
		return min(width, helpWidth)
	}
	return helpWidth
}

// size returns the size of o in cells, 80 by 24 if it is no terminal.
func (o *output) size() (width, height int) {
	if f := o.file(); f != nil {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return 80, 24
}
