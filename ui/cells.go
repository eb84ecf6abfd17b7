package ui

import (
	"strings"
	"unicode/utf8"

	"github.com/clipperhouse/displaywidth"
)

// cells returns the number of terminal cells that s occupies. Control sequences occupy none.
func cells(s string) int {
	return displaywidth.Options{ControlSequences: true}.String(s)
}

// truncate shortens s to at most width cells, including tail if anything was removed. Control
// sequences stay.
func truncate(s string, width int, tail string) string {
	o := displaywidth.Options{ControlSequences: true}
	if width < o.String(tail) && o.String(s) > width {
		return ""
	}
	return o.TruncateString(s, width, tail)
}

// strip removes control sequences (ECMA-48), complete or not, and C1 control characters. ASCII
// control characters stay.
func strip(s string) string {
	var out strings.Builder
	state := ground
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			r = rune(s[i]) // may be an 8-bit control character
		}
		control := r < 0x20
		switch {
		case r == 0x1b:
			state = escape
		case 0x80 <= r && r <= 0x9f && (state == ground || state == escape): // the 8-bit forms of ESC followed by @ to _
			state = begun(r - 0x40)
		case r == 0x9c, state != ground && (r == 0x18 || r == 0x1a), state == command && r == 0x07:
			state = ground
		case state == escape && !control && (r < 0x20 || r > 0x2f):
			state = begun(r)
		case state == sequence && 0x40 <= r && r <= 0x7e:
			state = ground
		case state == ground || control && (state == escape || state == sequence):
			out.WriteString(s[i : i+n])
		}
		i += n
	}
	return out.String()
}

// The parser's states.
const (
	ground   = iota // outside of control sequences
	escape          // after ESC, including intermediate characters
	sequence        // CSI: parameters, up to a final character
	command         // OSC: up to BEL or ST
	text            // DCS, SOS, PM, APC: up to ST
)

// begun returns the state after ESC and r.
func begun(r rune) int {
	switch r {
	case '[':
		return sequence
	case ']':
		return command
	case 'P', 'X', '^', '_':
		return text
	}
	return ground
}
