package docs

import (
	"strings"

	"bake/internal/lazyregexp"
	"bake/internal/prose"
)

var link = lazyregexp.New(`\[([^\]]+)\]\(([^)\s]+)\)`)

var item = lazyregexp.New(`^(?:-|\d+\.) `)

// Plain is a document as a terminal shows it, in lines of at most width columns: what is to
// be typed is indented and not divided, a row of a table is its first cell with the others
// below it, and links are their texts, followed by their addresses if they lead to another site.
func Plain(markdown string, width int) string {
	p := plain{width: width}
	for line := range strings.Lines(markdown) {
		p.line(strings.TrimSuffix(line, "\n"))
	}
	p.end()
	return p.String()
}

// plain is a document that is being written.
type plain struct {
	strings.Builder
	width     int
	paragraph []string
	heads     []string // of the table that is being read
	code      bool
}

func (p *plain) line(line string) {
	fence, isFence := strings.CutPrefix(line, "```")
	cells, isRow := row(line)
	if !isRow || p.code {
		p.heads = nil
	}
	switch {
	case isFence:
		p.end()
		if words := strings.Fields(fence); !p.code && len(words) == 2 {
			p.WriteString(words[1] + ":\n\n")
		}
		p.code = !p.code
	case p.code && line != "":
		p.WriteString("    " + line + "\n")
	case p.code || line == "":
		p.end()
		p.WriteString("\n")
	case isRow && p.heads == nil:
		p.end()
		p.heads = cells
	case isRow:
		p.row(cells)
	case len(p.paragraph) == 0 && strings.HasPrefix(line, "    "):
		p.WriteString(line + "\n")
	case strings.HasPrefix(line, "#"):
		p.end()
		p.WriteString(strings.ToUpper(strings.TrimLeft(line, "# ")) + "\n")
	default:
		if item.Get().MatchString(line) {
			p.end()
		}
		p.paragraph = append(p.paragraph, line)
	}
}

// end writes the paragraph or the item of a list that has been read.
func (p *plain) end() {
	if len(p.paragraph) == 0 {
		return
	}
	text := strings.Join(p.paragraph, " ")
	mark := item.Get().FindString(text)
	p.fill(mark, strings.TrimPrefix(text, mark))
	p.paragraph = nil
}

// fill writes a text whose lines begin below the end of mark, which is before the first.
func (p *plain) fill(mark, text string) {
	text = link.Get().ReplaceAllStringFunc(text, func(l string) string {
		m := link.Get().FindStringSubmatch(l)
		if strings.Contains(m[2], "://") {
			return m[1] + " (" + m[2] + ")"
		}
		return m[1]
	})
	indent := strings.Repeat(" ", len(mark))
	filled := prose.Fill(strings.ReplaceAll(text, "**", ""), indent, p.width)
	p.WriteString(mark + strings.TrimPrefix(filled, indent) + "\n")
}

// row returns the cells of a line of a table.
func row(line string) ([]string, bool) {
	inner, isRow := strings.CutPrefix(line, "|")
	var cells []string
	for cell := range strings.SplitSeq(strings.TrimSuffix(inner, "|"), "|") {
		cells = append(cells, strings.TrimSpace(cell))
	}
	return cells, isRow
}

// row writes one row of a table, but not the line below its heads.
func (p *plain) row(cells []string) {
	if strings.Trim(strings.Join(cells, ""), "-:") == "" {
		return
	}
	p.fill("  ", cells[0])
	for i, cell := range cells[1:] {
		p.fill("      ", p.heads[min(i+1, len(p.heads)-1)]+": "+cell)
	}
}
