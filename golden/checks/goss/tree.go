package goss

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"go.yaml.in/yaml/v3"

	"bake/internal/lazyregexp"
)

// Limits of one file, with its aliases followed.
const (
	maxNodes = 200_000
	maxDepth = 100
)

// node is a value in a file.
type node struct {
	value   any    // nil, bool, int, float64, string, []*node or fields
	text    string // a scalar as it was written
	at      hcl.Range
	anchors bool // whether it defines anchors for others to use
}

// fields are the members of a mapping, in the order of the file.
type fields []field

type field struct {
	name string
	at   hcl.Range
	node *node
}

func (f fields) get(name string) *node {
	for _, x := range f {
		if x.name == name {
			return x.node
		}
	}
	return nil
}

// plain returns the value without places.
func (n *node) plain() any {
	switch v := n.value.(type) {
	case []*node:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = x.plain()
		}
		return out
	case fields:
		out := make(map[string]any, len(v))
		for _, x := range v {
			out[x.name] = x.node.plain()
		}
		return out
	}
	return n.value
}

// kind returns the kind of the value n, for an error.
func (n *node) kind() string {
	switch n.value.(type) {
	case nil:
		return "nothing"
	case bool:
		return "a boolean"
	case int, float64:
		return "a number"
	case string:
		return "a string"
	case []*node:
		return "a list"
	}
	return "a mapping"
}

// reader makes nodes from a file.
type reader struct {
	src   *source
	nodes int
}

// count counts a node at a depth, and returns an error if there are too many.
func (r *reader) count(at hcl.Range, depth int) *hcl.Diagnostic {
	if r.nodes++; r.nodes > maxNodes {
		return fault(at, "The file is too large", "It holds more than %d values, counting those that aliases repeat.", maxNodes)
	}
	if depth > maxDepth {
		return fault(at, "The file is nested too deeply", "At most %d levels are read.", maxDepth)
	}
	return nil
}

// yamlLine finds the line in an error of the YAML library.
var yamlLine = lazyregexp.New(`^yaml: line (\d+): `)

// yamlParser matches messages of the library's parser, which counts lines from 0; its
// scanner counts them from 1.
var yamlParser = lazyregexp.New(`^(did not find expected (<|node content|'-' indicator|key|',' or)|found (undefined tag handle|duplicate %|incompatible YAML))`)

func (r *reader) yamlError(err error) *hcl.Diagnostic {
	n, text := 1, err.Error()
	if m := yamlLine.Get().FindStringSubmatch(text); m != nil {
		n, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
		if yamlParser.Get().MatchString(text) {
			n++
		}
	}
	return fault(r.src.at(n, 0, 0), "Invalid YAML", "%s%s.", text, r.made(n))
}

// made returns line n of the rendered template, if it differs from the file.
func (r *reader) made(n int) string {
	text, _ := r.src.rendered.line(n)
	if r.src.lines == nil || len(text) == 0 || bytes.Contains(r.src.written.bytes, text) {
		return ""
	}
	return fmt.Sprintf("; the template made the line %.200q", text)
}

// yaml reads the only document of a YAML file. The result for a file without documents
// is nil.
func (r *reader) yaml() (*node, *hcl.Diagnostic) {
	dec := yaml.NewDecoder(bytes.NewReader(r.src.rendered.bytes))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, r.yamlError(err)
	}
	var next yaml.Node
	if err := dec.Decode(&next); err == nil && !empty(&next) {
		return nil, fault(r.src.at(next.Line, next.Column, 0), "Several documents in one file",
			"goss reads only the first document of a file and silently ignores this one. Write it into a file of its own and include that in gossfile.")
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, r.yamlError(err)
	}
	if len(doc.Content) != 1 {
		return nil, nil
	}
	return r.yamlNode(doc.Content[0], 0)
}

// empty reports whether a document is empty, as after a final "---".
func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || len(doc.Content) == 1 && doc.Content[0].ShortTag() == "!!null"
}

func (r *reader) yamlNode(n *yaml.Node, depth int) (*node, *hcl.Diagnostic) {
	out := &node{at: r.src.at(n.Line, n.Column, len(n.Value)), anchors: n.Anchor != ""}
	if d := r.count(out.at, depth); d != nil {
		return nil, d
	}
	switch n.Kind {
	case yaml.AliasNode:
		target, d := r.yamlNode(n.Alias, depth+1)
		if d != nil {
			return nil, d
		}
		copied := *target
		copied.anchors = false
		return &copied, nil
	case yaml.SequenceNode:
		out.at = r.src.at(n.Line, n.Column, 0)
		items := make([]*node, len(n.Content))
		for i, c := range n.Content {
			item, d := r.yamlNode(c, depth+1)
			if d != nil {
				return nil, d
			}
			items[i], out.anchors = item, out.anchors || item.anchors
		}
		out.value = items
		return out, nil
	case yaml.MappingNode:
		out.at = r.src.at(n.Line, n.Column, 0)
		return r.yamlFields(n, out, depth)
	case yaml.ScalarNode:
		out.text = n.Value
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, fault(out.at, "Invalid YAML", "%s.", err)
		}
		return out, r.scalar(out, v)
	}
	return nil, fault(out.at, "Invalid YAML", "A value of this kind cannot be read.")
}

// scalar returns a node for the scalar v.
func (r *reader) scalar(out *node, v any) *hcl.Diagnostic {
	switch v := v.(type) {
	case nil, bool, int, float64, string:
		out.value = v
	case int64:
		out.value = float64(v)
	case uint64:
		out.value = float64(v)
	default:
		return fault(out.at, "Not a string, a number or a boolean", "%s has a type of its own in YAML. Put it in quotes.", out.text)
	}
	return nil
}

// yamlFields reads a mapping. Its own fields take precedence over those merged with "<<".
func (r *reader) yamlFields(n *yaml.Node, out *node, depth int) (*node, *hcl.Diagnostic) {
	var list fields
	own := map[string]int{} // line of each name
	var merged []fields
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		v, d := r.yamlNode(n.Content[i+1], depth+1)
		if d != nil {
			return nil, d
		}
		at := r.src.at(key.Line, key.Column, len(key.Value))
		if key.ShortTag() == "!!merge" {
			more, d := mergedFields(at, v)
			if d != nil {
				return nil, d
			}
			merged = append(merged, more...)
			continue
		}
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return nil, fault(at, "Invalid YAML", "The name of a value must be a string.")
		}
		if first, ok := own[key.Value]; ok {
			return nil, fault(at, "Defined twice", "%q is already defined in line %d.", key.Value, first)
		}
		own[key.Value] = at.Start.Line
		list = append(list, field{key.Value, at, v})
		out.anchors = out.anchors || v.anchors || n.Content[i].Anchor != ""
	}
	for _, m := range merged {
		for _, f := range m {
			if _, ok := own[f.name]; !ok {
				own[f.name] = f.at.Start.Line
				list = append(list, f)
			}
		}
	}
	out.value = list
	return out, nil
}

// mergedFields returns the fields that "<<: v" merges: those of one or several
// mappings.
func mergedFields(at hcl.Range, v *node) ([]fields, *hcl.Diagnostic) {
	switch v := v.value.(type) {
	case fields:
		return []fields{v}, nil
	case []*node:
		var all []fields
		for _, x := range v {
			f, ok := x.value.(fields)
			if !ok {
				return nil, fault(x.at, "Not a mapping", "Only mappings can be merged with <<, not %s.", x.kind())
			}
			all = append(all, f)
		}
		return all, nil
	}
	return nil, fault(at, "Not a mapping", "Only mappings can be merged with <<, not %s.", v.kind())
}

// either reads a file as JSON if it is JSON, and as YAML otherwise.
func (r *reader) either() (*node, *hcl.Diagnostic) {
	if json.Valid(r.src.rendered.bytes) {
		return r.json()
	}
	return r.yaml()
}

func (r *reader) json() (*node, *hcl.Diagnostic) {
	dec := json.NewDecoder(bytes.NewReader(r.src.rendered.bytes))
	out, d := r.jsonValue(dec, 0)
	if d != nil {
		return nil, d
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fault(r.offset(dec.InputOffset()), "Invalid JSON", "The file goes on after its end.")
	}
	return out, nil
}

// offset returns the place of a byte of the rendered text.
func (r *reader) offset(i int64) hcl.Range {
	n, column := r.src.rendered.place(int(i))
	return r.src.at(n, column, 0)
}

// next returns the place of the token that dec reads next.
func (r *reader) next(dec *json.Decoder) hcl.Range {
	i := int(dec.InputOffset())
	for i < len(r.src.rendered.bytes) && strings.IndexByte(" \t\r\n,:", r.src.rendered.bytes[i]) >= 0 {
		i++
	}
	return r.offset(int64(i))
}

func (r *reader) jsonValue(dec *json.Decoder, depth int) (*node, *hcl.Diagnostic) {
	out := &node{at: r.next(dec)}
	if d := r.count(out.at, depth); d != nil {
		return nil, d
	}
	start := dec.InputOffset()
	token, err := dec.Token()
	if err != nil {
		return nil, r.jsonError(err, dec)
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '[' {
			return r.jsonList(dec, out, depth)
		}
		return r.jsonFields(dec, out, depth)
	case string:
		out.value, out.text = token, token
	default:
		out.value = token
		out.text = string(bytes.Trim(r.src.rendered.bytes[start:dec.InputOffset()], " \t\r\n,:"))
	}
	return out, nil
}

func (r *reader) jsonError(err error, dec *json.Decoder) *hcl.Diagnostic {
	at := r.next(dec)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends too early")
	}
	return fault(at, "Invalid JSON", "%s.", err)
}

func (r *reader) jsonList(dec *json.Decoder, out *node, depth int) (*node, *hcl.Diagnostic) {
	items := []*node{}
	for dec.More() {
		item, d := r.jsonValue(dec, depth+1)
		if d != nil {
			return nil, d
		}
		items = append(items, item)
	}
	if _, err := dec.Token(); err != nil {
		return nil, r.jsonError(err, dec)
	}
	out.value = items
	return out, nil
}

func (r *reader) jsonFields(dec *json.Decoder, out *node, depth int) (*node, *hcl.Diagnostic) {
	var list fields
	lines := map[string]int{}
	for dec.More() {
		at := r.next(dec)
		token, err := dec.Token()
		if err != nil {
			return nil, r.jsonError(err, dec)
		}
		name, ok := token.(string)
		if !ok {
			return nil, fault(at, "Invalid JSON", "The name of a value must be a string.")
		}
		if first, ok := lines[name]; ok {
			return nil, fault(at, "Defined twice", "%q is already defined in line %d.", name, first)
		}
		lines[name] = at.Start.Line
		v, d := r.jsonValue(dec, depth+1)
		if d != nil {
			return nil, d
		}
		list = append(list, field{name, at, v})
	}
	if _, err := dec.Token(); err != nil {
		return nil, r.jsonError(err, dec)
	}
	out.value = list
	return out, nil
}
