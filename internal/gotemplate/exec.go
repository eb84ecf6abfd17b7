package gotemplate

import (
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"text/template/parse"
)

// The evaluator of {{ }}. It does what text/template does for the values that bake passes
// to templates: texts, numbers, booleans, lists and maps. It calls no methods:
// text/template looks them up by name, and the linker then keeps every method of every
// type that is converted to an interface.

// execution is one rendering.
type execution struct {
	trees     map[string]*parse.Tree
	functions map[string]function
	variables []variable // innermost last
	steps     int        // loop iterations and calls of templates so far
	strict    bool       // a missing field is an error
	out       output
}

type variable struct {
	name  string // with its $
	value any
}

// outcome is how the evaluation of a list of nodes ended.
type outcome int

const (
	ended     outcome = iota
	broke             // {{ break }}
	continued         // {{ continue }}
)

// execute runs the tree called name with dot.
func (e *execution) execute(name string, dot any) error {
	tree, ok := e.trees[name]
	if !ok || tree.Root == nil {
		if name == "" {
			return nil
		}
		return fmt.Errorf("template %q not defined", name)
	}
	if err := e.step(); err != nil {
		return err
	}
	outer := e.variables
	e.variables = []variable{{"$", dot}}
	_, err := e.list(tree.Root, dot)
	e.variables = outer
	return err
}

// step counts an iteration of a loop or a call of a template.
func (e *execution) step() error {
	if e.steps++; e.steps > maxSteps {
		return errSteps
	}
	return nil
}

func (e *execution) list(l *parse.ListNode, dot any) (outcome, error) {
	if l == nil {
		return ended, nil
	}
	for _, n := range l.Nodes {
		if how, err := e.node(n, dot); how != ended || err != nil {
			return how, err
		}
	}
	return ended, nil
}

func (e *execution) node(n parse.Node, dot any) (outcome, error) {
	how, err := e.run(n, dot)
	return how, place(err, n.Position())
}

func (e *execution) run(n parse.Node, dot any) (outcome, error) {
	switch n := n.(type) {
	case *parse.TextNode:
		return ended, e.out.write(n.Text, n.Pos, true)
	case *parse.ActionNode:
		v, err := e.pipe(n.Pipe, dot)
		if err != nil || len(n.Pipe.Decl) > 0 {
			return ended, err
		}
		return ended, e.out.write(fmt.Append(nil, printable(v)), n.Pos, false)
	case *parse.IfNode:
		return e.branch(&n.BranchNode, dot, func(any) any { return dot })
	case *parse.WithNode:
		return e.branch(&n.BranchNode, dot, func(v any) any { return v })
	case *parse.RangeNode:
		return e.loop(n, dot)
	case *parse.TemplateNode:
		var inner any
		if n.Pipe != nil {
			var err error
			if inner, err = e.pipe(n.Pipe, dot); err != nil {
				return ended, err
			}
		}
		return ended, e.execute(n.Name, inner)
	case *parse.BreakNode:
		return broke, nil
	case *parse.ContinueNode:
		return continued, nil
	case *parse.CommentNode:
		return ended, nil
	}
	return ended, fmt.Errorf("%s is not allowed here", n)
}

// branch runs one of the lists of an if or a with; inside returns the dot of the first
// list.
func (e *execution) branch(n *parse.BranchNode, dot any, inside func(any) any) (outcome, error) {
	mark := len(e.variables)
	defer func() { e.variables = e.variables[:mark] }()
	v, err := e.pipe(n.Pipe, dot)
	if err != nil {
		return ended, err
	}
	if truth(v) {
		return e.list(n.List, inside(v))
	}
	return e.list(n.ElseList, dot)
}

// loop runs a range over a number, a list or a map, whose keys are sorted.
func (e *execution) loop(n *parse.RangeNode, dot any) (outcome, error) {
	mark := len(e.variables)
	defer func() { e.variables = e.variables[:mark] }()
	over, err := e.pipe(n.Pipe, dot)
	if err != nil {
		return ended, err
	}
	if len(n.Pipe.Decl) > 1 && reflect.ValueOf(over).CanInt() {
		return ended, fmt.Errorf("range %s: a number has only one variable", n.Pipe)
	}
	inner := len(e.variables)
	turns := 0
	turn := func(key, value any) (more bool, err error) {
		turns++
		if err := e.step(); err != nil {
			return false, err
		}
		e.variables = e.variables[:inner]
		if err := e.loopVariables(n.Pipe, key, value); err != nil {
			return false, err
		}
		how, err := e.list(n.List, value)
		return how != broke, err
	}
	if err := each(over, turn); err != nil {
		return ended, fmt.Errorf("range %s: %w", n.Pipe, err)
	}
	if turns == 0 {
		return e.list(n.ElseList, dot)
	}
	return ended, nil
}

// loopVariables sets the variables of a range for one iteration.
func (e *execution) loopVariables(p *parse.PipeNode, key, value any) error {
	values := []any{value}
	if len(p.Decl) > 1 {
		values = []any{key, value}
	}
	for i, d := range p.Decl {
		// The parser has declared them once, before the first iteration.
		if err := e.assign(d.Ident[0], values[i]); err != nil {
			return err
		}
	}
	return nil
}

// each calls turn for every element of v until turn returns false.
func each(v any, turn func(key, value any) (more bool, err error)) error {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Invalid:
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		for i := range r.Int() {
			if more, err := turn(int(i), int(i)); !more || err != nil {
				return err
			}
		}
		return nil
	case reflect.Slice, reflect.Array:
		for i := range r.Len() {
			if more, err := turn(i, r.Index(i).Interface()); !more || err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		if r.Type().Key().Kind() != reflect.String {
			break
		}
		keys := r.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			if more, err := turn(k.String(), r.MapIndex(k).Interface()); !more || err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%s has no elements", kind(v))
}

func (e *execution) assign(name string, value any) error {
	for i := len(e.variables) - 1; i >= 0; i-- {
		if e.variables[i].name == name {
			e.variables[i].value = value
			return nil
		}
	}
	return fmt.Errorf("undefined variable: %s", name)
}

// pipe evaluates a pipeline and sets or declares its variables.
func (e *execution) pipe(p *parse.PipeNode, dot any) (any, error) {
	var piped []any // the value of the preceding command, if there is one
	for _, c := range p.Cmds {
		v, err := e.command(c, dot, piped)
		if err != nil {
			return nil, err
		}
		piped = []any{v}
	}
	var value any
	if len(piped) > 0 {
		value = piped[0]
	}
	for _, d := range p.Decl {
		if !p.IsAssign {
			e.variables = append(e.variables, variable{d.Ident[0], value})
		} else if err := e.assign(d.Ident[0], value); err != nil {
			return nil, err
		}
	}
	return value, nil
}

// command evaluates one command of a pipeline; the result of the preceding command is its
// last argument.
func (e *execution) command(c *parse.CommandNode, dot any, piped []any) (any, error) {
	if name, ok := c.Args[0].(*parse.IdentifierNode); ok {
		v, err := e.call(name.Ident, c.Args[1:], dot, piped)
		if err != nil && !limit(err) {
			err = fmt.Errorf("{{ %s }}: %w", c, err)
		}
		return v, err
	}
	if len(c.Args) > 1 || len(piped) > 0 {
		return nil, fmt.Errorf("{{ %s }}: %s is not a function and takes no arguments", c, c.Args[0])
	}
	if _, ok := c.Args[0].(*parse.NilNode); ok {
		return nil, errors.New("nil is not a command")
	}
	return e.value(c.Args[0], dot)
}

// limit reports whether err means that rendering exceeded a limit.
func limit(err error) bool { return errors.Is(err, errSteps) || errors.Is(err, errText) }

// value evaluates a node that can be an argument.
func (e *execution) value(n parse.Node, dot any) (any, error) {
	switch n := n.(type) {
	case *parse.StringNode:
		return n.Text, nil
	case *parse.BoolNode:
		return n.True, nil
	case *parse.NumberNode:
		return number(n)
	case *parse.NilNode:
		return nil, nil
	case *parse.DotNode:
		return dot, nil
	case *parse.FieldNode:
		return e.fields(dot, n.Ident)
	case *parse.VariableNode:
		for i := len(e.variables) - 1; i >= 0; i-- {
			if e.variables[i].name == n.Ident[0] {
				return e.fields(e.variables[i].value, n.Ident[1:])
			}
		}
		return nil, fmt.Errorf("undefined variable: %s", n.Ident[0])
	case *parse.PipeNode:
		return e.pipe(n, dot)
	case *parse.ChainNode:
		v, err := e.value(n.Node, dot)
		if err != nil {
			return nil, err
		}
		return e.fields(v, n.Field)
	case *parse.IdentifierNode:
		return e.call(n.Ident, nil, dot, nil)
	}
	return nil, fmt.Errorf("%s cannot be an argument", n)
}

// number returns the value of a constant: as in Go, one with a point or an exponent is
// a float, and a character is a whole number.
func number(n *parse.NumberNode) (any, error) {
	text := strings.ToLower(n.Text)
	whole := strings.HasPrefix(text, "'") || strings.HasPrefix(text, "0x") && !strings.Contains(text, "p")
	switch {
	case n.IsComplex:
		return n.Complex128, nil
	case n.IsFloat && !whole && strings.ContainsAny(text, ".ep"):
		return n.Float64, nil
	case n.IsInt:
		return int(n.Int64), nil
	}
	return nil, fmt.Errorf("%s is too large", n.Text)
}

// fields is [fields], with the handling of missing fields in a strict execution.
func (e *execution) fields(v any, names []string) (any, error) {
	if !e.strict {
		return fields(v, names)
	}
	for i, name := range names {
		if v == nil {
			return nil, fmt.Errorf("there is no %s in nothing: .%s has no value", name, strings.Join(names[:i], "."))
		}
		if r := reflect.ValueOf(v); r.Kind() == reflect.Map && r.Type().Key().Kind() == reflect.String &&
			!r.MapIndex(reflect.ValueOf(name).Convert(r.Type().Key())).IsValid() {
			return nil, fmt.Errorf("map has no entry for key %q", name)
		}
		var err error
		if v, err = fields(v, []string{name}); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// fields follows names from v through maps. A missing key yields nil, and so do all names
// after it.
func fields(v any, names []string) (any, error) {
	for _, name := range names {
		r := reflect.ValueOf(v)
		switch {
		case r.Kind() == reflect.Map && r.Type().Key().Kind() == reflect.String:
			item := r.MapIndex(reflect.ValueOf(name).Convert(r.Type().Key()))
			if !item.IsValid() {
				v = nil
				continue
			}
			v = item.Interface()
		case v == nil:
			return nil, nil
		default:
			return nil, fmt.Errorf("can't evaluate field %s in %s", name, kind(v))
		}
	}
	return v, nil
}

// call calls a function. The arguments of and and or are evaluated only until
// one decides.
func (e *execution) call(name string, args []parse.Node, dot any, piped []any) (any, error) {
	f, ok := e.functions[name]
	if !ok {
		return nil, fmt.Errorf("function %q not defined", name)
	}
	values := make([]any, 0, len(args)+len(piped))
	for _, a := range args {
		v, err := e.value(a, dot)
		if err != nil {
			return nil, err
		}
		if decides(name, v) {
			return v, nil
		}
		values = append(values, v)
	}
	return f(append(values, piped...))
}

func decides(name string, v any) bool {
	return name == "and" && !truth(v) || name == "or" && truth(v)
}

// truth reports whether v is neither false, zero, empty nor nil.
func truth(v any) bool {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Invalid:
		return false
	case reflect.String, reflect.Slice, reflect.Array, reflect.Map:
		return r.Len() > 0
	}
	return !r.IsZero()
}

// printable returns v in the form in which an action prints it.
func printable(v any) any {
	if v == nil {
		return "<no value>"
	}
	return v
}

// kind returns the name of v's type, for errors.
func kind(v any) string {
	if v == nil {
		return "nil"
	}
	return fmt.Sprintf("type %T", v)
}
