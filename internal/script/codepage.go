package script

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// encode returns the text of an inline script in the encoding that the interpreter for
// this extension expects on Windows: for cmd.exe the code page of the console, for Windows
// PowerShell UTF-8 with a byte order mark, for others UTF-8. A text that the code page
// cannot represent stays UTF-8.
func encode(text, extension string, toPage func(string) (string, bool)) string {
	if strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return text
	}
	switch strings.ToLower(filepath.Ext(extension)) {
	case ".cmd", ".bat":
		if coded, ok := toPage(text); ok {
			return coded
		}
	case ".ps1":
		return "\ufeff" + text
	}
	return text
}

// recoded is a writer to which programs write lines in UTF-8 or in the code page of the console,
// each of which out gets in UTF-8. The caller calls flush once they have ended.
type recoded struct {
	out      io.Writer
	fromPage func([]byte) []byte
	rest     []byte // of a line without its end
}

// longestLine is how much of a line is kept until it ends.
const longestLine = 64 << 10

// Write implements [io.Writer].
func (r *recoded) Write(b []byte) (int, error) {
	r.rest = append(r.rest, b...)
	whole := bytes.LastIndexByte(r.rest, '\n') + 1
	if len(r.rest)-whole > longestLine {
		whole = len(r.rest)
	}
	for line := range bytes.Lines(r.rest[:whole]) {
		if err := r.write(line); err != nil {
			return 0, err
		}
	}
	r.rest = append(r.rest[:0], r.rest[whole:]...)
	return len(b), nil
}

func (r *recoded) write(line []byte) error {
	if !utf8.Valid(line) {
		line = r.fromPage(line)
	}
	_, err := r.out.Write(line)
	return err
}

// flush writes a last line that has no end.
func (r *recoded) flush() error {
	if len(r.rest) == 0 {
		return nil
	}
	return r.write(r.rest)
}
