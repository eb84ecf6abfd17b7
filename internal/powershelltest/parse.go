package powershelltest

import (
	"fmt"
	"strings"
	"unicode"
)

// The nodes of a program. The type of a node determines how it is evaluated.
type (
	node interface{}

	block struct { // { … }, or a whole script
		params []string
		body   []node
	}
	assign struct {
		to    node // variable, member or index
		op    string
		value node
	}
	ifStmt struct {
		conds  []node
		blocks []*block
		other  *block
	}
	loop struct {
		before, until bool // while comes before the body; the condition ends it
		cond          node
		body          *block
	}
	foreach struct {
		name string
		in   node
		body *block
	}
	try      struct{ body, catch, finally *block }
	function struct {
		name string
		body *block
	}
	leave struct { // return, exit, throw
		how   string
		value node
	}
	pipeline struct{ parts []node }
	command  struct {
		how  byte // '&', '.', or 0
		name node
		args []node
	}
	parameter struct{ name string } // -Name
	variable  struct{ scope, name string }
	text      struct{ parts []node } // of a double-quoted text
	literal   struct{ value any }
	list      struct{ items []node }
	array     struct{ body *block } // @( … )
	sub       struct{ body *block } // $( … )
	unary     struct {
		op string
		x  node
	}
	infix struct {
		op   string
		x, y node
	}
	typeName struct{ name string }
	cast     struct {
		to string
		x  node
	}
	member struct {
		x      node
		static bool
		name   string
		call   bool
		args   []node
	}
	index struct{ x, at node }
)

type parser struct {
	src []rune
	at  int
}

// parse reads a script.
func parse(src string) (_ *block, err error) {
	p := &parser{src: []rune(strings.TrimPrefix(strings.ReplaceAll(src, "\r\n", "\n"), "\ufeff"))}
	defer func() {
		if r := recover(); r != nil {
			fault, ok := r.(syntaxError)
			if !ok {
				panic(r)
			}
			err = fault
		}
	}()
	b := p.statements(0)
	return b, nil
}

type syntaxError string

func (e syntaxError) Error() string { return string(e) }

func (p *parser) fail(format string, args ...any) {
	line := 1 + strings.Count(string(p.src[:min(p.at, len(p.src))]), "\n")
	panic(syntaxError(fmt.Sprintf("line %d: %s", line, fmt.Sprintf(format, args...))))
}

func (p *parser) peek() rune {
	if p.at < len(p.src) {
		return p.src[p.at]
	}
	return 0
}

func (p *parser) has(s string) bool {
	end := p.at + len([]rune(s))
	return end <= len(p.src) && strings.EqualFold(string(p.src[p.at:end]), s)
}

// word is like has, for a word that ends at that point.
func (p *parser) word(s string) bool {
	end := p.at + len(s)
	return p.has(s) && (end >= len(p.src) || !isWord(p.src[end]))
}

func (p *parser) take(s string) bool {
	if !p.has(s) {
		return false
	}
	p.at += len([]rune(s))
	return true
}

func (p *parser) want(s string) {
	p.blank()
	if !p.take(s) {
		p.fail("expected %q at %.20q", s, string(p.src[p.at:]))
	}
}

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// space skips blanks within a line, and comments.
func (p *parser) space() {
	for {
		switch c := p.peek(); {
		case c == ' ' || c == '\t' || c == '\r':
			p.at++
		case c == '`' && p.at+1 < len(p.src) && p.src[p.at+1] == '\n':
			p.at += 2
		case c == '#':
			for p.peek() != '\n' && p.peek() != 0 {
				p.at++
			}
		default:
			return
		}
	}
}

// blank skips line ends too.
func (p *parser) blank() {
	for p.space(); p.peek() == '\n'; p.space() {
		p.at++
	}
}

func (p *parser) statements(end rune) *block {
	b := &block{}
	for {
		p.blank()
		switch p.peek() {
		case ';':
			p.at++
		case end:
			if end != 0 {
				p.at++
			}
			return b
		case 0:
			p.fail("missing %q", end)
		default:
			if len(b.body) == 0 && p.word("param") {
				p.at += len("param")
				b.params = p.params()
				continue
			}
			b.body = append(b.body, p.statement())
			p.space()
			if c := p.peek(); c != '\n' && c != ';' && c != end && c != 0 && p.src[p.at-1] != '}' {
				p.fail("unexpected %.20q", string(p.src[p.at:]))
			}
		}
	}
}

func (p *parser) params() (names []string) {
	p.want("(")
	for p.blank(); !p.take(")"); p.blank() {
		p.take(",")
		p.blank()
		p.want("$")
		names = append(names, p.name())
	}
	return names
}

func (p *parser) name() string {
	start := p.at
	for isWord(p.peek()) {
		p.at++
	}
	return strings.ToLower(string(p.src[start:p.at]))
}

func (p *parser) block() *block {
	p.want("{")
	return p.statements('}')
}

func (p *parser) cond() node {
	p.want("(")
	p.blank()
	n := p.pipeline()
	p.want(")")
	return n
}

func (p *parser) statement() node {
	switch {
	case p.keyword("function"):
		return p.functionDefinition()
	case p.keyword("if"):
		return p.ifStatement()
	case p.keyword("while"):
		return &loop{before: true, cond: p.cond(), body: p.block()}
	case p.keyword("do"):
		return p.doStatement()
	case p.keyword("foreach"):
		return p.foreachStatement()
	case p.keyword("try"):
		return p.tryStatement()
	}
	for _, how := range []string{"return", "exit", "throw"} {
		if p.keyword(how) {
			s := &leave{how: how}
			if p.space(); !p.ended() {
				s.value = p.pipeline()
			}
			return s
		}
	}
	return p.pipeline()
}

// keyword skips a keyword, and reports whether it is next.
func (p *parser) keyword(s string) bool {
	if !p.word(s) {
		return false
	}
	p.at += len(s)
	return true
}

func (p *parser) functionDefinition() node {
	p.space()
	start := p.at
	for isWord(p.peek()) || p.peek() == '-' {
		p.at++
	}
	f := &function{name: strings.ToLower(string(p.src[start:p.at]))}
	var params []string
	if p.space(); p.peek() == '(' {
		params = p.params()
	}
	f.body = p.block()
	f.body.params = append(f.body.params, params...)
	return f
}

func (p *parser) ifStatement() node {
	s := &ifStmt{conds: []node{p.cond()}, blocks: []*block{p.block()}}
	for {
		at := p.at
		switch p.blank(); {
		case p.keyword("elseif"):
			s.conds, s.blocks = append(s.conds, p.cond()), append(s.blocks, p.block())
			continue
		case p.keyword("else"):
			s.other = p.block()
		default:
			p.at = at
		}
		return s
	}
}

func (p *parser) doStatement() node {
	l := &loop{body: p.block()}
	switch p.blank(); {
	case p.keyword("until"):
		l.until = true
	case p.keyword("while"):
	default:
		p.fail("do without an end")
	}
	l.cond = p.cond()
	return l
}

func (p *parser) foreachStatement() node {
	p.want("(")
	p.want("$")
	f := &foreach{name: p.name()}
	p.space()
	p.want("in")
	p.blank()
	f.in = p.pipeline()
	p.want(")")
	f.body = p.block()
	return f
}

func (p *parser) tryStatement() node {
	t := &try{body: p.block()}
	at := p.at
	if p.blank(); p.keyword("catch") {
		t.catch = p.block()
		at = p.at
	}
	if p.blank(); p.keyword("finally") {
		t.finally = p.block()
		at = p.at
	}
	if p.at = at; t.catch == nil && t.finally == nil {
		p.fail("try without catch and finally")
	}
	return t
}

// ended reports whether a command is over here.
func (p *parser) ended() bool { return strings.ContainsRune("\n;|})\x00", p.peek()) }

func (p *parser) pipeline() node {
	first := p.element()
	p.space()
	for _, op := range []string{"=", "+="} {
		if p.take(op) {
			p.blank()
			return &assign{first, op, p.statement()}
		}
	}
	parts := []node{first}
	for p.space(); p.take("|"); p.space() {
		p.blank()
		parts = append(parts, p.element())
	}
	if len(parts) == 1 {
		return first
	}
	return &pipeline{parts}
}

// element is an expression or a command.
func (p *parser) element() node {
	switch c := p.peek(); {
	case c == '&' || c == '.' && p.at+1 < len(p.src) && strings.ContainsRune(" \t'\"$(", p.src[p.at+1]):
		p.at++
		p.space()
		return p.command(byte(c), p.argument())
	case strings.ContainsRune("$'\"([{@!+-", c) || unicode.IsDigit(c):
		return p.expression()
	}
	return p.command(0, p.argument())
}

func (p *parser) command(how byte, name node) node {
	c := &command{how: how, name: name}
	for {
		switch p.space(); {
		case p.ended():
			return c
		case p.take("2>&1"), p.take("2>$null"):
		default:
			c.args = append(c.args, p.arguments())
		}
	}
}

// arguments are one argument, or several with commas.
func (p *parser) arguments() node {
	first := p.argument()
	items := []node{first}
	for p.space(); p.take(","); p.space() {
		p.blank()
		items = append(items, p.argument())
	}
	if len(items) == 1 {
		return first
	}
	return &list{items}
}

// argument is one word of a command.
func (p *parser) argument() node {
	c := p.peek()
	if c == '-' && p.at+1 < len(p.src) && unicode.IsLetter(p.src[p.at+1]) {
		p.at++
		return &parameter{p.name()}
	}
	if strings.ContainsRune("'([{@", c) || c == '$' && p.at+1 < len(p.src) && p.src[p.at+1] != ' ' || c == '"' {
		x := p.postfix(p.primary())
		if p.ended() || strings.ContainsRune(" \t,", p.peek()) {
			return x
		}
		rest, ok := p.argument().(*text)
		if !ok {
			p.fail("a word that cannot be read")
		}
		return &text{append([]node{x}, rest.parts...)}
	}
	var t text
	for !p.ended() && !strings.ContainsRune(" \t,(", p.peek()) {
		switch c := p.peek(); c {
		case '`':
			p.at++
			t.add(string(p.peek()))
			p.at++
		case '$':
			t.parts = append(t.parts, p.primary())
		case '\'', '"':
			t.parts = append(t.parts, p.primary())
		default:
			t.add(string(c))
			p.at++
		}
	}
	if len(t.parts) == 0 {
		p.fail("unexpected %.20q", string(p.src[p.at:]))
	}
	return &t
}

func (t *text) add(s string) {
	if n := len(t.parts); n > 0 {
		if l, ok := t.parts[n-1].(*literal); ok {
			l.value = l.value.(string) + s
			return
		}
	}
	t.parts = append(t.parts, &literal{s})
}

// The operators by precedence, lowest first.
var operators = [][]string{
	{"-and", "-or"},
	{"-eq", "-ne", "-ge", "-gt", "-le", "-lt", "-like", "-match", "-contains"},
	{"+"},
	{"-f"},
}

func (p *parser) expression() node { return p.commas() }

func (p *parser) commas() node {
	items := []node{p.operation(0)}
	for p.space(); p.take(","); p.space() {
		p.blank()
		items = append(items, p.operation(0))
	}
	if len(items) == 1 {
		return items[0]
	}
	return &list{items}
}

func (p *parser) operation(level int) node {
	if level == len(operators) {
		return p.unary()
	}
	x := p.operation(level + 1)
next:
	for {
		p.space()
		for _, op := range operators[level] {
			if op != "+" && p.word(op) || op == "+" && p.peek() == '+' && !p.has("+=") {
				p.at += len(op)
				p.blank()
				x = &infix{op, x, p.operation(level + 1)}
				continue next
			}
		}
		return x
	}
}

func (p *parser) unary() node {
	p.space()
	switch {
	case p.word("-not"):
		p.at += len("-not")
		return &unary{"-not", p.unary()}
	case p.take("!"):
		return &unary{"-not", p.unary()}
	case p.peek() == '-':
		p.at++
		return &unary{"-", p.unary()}
	}
	return p.postfix(p.primary())
}

func (p *parser) postfix(x node) node {
	for {
		switch {
		case p.take("::"):
			x = p.member(x, true)
		case p.peek() == '.' && p.at+1 < len(p.src) && isWord(p.src[p.at+1]):
			p.at++
			x = p.member(x, false)
		case p.peek() == '[':
			p.at++
			at := p.expression()
			p.want("]")
			x = &index{x, at}
		default:
			return x
		}
	}
}

func (p *parser) member(x node, static bool) node {
	m := &member{x: x, static: static, name: p.name()}
	if p.take("(") {
		m.call = true
		for p.blank(); !p.take(")"); p.blank() {
			p.take(",")
			p.blank()
			m.args = append(m.args, p.operation(0))
		}
	}
	return m
}

func (p *parser) primary() node {
	switch c := p.peek(); {
	case c == '$':
		return p.dollar()
	case c == '\'':
		return &literal{p.single()}
	case c == '"':
		return p.double()
	case c == '(':
		p.at++
		p.blank()
		n := p.pipeline()
		p.want(")")
		return n
	case p.take("@("):
		return &array{p.statements(')')}
	case p.has("@'\n"):
		p.at += 3
		end := strings.Index(string(p.src[p.at:]), "\n'@")
		if end < 0 {
			p.fail("a here-string without end")
		}
		s := string(p.src[p.at:])[:end]
		p.at += len([]rune(s)) + 3
		return &literal{s}
	case c == '{':
		return &literal{p.block()}
	case c == '[':
		p.at++
		start := p.at
		for p.peek() != ']' && p.peek() != 0 {
			p.at++
		}
		name := strings.ToLower(string(p.src[start:p.at]))
		p.want("]")
		if p.has("::") {
			return &typeName{name}
		}
		p.space()
		return &cast{name, p.unary()}
	case unicode.IsDigit(c):
		n := 0
		for unicode.IsDigit(p.peek()) {
			n = n*10 + int(p.peek()-'0')
			p.at++
		}
		return &literal{n}
	}
	p.fail("unexpected %.20q", string(p.src[p.at:]))
	return nil
}

func isSingle(r rune) bool { return strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) }
func isDouble(r rune) bool { return strings.ContainsRune("\"\u201c\u201d\u201e", r) }

func (p *parser) single() string {
	var b strings.Builder
	for p.at++; ; p.at++ {
		switch c := p.peek(); {
		case c == 0:
			p.fail("a text without end")
		case isSingle(c):
			if p.at+1 >= len(p.src) || !isSingle(p.src[p.at+1]) {
				p.at++
				return b.String()
			}
			p.at++
			b.WriteRune(p.peek())
		default:
			b.WriteRune(c)
		}
	}
}

var escapes = map[rune]string{'n': "\n", 'r': "\r", 't': "\t", '0': "\x00"}

func (p *parser) double() node {
	t := &text{parts: []node{&literal{""}}}
	p.at++
	for {
		switch c := p.peek(); {
		case c == 0:
			p.fail("a text without end")
		case isDouble(c):
			p.at++
			if !isDouble(p.peek()) {
				return t
			}
			t.add(string(p.peek()))
			p.at++
		case c == '`':
			p.at++
			if s, ok := escapes[p.peek()]; ok {
				t.add(s)
			} else {
				t.add(string(p.peek()))
			}
			p.at++
		case c == '$' && p.at+1 < len(p.src) && (isWord(p.src[p.at+1]) || strings.ContainsRune("{(", p.src[p.at+1])):
			t.parts = append(t.parts, p.dollar())
		default:
			t.add(string(c))
			p.at++
		}
	}
}

func (p *parser) dollar() node {
	p.at++
	switch {
	case p.take("("):
		return &sub{p.statements(')')}
	case p.take("{"):
		var b strings.Builder
		for !p.take("}") {
			if p.peek() == '`' {
				p.at++
			}
			if p.peek() == 0 {
				p.fail("a variable without end")
			}
			b.WriteRune(p.peek())
			p.at++
		}
		scope, name, ok := strings.Cut(strings.ToLower(b.String()), ":")
		if !ok {
			scope, name = "", scope
		}
		return &variable{scope, name}
	case p.take("?"):
		return &variable{"", "?"}
	}
	name := p.name()
	if p.peek() == ':' && p.at+1 < len(p.src) && isWord(p.src[p.at+1]) {
		p.at++
		return &variable{name, p.name()}
	}
	if p.peek() == ':' && !p.has("::") {
		p.fail("a variable with a drive and no name: $%s:", name)
	}
	if name == "" {
		p.fail("a $ that means nothing")
	}
	return &variable{"", name}
}
