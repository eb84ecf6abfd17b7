// Package gotemplate renders the {{ }} layer that string options have beneath
// HCL: the language of Go's text/template with the functions that Packer documents
// for it. With other functions it renders other templates ([Language]).
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
	"github.com/ncruces/go-strftime"
)

// Context is the data that the functions of a template can use.
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

// Render expands text with data as the dot. Fields that data lacks become "<no value>". It
// returns an error for functions that HCL replaces, and for a text that grows too long or
// takes too many steps.
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

// RenderAll repeats Render until the text stops changing: an inserted value may itself
// contain {{ }}.
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

// parsed returns the templates that text defines. The text itself has the empty name.
func parsed(text string, functions map[string]function) (map[string]*parse.Tree, error) {
	if len(text) > maxText {
		return nil, errText
	}
	trees, err := parse.Parse("", text, "", "", known(functions))
	if err != nil {
		return nil, clean(err)
	}
	return trees, nil
}

// clean removes the parser's own prefix from its errors.
func clean(err error) error {
	msg := strings.TrimPrefix(err.Error(), "template: :")
	if _, rest, ok := strings.Cut(msg, ": "); ok {
		return errors.New(rest)
	}
	return errors.New(msg)
}

// functions returns the functions of every template and those that Packer documents.
func (c Context) functions(data map[string]any) map[string]function {
	all := maps.Clone(builtin)
	for name, f := range map[string]function{
		"build_name":     constant(func() (string, error) { return c.BuildName, nil }),
		"build_type":     constant(func() (string, error) { return c.BuildType, nil }),
		"packer_version": constant(func() (string, error) { return c.Version, nil }),
		"timestamp":      constant(func() (string, error) { return strconv.FormatInt(c.Start.Unix(), 10), nil }),
		"isotime":        c.isotime,
		"strftime":       mapping(func(format string) string { return strftime.Format(format, c.Start.UTC()) }),
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

// isotime returns the start of the run, in RFC 3339 or the layout given.
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
