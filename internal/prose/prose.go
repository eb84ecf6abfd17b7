// Package prose formats text for people: sentences, tables, and foreign text that is made safe
// for a terminal.
package prose

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"
)

// Capital returns a text with an upper-case letter at its start: "create image" becomes
// "Create image".
func Capital(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 || first == utf8.RuneError {
		return text
	}
	return string(unicode.ToUpper(first)) + text[size:]
}

// Sentence returns a text, such as that of an error, as a sentence. An empty text stays
// empty.
func Sentence(text string) string {
	if text == "" {
		return ""
	}
	return Capital(strings.TrimSuffix(text, ".")) + "."
}

// Sprintf is [fmt.Sprintf] for sentences. Error messages of Windows end in a full stop:
// after one of an error in args, it removes the second full stop.
func Sprintf(format string, args ...any) string {
	return onePoint[syscall.Errno](fmt.Sprintf(format, args...), args)
}

// onePoint removes the second full stop after messages of errors of type E in args.
func onePoint[E error](text string, args []any) string {
	for _, arg := range args {
		err, ok := arg.(error)
		if !ok {
			continue
		}
		if system, ok := errors.AsType[E](err); ok && strings.HasSuffix(system.Error(), ".") {
			text = strings.ReplaceAll(text, system.Error()+".", system.Error())
		}
	}
	return text
}

// Fill divides a text into lines of at most width columns, which begin with indent. It moves
// line breaks, but puts none into what is in backquotes; what is wider has a line of its own.
func Fill(text, indent string, width int) string {
	var lines []string
	line, word := "", ""
	for part := range strings.FieldsSeq(text) {
		if word != "" {
			part = word + " " + part
		}
		if word = ""; strings.Count(part, "`")%2 == 1 {
			word = part // its quotation goes on
			continue
		}
		if line != "" && utf8.RuneCountInString(indent+line+" "+part) <= width {
			line += " " + part
			continue
		}
		if line != "" {
			lines = append(lines, indent+line)
		}
		line = part
	}
	if rest := strings.TrimSpace(line + " " + word); rest != "" { // word: a quotation that does not end
		lines = append(lines, indent+rest)
	}
	return strings.Join(lines, "\n")
}

// OneLine replaces each sequence of white space in a text by a single space.
func OneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Printable makes a text from an external source safe for a terminal: it cannot move the
// cursor or begin a new line. Characters that could are replaced by U+FFFD.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// Line applies [OneLine] and [Printable] to a text.
func Line(text string) string { return Printable(OneLine(text)) }

// Short is [Line], cut if the result has more than most characters.
func Short(text string, most int) string { return Cut(Line(text), most) }

// Excerpt shortens a text, such as the error output of a program, for a message; see
// [Short].
func Excerpt(text string) string { return Short(text, 1000) }

// Cut cuts a text if it has more than most characters.
func Cut(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// Beginning returns a text, or its beginning followed by "..." if it has more than most
// bytes. most must be at least the length of "...".
func Beginning(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("...")], "") + "..."
}

// Missing returns the error text for a file, or other item, that a template names and that
// does not exist: a sentence without its full stop.
func Missing(what, path string) string {
	text := fmt.Sprintf("There is no %s %q", what, path)
	if filepath.IsAbs(path) {
		return text
	}
	return text + "; relative paths start at the current directory, so ${path.root}/... may be meant"
}

// Count formats a number with a noun: "1 check", "2 checks".
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Table formats rows of cells in columns that are as wide as their widest cell, two spaces
// apart. The zero value is empty.
type Table struct {
	rows strings.Builder
}

// NewTable returns a table whose first row consists of these cells.
func NewTable(heads ...any) *Table {
	t := new(Table)
	t.Row(heads...)
	return t
}

// Row adds a row. Each cell is formatted by [fmt.Sprint] and [Printable]. The last cell
// does not widen its column, and a row with a single cell ends the columns above it.
func (t *Table) Row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			t.rows.WriteByte('\t')
		}
		t.rows.WriteString(Printable(fmt.Sprint(c)))
	}
	t.rows.WriteByte('\n')
}

// String returns the table, with the end of a line after each row but the last.
func (t *Table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, t.rows.String())
	_ = w.Flush() // into memory
	return strings.TrimSuffix(b.String(), "\n")
}
