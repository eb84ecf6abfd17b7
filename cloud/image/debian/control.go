package debian

import (
	"fmt"
	"strings"
)

// field is a "Name: value" field of a control paragraph. Its value includes continuation lines
// unchanged, each after a newline.
type field struct{ Name, Value string }

// paragraph is one stanza of a Debian control file (deb822(5)), in file order.
type paragraph []field

// get returns the value of the named field, case-insensitively, or "".
func (p paragraph) get(name string) string {
	for _, f := range p {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// parseControl calls fn for each paragraph of text until fn fails. The paragraph is only valid
// during the call. The strings in it remain valid; they share text's memory.
func parseControl(text string, fn func(paragraph) error) error {
	var p paragraph
	flush := func() error {
		if len(p) == 0 {
			return nil
		}
		err := fn(p)
		p = p[:0]
		return err
	}
	start := 0 // offset of the current field's value in text
	for pos, line := 0, 0; pos < len(text); {
		line++
		end := strings.IndexByte(text[pos:], '\n')
		next := pos + end + 1
		if end < 0 {
			end, next = len(text)-pos, len(text)
		}
		s := strings.TrimRight(text[pos:pos+end], "\r")
		switch {
		case strings.TrimLeft(s, " \t") == "":
			if err := flush(); err != nil {
				return err
			}
		case s[0] == '#':
			// A comment line does not end the field before it.
		case s[0] == ' ' || s[0] == '\t':
			if len(p) == 0 {
				return fmt.Errorf("line %d: a continuation line with no field before it", line)
			}
			last := &p[len(p)-1]
			if start+len(last.Value) == pos-1 {
				last.Value = text[start : pos+len(s)] // adjacent: no copy
			} else {
				last.Value += "\n" + s
				start = -1 << 40 // the value is no longer a part of text
			}
		default:
			name, value, ok := strings.Cut(s, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t") {
				return fmt.Errorf("line %d: %q is not a \"Name: value\" field", line, clip(s))
			}
			trimmed := strings.TrimSpace(value)
			start = pos + len(s) - len(strings.TrimLeft(value, " \t"))
			p = append(p, field{name, trimmed})
		}
		pos = next
	}
	return flush()
}

// clip shortens untrusted text for an error message.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
