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
// line breaks, but puts none into what is in backquotes, unless a backquote is missing. What is
// wider has a line of its own.
func Fill(text, indent string, width int) string {
	var lines []string
	line, word := "", ""
	quoted := strings.Count(text, "`")%2 == 0
	for part := range strings.FieldsSeq(text) {
		if word != "" {
			part = word + " " + part
		}
		if word = ""; quoted && strings.Count(part, "`")%2 == 1 {
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
	if line != "" {
		lines = append(lines, indent+line)
	}
	return strings.Join(lines, "\n")
}

// OneLine replaces each sequence of white space in a text by a single space.
func OneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Printable makes a text from an external source safe for a terminal: it cannot move the
// cursor or begin a new line. Characters that could are replaced by U+FFFD.
func Printable(text string) string { return printable(text, "") }

// PrintableLines is [Printable] for a text of several lines: line breaks and tabs stay.
func PrintableLines(text string) string {
	return printable(strings.ReplaceAll(text, "\r\n", "\n"), "\n\t")
}

// printable keeps the characters of text that are graphic or among kept.
func printable(text, kept string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || strings.ContainsRune(kept, r) {
			return r
		}
		return unicode.ReplacementChar
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
	rows [][]string
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
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Printable(fmt.Sprint(c))
	}
	t.rows = append(t.rows, row)
}

// String returns the table, with the end of a line after each row but the last.
func (t *Table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // into memory
	return strings.TrimSuffix(b.String(), "\n")
}

// Within is String for a terminal of so many columns; 0 is any number. If a row is longer,
// each row becomes a block: its first cell, and below it the others that have a value, each
// with its head. The first row holds the heads.
func (t *Table) Within(columns int) string {
	text := t.String()
	if columns <= 0 || len(t.rows) < 2 || fits(text, columns) {
		return text
	}
	heads, width := t.rows[0], 0
	for _, h := range heads {
		width = max(width, utf8.RuneCountInString(h))
	}
	var lines []string
	for _, row := range t.rows[1:] {
		for i, cell := range row {
			switch cell = strings.TrimSpace(cell); {
			case cell == "" || cell == "-" && i > 0:
			case i == 0:
				lines = append(lines, Wrapped(cell, columns)...)
			default:
				text := strings.Join(Wrapped(cell, max(10, columns-width-4)), "\n"+strings.Repeat(" ", width+4))
				lines = append(lines, fmt.Sprintf("  %-*s  %s", width, heads[i], text))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// fits reports whether no line of text is longer than so many columns.
func fits(text string, columns int) bool {
	for line := range strings.SplitSeq(text, "\n") {
		if utf8.RuneCountInString(strings.TrimRight(line, " ")) > columns {
			return false
		}
	}
	return true
}

// Wrapped returns the lines of a text. It divides lines of more than width columns as [Fill]
// does, and leaves the others as they are.
func Wrapped(text string, width int) (lines []string) {
	for line := range strings.SplitSeq(text, "\n") {
		if !fits(line, width) {
			line = Fill(line, "", width)
		}
		lines = append(lines, strings.Split(line, "\n")...)
	}
	return lines
}
