// Package gotemplate renders the {{ }} layer that string options have beneath
// HCL: the language of Go's text/template with the functions that Packer documents
// for it.
package gotemplate

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"text/template/parse"
	"time"

	"github.com/google/uuid"
)

// Context is what the functions of a template may know.
type Context struct {
	BuildName string    // label of the source block, for build_name
	BuildType string    // type of the source block, for build_type
	Start     time.Time // for timestamp, isotime and strftime
	Version   string    // for packer_version
}

// Check reports a syntax error or an unknown function without rendering.
func (c Context) Check(text string) error {
	_, err := parsed(text, c.functions(nil))
	return err
}

// Render expands text with data as the dot. Fields that data lacks become
// "<no value>". Functions that HCL has taken the place of are errors that say so,
// and so is a text that grows too long or takes too many steps.
func (c Context) Render(text string, data map[string]any) (string, error) {
	functions := c.functions(data)
	trees, err := parsed(text, functions)
	if err != nil {
		return "", err
	}
	if data == nil {
		data = map[string]any{}
	}
	e := execution{trees: trees, functions: functions}
	if err := e.execute("", data); err != nil {
		return "", err
	}
	return e.out.String(), nil
}

// RenderAll is Render, repeated until the text stops changing: a value put in may
// hold {{ }} of its own.
func (c Context) RenderAll(text string, data map[string]any) (string, error) {
	for range 10 {
		next, err := c.Render(text, data)
		if err != nil || next == text {
			return next, err
		}
		text = next
	}
	return "", errors.New("the text keeps changing each time it is rendered")
}

// parsed returns the templates that text defines; its own has the empty name.
func parsed(text string, functions map[string]function) (map[string]*parse.Tree, error) {
	if len(text) > maxText {
		return nil, errText
	}
	known := make(map[string]any, len(functions))
	for name, f := range functions {
		known[name] = f
	}
	trees, err := parse.Parse("", text, "", "", known)
	if err != nil {
		return nil, clean(err)
	}
	return trees, nil
}

// clean takes the parser's own prefix off its errors.
func clean(err error) error {
	msg := strings.TrimPrefix(err.Error(), "template: :")
	if _, rest, ok := strings.Cut(msg, ": "); ok {
		return errors.New(rest)
	}
	return errors.New(msg)
}

// functions are those of every template and those that Packer documents.
func (c Context) functions(data map[string]any) map[string]function {
	all := maps.Clone(builtin)
	for name, f := range map[string]function{
		"build_name":     constant(func() (string, error) { return c.BuildName, nil }),
		"build_type":     constant(func() (string, error) { return c.BuildType, nil }),
		"packer_version": constant(func() (string, error) { return c.Version, nil }),
		"timestamp":      constant(func() (string, error) { return strconv.FormatInt(c.Start.Unix(), 10), nil }),
		"isotime":        c.isotime,
		"strftime":       mapping(func(format string) string { return Strftime(format, c.Start.UTC()) }),
		"pwd":            constant(os.Getwd),
		"uuid": constant(func() (string, error) {
			id, err := uuid.NewV7()
			return id.String(), err
		}),
		"upper":       mapping(strings.ToUpper),
		"lower":       mapping(strings.ToLower),
		"replace":     replace,
		"replace_all": replaceAll,
		"split":       split,
		"build": func(args []any) (any, error) {
			key, err := texts(args, 1)
			if err != nil {
				return nil, err
			}
			if v, ok := data[key[0]]; ok {
				return v, nil
			}
			return nil, fmt.Errorf("build value %q is not known here; write ${build.%s}", key[0], key[0])
		},
	} {
		all[name] = f
	}
	for name, use := range map[string]string{
		"env":                    `a variable with default = env("NAME")`,
		"user":                   "${var.NAME}",
		"template_dir":           "${path.root}",
		"sed":                    "the HCL function regex_replace",
		"consul_key":             "the HCL function consul_key",
		"vault":                  "the HCL function vault",
		"aws_secretsmanager":     "the HCL function aws_secretsmanager",
		"aws_secretsmanager_raw": "the HCL function aws_secretsmanager_raw",
	} {
		all[name] = func([]any) (any, error) { return nil, fmt.Errorf("%s is not allowed here; use %s", name, use) }
	}
	return all
}

func split(args []any) (any, error) {
	if err := count(args, 3); err != nil {
		return nil, err
	}
	t, err := texts(args[:2], 2)
	if err != nil {
		return nil, err
	}
	i, err := argument[int](args, 2)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(t[0], t[1])
	if i < 0 || i >= len(parts) {
		return nil, fmt.Errorf("split of %q at %q has no part %d", t[0], t[1], i)
	}
	return parts[i], nil
}

// replace is [strings.Replace] with the text last.
func replace(args []any) (any, error) {
	if err := count(args, 4); err != nil {
		return nil, err
	}
	n, err := argument[int](args, 2)
	if err != nil {
		return nil, err
	}
	t, err := texts([]any{args[0], args[1], args[3]}, 3)
	if err != nil {
		return nil, err
	}
	return replaced(t[0], t[1], n, t[2])
}

func replaceAll(args []any) (any, error) {
	t, err := texts(args, 3)
	if err != nil {
		return nil, err
	}
	return replaced(t[0], t[1], -1, t[2])
}

// isotime is the start of the run, in RFC 3339 or the layout given.
func (c Context) isotime(args []any) (any, error) {
	if len(args) == 0 {
		return c.Start.UTC().Format(time.RFC3339), nil
	}
	if len(args) > 1 {
		return nil, errors.New("isotime takes at most one layout")
	}
	layout, err := argument[string](args, 0)
	return c.Start.UTC().Format(layout), err
}

// Strftime formats t by the conversion characters of C's strftime. An unknown
// one stays as it is.
func Strftime(format string, t time.Time) string {
	layouts := map[byte]string{
		'A': "Monday", 'a': "Mon", 'B': "January", 'b': "Jan", 'h': "Jan", 'd': "02", 'H': "15", 'I': "03",
		'M': "04", 'm': "01", 'p': "PM", 'S': "05", 'Y': "2006", 'y': "06", 'Z': "MST", 'z': "-0700",
		'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06", 'c': "Mon Jan _2 15:04:05 2006",
		'v': "_2-Jan-2006", 'X': "15:04:05", 'x': "01/02/06", 'e': "_2", 'L': ".000", 'f': ".000000",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i == len(format)-1 {
			b.WriteByte(format[i])
			continue
		}
		i++
		year, week := t.ISOWeek()
		switch ch := format[i]; ch {
		case '%':
			b.WriteByte('%')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case 's':
			fmt.Fprintf(&b, "%d", t.Unix())
		case 'w':
			fmt.Fprintf(&b, "%d", t.Weekday())
		case 'u':
			fmt.Fprintf(&b, "%d", (t.Weekday()+6)%7+1)
		case 'V':
			fmt.Fprintf(&b, "%02d", week)
		case 'G':
			fmt.Fprintf(&b, "%d", year)
		case 'C':
			fmt.Fprintf(&b, "%02d", t.Year()/100)
		case 'L', 'f':
			b.WriteString(strings.TrimPrefix(t.Format(layouts[ch]), "."))
		default:
			layout, ok := layouts[ch]
			if !ok {
				b.WriteByte('%')
				b.WriteByte(ch)
				continue
			}
			b.WriteString(t.Format(layout))
		}
	}
	return b.String()
}
