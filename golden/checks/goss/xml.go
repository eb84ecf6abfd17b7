package goss

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/antchfx/xpath"
	"github.com/hashicorp/hcl/v2"

	"bake/config/lang"
)

// Bounds of a document that a machine sends.
const (
	maxXMLDepth = 200
	maxXMLNodes = 100_000
)

// compileXML makes a matcher of "xml: {xpath: EXPRESSION, result: TEXT}". Without a result
// the expression has to find something.
func compileXML(f field) (matcher, *hcl.Diagnostic) {
	given, ok := f.node.value.(fields)
	if !ok {
		return nil, argument(f, "a mapping of xpath and result")
	}
	texts := map[string]string{}
	var at field
	for _, g := range given {
		text, ok := g.node.value.(string)
		switch {
		case g.name != "xpath" && g.name != "result":
			return nil, fault(g.at, "Unknown attribute", "xml has the attributes xpath and result, and no %q.%s", g.name, lang.DidYouMean(g.name, []string{"xpath", "result"}))
		case !ok:
			return nil, hint(g.node.at, "Wrong argument", "%s is a string, not %s. Put it in quotes.", g.name, g.node.kind())
		case g.name == "xpath":
			at = g
		}
		texts[g.name] = text
	}
	if at.node == nil {
		return nil, hint(f.at, "Wrong argument", "xml needs an xpath.")
	}
	query, err := xpath.Compile(texts["xpath"])
	if err != nil {
		return nil, hint(at.node.at, "Invalid XPath expression", "%s.", err)
	}
	want := texts["result"]
	return simple{"match XPath " + texts["xpath"], want, map[string]any{"xml": texts["xpath"]}, func(actual any) (bool, error) {
		text, ok := actual.(string)
		if !ok {
			return false, fmt.Errorf("not a text of XML: %s", describe(actual))
		}
		root, err := parseXML(strings.NewReader(text))
		if err != nil {
			return false, fmt.Errorf("invalid XML: %w", err)
		}
		found, some, err := evaluate(query, root)
		if err == nil && strings.TrimSpace(want) == "" && some != nil {
			return *some, nil
		}
		return err == nil && found == want, err
	}}, nil
}

// evaluate is the result of an expression as text: the nodes that it finds, one after the
// other, or else a number, text or boolean. some is whether there are nodes; nil if it does
// not look for any.
func evaluate(query *xpath.Expr, root *xmlNode) (text string, some *bool, err error) {
	defer func() { // the library panics when functions get what they cannot take
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %v", query, r)
		}
	}()
	switch v := query.Evaluate(&navigator{root, -1}).(type) {
	case *xpath.NodeIterator:
		var b strings.Builder
		some = new(false)
		for v.MoveNext() {
			*some = true
			v.Current().(*navigator).write(&b)
		}
		return b.String(), some, nil
	case float64:
		return strconv.FormatFloat(v, 'G', -1, 64), nil, nil
	case bool:
		return strconv.FormatBool(v), nil, nil
	case string:
		return v, nil, nil
	default:
		return "", nil, fmt.Errorf("%s has a result that cannot be compared", query)
	}
}

// xmlNode is a node of a document: the root, an element, a text or a comment.
type xmlNode struct {
	kind     xpath.NodeType
	name     xml.Name // Space is the prefix
	data     string   // of a text or comment
	cdata    bool
	attrs    []xml.Attr
	parent   *xmlNode
	children []*xmlNode
	index    int // among the parent's children
}

func (n *xmlNode) add(child *xmlNode) *xmlNode {
	child.parent, child.index = n, len(n.children)
	n.children = append(n.children, child)
	return child
}

// parseXML reads a document. Prefixes stay as they are written.
func parseXML(r *strings.Reader) (*xmlNode, error) {
	size := r.Size()
	d := xml.NewDecoder(r)
	root := &xmlNode{kind: xpath.RootNode}
	at, depth, elements := root, 0, 0
	for nodes := 0; ; nodes++ {
		before := d.InputOffset()
		token, err := d.RawToken()
		switch {
		case errors.Is(err, io.EOF) && at != root:
			return nil, fmt.Errorf("<%s> does not end", qualified(at.name))
		case errors.Is(err, io.EOF) && elements == 0:
			return nil, errors.New("there is no element")
		case errors.Is(err, io.EOF):
			return root, nil
		case err != nil:
			return nil, err
		case nodes > maxXMLNodes:
			return nil, fmt.Errorf("there are more than %d nodes", maxXMLNodes)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth > maxXMLDepth {
				return nil, fmt.Errorf("elements are nested more than %d deep", maxXMLDepth)
			}
			if elements++; len(t.Attr) > maxXMLNodes-nodes {
				return nil, fmt.Errorf("there are more than %d nodes", maxXMLNodes)
			}
			at = at.add(&xmlNode{kind: xpath.ElementNode, name: t.Name, attrs: slices.Clone(t.Attr)})
		case xml.EndElement:
			if at == root || at.name != t.Name {
				return nil, fmt.Errorf("</%s> ends nothing", qualified(t.Name))
			}
			at, depth = at.parent, depth-1
		case xml.CharData:
			start := make([]byte, len("<![CDATA["))
			if before+int64(len(start)) <= size {
				_, _ = r.ReadAt(start, before) // it is in memory
			}
			if at != root {
				at.add(&xmlNode{kind: xpath.TextNode, data: string(t), cdata: string(start) == "<![CDATA["})
			}
		case xml.Comment:
			at.add(&xmlNode{kind: xpath.CommentNode, data: string(t)})
		}
	}
}

func qualified(n xml.Name) string { return strings.TrimPrefix(n.Space+":"+n.Local, ":") }

// navigator is a place in a document: a node, or one of its attributes.
type navigator struct {
	*xmlNode
	attr int // -1: the node itself
}

func (n *navigator) NodeType() xpath.NodeType {
	if n.attr >= 0 {
		return xpath.AttributeNode
	}
	return n.kind
}

func (n *navigator) at() xml.Name {
	if n.attr >= 0 {
		return n.attrs[n.attr].Name
	}
	return n.name
}

func (n *navigator) LocalName() string { return n.at().Local }
func (n *navigator) Prefix() string    { return n.at().Space }

// NamespaceURL is what the prefix stands for.
func (n *navigator) NamespaceURL() string {
	want := xml.Name{Space: "xmlns", Local: n.Prefix()}
	if want.Local == "" {
		if n.attr >= 0 {
			return ""
		}
		want = xml.Name{Local: "xmlns"}
	}
	for e := n.xmlNode; e != nil; e = e.parent {
		for _, a := range e.attrs {
			if a.Name == want {
				return a.Value
			}
		}
	}
	return ""
}

func (n *navigator) Value() string {
	if n.attr >= 0 {
		return n.attrs[n.attr].Value
	}
	var b strings.Builder
	n.text(&b)
	return b.String()
}

func (n *xmlNode) text(b *strings.Builder) {
	b.WriteString(n.data)
	for _, c := range n.children {
		if c.kind != xpath.CommentNode {
			c.text(b)
		}
	}
}

func (n *navigator) Copy() xpath.NodeNavigator { c := *n; return &c }

func (n *navigator) MoveToRoot() {
	for n.parent != nil {
		n.xmlNode = n.parent
	}
	n.attr = -1
}

func (n *navigator) MoveToParent() bool {
	if n.attr >= 0 {
		n.attr = -1
		return true
	}
	return n.to(n.parent)
}

func (n *navigator) to(other *xmlNode) bool {
	if other == nil || n.attr >= 0 {
		return false
	}
	n.xmlNode = other
	return true
}

func (n *navigator) MoveToNextAttribute() bool {
	if n.attr+1 >= len(n.attrs) {
		return false
	}
	n.attr++
	return true
}

func (n *navigator) MoveToChild() bool { return len(n.children) > 0 && n.to(n.children[0]) }
func (n *navigator) MoveToFirst() bool { return n.parent != nil && n.to(n.parent.children[0]) }

func (n *navigator) MoveToNext() bool { return n.beside(n.index + 1) }

func (n *navigator) MoveToPrevious() bool { return n.beside(n.index - 1) }

func (n *navigator) beside(i int) bool {
	return n.parent != nil && i >= 0 && i < len(n.parent.children) && n.to(n.parent.children[i])
}

func (n *navigator) MoveTo(other xpath.NodeNavigator) bool {
	o, ok := other.(*navigator)
	if ok {
		*n = *o
	}
	return ok
}

// write writes a node as goss does: texts without what surrounds them, attributes as elements.
func (n *navigator) write(b *strings.Builder) {
	if n.attr >= 0 {
		fmt.Fprintf(b, "<%s>%s</%[1]s>", n.LocalName(), html.EscapeString(n.Value()))
		return
	}
	n.xmlNode.write(b, false)
}

func (n *xmlNode) write(b *strings.Builder, spaces bool) {
	for _, a := range n.attrs {
		if qualified(a.Name) == "xml:space" {
			spaces = a.Value == "preserve"
		}
	}
	switch {
	case n.kind == xpath.CommentNode:
		fmt.Fprintf(b, "<!--%s-->", n.data)
		return
	case n.cdata:
		fmt.Fprintf(b, "<![CDATA[%s]]>", n.data)
		return
	case n.kind == xpath.TextNode && spaces:
		b.WriteString(html.EscapeString(n.data))
		return
	case n.kind == xpath.TextNode:
		b.WriteString(html.EscapeString(strings.TrimSpace(n.data)))
		return
	}
	name := qualified(n.name)
	if n.kind == xpath.ElementNode {
		b.WriteString("<" + name)
		for _, a := range n.attrs {
			fmt.Fprintf(b, ` %s="%s"`, qualified(a.Name), html.EscapeString(a.Value))
		}
		if len(n.children) == 0 {
			b.WriteString("/>")
			return
		}
		b.WriteString(">")
	}
	for _, c := range n.children {
		c.write(b, spaces)
	}
	if n.kind == xpath.ElementNode {
		b.WriteString("</" + name + ">")
	}
}
