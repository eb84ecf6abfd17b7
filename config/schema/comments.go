package schema

import (
	"strings"
	"unicode"
)

// addComments adds the doc comments of the fields of the structs that a Go source
// declares, as "package.Type.Field". It knows as much of the language as that takes in
// files that gofmt has formatted, as all of this project are: [go/parser] would add
// 0.3 MB to the program.
func addComments(to map[string]string, source string) {
	var pkg, structure, indent string // of the struct that a line is in, if any
	var doc []string
	for line := range strings.Lines(source) {
		line = strings.TrimRight(line, " \t\r\n")
		text := strings.TrimLeft(line, "\t")
		depth := line[:len(line)-len(text)]
		declared, alone := strings.CutPrefix(text, "type ")
		switch name, isStruct := strings.CutSuffix(declared, " struct {"); {
		case structure == "" && strings.HasPrefix(line, "package "):
			pkg = strings.Fields(line)[1]
		case structure == "" && isStruct && (alone && depth == "" || !alone && depth == "\t") && identifier(name):
			structure, indent, doc = name, depth, nil
		case structure == "":
		case depth == indent && strings.HasPrefix(text, "}"):
			structure = ""
		case depth != indent+"\t": // a blank line, or inside a field
			doc = nil
		case strings.HasPrefix(text, "//"):
			doc = append(doc, text)
		default:
			for _, field := range fieldNames(text) {
				if text := commentText(doc); text != "" {
					to[pkg+"."+structure+"."+field] = text
				}
			}
			doc = nil
		}
	}
}

// fieldNames returns the names that the declaration of a field begins with; nil: the
// field is embedded.
func fieldNames(declaration string) (names []string) {
	declaration, _, _ = strings.Cut(declaration, "`")
	declaration, _, _ = strings.Cut(declaration, "//")
	for {
		name, rest, more := strings.Cut(strings.TrimLeft(declaration, " "), " ")
		name, comma := strings.CutSuffix(name, ",")
		if !more || strings.TrimSpace(rest) == "" || !identifier(name) {
			return nil
		}
		names = append(names, name)
		if !comma {
			return names
		}
		declaration = rest
	}
}

// commentText is what [go/ast.CommentGroup.Text] makes of the lines of a comment, without
// the blank ones at its ends.
func commentText(lines []string) string {
	var b strings.Builder
	blank := false
	for _, line := range lines {
		text := strings.TrimPrefix(line, "//")
		if directive(text) {
			continue
		}
		if text = strings.TrimPrefix(text, " "); text == "" {
			blank = b.Len() > 0
			continue
		}
		if blank {
			b.WriteString("\n")
		}
		blank = false
		b.WriteString(text + "\n")
	}
	return strings.TrimSpace(b.String())
}

// directive: the text of a comment, without its slashes, is meant for a tool.
func directive(text string) bool {
	tool, rest, found := strings.Cut(text, ":")
	lower := func(r rune) bool { return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' }
	return found && tool != "" && strings.IndexFunc(tool, func(r rune) bool { return !lower(r) }) < 0 && rest != "" && lower(rune(rest[0]))
}

func identifier(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }) < 0
}
