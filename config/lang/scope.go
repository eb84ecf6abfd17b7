// Package lang gives a template's expressions their values: variables, locals,
// data sources and functions. Locals and data sources are computed on demand,
// each once.
package lang

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Scope computes the values that a template's expressions refer to. It is filled
// first, and safe for concurrent use after that.
type Scope struct {
	base *hcl.EvalContext // var, path, packer and the functions

	// Before returns some of the source text before a place, or nothing if it is not known.
	Before func(hcl.Range) string

	mu    sync.Mutex // held while nodes are computed
	nodes map[string]*Node
	order []*Node
}

// Node is a local value or a data source.
type Node struct {
	Address string // "local.name" or "data.type.name"
	Range   hcl.Range
	Refs    []hcl.Traversal // all that Compute may look up

	// Expr computes a local value; nil for a data source. Secret means that it must not be
	// shown.
	Expr   hcl.Expression
	Secret bool

	// Futile means that Compute can only fail, so that it should not be called unless the
	// node is needed.
	Futile bool

	// Compute is called at most once, with a context in which Refs have values. It is not
	// called if Refs name a local or data source that does not exist: dependencies are
	// resolved before anything is evaluated, regardless of try. Its errors are reported to
	// everything that needs the node.
	Compute func(ctx context.Context, ec *hcl.EvalContext) (cty.Value, hcl.Diagnostics)

	state state
	value cty.Value
	diags hcl.Diagnostics
}

type state int

const (
	waiting state = iota
	running
	done
)

// IsData reports whether the node is a data source.
func (n *Node) IsData() bool { return strings.HasPrefix(n.Address, "data.") }

// NewScope returns a scope with the given functions and values, such as "var",
// an object that holds every variable.
func NewScope(funcs map[string]function.Function, values map[string]cty.Value) *Scope {
	return &Scope{
		base:  &hcl.EvalContext{Functions: funcs, Variables: values},
		nodes: map[string]*Node{},
	}
}

// Define adds a node. It returns false if there is one with this address.
func (s *Scope) Define(n *Node) bool {
	if _, dup := s.nodes[n.Address]; dup {
		return false
	}
	s.nodes[n.Address] = n
	s.order = append(s.order, n)
	return true
}

// Nodes returns all nodes in the order they were defined.
func (s *Scope) Nodes() []*Node { return s.order }

// NeedsData reports whether n is a data source or depends on one.
func (s *Scope) NeedsData(n *Node) bool { return s.needs(n, (*Node).IsData, map[*Node]bool{}) }

// IsFutile reports whether n can only fail, or depends on a node that can.
func (s *Scope) IsFutile(n *Node) bool {
	return s.needs(n, func(n *Node) bool { return n.Futile }, map[*Node]bool{})
}

// needs reports whether such is true of n or of a node that it depends on.
func (s *Scope) needs(n *Node, such func(*Node) bool, seen map[*Node]bool) bool {
	if such(n) {
		return true
	}
	if seen[n] {
		return false
	}
	seen[n] = true
	for _, ref := range n.Refs {
		for _, m := range s.find(ref) {
			if s.needs(m, such, seen) {
				return true
			}
		}
	}
	return false
}

// Value computes one node.
func (s *Scope) Value(ctx context.Context, n *Node) (cty.Value, hcl.Diagnostics) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compute(ctx, n, nil, n.Range)
	return n.value, n.diags
}

// Context returns a context in which refs can be evaluated, after computing the
// nodes they name. A name that does not exist is not reported here: evaluating
// it fails, unless try or can catch it.
func (s *Scope) Context(ctx context.Context, refs []hcl.Traversal) (*hcl.EvalContext, hcl.Diagnostics) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.context(ctx, refs, nil)
}

func (s *Scope) context(ctx context.Context, refs []hcl.Traversal, stack []*Node) (*hcl.EvalContext, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	locals := map[string]cty.Value{}
	data := map[string]map[string]cty.Value{}
	for _, ref := range refs {
		named := s.find(ref)
		if s.isWhole(ref) && len(stack) > 0 {
			for _, n := range s.independent(named, stack) {
				s.compute(ctx, n, stack, ref.SourceRange())
			}
			named = slices.DeleteFunc(named, func(n *Node) bool { return n.state != done })
		}
		for _, n := range named {
			s.compute(ctx, n, stack, ref.SourceRange())
			diags = AppendNew(diags, n.diags)
			path := strings.SplitN(n.Address, ".", 3)
			if path[0] == "local" {
				locals[path[1]] = n.value
				continue
			}
			if data[path[1]] == nil {
				data[path[1]] = map[string]cty.Value{}
			}
			data[path[1]][path[2]] = n.value
		}
	}
	types := map[string]cty.Value{}
	for typ, names := range data {
		types[typ] = cty.ObjectVal(names)
	}
	ec := s.base.NewChild()
	ec.Variables = map[string]cty.Value{"local": cty.ObjectVal(locals), "data": cty.ObjectVal(types)}
	return ec, diags
}

// AppendNew adds those of more that are not in diags yet. The same diagnostic is returned
// each time something needs a node that has failed.
func AppendNew(diags, more hcl.Diagnostics) hcl.Diagnostics {
	for _, d := range more {
		if !slices.ContainsFunc(diags, func(e *hcl.Diagnostic) bool { return same(d, e) }) {
			diags = append(diags, d)
		}
	}
	return diags
}

func same(a, b *hcl.Diagnostic) bool {
	if a == b {
		return true
	}
	return a.Severity == b.Severity && a.Summary == b.Summary && a.Detail == b.Detail &&
		(a.Subject == b.Subject || a.Subject != nil && b.Subject != nil && *a.Subject == *b.Subject)
}

// Find returns the nodes that a traversal names.
func (s *Scope) Find(ref hcl.Traversal) []*Node { return s.find(ref) }

// find returns the nodes that ref names. A ref with only "local", "data" or a type of data
// source names all of them.
func (s *Scope) find(ref hcl.Traversal) []*Node {
	root := ref.RootName()
	if root != "local" && root != "data" {
		return nil
	}
	depth := 2
	if root == "data" {
		depth = 3
	}
	address := root
	for i := 1; i < depth; i++ {
		name, ok := stepName(ref, i)
		if !ok {
			break
		}
		address += "." + name
	}
	if n, ok := s.nodes[address]; ok {
		return []*Node{n}
	}
	if strings.Count(address, ".") == depth-1 {
		return nil
	}
	var found []*Node
	for _, n := range s.order {
		if strings.HasPrefix(n.Address, address+".") {
			found = append(found, n)
		}
	}
	return found
}

// isWhole reports whether ref names all locals, all data sources, or all of a type.
func (s *Scope) isWhole(ref hcl.Traversal) bool {
	last := 1
	switch ref.RootName() {
	case "local":
	case "data":
		last = 2
	default:
		return false
	}
	_, one := stepName(ref, last)
	return !one
}

// independent returns those of nodes that can be computed before the nodes on the stack,
// such as a local that looks up a name in all other locals: nodes that do not depend on
// the stack, and do not themselves look up names in all others.
func (s *Scope) independent(nodes, stack []*Node) []*Node {
	needs := map[*Node]bool{}
	for _, n := range stack {
		needs[n] = true
	}
	var depends func(*Node) bool
	depends = func(n *Node) bool {
		if d, seen := needs[n]; seen {
			return d
		}
		needs[n] = false
		for _, ref := range n.Refs {
			if !s.isWhole(ref) && slices.ContainsFunc(s.find(ref), depends) {
				needs[n] = true
				break
			}
		}
		return needs[n]
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool {
		return depends(n) || slices.ContainsFunc(n.Refs, s.isWhole)
	})
}

// absent reports whether ref names a local or data source that does not exist, as an
// error.
func (s *Scope) absent(ref hcl.Traversal, ec *hcl.EvalContext) hcl.Diagnostics {
	if root := ref.RootName(); root != "local" && root != "data" {
		return nil
	}
	what, name, names := s.missing(ref, ec)
	if what == "" {
		return nil
	}
	return hcl.Diagnostics{unknownName(what, name, names, ref.SourceRange())}
}

func stepName(t hcl.Traversal, i int) (string, bool) {
	if i >= len(t) {
		return "", false
	}
	switch step := t[i].(type) {
	case hcl.TraverseAttr:
		return step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			return step.Key.AsString(), true
		}
	}
	return "", false
}

// compute brings n to done. stack holds the nodes that are being computed, each
// needed by the one before it; ref is where n is referred to.
func (s *Scope) compute(ctx context.Context, n *Node, stack []*Node, ref hcl.Range) {
	switch n.state {
	case done:
		return
	case running:
		s.fail(n, stack, ref)
		return
	}
	n.state = running
	n.value = cty.DynamicVal
	stack = append(slices.Clone(stack), n)
	ec, diags := s.context(ctx, n.Refs, stack)
	if n.state == done { // it turned out to be part of a cycle
		return
	}
	for _, ref := range n.Refs {
		diags = append(diags, s.absent(ref, ec)...)
	}
	if !diags.HasErrors() {
		var more hcl.Diagnostics
		n.value, more = n.Compute(ctx, ec)
		diags = append(diags, s.Explain(more)...)
	}
	if diags.HasErrors() {
		n.value = cty.DynamicVal
	}
	n.diags, n.state = diags, done
}

// fail ends every node of the cycle that starts and ends with n.
func (s *Scope) fail(n *Node, stack []*Node, ref hcl.Range) {
	cycle := stack[slices.Index(stack, n):]
	var chain []string
	for _, m := range cycle {
		chain = append(chain, m.Address)
	}
	chain = append(chain, n.Address)
	detail := fmt.Sprintf("The value of %s depends on itself:\n  %s", n.Address, strings.Join(chain, " -> "))
	for _, m := range cycle {
		m.state = done
		m.value = cty.DynamicVal
		m.diags = hcl.Diagnostics{}
	}
	diag := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Circular reference", Detail: detail, Subject: &ref}
	for _, m := range cycle {
		m.diags = hcl.Diagnostics{diag}
	}
}

// Names lists what can be referred to below "var", "local", "data" or
// "data.TYPE", in order.
func (s *Scope) Names(below string) []string {
	if below == "var" {
		return slices.Sorted(maps.Keys(s.base.Variables["var"].AsValueMap()))
	}
	names := map[string]bool{}
	for _, n := range s.order {
		if rest, ok := strings.CutPrefix(n.Address, below+"."); ok {
			name, _, _ := strings.Cut(rest, ".")
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
