// Package hcljson prepares JSON for the parser of HCL's JSON syntax.
package hcljson

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/apparentlymart/go-textseg/v15/textseg"
)

// Source returns JSON that is equivalent to src and that HCL's parser reads. Its scanner
// divides strings into grapheme clusters, and so combines a character that joins the one
// after it, such as U+08E2, with the quote that ends the string or the backslash of an
// escape. Source escapes such characters. It removes a byte order mark, which Windows
// programs add. Ranges from the parser refer to the result of this function.
func Source(src []byte) []byte {
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	var out bytes.Buffer
	copied := 0 // bytes of src that are in out, unchanged or as escapes
	for i := 0; i < len(src); {
		switch c := src[i]; {
		case c == '\\':
			i += 2 // the escaped character is left unchanged
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := utf8.DecodeRune(src[i:])
			if joinsNext(src[i : i+size]) {
				out.Write(src[copied:i])
				for _, unit := range utf16.Encode([]rune{r}) {
					fmt.Fprintf(&out, `\u%04x`, unit)
				}
				copied = i + size
			}
			i += size
		}
	}
	if copied == 0 {
		return src
	}
	out.Write(src[copied:])
	return out.Bytes()
}

// joinsNext reports whether a character and a following quote form one grapheme cluster.
func joinsNext(char []byte) bool {
	both := append(bytes.Clone(char), '"')
	n, _, err := textseg.ScanGraphemeClusters(both, true)
	return err == nil && n == len(both)
}
