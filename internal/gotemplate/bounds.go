package gotemplate

import (
	"errors"
	"fmt"
	"strings"
	"text/template/parse"

	"bake/internal/lazyregexp"
)

// Limits on rendering one text. Templates can loop and call each other, so a short one
// could run forever or fill the memory.
const (
	maxText  = 1 << 20 // bytes, of the template and of everything that it makes
	maxSteps = 10_000  // loop iterations and calls of templates
	maxWidth = 9_999   // of one value that printf pads
)

var (
	errText  = fmt.Errorf("the text grows beyond %d bytes", maxText)
	errSteps = fmt.Errorf("it takes more than %d loop iterations and template calls", maxSteps)
)

// output is a text of at most maxText bytes.
type output struct {
	strings.Builder
	origins origins
}

// write writes the output of a node at pos; verbatim means that it is text of the
// template.
func (o *output) write(b []byte, pos parse.Pos, verbatim bool) error {
	if o.origins.starts != nil {
		o.origins.wrote(b, o.origins.line(pos), verbatim)
	}
	_, err := o.Write(b)
	return err
}

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
var wide = lazyregexp.New(`%[-+# 0-9.\[\]]*(\*|[0-9]{5})`)

func printf(args []any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("wrong number of arguments: want at least 1, got 0")
	}
	format, err := argument[string](args, 0)
	if err != nil {
		return nil, err
	}
	args = args[1:]
	switch {
	case wide.Get().MatchString(format):
		return "", fmt.Errorf("the width of a value in the format is greater than %d, or an argument", maxWidth)
	case len(format)+size(args) > maxText, strings.Count(format, "%") > maxText/maxWidth:
		return "", errText
	}
	return fit(fmt.Sprintf(format, args...))
}

// replaced is [strings.Replace].
func replaced(old, new string, n int, src string) (string, error) {
	count := strings.Count(src, old)
	if n >= 0 {
		count = min(n, count)
	}
	if len(src)+count*(len(new)-len(old)) > maxText {
		return "", errText
	}
	return strings.Replace(src, old, new, n), nil
}
