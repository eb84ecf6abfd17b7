package reference

import (
	"fmt"
	"io"
	"strings"

	"bake/config/lang"
	"bake/docs"
)

// Function is what there is to know about a function of templates.
type Function struct {
	Name      string `json:"name"`
	Signature string `json:"signature"` // such as "upper(text) -> string"
	Text      string `json:"text"`
	Example   string `json:"example"` // such as `upper("web")`
	Result    string `json:"result"`  // of the example
	Group     string `json:"group"`   // such as "Numbers"
}

// Functions returns all functions, in the order of docs/functions.md.
func Functions() ([]Function, error) {
	pages, err := docs.Pages("functions.md")
	if err != nil {
		return nil, err
	}
	var all []Function
	group := ""
	for line := range strings.Lines(pages[0].Text) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			group = strings.TrimSpace(heading)
		}
		head, ok := strings.CutPrefix(line, "**`")
		if !ok {
			continue
		}
		signature, rest, _ := strings.Cut(head, "`** ")
		text, sample, _ := strings.Cut(rest, ". `")
		example, result, _ := strings.Cut(strings.TrimSuffix(sample, "`.\n"), "` is `")
		name, _, _ := strings.Cut(signature, "(")
		all = append(all, Function{name, signature, strings.TrimSpace(docs.Plain(text+".", Width)), example, result, group})
	}
	return all, nil
}

// FunctionNamed returns the function of this name.
func FunctionNamed(all []Function, name string) (Function, error) {
	var names []string
	for _, f := range all {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	if hint := lang.DidYouMean(name, names); hint != "" {
		return Function{}, fmt.Errorf("there is no function %q.%s", name, hint)
	}
	return Function{}, fmt.Errorf("there is no function %q; bake docs functions lists them", name)
}

// ListFunctions writes the signatures of functions.
func ListFunctions(w io.Writer, all []Function) {
	group := ""
	for _, f := range all {
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(w, "%s:\n", group)
		}
		fmt.Fprintf(w, "  %s\n", f.Signature)
	}
	fmt.Fprintln(w, "\nbake docs functions NAME explains one of them.")
}

// ExplainFunction writes what there is to know about a function.
func ExplainFunction(w io.Writer, f Function) {
	fmt.Fprintf(w, "%s\n\n%s\n\n  %s\n    = %s\n", f.Signature, f.Text, f.Example, f.Result)
}
