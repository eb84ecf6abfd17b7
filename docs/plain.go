package docs

import (
	"regexp"
	"strings"
	"sync"
)

var link = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\[([^\]]+)\]\(([^)\s]+)\)`) })

// Plain is a document as a terminal shows it: what is to be typed is indented, and links
// are their texts, followed by their addresses if they lead to another site.
func Plain(markdown string) string {
	var b strings.Builder
	code := false
	for line := range strings.Lines(markdown) {
		switch fence, isFence := strings.CutPrefix(line, "```"); {
		case isFence:
			if words := strings.Fields(fence); !code && len(words) == 2 {
				b.WriteString(words[1] + ":\n\n")
			}
			code = !code
		case code && line != "\n":
			b.WriteString("    " + line)
		case code:
			b.WriteString(line)
		case strings.HasPrefix(line, "#"):
			b.WriteString(strings.ToUpper(strings.TrimLeft(line, "# ")))
		default:
			line = link().ReplaceAllStringFunc(line, func(l string) string {
				m := link().FindStringSubmatch(l)
				if strings.Contains(m[2], "://") {
					return m[1] + " (" + m[2] + ")"
				}
				return m[1]
			})
			b.WriteString(strings.ReplaceAll(line, "**", ""))
		}
	}
	return b.String()
}
