package gotemplate

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"
)

// What rendering one text may take. Templates can loop and call each other, so
// that a short one could run forever or fill the memory.
const (
	maxText  = 1 << 20 // bytes, of the template and of everything that it makes
	maxSteps = 10_000  // turns of loops and calls of templates
	maxWidth = 9_999   // of one value that printf pads
)

var (
	errText  = fmt.Errorf("the text grows beyond %d bytes", maxText)
	errSteps = fmt.Errorf("it takes more than %d turns of loops and calls of templates", maxSteps)
)

// stepName is the function that every turn of a loop and every template calls.
const stepName = "_step"

// stepFunc returns an error when it has been called too often.
func stepFunc() func() (string, error) {
	n := 0
	return func() (string, error) {
		if n++; n > maxSteps {
			return "", errSteps
		}
		return "", nil
	}
}

// countSteps makes every loop and every template in t call stepName.
func countSteps(t *template.Template) {
	action, err := template.New("").Funcs(template.FuncMap{stepName: stepFunc()}).Parse("{{" + stepName + "}}")
	if err != nil {
		panic(err) // the text is a constant
	}
	step := action.Root.Nodes[0]
	for _, t := range t.Templates() {
		if t.Tree != nil && t.Root != nil {
			countIn(t.Root, step)
			t.Root.Nodes = append([]parse.Node{step}, t.Root.Nodes...)
		}
	}
}

func countIn(list *parse.ListNode, step parse.Node) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.RangeNode:
			countIn(n.List, step)
			countIn(n.ElseList, step)
			n.List.Nodes = append([]parse.Node{step}, n.List.Nodes...)
		case *parse.IfNode:
			countIn(n.List, step)
			countIn(n.ElseList, step)
		case *parse.WithNode:
			countIn(n.List, step)
			countIn(n.ElseList, step)
		}
	}
}

// output is a text of at most maxText bytes.
type output struct{ strings.Builder }

// Write implements [io.Writer].
func (o *output) Write(b []byte) (int, error) {
	if o.Len()+len(b) > maxText {
		return 0, errText
	}
	return o.Builder.Write(b)
}

// fit returns text unless it is too long.
func fit(text string) (string, error) {
	if len(text) > maxText {
		return "", errText
	}
	return text, nil
}

// fitting makes f, which joins texts, refuse to make one that is too long.
func fitting(f func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		if size(args) > maxText {
			return "", errText
		}
		return fit(f(args...))
	}
}

func size(args []any) (n int) {
	for _, a := range args {
		if s, ok := a.(string); ok {
			n += len(s)
		}
	}
	return n
}

// wide matches a verb whose width or precision has more digits than maxWidth, or
// comes from an argument.
var wide = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`%[-+# 0-9.\[\]]*(\*|[0-9]{5})`) })

func printf(format string, args ...any) (string, error) {
	switch {
	case wide().MatchString(format):
		return "", fmt.Errorf("the width of a value in the format is beyond %d, or an argument", maxWidth)
	case len(format)+size(args) > maxText, strings.Count(format, "%") > maxText/maxWidth:
		return "", errText
	}
	return fit(fmt.Sprintf(format, args...))
}

// replace is [strings.Replace].
func replace(old, new string, n int, src string) (string, error) {
	count := strings.Count(src, old)
	if n >= 0 {
		count = min(n, count)
	}
	if len(src)+count*(len(new)-len(old)) > maxText {
		return "", errText
	}
	return strings.Replace(src, old, new, n), nil
}
