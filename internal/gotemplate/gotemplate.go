// Package gotemplate renders the {{ }} layer that string options have beneath
// HCL: Go's text/template with the functions that Packer documents for it.
package gotemplate

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/template"
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
	_, err := c.parse(text, nil)
	return err
}

// Render expands text with data as the dot. Fields that data lacks become
// "<no value>". Functions that HCL has taken the place of are errors that say so,
// and so is a text that grows too long or takes too many steps.
func (c Context) Render(text string, data map[string]any) (string, error) {
	t, err := c.parse(text, data)
	if err != nil {
		return "", err
	}
	if data == nil {
		data = map[string]any{}
	}
	var b output
	if err := t.Execute(&b, data); err != nil {
		return "", clean(err)
	}
	return b.String(), nil
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

func (c Context) parse(text string, data map[string]any) (*template.Template, error) {
	if len(text) > maxText {
		return nil, errText
	}
	t, err := template.New("").Funcs(c.funcs(data)).Parse(text)
	if err != nil {
		return nil, clean(err)
	}
	countSteps(t)
	return t, nil
}

// clean takes the template package's own prefix off its errors.
func clean(err error) error {
	msg := strings.TrimPrefix(err.Error(), "template: :")
	if _, rest, ok := strings.Cut(msg, ": "); ok {
		return errors.New(rest)
	}
	return errors.New(msg)
}

func (c Context) funcs(data map[string]any) template.FuncMap {
	instead := func(name, use string) func(...string) (string, error) {
		return func(...string) (string, error) {
			return "", fmt.Errorf("%s is not allowed here; use %s", name, use)
		}
	}
	return template.FuncMap{
		"build_name":     func() string { return c.BuildName },
		"build_type":     func() string { return c.BuildType },
		"packer_version": func() string { return c.Version },
		"timestamp":      func() string { return strconv.FormatInt(c.Start.Unix(), 10) },
		"isotime":        c.isotime,
		"strftime":       func(format string) string { return Strftime(format, c.Start.UTC()) },
		"pwd":            os.Getwd,
		"uuid": func() (string, error) {
			id, err := uuid.NewV7()
			return id.String(), err
		},
		"upper":       strings.ToUpper,
		"lower":       strings.ToLower,
		"replace":     replace,
		"replace_all": func(old, new, src string) (string, error) { return replace(old, new, -1, src) },
		"print":       fitting(fmt.Sprint),
		"println":     fitting(fmt.Sprintln),
		"printf":      printf,
		"html":        fitting(template.HTMLEscaper),
		"js":          fitting(template.JSEscaper),
		"urlquery":    fitting(template.URLQueryEscaper),
		stepName:      stepFunc(),
		"split": func(s, sep string, i int) (string, error) {
			parts := strings.Split(s, sep)
			if i < 0 || i >= len(parts) {
				return "", fmt.Errorf("split of %q at %q has no part %d", s, sep, i)
			}
			return parts[i], nil
		},
		"build": func(key string) (any, error) {
			if v, ok := data[key]; ok {
				return v, nil
			}
			return nil, fmt.Errorf("build value %q is not known here; write ${build.%s}", key, key)
		},
		"env":                    instead("env", `a variable with default = env("NAME")`),
		"user":                   instead("user", "${var.NAME}"),
		"template_dir":           instead("template_dir", "${path.root}"),
		"sed":                    instead("sed", "the HCL function regex_replace"),
		"consul_key":             instead("consul_key", "the HCL function consul_key"),
		"vault":                  instead("vault", "the HCL function vault"),
		"aws_secretsmanager":     instead("aws_secretsmanager", "the HCL function aws_secretsmanager"),
		"aws_secretsmanager_raw": instead("aws_secretsmanager_raw", "the HCL function aws_secretsmanager_raw"),
	}
}

func (c Context) isotime(layout ...string) (string, error) {
	switch len(layout) {
	case 0:
		return c.Start.UTC().Format(time.RFC3339), nil
	case 1:
		return c.Start.UTC().Format(layout[0]), nil
	}
	return "", errors.New("isotime takes at most one layout")
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
