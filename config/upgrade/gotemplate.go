package upgrade

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/internal/lazyregexp"
)

// where is the part of a template that a string belongs to. It determines what the string
// may refer to.
type where struct {
	block   string // "variable" for its default, "local", "builder", "provisioner", "post-processor" or "build"
	typ     string // such as "amazon-ebs"
	unnamed bool   // a build that it is part of had no name but its type
}

// maxActions is how many parts a string may have; the template parser is recursive.
const maxActions = 10_000

// segment is a run of plain text in a Go template, or one {{ action }}.
type segment struct {
	text   string
	action bool
}

// segments splits a Go template. An action that is not closed is an error.
func segments(s string) ([]segment, error) {
	var out []segment
	for s != "" {
		start := strings.Index(s, "{{")
		if start < 0 {
			return append(out, segment{text: s}), nil
		}
		if start > 0 {
			out = append(out, segment{text: s[:start]})
		}
		end := actionEnd(s[start:])
		if end < 0 {
			return nil, fmt.Errorf("a {{ is not closed")
		}
		out = append(out, segment{s[start : start+end], true})
		s = s[start+end:]
	}
	return out, nil
}

// actionEnd returns the length of the action that s starts with, or -1.
func actionEnd(s string) int {
	if body := strings.TrimPrefix(strings.TrimPrefix(s, "{{"), "- "); strings.HasPrefix(body, "/*") {
		i := strings.Index(s, "*/")
		if i < 0 {
			return -1
		}
		if j := strings.Index(s[i:], "}}"); j >= 0 {
			return i + j + 2
		}
		return -1
	}
	for i := 2; i < len(s); i++ {
		switch c := s[i]; c {
		case '`':
			j := strings.IndexByte(s[i+1:], '`')
			if j < 0 {
				return -1
			}
			i += j + 1
		case '"', '\'':
			for i++; i < len(s) && s[i] != c; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		case '}':
			if strings.HasPrefix(s[i:], "}}") {
				return i + 2
			}
		}
	}
	return -1
}

// text converts a string. A template action without an equivalent in HCL stays unchanged if
// the components still render it themselves. Any other is reported, and also stays
// unchanged.
func (c *converter) text(s string, at hcl.Range, w where) []piece {
	if !strings.Contains(s, "{{") {
		return []piece{{lit: s}}
	}
	segs, err := segments(s)
	if len(segs) > maxActions {
		err = fmt.Errorf("it has more than %d parts", maxActions)
	}
	if err == nil {
		t := parse.New("")
		t.Mode = parse.SkipFuncCheck
		_, err = t.Parse(s, "", "", map[string]*parse.Tree{})
	}
	if err != nil {
		msg := strings.TrimPrefix(err.Error(), "template: :")
		c.fail(at, "Not a template", "This string contains {{, but it is not a valid template: %s. It was copied unchanged. A literal {{ is written {{`{{`}}.", msg)
		return []piece{{lit: s}}
	}
	converted := make([]string, len(segs)) // the expressions of those actions that have one
	for i, seg := range segs {
		if seg.action {
			converted[i] = c.action(seg.text, at, w)
		}
	}
	var out []piece
	for i, seg := range segs {
		switch {
		case converted[i] != "":
			out = append(out, piece{expr: converted[i]})
			continue
		case seg.action:
			c.keep(seg.text, at, w)
		default:
			// A converted action no longer removes the adjacent white space.
			if i > 0 && converted[i-1] != "" && trimAfter.Get().MatchString(segs[i-1].text) {
				seg.text = strings.TrimLeft(seg.text, " \t\r\n")
			}
			if i+1 < len(segs) && converted[i+1] != "" && trimBefore.Get().MatchString(segs[i+1].text) {
				seg.text = strings.TrimRight(seg.text, " \t\r\n")
			}
		}
		out = appendLit(out, seg.text)
	}
	if len(out) == 0 {
		return []piece{{}}
	}
	return out
}

var (
	trimBefore = lazyregexp.New(`^\{\{-\s`)
	trimAfter  = lazyregexp.New(`\s-\}\}$`)
)

func appendLit(out []piece, s string) []piece {
	if s == "" {
		return out
	}
	if n := len(out); n > 0 && out[n-1].expr == "" {
		out[n-1].lit += s
		return out
	}
	return append(out, piece{lit: s})
}

// action converts one {{ action }} to an expression, or returns "" for one that
// HCL has no expression for.
func (c *converter) action(action string, at hcl.Range, w where) string {
	t := parse.New("")
	t.Mode = parse.SkipFuncCheck
	tree, err := t.Parse(action, "", "", map[string]*parse.Tree{})
	if err != nil || len(tree.Root.Nodes) != 1 {
		return "" // a part of an if or a range, or a comment
	}
	node, ok := tree.Root.Nodes[0].(*parse.ActionNode)
	if !ok {
		return ""
	}
	call := &caller{c: c, at: at, w: w}
	e, ok := call.pipe(node.Pipe, true)
	if !ok {
		return ""
	}
	return e
}

// caller converts the function calls of one action.
type caller struct {
	c  *converter
	at hcl.Range
	w  where
}

// pipe converts a pipeline. top means that it is the whole action: functions that
// components render themselves are then left unchanged.
func (k *caller) pipe(p *parse.PipeNode, top bool) (e string, ok bool) {
	if len(p.Decl) > 0 {
		return "", false
	}
	for i, cmd := range p.Cmds {
		id, isCall := cmd.Args[0].(*parse.IdentifierNode)
		if !isCall {
			if i > 0 || len(cmd.Args) > 1 || len(p.Cmds) == 1 && top {
				return "", false
			}
			if e, ok = k.arg(cmd.Args[0]); !ok {
				return "", false
			}
			continue
		}
		var args []string
		for _, a := range cmd.Args[1:] {
			arg, ok := k.arg(a)
			if !ok {
				return "", false
			}
			args = append(args, arg)
		}
		if i > 0 {
			args = append(args, e)
		}
		if e, ok = k.call(id.Ident, args, top && len(p.Cmds) == 1); !ok {
			return "", false
		}
	}
	return e, true
}

func (k *caller) arg(n parse.Node) (string, bool) {
	switch n := n.(type) {
	case *parse.StringNode:
		return quoted(n.Text), !strings.Contains(n.Text, "{{")
	case *parse.NumberNode:
		return strconv.FormatInt(n.Int64, 10), n.IsInt
	case *parse.PipeNode:
		return k.pipe(n, false)
	case *parse.IdentifierNode:
		return k.call(n.Ident, nil, false)
	}
	return "", false
}

// calls are the functions of JSON templates that HCL also has, by name and number of
// arguments. In the expression, $1 is replaced by the first argument.
var calls = []struct{ form, text string }{
	{"isotime/1", "legacy_isotime($1)"},
	{"strftime/1", "legacy_strftime($1)"},
	{"template_dir/0", "path.root"},
	{"pwd/0", "path.cwd"},
	{"uuid/0", "uuidv4()"},
	{"packer_version/0", "packer.version"},
	{"upper/1", "upper($1)"},
	{"lower/1", "lower($1)"},
	{"replace_all/3", "replace($3, $1, $2)"},
	{"split/3", "split($2, $1)[$3]"},
	{"consul_key/1", "consul_key($1)"},
	{"vault/2", "vault($1, $2)"},
	{"aws_secretsmanager_raw/1", "aws_secretsmanager_raw($1)"},
}

// call converts a call of one of the functions of JSON templates. Arguments are HCL
// expressions; an argument that is a name must be constant.
func (k *caller) call(name string, args []string, top bool) (string, bool) {
	form := name + "/" + strconv.Itoa(len(args))
	for _, c := range calls {
		if c.form != form {
			continue
		}
		var pairs []string
		for i, arg := range args {
			pairs = append(pairs, "$"+strconv.Itoa(i+1), arg)
		}
		return strings.NewReplacer(pairs...).Replace(c.text), true
	}
	switch form {
	case "user/1":
		if s, ok := constant(args[0]); ok {
			return k.c.user(s, k.at), true
		}
	case "env/1":
		if s, ok := constant(args[0]); ok {
			return k.c.env(s, k.at, k.w), true
		}
	case "build/1":
		if s, ok := constant(args[0]); ok && hclsyntax.ValidIdentifier(s) && k.w.hasSource() && k.w.block != "builder" {
			return "build." + s, true
		}
	case "timestamp/0", "isotime/0":
		return k.c.timestamp(), true
	case "build_name/0":
		if !top && k.w.hasSource() {
			k.c.nameChanges(k.at, k.w)
			return "source.name", true
		}
	case "build_type/0":
		if !top && k.w.hasSource() {
			return "source.type", true
		}
	case "replace/4":
		return replace(args[0], args[1], args[2], args[3])
	case "clean_resource_name/1":
		return k.clean(args[0]), true
	case "aws_secretsmanager/1", "aws_secretsmanager/2":
		return k.c.secret(args), true
	}
	if name == "printf" && len(args) > 1 && printfSubset.Get().MatchString(args[0]) {
		return "format(" + strings.ReplaceAll(args[0], "%v", "%s") + ", " + strings.Join(args[1:], ", ") + ")", true
	}
	return "", false
}

// replace replaces a part of a text everywhere, or where it is first. HCL's function does
// the former; of a pattern that begins at the start, there is only one match.
func replace(part, by, times, text string) (string, bool) {
	if times == "-1" {
		return "replace(" + text + ", " + part + ", " + by + ")", true
	}
	old, isConstant := plain(part)
	with, simple := plain(by)
	if times != "1" || !isConstant || !simple {
		return "", false
	}
	return "regex_replace(" + text + ", " + quoted("(?s)^(.*?)"+regexp.QuoteMeta(old)) + ", " + quoted("${1}"+with) + ")", true
}

// constant returns the text of an expression that is a non-empty literal text.
func constant(e string) (string, bool) {
	s, ok := plain(e)
	return s, ok && s != ""
}

// plain returns the text of an expression that is a literal text without special
// characters.
func plain(e string) (string, bool) {
	s := strings.TrimSuffix(strings.TrimPrefix(e, `"`), `"`)
	return s, e == `"`+s+`"` && !strings.ContainsAny(s, "\"\\$%")
}

// printfSubset is what printf and HCL's format mean the same by, of strings.
var printfSubset = lazyregexp.New(`^"([^%$\\]|%[sv%])*"$`)

func (w where) hasSource() bool {
	return w.block == "builder" || w.block == "provisioner" || w.block == "post-processor"
}

// clean is clean_resource_name: for images of Amazon it replaces the characters
// that their names cannot have, elsewhere all but lower-case letters, digits and dashes.
func (k *caller) clean(e string) string {
	if k.c.isTimestamp(e) {
		return e // it has only digits
	}
	if strings.HasPrefix(k.w.typ, "amazon-") || k.w.block == "local" && k.c.amazon {
		return `regex_replace(` + e + `, "[^A-Za-z0-9()\\[\\] ./\\-'@_]", "-")`
	}
	return `regex_replace(lower(` + e + `), "[^-a-z0-9]", "-")`
}

// kept are the functions and words of Go templates, and what components
// render themselves in HCL templates too.
var kept = []string{
	"and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery", "call",
	"eq", "ne", "lt", "le", "gt", "ge", "true", "false", "nil",
	"if", "else", "end", "range", "with", "define", "template", "block", "break", "continue",
	"build", "build_name", "build_type", "isotime", "strftime", "timestamp", "pwd", "uuid", "packer_version",
	"upper", "lower", "split", "replace", "replace_all",
}

var (
	goString = lazyregexp.New("`[^`]*`" + `|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|/\*(?s:.*?)\*/`)
	goWord   = lazyregexp.New(`[.$]?[A-Za-z_][A-Za-z0-9_.]*`)
)

// keep checks an action that stays in the string.
func (c *converter) keep(action string, at hcl.Range, w where) {
	for _, word := range goWord.Get().FindAllString(goString.Get().ReplaceAllString(action, ""), -1) {
		switch {
		case word[0] == '.' || word[0] == '$':
		case word == "build_name":
			c.nameChanges(at, w)
		case word == "build" && w.block == "builder", slices.Contains(kept, word):
		case slices.Contains([]string{"user", "env", "template_dir", "consul_key", "vault", "aws_secretsmanager", "aws_secretsmanager_raw", "clean_resource_name", "sed"}, word):
			c.fail(at, "Cannot be converted", "%s calls %s, which HCL templates do not support within {{ }}, and which has no equivalent in HCL here. Rewrite this part by hand.", action, word)
			return
		default:
			c.fail(at, "Unknown function", "%s calls %s, which does not exist. It was copied unchanged.", action, word)
			return
		}
	}
}
