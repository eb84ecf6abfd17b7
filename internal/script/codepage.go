package script

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"bake/internal/lazyregexp"
)

// setsPage matches a command that sets the code page of the console. cmd.exe reads the rest of
// the script in that code page.
var setsPage = lazyregexp.New(`(?i)\bchcp(?:\.com)?"?[ \t]+[0-9%!]`)

// encode returns an inline script as the program for files of this extension reads it on
// Windows: cmd.exe in the code page of the console, Windows PowerShell as UTF-8 with a byte
// order mark, others as UTF-8. A script for cmd.exe that sets the code page stays UTF-8. So
// does one with characters that the code page lacks, and whole is false: cmd.exe misreads it.
func encode(text, extension string, toPage func(string) (string, bool)) (coded string, whole bool) {
	if ascii([]byte(text)) == len(text) {
		return text, true
	}
	switch strings.ToLower(filepath.Ext(extension)) {
	case ".cmd", ".bat":
		if setsPage.Get().MatchString(text) {
			return text, true
		}
		if coded, ok := toPage(text); ok {
			return coded, true
		}
		return text, false
	case ".ps1":
		return "\ufeff" + text, true
	}
	return text, true
}

// ascii returns the number of bytes before the first one that is not ASCII.
func ascii(text []byte) int {
	for i, c := range text {
		if c >= utf8.RuneSelf {
			return i
		}
	}
	return len(text)
}

// recoded converts output to UTF-8. Programs write each line in UTF-8 or in the code page of the
// console. A carriage return ends a line too, as in progress displays. ASCII, which is the same
// in both, is forwarded at once. The caller calls flush at the end of the output.
type recoded struct {
	out      io.Writer
	fromPage func([]byte) []byte
	rest     []byte // an unfinished line, from its first character that is not ASCII
}

// longestLine is the maximum number of bytes kept of an unfinished line.
const longestLine = 64 << 10

// Write implements [io.Writer].
func (r *recoded) Write(b []byte) (int, error) {
	r.rest = append(r.rest, b...)
	whole := bytes.LastIndexAny(r.rest, "\r\n") + 1
	whole += ascii(r.rest[whole:])
	if len(r.rest)-whole > longestLine {
		whole = len(r.rest) - halfRune(r.rest)
	}
	for rest := r.rest[:whole]; len(rest) > 0; {
		end := lineEnd(rest)
		if err := r.write(rest[:end]); err != nil {
			return 0, err
		}
		rest = rest[end:]
	}
	r.rest = append(r.rest[:0], r.rest[whole:]...)
	return len(b), nil
}

// lineEnd returns the length of the first line of a text, with its end if it has one.
func lineEnd(text []byte) int {
	end := bytes.IndexAny(text, "\r\n") + 1
	if end == 0 {
		return len(text)
	}
	if bytes.HasPrefix(text[end-1:], []byte("\r\n")) {
		end++
	}
	return end
}

// halfRune returns the length of an incomplete UTF-8 character at the end of a text.
func halfRune(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
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
