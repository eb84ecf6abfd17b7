package goss

import (
	"bytes"
	"maps"

	"github.com/hashicorp/hcl/v2"
)

// ReadVars reads the variables of templates from YAML or JSON files. Later files are
// merged over earlier ones. The names in inline, which is YAML or JSON, then replace the
// values from the files as a whole.
func ReadVars(files []string, inline string) (map[string]any, hcl.Diagnostics) {
	all := map[string]any{}
	var diags hcl.Diagnostics
	for _, path := range files {
		text, err := readFile(path)
		if err != nil {
			start := hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}
			diags = append(diags, fault(start, "Cannot read a file of variables", "%s.", err))
			continue
		}
		more, d := readVars(path, text)
		if d != nil {
			diags = append(diags, d)
			continue
		}
		mergeVars(all, more)
	}
	more, d := readVars("-vars-inline", []byte(inline))
	if d != nil {
		return all, append(diags, d)
	}
	maps.Copy(all, more)
	return all, diags
}

func readVars(name string, text []byte) (map[string]any, *hcl.Diagnostic) {
	t := newText(text)
	r := &reader{src: &source{name: name, written: t, rendered: t}}
	format := (*reader).yaml
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		if _, d := (&reader{src: r.src}).json(); d == nil {
			format = (*reader).json
		}
	}
	root, d := format(r)
	if d != nil || root == nil || root.value == nil {
		return nil, d
	}
	vars, ok := root.plain().(map[string]any)
	if !ok {
		return nil, fault(root.at, "Not variables", "Variables are a mapping of names to values, not %s.", root.kind())
	}
	return vars, nil
}

func mergeVars(to, from map[string]any) {
	for name, v := range from {
		mine, both := to[name].(map[string]any)
		if inner, ok := v.(map[string]any); ok && both {
			mergeVars(mine, inner)
		} else {
			to[name] = v
		}
	}
}
