package goss

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/golden/checks/facts"
	"bake/internal/gotemplate"
	"bake/internal/sprig"
)

// maxRounds is how often a template is rendered to determine which files it reads:
// these can depend on the content of others.
const maxRounds = 5

// machineFiles are files of the machine that templates read.
type machineFiles struct {
	known  map[string]facts.Fact
	wanted []string
}

var errLater = errors.New("the file is read in the next round")

// read implements readFile of the templates.
func (m *machineFiles) read(path string) (string, error) {
	fact, ok := m.known[path]
	if !ok {
		add(&m.wanted, path)
		return "", errLater
	}
	if fact.Err != "" {
		return "", fmt.Errorf("%s on the machine: %s", path, fact.Err)
	}
	switch v := fact.Value.(type) {
	case facts.Text:
		return strings.TrimSpace(string(v)), nil
	case string:
		return strings.TrimSpace(v), nil
	}
	return "", fmt.Errorf("%s on the machine was not read", path)
}

// render executes a file as a template.
func (l *loader) render(path string, written []byte) (*source, *hcl.Diagnostic) {
	src := &source{name: path, written: newText(written)}
	src.rendered = src.written
	if !bytes.Contains(written, []byte("{{")) {
		return src, nil
	}
	var made string
	var err error
	for range maxRounds {
		data := map[string]any{"Vars": copied(l.options.Vars), "Env": l.env()}
		made, src.lines, err = l.language.Render(string(written), data)
		if len(l.machine.wanted) == 0 {
			break
		}
		if err = l.fetch(); err != nil {
			break
		}
	}
	if err != nil {
		n, text := 1, err.Error()
		if at := (*gotemplate.Error)(nil); errors.As(err, &at) {
			n, text = at.Line, at.Err.Error()
		}
		if strings.Contains(text, "map has no entry for key") {
			text += `. A variable that may be absent is asked for with index, get or hasKey, such as {{ index .Vars "name" }}`
		}
		return nil, fault(src.at(n, 0, 0), "The template cannot be rendered", "%s.", text)
	}
	src.rendered = newText([]byte(made))
	return src, nil
}

// fetch reads the files that a rendering has requested.
func (l *loader) fetch() error {
	wanted := l.machine.wanted
	l.machine.wanted = nil
	if l.options.Read == nil {
		return errors.New("readFile reads files of the machine, and there is none here")
	}
	read, err := l.options.Read(wanted)
	if err != nil {
		return fmt.Errorf("readFile: %w", err)
	}
	for i, path := range wanted {
		fact := facts.Fact{Err: "was not read"}
		if i < len(read) {
			fact = read[i]
		}
		l.machine.known[path] = fact
	}
	return nil
}

func (l *loader) env() map[string]string {
	if l.options.Env == nil {
		return map[string]string{}
	}
	return l.options.Env
}

// copied returns a deep copy of variables, because a template can change its input.
func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, x := range v {
			out[name] = copied(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = copied(x)
		}
		return out
	}
	return v
}

// newLanguage returns the functions of sprig and of goss; goss's take precedence.
func (l *loader) newLanguage() gotemplate.Language {
	functions := sprig.Functions(l.env())
	functions["mkSlice"] = func(v ...any) []any { return v }
	functions["toUpper"] = strings.ToUpper
	functions["toLower"] = strings.ToLower
	functions["regexMatch"] = regexp.MatchString
	functions["findStringSubmatch"] = findStringSubmatch
	functions["readFile"] = l.machine.read
	functions["getEnv"] = func(name string, initial ...string) string {
		if v := l.env()[name]; v != "" || len(initial) == 0 {
			return v
		}
		return initial[0]
	}
	return gotemplate.NewLanguage(functions)
}

// findStringSubmatch returns the groups of a match by name, or by number if none has one.
func findStringSubmatch(expr, s string) (map[string]any, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, err
	}
	byNumber, byName := map[string]any{}, map[string]any{}
	for i, part := range re.FindStringSubmatch(s) {
		byNumber[strconv.Itoa(i)] = part
		if name := re.SubexpNames()[i]; name != "" {
			byName[name] = part
		}
	}
	if len(byName) > 0 {
		return byName, nil
	}
	return byNumber, nil
}
