package goss

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/config/lang"
	"bake/golden/checks/facts"
	"bake/internal/gotemplate"
	"bake/internal/hostpath"
)

// Limits of the files of a suite.
const (
	maxFile     = 1 << 20 // bytes of one file
	maxIncludes = 50      // files between the first and the last of a chain of includes
	maxFiles    = 2000
)

// Load reads the suite that begins with the file at path, and everything that it includes.
// Whether the files are YAML or JSON is decided by the name of the first. The suite can be
// used if the diagnostics hold no error.
func Load(path string, o Options) (*Suite, hcl.Diagnostics) {
	l := loader{options: o, types: resourceTypes(), suite: &Suite{}, byName: map[string]*resource{}, machine: machineFiles{known: map[string]facts.Fact{}}}
	l.language = l.newLanguage()
	start := hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}
	switch ext := filepath.Ext(path); {
	case path == Stdin:
		l.format = (*reader).either
	case ext == ".json":
		l.format = (*reader).json
	case ext == ".yaml", ext == ".yml":
		l.format = (*reader).yaml
	default:
		l.add(unplaced(fault(start, "Unknown format", "%s is not the name of a goss file, which ends in .yaml, .yml or .json.", path)))
		return l.suite, l.diags
	}
	l.file(path, start)
	l.suite.resources = slices.DeleteFunc(l.suite.resources, func(r *resource) bool { return r.replaced })
	demands := slices.ContainsFunc(l.suite.resources, func(r *resource) bool { return len(r.checks) > 0 || r.skip })
	if !demands && !l.diags.HasErrors() {
		l.add(fault(start, "No tests", "Neither the file nor what it includes holds a test. The sections of goss files are %s.", strings.Join(l.sections(), ", ")))
	}
	l.suite.name()
	l.suite.ask()
	l.diags = append(l.diags, l.suite.refuse()...)
	return l.suite, l.diags
}

type loader struct {
	options  Options
	types    []*resourceType
	format   func(*reader) (*node, *hcl.Diagnostic)
	files    int
	chain    []os.FileInfo // the file being read, and the files that include it
	machine  machineFiles
	language gotemplate.Language
	byName   map[string]*resource
	suite    *Suite
	diags    hcl.Diagnostics
}

// unplaced removes the location from a diagnostic about a file that the caller has named
// itself.
func unplaced(d *hcl.Diagnostic) *hcl.Diagnostic {
	d.Subject = nil
	return d
}

func (l *loader) add(d *hcl.Diagnostic) {
	if d != nil {
		l.diags = append(l.diags, d)
	}
}

// sections returns the names of all sections.
func (l *loader) sections() []string {
	var names []string
	for _, t := range l.types {
		names = append(names, t.kind)
	}
	return append(names, "gossfile")
}

// file reads the file at path. from is the place where it is included.
func (l *loader) file(path string, from hcl.Range) {
	if len(l.chain)+1 >= maxIncludes {
		l.add(fault(from, "Too many levels of includes", "Includes are followed %d levels deep.", maxIncludes))
		return
	}
	if l.files++; l.files > maxFiles {
		l.add(fault(from, "Too many files", "A suite may have %d files, counting those that are included several times.", maxFiles))
		return
	}
	info, text, err := l.read(path)
	if err != nil {
		d := fault(from, "Cannot read a goss file", "%s.", err)
		if len(l.chain) == 0 {
			d = unplaced(d)
		}
		l.add(d)
		return
	}
	if slices.ContainsFunc(l.chain, func(above os.FileInfo) bool { return os.SameFile(above, info) }) {
		l.add(fault(from, "A file includes itself", "%s is read already: it includes itself, or a file that includes it.", path))
		return
	}
	l.chain = append(l.chain, info)
	l.suite.files = append(l.suite.files, path)
	defer func() { l.chain = l.chain[:len(l.chain)-1] }()
	src, d := l.render(path, text)
	if d != nil {
		l.add(d)
		return
	}
	root, d := l.format(&reader{src: src})
	if d != nil || root == nil || root.value == nil {
		l.add(d)
		return
	}
	top, ok := root.value.(fields)
	if !ok {
		l.add(fault(root.at, "Not a goss file", "A goss file is a mapping of sections such as file: and package:, not %s.", root.kind()))
		return
	}
	for _, section := range top {
		l.section(section)
	}
	if includes := top.get("gossfile"); includes != nil {
		l.includes(filepath.Dir(path), includes)
	}
}

// read reads a file, or returns the input if path is [Stdin].
func (l *loader) read(path string) (info os.FileInfo, text []byte, err error) {
	if path == Stdin && len(l.chain) == 0 {
		if len(l.options.Input) > maxFile {
			err = fmt.Errorf("standard input has more than %d bytes; put it into files, and include those in gossfile", maxFile)
		}
		return nil, l.options.Input, err
	}
	if info, err = os.Stat(path); err != nil {
		return nil, nil, err
	}
	text, err = readFile(path)
	return info, text, err
}

// readFile reads a file, with a limit on its size.
func readFile(path string) ([]byte, error) {
	f, err := hostpath.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes; split it, and include the parts in gossfile", path, maxFile)
	}
	return text, err
}

func (l *loader) section(f field) {
	if f.name == "gossfile" {
		return
	}
	t := typeOf(l.types, f.name)
	switch {
	case t != nil:
	case f.name == "registry":
		l.add(fault(f.at, "Section for Windows only", "registry looks at the registry of Windows, and bake checks Linux."))
		return
	case strings.HasPrefix(f.name, "x-") || f.node.anchors:
		return
	default:
		l.add(hint(f.at, "Unknown section", "It is ignored, as goss does.%s Begin the name with x- if it only holds anchors for others.", lang.DidYouMean(f.name, l.sections())))
		return
	}
	if f.node.value == nil {
		return
	}
	things, ok := f.node.value.(fields)
	if !ok {
		l.add(fault(f.node.at, "Not a section", "%s must be a mapping from names to attributes, not %s.", f.name, f.node.kind()))
		return
	}
	for _, thing := range things {
		r, diags := readResource(t, thing)
		l.diags = append(l.diags, diags...)
		if diags.HasErrors() {
			continue
		}
		l.put(r)
	}
}

// put adds a resource. It replaces one with the same type and name.
func (l *loader) put(r *resource) {
	id := r.kind.kind + " " + r.name
	if old := l.byName[id]; old != nil {
		if old.at != r.at { // no warning if the same file was included twice
			l.add(hint(r.at, "Defined twice", "This takes the place of %s %q in %s.", r.kind.kind, r.name, old.at))
		}
		old.replaced = true
	}
	l.byName[id] = r
	l.suite.resources = append(l.suite.resources, r)
}

// include is an entry of gossfile.
type include struct {
	pattern string
	at      hcl.Range
}

// includes reads the files in the section gossfile of a file in the folder dir.
func (l *loader) includes(dir string, section *node) {
	things, ok := section.value.(fields)
	if !ok {
		if section.value != nil {
			l.add(fault(section.at, "Not a section", "gossfile holds a mapping of files, such as \"base.yaml: {}\", not %s.", section.kind()))
		}
		return
	}
	things = slices.Clone(things)
	sort.Slice(things, func(i, j int) bool { return things[i].name < things[j].name })
	for _, thing := range things {
		in, d := readInclude(thing)
		if d != nil {
			l.add(d)
			continue
		}
		if in.pattern == "" {
			continue
		}
		pattern := hostpath.In(literal(dir), filepath.FromSlash(in.pattern))
		found, err := filepath.Glob(pattern)
		if err != nil {
			l.add(fault(in.at, "Invalid pattern", "%s is no pattern of file names: %s.", in.pattern, err))
		} else if len(found) == 0 {
			l.add(fault(in.at, "No file to include", "There is no file %s.", pattern))
		}
		for _, path := range found {
			l.file(path, in.at)
			if l.diags.HasErrors() {
				return
			}
		}
	}
}

// literal returns a pattern that matches only this folder. On Windows, patterns have no
// escapes.
func literal(dir string) string {
	if filepath.Separator == '\\' {
		return dir
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

// readInclude reads an entry of gossfile. A skipped entry has no pattern.
func readInclude(thing field) (include, *hcl.Diagnostic) {
	in := include{thing.name, thing.at}
	attributes, ok := thing.node.value.(fields)
	if !ok {
		return in, notResource("gossfile", thing)
	}
	for _, f := range attributes {
		switch f.name {
		case "title", "meta":
		case "file":
			text, d := readOption(f, textOption)
			if d != nil {
				return in, d
			}
			if text != "" {
				in = include{text, f.node.at}
			}
		case "skip":
			skip, d := readOption(f, boolOption)
			if d != nil {
				return in, d
			}
			if skip == "true" {
				return include{}, nil
			}
		default:
			return in, unknownAttribute("gossfile", thing.name, f, []string{"file", "skip", "title", "meta"})
		}
	}
	return in, nil
}

func notResource(kind string, thing field) *hcl.Diagnostic {
	return fault(thing.at, "Nothing demanded", "%s %q has %s instead of a mapping of attributes. Write {} if it has no attributes.", kind, thing.name, thing.node.kind())
}

func unknownAttribute(kind, name string, f field, names []string) *hcl.Diagnostic {
	return fault(f.at, "Unknown attribute", "%s %q: there is no attribute %q.%s", kind, clip(name, 60), f.name, lang.DidYouMean(f.name, names))
}

// readResource reads the requirements on a resource.
func readResource(t *resourceType, thing field) (*resource, hcl.Diagnostics) {
	attributes, ok := thing.node.value.(fields)
	if !ok {
		return nil, hcl.Diagnostics{notResource(t.kind, thing)}
	}
	r := &resource{kind: t, name: thing.name, key: thing.name, at: thing.at, options: map[string]string{}}
	for _, o := range t.options {
		if o.initial != "" {
			r.options[o.name] = o.initial
		}
	}
	var diags hcl.Diagnostics
	add := func(d *hcl.Diagnostic) {
		if d != nil {
			diags = append(diags, d)
		}
	}
	names := t.names()
	for _, f := range attributes {
		if !slices.Contains(names, f.name) {
			add(unknownAttribute(t.kind, thing.name, f, names))
			continue
		}
		add(r.common(f))
	}
	for i := range t.attributes {
		a := &t.attributes[i]
		f, ok := find(attributes, a)
		if !ok {
			if a.required {
				add(r.missing(a))
			}
			continue
		}
		c, more := readCheck(a, f, a.text || r.options["as-reader"] == "true")
		diags = append(diags, more...)
		if c != nil {
			r.checks = append(r.checks, c)
		}
	}
	if len(r.checks) == 0 && !diags.HasErrors() && !r.skip {
		diags = append(diags, hint(r.at, "Nothing demanded", "%s %q is not looked at. It can demand %s.", t.kind, clip(r.name, 60), t.demands()))
	}
	return r, diags
}

// find returns the attribute a; one that is null is absent.
func find(attributes fields, a *attribute) (field, bool) {
	names := []string{a.name}
	if a.name == "resolvable" {
		names = append(names, "resolveable") // as in files from before 0.3
	}
	for _, name := range names {
		for _, f := range attributes {
			if f.name == name && f.node.value != nil {
				return f, true
			}
		}
	}
	return field{}, false
}

// missing handles the absence of a required attribute, which fails as in goss. Skipped
// resources need none.
func (r *resource) missing(a *attribute) *hcl.Diagnostic {
	c := &check{attribute: a, at: r.at}
	r.checks = append(r.checks, c)
	if r.skip {
		return nil
	}
	c.fault = "the attribute " + a.name + " is missing"
	return hint(r.at, "Missing attribute", "%s %q needs the attribute %s, and fails without it.", r.kind.kind, clip(r.name, 60), a.name)
}

// common reads an attribute that is not a requirement.
func (r *resource) common(f field) (d *hcl.Diagnostic) {
	var text string
	switch {
	case f.node.value == nil:
		return nil
	case f.name == "title":
		r.title, d = readOption(f, textOption)
	case f.name == "skip":
		text, d = readOption(f, boolOption)
		r.skip = text == "true"
	case f.name == "meta":
		meta, ok := f.node.plain().(map[string]any)
		if !ok {
			return fault(f.node.at, "Not a mapping", "meta is a mapping of names to values, not %s.", f.node.kind())
		}
		r.meta = meta
	case f.name == r.kind.key:
		if text, d = readOption(f, textOption); text != "" {
			r.key = text
		}
	case f.name == "content" && r.kind.kind == "matching":
		r.content = f.node.plain()
	case f.name == "retry_count" && r.kind.retries:
		r.retries, d = readCount(f)
	case f.name == "retry_delay" && r.kind.retries:
		r.pause, d = readDelay(f)
	}
	for _, o := range r.kind.options {
		if o.name != f.name || d != nil {
			continue
		}
		if text, d = readOption(f, o.kind); text != "" && text != "0" {
			r.options[o.name] = text
		}
	}
	return d
}

// readOption reads a value of a certain kind as a text.
func readOption(f field, kind optionKind) (string, *hcl.Diagnostic) {
	wrong := func(want string) *hcl.Diagnostic {
		return fault(f.node.at, "Wrong value", "%s is %s, not %s.", f.name, want, f.node.kind())
	}
	switch kind {
	case boolOption:
		switch v := f.node.value.(type) {
		case nil:
			return "", nil
		case bool:
			return strconv.FormatBool(v), nil
		}
		switch f.node.text {
		case "y", "Y", "yes", "on":
			return "true", nil
		case "n", "N", "no", "off":
			return "false", nil
		}
		return "", wrong("true or false")
	case numberOption:
		switch v := f.node.value.(type) {
		case int:
			if v >= 0 {
				return strconv.Itoa(v), nil
			}
		case float64:
			if v >= 0 && v == float64(int(v)) {
				return strconv.Itoa(int(v)), nil
			}
		}
		return "", wrong("a whole number of milliseconds")
	case listOption:
		list, ok := f.node.value.([]*node)
		if !ok {
			return "", wrong("a list of strings")
		}
		lines := make([]string, len(list))
		for i, x := range list {
			lines[i] = x.text
			if strings.ContainsAny(x.text, "\r\n") || x.value == nil {
				return "", fault(x.at, "Wrong value", "%s is a list of strings of one line each.", f.name)
			}
		}
		return strings.Join(lines, "\n"), nil
	}
	switch f.node.value.(type) {
	case []*node, fields:
		return "", wrong("a string")
	}
	return f.node.text, nil
}

// readCount reads a number of repetitions.
func readCount(f field) (int, *hcl.Diagnostic) {
	n, ok := f.node.value.(int)
	if !ok || n < 0 {
		return 0, fault(f.node.at, "Wrong value", "%s is a number of attempts, such as 3.", f.name)
	}
	return n, nil
}

// readDelay reads a duration, in milliseconds or with a unit.
func readDelay(f field) (time.Duration, *hcl.Diagnostic) {
	wrong := fault(f.node.at, "Wrong value", "%s is a number of milliseconds, or a time with its unit such as \"2s\".", f.name)
	if n, ok := toFloat(f.node.value); ok {
		if d := n * float64(time.Millisecond); d >= 0 && d < math.MaxInt64 {
			return time.Duration(d), nil
		}
		return 0, wrong
	}
	text, _ := f.node.value.(string)
	d, err := time.ParseDuration(text)
	if n, bad := strconv.ParseUint(text, 10, 32); bad == nil {
		d, err = time.Duration(n)*time.Millisecond, nil
	}
	if err != nil || d < 0 {
		return 0, wrong
	}
	return d, nil
}

// readCheck reads a requirement, on a text if lists are patterns. An empty list of
// patterns requires nothing, and is not a check.
func readCheck(a *attribute, f field, patterns bool) (*check, hcl.Diagnostics) {
	c := &check{attribute: a, at: f.at, expected: f.node.plain()}
	list, isList := f.node.value.([]*node)
	if a.text && isList && len(list) == 0 {
		return nil, hcl.Diagnostics{hint(f.at, "Nothing demanded", "An empty list of patterns always passes. Write %s: \"\" to demand that there is nothing, or remove it.", f.name)}
	}
	var d *hcl.Diagnostic
	switch text, isText := f.node.value.(string); {
	case patterns && isList:
		c.matcher, d = compilePatterns(list)
	case a.number && isText:
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, hcl.Diagnostics{fault(f.node.at, "Not a number", "%s is a number, not %q.", f.name, text)}
		}
		c.expected = n
		c.matcher, d = compile(endedBySignal(&node{value: n, at: f.node.at}))
	case a.name == "exit-status":
		c.matcher, d = compile(endedBySignal(f.node))
	default:
		c.matcher, d = compile(f.node)
	}
	if d != nil {
		c.fault = strings.ToLower(d.Summary[:1]) + d.Summary[1:] + ": " + d.Detail
		return c, hcl.Diagnostics{d}
	}
	return c, a.surprises(f.node)
}

// endedBySignal makes each -1 in n, which is goss's status of a command that was ended by
// a signal, also match the status that a shell reports in that case: 128 plus the number
// of the signal.
func endedBySignal(n *node) *node {
	out := *n
	switch v := n.value.(type) {
	case int:
		if v == -1 {
			number := func(name string, limit int) *node {
				return &node{at: n.at, value: fields{{name, n.at, &node{at: n.at, value: limit}}}}
			}
			signal := &node{at: n.at, value: fields{{"and", n.at, &node{at: n.at, value: []*node{number("gt", 128), number("le", 128+64)}}}}}
			out.value = fields{{"or", n.at, &node{at: n.at, value: []*node{n, signal}}}}
		}
	case []*node:
		list := make([]*node, len(v))
		for i, x := range v {
			list[i] = endedBySignal(x)
		}
		out.value = list
	case fields:
		var list fields
		for _, f := range v {
			if slices.Contains([]string{"and", "or", "not"}, f.name) {
				f.node = endedBySignal(f.node)
			}
			list = append(list, f)
		}
		out.value = list
	}
	return &out
}

// surprises warns about values that YAML interprets differently than their author
// probably intended.
func (a *attribute) surprises(n *node) (diags hcl.Diagnostics) {
	switch v := n.value.(type) {
	case string:
		meant := ""
		switch strings.ToLower(v) {
		case "yes", "on", "y":
			meant = "true"
		case "no", "off", "n":
			meant = "false"
		}
		if a.boolean && meant != "" {
			return hcl.Diagnostics{hint(n.at, "A string, not a boolean", "%s is the string %q here and never equals %s. Write %[3]s.", a.name, v, meant)}
		}
	case int:
		if a.name == "mode" && len(n.text) > 1 && n.text[0] == '0' {
			return hcl.Diagnostics{hint(n.at, "An octal number", "%s without quotes is the number %d, which is no mode of a file. Write %q.", n.text, v, n.text)}
		}
	case []*node:
		for _, x := range v {
			diags = append(diags, a.surprises(x)...)
		}
	case fields:
		for _, f := range v {
			if slices.Contains([]string{"and", "or", "not", "equal"}, f.name) {
				diags = append(diags, a.surprises(f.node)...)
			}
		}
	}
	return diags
}
