package upgrade

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/internal/lazyregexp"
)

// variables converts the user variables. A default may be constant or come from
// the environment; one that needs more is a local value.
func (c *converter) variables(root value) {
	decl := root.get("variables")
	if decl.kind != null && decl.kind != object {
		c.fail(head(decl.rng), "Not an object", "variables must be an object, not %s. It was left out.", decl.kind)
	}
	circular := circles(decl.members)
	for _, m := range decl.members {
		if strings.HasPrefix(m.name, "_comment") {
			continue
		}
		v := c.addVariable(m.name, m.rng)
		if chain := circular[m.name]; chain != nil {
			c.warn(m.value.rng, "Variable that is its own default", "The default of the variable %q is its own value (%s). It was declared without a default, so it must be given a value.", m.name, strings.Join(chain, " -> "))
			continue
		}
		v.derived = m.value.kind == text && !fixed(m.value.text)
	}
	sensitive := root.get("sensitive-variables")
	if sensitive.kind != null && sensitive.kind != list {
		c.fail(head(sensitive.rng), "Not a list", "sensitive-variables must be a list of names, not %s. It was left out.", sensitive.kind)
	}
	for _, s := range sensitive.items {
		if s.kind != text {
			c.fail(head(s.rng), "Not a name", "sensitive-variables must be a list of names, not %s.", s.kind)
		} else if v := c.vars[s.text]; v != nil {
			v.sensitive = true
		} else {
			c.warn(s.rng, "Unknown variable", "There is no variable %q to mark as sensitive; its value would be shown.", s.text)
		}
	}
	for _, m := range decl.members {
		v := c.vars[m.name]
		if v == nil {
			c.comments = append(c.comments, commentLines(m.value)...)
			continue
		}
		switch {
		case m.value.kind == null, circular[m.name] != nil:
		case m.value.kind == text:
			w := where{block: "variable"}
			if v.derived {
				w.block = "local"
			}
			pieces := c.text(m.value.text, m.value.rng, w)
			v.value = quote(pieces)
			if len(pieces) == 1 && pieces[0].expr == "" {
				v.literal = &pieces[0].lit
				if doc := heredoc(pieces[0].lit); strings.HasPrefix(doc, "<<") {
					v.value = doc
				}
			}
		case m.value.kind == boolean, m.value.kind == number:
			v.value, v.literal = quoted(m.value.text), &m.value.text
		default:
			c.fail(head(m.value.rng), "Not a string", "In a JSON template the value of a variable must be a string, not %s. The variable now has no default.", m.value.kind)
		}
	}
}

// fixed reports whether a default is constant except for the environment, which is what
// HCL permits as the default of a variable.
func fixed(s string) bool {
	segs, err := segments(s)
	return err != nil || !slices.ContainsFunc(segs, func(seg segment) bool {
		return seg.action && !envAction.Get().MatchString(seg.text)
	})
}

var envAction = lazyregexp.New("^\\{\\{-?\\s*env\\s+(\"[^\"\\\\]*\"|`[^`]*`)\\s*-?\\}\\}$")

// circles returns one variable of each reference cycle, with the variables of the cycle in
// order. Only this variable of a cycle needs a value.
func circles(variables []member) map[string][]string {
	defaults := map[string]string{}
	for _, m := range variables {
		if m.value.kind == text {
			defaults[m.name] = m.value.text
		}
	}
	const done = -1
	found, place := map[string][]string{}, map[string]int{} // place counts from 1
	var path []string
	var follow func(name string)
	follow = func(name string) {
		switch i := place[name]; {
		case i == done:
			return
		case i > 0:
			found[name] = append(slices.Clone(path[i-1:]), name)
			return
		}
		path = append(path, name)
		place[name] = len(path)
		for _, next := range users(defaults[name]) {
			follow(next)
		}
		path = path[:len(path)-1]
		place[name] = done
	}
	for _, m := range variables {
		follow(m.name)
	}
	return found
}

// users returns the names of the user variables that a string refers to.
func users(s string) (names []string) {
	segs, err := segments(s)
	if err != nil {
		return nil
	}
	for _, seg := range segs {
		if seg.action {
			for _, m := range userCall.Get().FindAllStringSubmatch(seg.text, -1) {
				names = append(names, m[1]+m[2])
			}
		}
	}
	return names
}

var userCall = lazyregexp.New("\\buser\\s+(?:\"([^\"\\\\]*)\"|`([^`]*)`)")

// addVariable declares a variable by its name in JSON.
func (c *converter) addVariable(name string, at hcl.Range) *variable {
	v := &variable{name: identifier(name)}
	for base, n := v.name, 2; slices.ContainsFunc(c.varOrder, func(o *variable) bool { return o.name == v.name }); n++ {
		v.name = fmt.Sprintf("%s_%d", base, n)
	}
	if v.name != name {
		c.warn(at, "Renamed", "A name in HCL consists of letters, digits, underscores and dashes: the variable %q is now called %q, for -var and in variable files too.", name, v.name)
	}
	c.vars[name] = v
	c.varOrder = append(c.varOrder, v)
	return v
}

// user returns the expression of a user variable.
func (c *converter) user(name string, at hcl.Range) string {
	v := c.vars[name]
	if v == nil {
		v = c.addVariable(name, at)
		c.warn(at, "Undeclared variable", "The template uses the variable %q but does not declare it. It was declared without a default, so it must be given a value.", name)
	}
	return v.ref()
}

// env returns the expression of an environment variable. Outside defaults it is
// read by a variable.
func (c *converter) env(name string, at hcl.Range, w where) string {
	read := "env(" + quoted(name) + ")"
	if w.block == "variable" {
		return read
	}
	for _, v := range c.varOrder {
		if v.value == read && !v.derived {
			return "var." + v.name
		}
	}
	key := name
	for c.vars[key] != nil {
		key = "env_" + key
	}
	v := c.addVariable(key, at)
	v.value = read
	return v.ref()
}

// timestamp returns the local value that holds the time of the run.
func (c *converter) timestamp() string {
	if c.stamp == "" {
		c.stamp = "timestamp"
		for slices.ContainsFunc(c.varOrder, func(v *variable) bool { return v.derived && v.name == c.stamp }) {
			c.stamp = "start_" + c.stamp
		}
	}
	return "local." + c.stamp
}

func (c *converter) isTimestamp(e string) bool { return c.stamp != "" && e == "local."+c.stamp }

// secret returns the value of a data source that reads a secret: its name, and
// perhaps the key in it.
func (c *converter) secret(args []string) string {
	b := body{attrs: []attribute{{"name", args[0]}}}
	if len(args) == 2 {
		b.attrs = append(b.attrs, attribute{"key", args[1]})
	}
	return c.dataSource("amazon-secretsmanager", b) + ".value"
}

// dataSource returns the reference to a data source. Equal data sources are created once.
func (c *converter) dataSource(typ string, b body) string {
	n := 1
	for _, d := range c.data {
		if d.labels[0] != typ {
			continue
		}
		if d.body.equal(b) {
			return "data." + typ + "." + d.labels[1]
		}
		n++
	}
	label := fmt.Sprintf("autogenerated_%d", n)
	c.data = append(c.data, block{"data", []string{typ, label}, b})
	c.requirePlugin(typ)
	return "data." + typ + "." + label
}
