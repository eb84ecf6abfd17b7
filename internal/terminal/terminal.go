// Package terminal opens the terminal that a program was started from, and reports what the
// program's output files can display.
package terminal

import (
	"errors"
	"os"

	"golang.org/x/term"
)

// Terminal is the terminal that the process was started from, wherever its standard
// input and output go.
type Terminal struct {
	In, Out *os.File // the same file on Unix
}

// Open opens the terminal. It fails if the process has none, such as a service. The caller
// closes it.
func Open() (*Terminal, error) { return open() }

// Read implements [io.Reader].
func (t *Terminal) Read(b []byte) (int, error) { return t.In.Read(b) }

// Write implements [io.Writer].
func (t *Terminal) Write(b []byte) (int, error) { return t.Out.Write(b) }

// Close implements [io.Closer].
func (t *Terminal) Close() error {
	err := t.In.Close()
	if t.Out != t.In {
		err = errors.Join(err, t.Out.Close())
	}
	return err
}

// Is reports whether stream, an input or an output, is a terminal.
func Is(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Draws reports whether out is a terminal that supports escape sequences, for colors and
// for moving the cursor. It enables them on a Windows console.
func Draws(out any) bool {
	f, ok := out.(*os.File)
	return ok && draws(f)
}

// Unread reports whether err comes from a write to a pipe without a reader, as in "bake
// build | head".
func Unread(err error) bool { return unread(err) }
