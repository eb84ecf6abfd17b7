package graph

import (
	"fmt"
	"io"
	"strings"
)

// The layout, in pixels. Text is in a fixed pitch, so that boxes fit their names.
const (
	margin    = 16
	boxHeight = 42
	rowGap    = 14
	columnGap = 48
	perCell   = 8
	padding   = 12
	longest   = 44 // characters of a name that are shown; a tooltip has all of them
)

const style = `<style>
svg { background: #fff; font: 13px ui-monospace, Menlo, Consolas, monospace }
rect { fill: #f4f6f8; stroke: #8a94a0 }
text { fill: #1b1f24 }
.kind { fill: #57606a; font-size: 11px }
path { fill: none; stroke: #8a94a0; stroke-width: 1.5 }
marker path { fill: #8a94a0; stroke: none }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117 }
rect { fill: #1c2128; stroke: #6e7781 }
text { fill: #e6edf3 }
.kind { fill: #9aa4af }
}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>
`

// box is where a node is drawn.
type box struct{ column, x, y, width int }

// SVG writes g from left to right. The same graph gives the same bytes.
func (g *Graph) SVG(w io.Writer, title string) error {
	boxes, width, height := g.layout()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title" width="%d" height="%[2]d" viewBox="0 0 %[1]d %[2]d">`+"\n", width, height)
	fmt.Fprintf(&b, "<title id=\"title\">%s</title>\n%s", escape(clean(title)), style)
	for _, a := range g.arrows {
		from, to := boxes[a[0]], boxes[a[1]]
		x, y, tx, ty := from.x+from.width, from.y+boxHeight/2, to.x, to.y+boxHeight/2
		bend := columnGap / 2
		fmt.Fprintf(&b, `<path d="M%d %dC%d %d %d %d %d %d" marker-end="url(#tip)"/>`+"\n", x, y, x+bend, y, tx-bend, ty, tx, ty)
	}
	for i, n := range g.nodes {
		at := boxes[i]
		fmt.Fprintf(&b, `<g><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="6"/>`, escape(n.kind+" "+n.name), at.x, at.y, at.width, boxHeight)
		fmt.Fprintf(&b, `<text class="kind" x="%d" y="%d">%s</text>`, at.x+padding, at.y+16, escape(short(n.kind)))
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text></g>`+"\n", at.x+padding, at.y+33, escape(short(n.name)))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// layout puts each box in the column after the last of those that have arrows to it, in
// the row of the first of them if that is free, and otherwise below what is there.
func (g *Graph) layout() (boxes []box, width, height int) {
	boxes = make([]box, len(g.nodes))
	var widths, free []int // of columns
	for i, n := range g.nodes {
		b, y := &boxes[i], margin
		for j := len(g.arrows) - 1; j >= 0; j-- {
			if a := g.arrows[j]; a[1] == i {
				b.column, y = max(b.column, boxes[a[0]].column+1), boxes[a[0]].y
			}
		}
		for len(free) <= b.column {
			free, widths = append(free, margin), append(widths, 0)
		}
		b.y = max(y, free[b.column])
		free[b.column] = b.y + boxHeight + rowGap
		b.width = 2*padding + perCell*max(cells(short(n.kind)), cells(short(n.name)))
		widths[b.column] = max(widths[b.column], b.width)
		height = max(height, b.y+boxHeight)
	}
	starts := make([]int, len(widths))
	x := margin
	for i, w := range widths {
		starts[i] = x
		width = x + w
		x += w + columnGap
	}
	for i := range boxes {
		boxes[i].x = starts[boxes[i].column]
	}
	return boxes, width + margin, height + margin
}

func short(s string) string {
	if r := []rune(s); len(r) > longest {
		return string(r[:longest-1]) + "…"
	}
	return s
}

// cells is how wide s is at most: what is not Latin may take two cells.
func cells(s string) (n int) {
	for _, r := range s {
		if n++; r >= 0x1100 {
			n++
		}
	}
	return n
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;").Replace(s)
}
