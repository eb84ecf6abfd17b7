// Package powershelltest is a PowerShell interpreter for tests: it runs the part of the
// language that bake's own scripts and those of tests use, as PowerShell would, and
// rejects everything else.
package powershelltest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Host is the machine that a PowerShell runs on.
type Host struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            map[string]string        // of the process, by name in upper case
	Path           func(name string) string // maps a path on the machine to one on this host
	Native         func(h *Host, words []string) (status int)
	COM            map[string]Object // the results of New-Object -ComObject, by name
	Objects        map[string]func(args []any) (Object, error)
	Windows        bool
}

// Object is a value with members. Names are in lower case.
type Object interface {
	Get(name string) (any, error)
	Set(name string, value any) error
	Call(name string, args []any) (any, error)
}

// Values are nil, bool, int, string, []any, *block and Object.

type thrown struct{ message string }

func (e *thrown) Error() string { return e.message }

// left is the end of a block or script by return or exit.
type left struct {
	how   string
	value any
	code  int
}

func (l *left) Error() string { return l.how }

type scope struct {
	vars   map[string]any
	parent *scope
}

type interpreter struct {
	*Host
	global    *scope
	scope     *scope
	functions map[string]*block
	commands  map[string]cmdlet
	strict    bool
	script    string // path of the running script
	emit      func(values ...any)
}

// Main runs PowerShell with the arguments of its command line, and returns its exit
// status.
func Main(h *Host, args []string) int {
	in := &interpreter{Host: h, functions: map[string]*block{}, commands: commands()}
	in.global = &scope{vars: map[string]any{"progresspreference": "Continue", "erroractionpreference": "Continue", "psedition": "Desktop"}}
	in.scope = in.global
	in.emit = in.show
	for len(args) > 0 {
		switch flag := strings.ToLower(args[0]); flag {
		case "-executionpolicy":
			if len(args) < 2 || !strings.Contains(" bypass allsigned default remotesigned restricted undefined unrestricted ", " "+strings.ToLower(args[1])+" ") {
				return in.refuse("execution policies are not like that: %q", args)
			}
			args = args[2:]
		case "-noprofile", "-noninteractive":
			args = args[1:]
		case "-file":
			if len(args) != 2 {
				return in.refuse("-file needs a file, and here no arguments: %q", args)
			}
			return in.main(func() error { return in.file(args[1], nil, true) })
		case "-encodedcommand":
			return in.command(Decode(args[1]))
		case "-command":
			return in.command(strings.Join(args[1:], " "))
		default:
			if strings.HasPrefix(flag, "-") {
				return in.refuse("unknown argument %q", flag)
			}
			return in.command(strings.Join(args, " "))
		}
	}
	return in.refuse("there is nothing to run")
}

func (in *interpreter) refuse(format string, args ...any) int {
	fmt.Fprintf(in.Stderr, format+"\n", args...)
	return 64
}

func (in *interpreter) command(src string) int {
	return in.main(func() error {
		b, err := parse(src)
		if err != nil {
			return err
		}
		return in.inner(b)
	})
}

// main turns the end of a run into an exit status.
func (in *interpreter) main(run func() error) int {
	err := run()
	var l *left
	switch {
	case errors.As(err, &l) && l.how == "exit":
		return l.code
	case err == nil || errors.As(err, &l):
		return 0
	}
	fmt.Fprintln(in.Stderr, err)
	return 1
}

// file runs a script in a new scope if own is set, or else in this one.
func (in *interpreter) file(name string, args []any, own bool) error {
	if !strings.HasSuffix(strings.ToLower(name), ".ps1") {
		return &thrown{fmt.Sprintf("the file %q is not a script: its name must end in .ps1", name)}
	}
	src, err := os.ReadFile(in.Path(name))
	if err != nil {
		return &thrown{fmt.Sprintf("the term '%s' is not recognized as the name of a script", name)}
	}
	b, err := parse(string(src))
	if err != nil {
		return &thrown{name + ": " + err.Error()}
	}
	before := in.script
	in.script = name
	defer func() { in.script = before }()
	if !own {
		return in.inner(b)
	}
	return in.call(b, args)
}

// call runs a block in a new scope, with the values of its parameters.
func (in *interpreter) call(b *block, args []any) error {
	in.scope = &scope{vars: map[string]any{}, parent: in.scope}
	defer func() { in.scope = in.scope.parent }()
	for i, name := range b.params {
		if i < len(args) {
			in.scope.vars[name] = args[i]
		}
	}
	err := in.inner(b)
	var l *left
	if errors.As(err, &l) && l.how == "return" {
		in.emit(flat(l.value)...)
		return nil
	}
	return err
}

// show writes values to the output.
func (in *interpreter) show(values ...any) {
	for _, v := range values {
		fmt.Fprint(in.Stdout, str(v)+in.newline())
	}
}

func (in *interpreter) newline() string {
	if in.Windows {
		return "\r\n"
	}
	return "\n"
}

// inner runs a block in the current scope. The output of its statements goes to emit.
func (in *interpreter) inner(b *block) error {
	for _, n := range b.body {
		v, err := in.eval(n)
		if !silent(n) {
			in.emit(flat(v)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// capture returns the output of f.
func (in *interpreter) capture(f func() error) (out []any, err error) {
	before := in.emit
	in.emit = func(values ...any) { out = append(out, values...) }
	defer func() { in.emit = before }()
	err = f()
	return out, err
}

// val returns the output of a statement as a value.
func (in *interpreter) val(n node) (v any, err error) {
	out, err := in.capture(func() (err error) {
		v, err = in.eval(n)
		return err
	})
	if out != nil {
		v = value(append(out, flat(v)...))
	}
	return v, err
}

func silent(n node) bool {
	switch n := n.(type) {
	case *assign:
		return true
	case *cast:
		return n.to == "void"
	}
	return false
}

func flat(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}

// value converts the output of a statement to a value.
func value(out []any) any {
	switch len(out) {
	case 0:
		return nil
	case 1:
		return out[0]
	}
	return out
}

func str(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		return map[bool]string{true: "True", false: "False"}[v]
	case []any:
		words := make([]string, len(v))
		for i := range v {
			words[i] = str(v[i])
		}
		return strings.Join(words, " ")
	}
	return fmt.Sprint(v)
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 1 || len(v) == 1 && truth(v[0])
	}
	return true
}

func number(v any) (int, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case int:
		return v, nil
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(str(v)))
	if err != nil {
		return 0, &thrown{fmt.Sprintf("cannot convert %q to a number", str(v))}
	}
	return n, nil
}

func (in *interpreter) lookup(v *variable) (any, error) {
	switch v.scope {
	case "env":
		if value, ok := in.Env[strings.ToUpper(v.name)]; ok {
			return value, nil
		}
		return nil, nil
	case "global", "script":
		return in.global.vars[v.name], nil
	case "":
	default:
		return nil, &thrown{"there is no drive " + v.scope}
	}
	switch v.name {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	case "myinvocation":
		return fields{"mycommand": fields{"path": in.script}}, nil
	}
	for s := in.scope; s != nil; s = s.parent {
		if value, ok := s.vars[v.name]; ok {
			return value, nil
		}
	}
	if in.strict {
		return nil, &thrown{"The variable '$" + v.name + "' cannot be retrieved because it has not been set."}
	}
	return nil, nil
}

func (in *interpreter) store(to node, value any) error {
	switch to := to.(type) {
	case *variable:
		switch to.scope {
		case "env":
			if value == nil || str(value) == "" {
				delete(in.Env, strings.ToUpper(to.name))
			} else {
				in.Env[strings.ToUpper(to.name)] = str(value)
			}
		case "global", "script":
			in.global.vars[to.name] = value
		default:
			in.scope.vars[to.name] = value
		}
		return nil
	case *member:
		x, err := in.val(to.x)
		if err != nil {
			return err
		}
		o, ok := x.(Object)
		if !ok {
			return &thrown{"the property '" + to.name + "' cannot be found on this object"}
		}
		return o.Set(to.name, value)
	}
	return &thrown{"the assignment has no place to go"}
}

func (in *interpreter) eval(n node) (any, error) {
	switch n := n.(type) {
	case *literal:
		return n.value, nil
	case *variable:
		return in.lookup(n)
	case *text:
		return in.expand(n)
	case *list:
		items, err := in.all(n.items)
		return items, err
	case *array:
		out, err := in.capture(func() error { return in.inner(n.body) })
		if out == nil {
			out = []any{}
		}
		return out, err
	case *sub:
		out, err := in.capture(func() error { return in.inner(n.body) })
		return value(out), err
	case *assign:
		return in.assign(n)
	case *unary:
		return in.unary(n)
	case *infix:
		return in.infix(n)
	case *cast:
		return in.cast(n)
	case *member:
		return in.member(n)
	case *index:
		return in.index(n)
	case *ifStmt:
		return in.choose(n)
	case *loop:
		return in.repeat(n)
	case *foreach:
		return in.iterate(n)
	case *try:
		return in.try(n)
	case *function:
		in.functions[n.name] = n.body
		return nil, nil
	case *leave:
		return in.leave(n)
	case *pipeline:
		return in.pipe(n)
	case *command:
		out, err := in.invoke(n, nil)
		return value(out), err
	case *typeName:
		return nil, &thrown{"a type is no value: " + n.name}
	}
	return nil, &thrown{fmt.Sprintf("cannot evaluate a %T", n)}
}

// expand inserts values into a text.
func (in *interpreter) expand(n *text) (any, error) {
	var b strings.Builder
	for _, p := range n.parts {
		v, err := in.val(p)
		if err != nil {
			return nil, err
		}
		b.WriteString(str(v))
	}
	return b.String(), nil
}

// assign stores a value, or adds it to the existing one.
func (in *interpreter) assign(n *assign) (any, error) {
	v, err := in.val(n.value)
	if err != nil {
		return nil, err
	}
	if n.op == "+=" {
		old, err := in.val(n.to)
		if err != nil {
			return nil, err
		}
		if v, err = in.add(old, v); err != nil {
			return nil, err
		}
	}
	return nil, in.store(n.to, v)
}

// unary is -not, or a minus.
func (in *interpreter) unary(n *unary) (any, error) {
	x, err := in.val(n.x)
	if err != nil {
		return nil, err
	}
	if n.op == "-not" {
		return !truth(x), nil
	}
	i, err := number(x)
	return -i, err
}

// cast converts a value to another type.
func (in *interpreter) cast(n *cast) (any, error) {
	x, err := in.val(n.x)
	if err != nil {
		return nil, err
	}
	switch n.to {
	case "void":
		return nil, nil
	case "string":
		return str(x), nil
	case "int":
		return number(x)
	}
	return nil, &thrown{"unknown type " + n.to}
}

// index returns an item of a list, or nothing if there is no such item.
func (in *interpreter) index(n *index) (any, error) {
	x, err := in.val(n.x)
	if err != nil {
		return nil, err
	}
	at, err := in.val(n.at)
	if err != nil {
		return nil, err
	}
	i, err := number(at)
	items := flat(x)
	if err != nil || i < 0 || i >= len(items) {
		return nil, err
	}
	return items[i], nil
}

// choose runs the first block whose condition is true.
func (in *interpreter) choose(n *ifStmt) (any, error) {
	for i, c := range n.conds {
		ok, err := in.val(c)
		if err != nil {
			return nil, err
		}
		if truth(ok) {
			return nil, in.inner(n.blocks[i])
		}
	}
	if n.other != nil {
		return nil, in.inner(n.other)
	}
	return nil, nil
}

// repeat runs a block while, or until, its condition is true.
func (in *interpreter) repeat(n *loop) (any, error) {
	for first := true; ; first = false {
		if n.before || !first {
			ok, err := in.val(n.cond)
			if err != nil || truth(ok) == n.until {
				return nil, err
			}
		}
		if err := in.inner(n.body); err != nil {
			return nil, err
		}
	}
}

// iterate runs a block for each item.
func (in *interpreter) iterate(n *foreach) (any, error) {
	items, err := in.val(n.in)
	if err != nil {
		return nil, err
	}
	for _, item := range flat(items) {
		in.scope.vars[n.name] = item
		if err := in.inner(n.body); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// try runs a try block with its catch and finally blocks.
func (in *interpreter) try(n *try) (any, error) {
	err := in.inner(n.body)
	var l *left
	if err != nil && !errors.As(err, &l) && n.catch != nil {
		before := in.scope.vars["_"]
		in.scope.vars["_"] = fields{"exception": fields{"message": err.Error()}, "": err.Error()}
		err = in.inner(n.catch)
		in.scope.vars["_"] = before
	}
	if n.finally != nil {
		if last := in.inner(n.finally); last != nil {
			err = last
		}
	}
	return nil, err
}

// leave throws, exits or returns.
func (in *interpreter) leave(n *leave) (any, error) {
	var v any
	if n.value != nil {
		var err error
		if v, err = in.val(n.value); err != nil {
			return nil, err
		}
	}
	switch n.how {
	case "throw":
		return nil, &thrown{str(v)}
	case "exit":
		code, err := number(v)
		if err != nil {
			return nil, err
		}
		return nil, &left{how: "exit", code: code}
	}
	return nil, &left{how: "return", value: v}
}

func (in *interpreter) all(nodes []node) ([]any, error) {
	values := make([]any, len(nodes))
	for i, n := range nodes {
		var err error
		if values[i], err = in.val(n); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (in *interpreter) add(x, y any) (any, error) {
	switch x := x.(type) {
	case string:
		return x + str(y), nil
	case []any:
		return append(append([]any{}, x...), flat(y)...), nil
	case nil:
		return y, nil
	}
	a, err := number(x)
	if err != nil {
		return nil, err
	}
	b, err := number(y)
	return a + b, err
}

func (in *interpreter) infix(n *infix) (any, error) {
	x, err := in.val(n.x)
	if err != nil {
		return nil, err
	}
	switch {
	case n.op == "-and" && !truth(x):
		return false, nil
	case n.op == "-or" && truth(x):
		return true, nil
	}
	y, err := in.val(n.y)
	if err != nil {
		return nil, err
	}
	switch n.op {
	case "-and", "-or":
		return truth(y), nil
	case "+":
		return in.add(x, y)
	case "-f":
		s := str(x)
		for i, v := range flat(y) {
			s = strings.ReplaceAll(s, fmt.Sprintf("{%d}", i), str(v))
		}
		return s, nil
	case "-contains":
		for _, v := range flat(x) {
			if strings.EqualFold(str(v), str(y)) {
				return true, nil
			}
		}
		return false, nil
	case "-eq", "-ne":
		same := (x == nil) == (y == nil) && strings.EqualFold(str(x), str(y))
		return same == (n.op == "-eq"), nil
	}
	a, err := number(x)
	if err != nil {
		return nil, err
	}
	b, err := number(y)
	if err != nil {
		return nil, err
	}
	switch n.op {
	case "-gt":
		return a > b, nil
	case "-ge":
		return a >= b, nil
	case "-lt":
		return a < b, nil
	case "-le":
		return a <= b, nil
	}
	return nil, &thrown{"unknown operator " + n.op}
}

func (in *interpreter) pipe(p *pipeline) (any, error) {
	first, err := in.val(p.parts[0])
	items := flat(first)
	for _, part := range p.parts[1:] {
		if err != nil {
			return value(items), err
		}
		c, ok := part.(*command)
		if !ok {
			return nil, &thrown{"expressions are only allowed as the first element of a pipeline"}
		}
		if items == nil {
			items = []any{}
		}
		stage := items
		out, fault := in.capture(func() (err error) {
			items, err = in.invoke(c, stage)
			return err
		})
		items, err = append(out, items...), fault
	}
	return value(items), err
}

// fields is an object of which only the fields are known. The field without a name is the
// object as a string.
type fields map[string]any

func (f fields) Get(name string) (any, error)     { return f[name], nil }
func (f fields) Set(name string, value any) error { f[name] = value; return nil }
func (f fields) Call(name string, _ []any) (any, error) {
	return nil, &thrown{"there is no method " + name}
}
func (f fields) String() string { return str(f[""]) }

func (in *interpreter) member(m *member) (any, error) {
	args, err := in.all(m.args)
	if err != nil {
		return nil, err
	}
	if m.static {
		t, ok := m.x.(*typeName)
		if !ok {
			return nil, &thrown{"only a type has static members"}
		}
		return in.static(t.name, m.name, args)
	}
	x, err := in.val(m.x)
	if err != nil {
		return nil, err
	}
	switch x := x.(type) {
	case Object:
		if m.call {
			return x.Call(m.name, args)
		}
		return x.Get(m.name)
	case string:
		return stringMember(x, m.name, args)
	case []any:
		if m.name == "count" || m.name == "length" {
			return len(x), nil
		}
	case nil:
		if m.call {
			return nil, &thrown{"You cannot call a method on a null-valued expression."}
		}
		if in.strict {
			return nil, &thrown{"The property '" + m.name + "' cannot be found on this object."}
		}
		return nil, nil
	}
	if m.name == "count" {
		return 1, nil
	}
	return nil, &thrown{fmt.Sprintf("%T has no member %s", x, m.name)}
}

func stringMember(s, name string, args []any) (any, error) {
	switch name {
	case "length":
		return len([]rune(s)), nil
	case "trimend":
		return strings.TrimRight(s, " \t\r\n"), nil
	case "trim":
		return strings.TrimSpace(s), nil
	case "toupper":
		return strings.ToUpper(s), nil
	case "replace":
		if len(args) == 2 {
			return strings.ReplaceAll(s, str(args[0]), str(args[1])), nil
		}
	}
	return nil, &thrown{"a text has no member " + name}
}

// fail reports an error of a command. It ends the script only if the flags or the
// preference variable request that.
func (in *interpreter) fail(flags map[string]any, format string, args ...any) error {
	action, ok := flags["erroraction"]
	if !ok {
		action, _ = in.lookup(&variable{"", "erroractionpreference"})
	}
	switch strings.ToLower(str(action)) {
	case "stop":
		return &thrown{fmt.Sprintf(format, args...)}
	case "silentlycontinue", "ignore":
	default:
		fmt.Fprintf(in.Stderr, format+"\n", args...)
	}
	return nil
}

func (in *interpreter) invoke(c *command, input []any) (out []any, err error) {
	name, err := in.val(c.name)
	if err != nil {
		return nil, err
	}
	flags, args, err := in.arguments(c)
	if err != nil {
		return nil, err
	}
	if b, ok := name.(*block); ok {
		if c.how == '.' {
			return nil, in.inner(b)
		}
		return nil, in.call(b, args)
	}
	word := str(name)
	if b, ok := in.functions[strings.ToLower(word)]; ok && c.how != '.' {
		return nil, in.call(b, args)
	}
	if f, ok := in.commands[strings.ToLower(word)]; ok {
		return f(in, flags, args, input)
	}
	if strings.HasSuffix(strings.ToLower(word), ".ps1") {
		err := in.file(word, args, c.how != '.')
		var l *left
		if errors.As(err, &l) && l.how == "exit" && c.how != '.' {
			in.global.vars["lastexitcode"] = l.code
			err = nil
		}
		return nil, err
	}
	return nil, in.native(c, word)
}

// arguments evaluates the arguments of a command.
func (in *interpreter) arguments(c *command) (flags map[string]any, args []any, err error) {
	flags = map[string]any{}
	for i := 0; i < len(c.args); i++ {
		if p, ok := c.args[i].(*parameter); ok {
			flags[p.name] = true
			if takesValue(p.name) && i+1 < len(c.args) {
				i++
				if flags[p.name], err = in.val(c.args[i]); err != nil {
					return nil, nil, err
				}
			}
			continue
		}
		v, err := in.val(c.args[i])
		if err != nil {
			return nil, nil, err
		}
		args = append(args, v)
	}
	return flags, args, nil
}

// native runs a program of the host with the arguments of a command unchanged.
func (in *interpreter) native(c *command, word string) error {
	if in.Native == nil {
		return &thrown{"The term '" + word + "' is not recognized as the name of a cmdlet, function, script file, or operable program."}
	}
	words := []string{word}
	for _, n := range c.args {
		if p, ok := n.(*parameter); ok {
			words = append(words, "-"+p.name)
			continue
		}
		v, err := in.val(n)
		if err != nil {
			return err
		}
		words = append(words, str(v))
	}
	status := in.Native(in.Host, words)
	if status == NotFound {
		return &thrown{"The term '" + word + "' is not recognized as the name of a cmdlet, function, script file, or operable program."}
	}
	in.global.vars["lastexitcode"] = status
	return nil
}

// NotFound is the error of Native if there is no such program.
const NotFound = -1 << 20

func takesValue(flag string) bool {
	switch flag {
	case "literalpath", "path", "erroraction", "milliseconds", "seconds", "comobject", "value", "trace", "version", "typename", "encoding":
		return true
	}
	return false
}

func sleep(flags map[string]any, args []any) error {
	if v, ok := flags["milliseconds"]; ok {
		n, err := number(v)
		time.Sleep(time.Duration(n) * time.Millisecond)
		return err
	}
	v := flags["seconds"]
	if v == nil && len(args) > 0 {
		v = args[0]
	}
	n, err := number(v)
	time.Sleep(time.Duration(n) * time.Second)
	return err
}

// Environment copies variables into the form that a Host has.
func Environment(env []string) map[string]string {
	all := map[string]string{}
	for _, v := range env {
		if name, value, ok := strings.Cut(v, "="); ok {
			all[strings.ToUpper(name)] = value
		}
	}
	return all
}
