// Package graph draws what depends on what: as a tree of text, and as an SVG document.
package graph

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"bake/internal/prose"
)

// Graph is boxes and the arrows between them. The zero value is empty.
type Graph struct {
	nodes  []node
	arrows [][2]int
}

type node struct{ kind, name string }

// Add adds a box and arrows to it from boxes that were added before, and returns the box.
func (g *Graph) Add(kind, name string, from ...int) int {
	g.nodes = append(g.nodes, node{clean(kind), clean(name)})
	for _, f := range from {
		g.arrows = append(g.arrows, [2]int{f, len(g.nodes) - 1})
	}
	return len(g.nodes) - 1
}

// Tree is a line of text, and what belongs below it.
type Tree struct {
	Text  string
	Below []Tree
}

// Write writes t with its branches.
func (t Tree) Write(w io.Writer) {
	fmt.Fprintln(w, clean(t.Text))
	t.branches(w, "")
}

func (t Tree) branches(w io.Writer, indent string) {
	for i, b := range t.Below {
		branch, below := "├── ", "│   "
		if i == len(t.Below)-1 {
			branch, below = "└── ", "    "
		}
		fmt.Fprintln(w, indent+branch+clean(b.Text))
		b.branches(w, indent+below)
	}
}

// clean returns s with a mark for whatever could change how other text is shown: control
// characters, line breaks, and those that turn the direction of writing.
func clean(s string) string {
	return prose.Printable(strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}
