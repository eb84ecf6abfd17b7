// Package goss reads the test files of goss and judges facts about a machine as goss does
// (https://goss.readthedocs.io/en/stable/gossfile/). It does not access a machine itself:
// a [Suite] lists the facts that it needs, and judges the answers.
package goss

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/golden/checks/facts"
)

// Stdin is the name of a file that is [Options.Input].
const Stdin = "<stdin>"

// Options control how a suite is read.
type Options struct {
	Input []byte // content of the file named [Stdin]: JSON or YAML

	Vars map[string]any    // .Vars of its templates; see [ReadVars]
	Env  map[string]string // .Env and getEnv of its templates, which see no other environment

	// Read returns the contents of files on the machine, for readFile of the templates, in
	// the order of paths. It is called a few times at most. Without it, readFile is an error.
	Read func(paths []string) ([]facts.Fact, error)
}

// Suite holds the requirements of a file and of all files that it includes.
type Suite struct {
	resources []*resource
	questions []facts.Question
	files     []string
}

// Files returns the paths of the files that the suite was read from, including included
// files.
func (s *Suite) Files() []string { return s.files }

// resource is an entry of a goss file, with the requirements on it.
type resource struct {
	kind    *resourceType
	name    string // in its section
	key     string // what is checked
	title   string
	meta    map[string]any
	skip    bool
	checks  []*check
	options map[string]string
	content any           // of matching
	retries int           // maximum number of retries while it does not meet the requirements
	pause   time.Duration // before each of these times; 0 is a second
	at      hcl.Range

	replaced bool // overridden by a later one of the same name
	question int  // index of the question whose answer is judged; -1: no question
}

// check is a requirement on an attribute.
type check struct {
	attribute *attribute
	at        hcl.Range
	expected  any
	matcher   matcher
	fault     string // why it can never be judged, if that is so
	id        string // of the finding
}

// id returns the name of the resource in reports.
func (r *resource) id() string {
	if r.kind.nameIsID || r.key == r.name || r.kind.key == "" {
		return r.name
	}
	return r.name + ": " + r.key
}

// Questions returns the questions whose answers [Suite.Judge] needs. Skipped resources
// have none.
func (s *Suite) Questions() []facts.Question { return s.questions }

// ask collects the questions. Resources that query the same item in the same way share
// one, but each command runs once per occurrence.
func (s *Suite) ask() {
	index := map[string]int{}
	for _, r := range s.resources {
		r.question = -1
		if r.skip || r.kind.kind == "matching" {
			continue
		}
		var attributes []string
		for _, c := range r.checks {
			if c.fault == "" {
				add(&attributes, c.attribute.question())
			}
		}
		if attributes == nil {
			continue
		}
		identity := r.identity()
		i, ok := index[identity]
		if !ok || r.kind.kind == "command" {
			i = len(s.questions)
			index[identity] = i
			s.questions = append(s.questions, facts.Question{Kind: r.kind.kind, Key: r.key, Options: r.options})
		}
		r.question = i
		for _, a := range attributes {
			add(&s.questions[i].Attributes, a)
		}
	}
}

// refuse warns about resources that cannot be queried on any machine, and so always
// fail.
func (s *Suite) refuse() (diags hcl.Diagnostics) {
	for _, r := range s.resources {
		if r.question < 0 {
			continue
		}
		if why := facts.Refused(s.questions[r.question]); why != "" {
			diags = append(diags, hint(r.at, "Cannot be checked", "%s %q fails on every machine: %s.", r.kind.kind, clip(r.name, 60), why))
		}
	}
	return diags
}

// Retry is a question whose answer did not meet all requirements and may be asked again.
type Retry struct {
	Question int
	Times    int           // at most
	Pause    time.Duration // before each
}

// Retries returns those of the resources with a retry count that do not meet their
// requirements.
func (s *Suite) Retries(answers []facts.Answer) (all []Retry) {
	for _, r := range s.resources {
		if r.retries == 0 || r.question < 0 || r.question >= len(answers) {
			continue
		}
		failed := slices.ContainsFunc(r.judge(answers[r.question]), func(x Result) bool { return x.Outcome == Failed })
		one := Retry{r.question, r.retries, cmp.Or(r.pause, time.Second)}
		if failed && !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// identity returns a text that identifies what a resource queries, and how.
func (r *resource) identity() string {
	parts := []string{r.kind.kind, r.key}
	for _, o := range r.kind.options {
		parts = append(parts, r.options[o.name])
	}
	if r.retries > 0 {
		parts = append(parts, strconv.Itoa(r.retries), r.pause.String())
	}
	for i, p := range parts {
		parts[i] = strconv.Quote(p)
	}
	return strings.Join(parts, " ")
}

// add puts s into list, once.
func add(list *[]string, s string) {
	if !slices.Contains(*list, s) {
		*list = append(*list, s)
	}
}

// name sets the id of every check, which identifies its finding: the rule in meta, followed
// by as much of goss's name for the check as makes the id unique. Without a rule, it is
// goss's name alone.
func (s *Suite) name() {
	rules, properties := map[string]int{}, map[string]int{}
	each := func(f func(r *resource, c *check, rule, property string)) {
		for _, r := range s.resources {
			for _, c := range r.checks {
				rule := r.rule()
				f(r, c, rule, rule+": "+c.attribute.shown())
			}
		}
	}
	each(func(_ *resource, _ *check, rule, property string) { rules[rule]++; properties[property]++ })
	each(func(r *resource, c *check, rule, property string) {
		full := r.kind.name + ": " + r.id() + ": " + c.attribute.shown()
		switch {
		case rule == "":
			c.id = full
		case rules[rule] == 1:
			c.id = rule
		case properties[property] == 1:
			c.id = property
		default:
			c.id = rule + ": " + full
		}
	})
}

// rule returns the rule ID that the author of the file has given to the resource, or "".
func (r *resource) rule() string {
	for _, name := range []string{"id", "CIS_ID"} {
		if s := asOneLine(r.meta[name]); s != "" {
			return s
		}
	}
	return ""
}

// asOneLine formats a value of meta as one line; lists are joined with commas.
func asOneLine(v any) string {
	if v == nil {
		return ""
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(asText(v), "\n", ", ")), " ")
}
