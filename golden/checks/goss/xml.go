package goss

import (
	"bytes"
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

// Limits of a document from a machine, and of the evaluation of an expression on it.
const (
	maxXMLDepth = 200
	maxXMLNodes = 100_000    // with attributes
	maxXMLSteps = 10_000_000 // as navigator counts them: less than a few seconds
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
	if _, err := xpath.Compile(texts["xpath"]); err != nil {
		return nil, hint(at.node.at, "Invalid XPath expression", "%s.", err)
	}
	want := texts["result"]
	return simple{"match XPath " + texts["xpath"], want, map[string]any{"xml": texts["xpath"]}, func(actual any) (bool, error) {
		text, ok := actual.(string)
		if !ok {
			return false, unfit{"not a text of XML: %s", actual}
		}
		root, err := parseXML(text)
		if err != nil {
			return false, fmt.Errorf("invalid XML: %w", err)
		}
		return found(texts["xpath"], root, want)
	}}, nil
}

// found reports whether the result of an expression as text equals want. The result is the
// concatenation of the selected nodes, or a number, text or boolean. If want is empty and
// the result is a set of nodes, there must be at least one.
func found(expression string, root *xmlNode, want string) (ok bool, err error) {
	defer func() { // the library panics when functions get arguments of the wrong type
		if r := recover(); r != nil {
			ok, err = false, fmt.Errorf("%s: %s", expression, panicked(r))
		}
	}()
	query := xpath.MustCompile(expression) // compiled again, because a compiled expression keeps state of its last use
	steps := maxXMLSteps
	switch v := query.Evaluate(&navigator{root, -1, &steps}).(type) {
	case *xpath.NodeIterator:
		if strings.TrimSpace(want) == "" {
			return v.MoveNext(), nil
		}
		w := writer{most: len(want)}
		for !w.full() && v.MoveNext() {
			w.place(v.Current().(*navigator))
		}
		return w.String() == want, nil
	case float64:
		return strconv.FormatFloat(v, 'G', -1, 64) == want, nil
	case bool:
		return strconv.FormatBool(v) == want, nil
	case string:
		return v == want, nil
	default:
		return false, errors.New(expression + " has a result that cannot be compared")
	}
}

// panicked returns why an expression could not be evaluated, without content of the
// document.
func panicked(r any) string {
	if _, ok := r.(*strconv.NumError); ok {
		return "what it compares with a number is none"
	}
	text, _, _ := strings.Cut(fmt.Sprint(r), ", err: ") // of a regular expression that is in the document
	return text
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

// parseXML parses a document. It keeps prefixes as they are written. Errors have the line,
// but no content of the document, which may be a secret.
func parseXML(text string) (*xmlNode, error) {
	r := strings.NewReader(strings.TrimPrefix(text, "\ufeff"))
	d := xml.NewDecoder(r)
	d.CharsetReader = func(label string, _ io.Reader) (io.Reader, error) { return nil, encodingError(label) }
	root := &xmlNode{kind: xpath.RootNode}
	at, nodes := root, 0
	var begins []int // lines of the elements around
	fault := func(format string, args ...any) error {
		line, _ := d.InputPos()
		return fmt.Errorf("line %d: "+format, append([]any{line}, args...)...)
	}
	for {
		before := d.InputOffset()
		token, err := d.RawToken()
		if charset, ok := errors.AsType[encodingError](err); ok {
			return nil, charset
		}
		if errors.Is(err, io.EOF) {
			switch {
			case at != root:
				return nil, fault("the element that begins at line %d does not end", begins[len(begins)-1])
			case !slices.ContainsFunc(root.children, isElement):
				return nil, errors.New("there is no element")
			}
			return root, nil
		}
		if err != nil {
			return nil, fault("it is not well-formed")
		}
		var node *xmlNode
		switch t := token.(type) {
		case xml.StartElement:
			node = &xmlNode{kind: xpath.ElementNode, name: t.Name, attrs: slices.Clone(t.Attr)}
		case xml.EndElement:
			if at == root || at.name != t.Name {
				return nil, fault("an end tag that ends nothing")
			}
			at, begins = at.parent, begins[:len(begins)-1]
		case xml.CharData:
			if at == root {
				if len(bytes.TrimSpace(t)) > 0 {
					return nil, fault("there is text outside of the element")
				}
				continue
			}
			start := make([]byte, len("<![CDATA["))
			if before+int64(len(start)) <= r.Size() {
				_, _ = r.ReadAt(start, before) // it is in memory
			}
			node = &xmlNode{kind: xpath.TextNode, data: string(t), cdata: string(start) == "<![CDATA["}
		case xml.Comment:
			node = &xmlNode{kind: xpath.CommentNode, data: string(t)}
		}
		if node == nil {
			continue
		}
		if nodes += 1 + len(node.attrs); nodes > maxXMLNodes {
			return nil, fault("there are more than %d nodes", maxXMLNodes)
		}
		if isElement(node) {
			switch {
			case len(begins) == maxXMLDepth:
				return nil, fault("elements are nested more than %d deep", maxXMLDepth)
			case at == root && slices.ContainsFunc(root.children, isElement):
				return nil, fault("there is a second element beside the first")
			case twice(node.attrs):
				return nil, fault("an element has an attribute twice")
			}
			line, _ := d.InputPos()
			begins = append(begins, line)
		}
		if at.add(node); isElement(node) {
			at = node
		}
	}
}

func isElement(n *xmlNode) bool { return n.kind == xpath.ElementNode }

// twice reports whether two attributes have the same name.
func twice(attrs []xml.Attr) bool {
	seen := make(map[xml.Name]bool, len(attrs))
	for _, a := range attrs {
		seen[a.Name] = true
	}
	return len(seen) < len(attrs)
}

// encodingError is the error of a document in an encoding other than UTF-8.
type encodingError string

func (e encodingError) Error() string {
	return fmt.Sprintf("it is in %s; only UTF-8 is read", strings.Trim(strconv.QuoteToASCII(clip(string(e), 40)), `"`))
}

func qualified(n xml.Name) string { return strings.TrimPrefix(n.Space+":"+n.Local, ":") }

// navigator is a position in a document: a node, or one of its attributes. The time and
// memory that an expression needs can grow with the square of the size of the document, or
// faster. So each step between places, and other expensive work, is counted, and the
// evaluation ends when the count exceeds its limit.
type navigator struct {
	*xmlNode
	attr  int  // -1: the node itself
	steps *int // remaining steps of the expression
}

// spend counts steps. It panics if there are too many.
func (n *navigator) spend(steps int) {
	if *n.steps -= steps; *n.steps < 0 {
		panic("it takes too long on this document")
	}
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

// NamespaceURL returns the URL of the prefix.
func (n *navigator) NamespaceURL() string {
	want := xml.Name{Space: "xmlns", Local: n.Prefix()}
	if want.Local == "" {
		if n.attr >= 0 {
			return ""
		}
		want = xml.Name{Local: "xmlns"}
	}
	for e := n.xmlNode; e != nil; e = e.parent {
		n.spend(1 + len(e.attrs))
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
		value := n.attrs[n.attr].Value
		n.spend(1 + len(value)/8)
		return value
	}
	var b strings.Builder
	n.text(n.xmlNode, &b)
	return b.String()
}

func (n *navigator) text(of *xmlNode, b *strings.Builder) {
	n.spend(1 + len(of.data)/8) // the caller will read it, perhaps with a regular expression
	b.WriteString(of.data)
	for _, c := range of.children {
		if c.kind != xpath.CommentNode {
			n.text(c, b)
		}
	}
}

// Copy counts as several steps because of the memory that it uses.
func (n *navigator) Copy() xpath.NodeNavigator {
	n.spend(8)
	c := *n
	return &c
}

func (n *navigator) MoveToRoot() {
	for n.parent != nil {
		n.spend(1)
		n.xmlNode = n.parent
	}
	n.attr = -1
}

func (n *navigator) MoveToParent() bool {
	if n.attr >= 0 {
		n.spend(1)
		n.attr = -1
		return true
	}
	return n.to(n.parent)
}

func (n *navigator) to(other *xmlNode) bool {
	n.spend(1)
	if other == nil || n.attr >= 0 {
		return false
	}
	n.xmlNode = other
	return true
}

func (n *navigator) MoveToNextAttribute() bool {
	n.spend(1)
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

// writer writes nodes as goss does: texts without surrounding white space, and attributes as
// elements.
type writer struct {
	strings.Builder
	most int // the limit in bytes, after which the rest is dropped
}

func (w *writer) full() bool { return w.Len() > w.most }

func (w *writer) place(n *navigator) {
	if n.attr >= 0 {
		fmt.Fprintf(w, "<%s>%s</%[1]s>", n.LocalName(), html.EscapeString(n.Value()))
		return
	}
	w.node(n.xmlNode, false)
}

func (w *writer) node(n *xmlNode, spaces bool) {
	for _, a := range n.attrs {
		if qualified(a.Name) == "xml:space" {
			spaces = a.Value == "preserve"
		}
	}
	switch {
	case n.kind == xpath.CommentNode:
		fmt.Fprintf(w, "<!--%s-->", n.data)
		return
	case n.cdata:
		fmt.Fprintf(w, "<![CDATA[%s]]>", n.data)
		return
	case n.kind == xpath.TextNode && spaces:
		w.WriteString(html.EscapeString(n.data))
		return
	case n.kind == xpath.TextNode:
		w.WriteString(html.EscapeString(strings.TrimSpace(n.data)))
		return
	}
	name := qualified(n.name)
	if n.kind == xpath.ElementNode {
		w.WriteString("<" + name)
		for _, a := range n.attrs {
			fmt.Fprintf(w, ` %s="%s"`, qualified(a.Name), html.EscapeString(a.Value))
		}
		if len(n.children) == 0 {
			w.WriteString("/>")
			return
		}
		w.WriteString(">")
	}
	for _, c := range n.children {
		if w.full() {
			return
		}
		w.node(c, spaces)
	}
	if n.kind == xpath.ElementNode {
		w.WriteString("</" + name + ">")
	}
}
