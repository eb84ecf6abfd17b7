// Package checks runs checks on a machine: files in goss's format, and built-in
// profiles.
package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/communicator"
	"bake/golden/checks/facts"
	"bake/golden/checks/goss"
	"bake/golden/findings"
	"bake/internal/delay"
	"bake/internal/prose"
)

// Options define what is checked, and how.
type Options struct {
	Files []string // goss files, names of profiles such as bake:baseline, and - for Input

	Input []byte // a goss file in JSON or YAML

	// The data of templates in goss files. .Vars comes from YAML or JSON files, of which
	// later ones take precedence, and from an inline text in the same formats, which
	// overrides all files. .Env holds only the variables given here.
	VarsFiles  []string
	VarsInline string
	Env        map[string]string

	As facts.As // the user that the checks run as; profiles always run as root

	// Remediate runs the fixes of failed checks, and then checks again: the fixes of
	// profiles, and meta.fix of goss files, which is a shell script that is run as root.
	Remediate bool

	// RetryTimeout is how long goss files are checked again while anything in them fails,
	// with a pause of Sleep in between; 0 means one second.
	RetryTimeout, Sleep time.Duration

	Say func(format string, args ...any) // called with progress messages; may be nil

	// Goss receives the results of the goss files in goss's JSON format. It is written to
	// once per run; may be nil.
	Goss io.Writer
}

// Checks are checks that have been read and can be run.
type Checks struct {
	options Options
	vars    map[string]any
	parts   []*part // in the order of Options.Files
}

// part is a file or a profile.
type part struct {
	name    string
	profile *profile    // nil: a goss file
	suite   *goss.Suite // nil: it depends on files of the machine
	files   []string    // files that it was read from, as far as known without a machine
	results []goss.Result
	report  findings.Report
}

// ParseEnv reads variables: each text is NAME=VALUE.
func ParseEnv(texts []string) (map[string]string, error) {
	env := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not NAME=VALUE", text)
		}
		env[name] = value
	}
	return env, nil
}

// Load reads the files. The result can be run if the diagnostics contain no error. Files
// whose templates read files of the machine are read again when they are run.
func Load(o Options) (*Checks, hcl.Diagnostics) {
	vars, diags := goss.ReadVars(o.VarsFiles, o.VarsInline)
	if diags.HasErrors() {
		return nil, diags
	}
	c := &Checks{options: o, vars: vars}
	for _, name := range o.Files {
		if name == "-" {
			name = goss.Stdin
		}
		if slices.ContainsFunc(c.parts, func(p *part) bool { return p.name == name }) {
			diags = append(diags, fault("Listed twice", "%s is listed twice.", name))
			continue
		}
		p := &part{name: name}
		c.parts = append(c.parts, p)
		if IsProfile(name) {
			var err error
			if p.profile, err = find(name); err != nil {
				diags = append(diags, fault("Unknown profile", "%s.", err))
			}
			continue
		}
		remote := false
		suite, more := goss.Load(name, goss.Options{Input: o.Input, Vars: vars, Env: o.Env, Read: func(paths []string) ([]facts.Fact, error) {
			remote = true
			return slices.Repeat([]facts.Fact{{Value: facts.Text("")}}, len(paths)), nil
		}})
		p.files = suite.Files()
		if remote {
			continue
		}
		p.suite, diags = suite, append(diags, more...)
	}
	if len(o.Files) == 0 {
		diags = append(diags, fault("No checks", "Name a goss file, or %s.", strings.Join(names(), ", ")))
	}
	return c, diags
}

func fault(summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: prose.Sprintf(format, args...)}
}

// Rules returns the checks as findings without results, with a report for each file. A
// file that depends on the machine has none.
func (c *Checks) Rules() []findings.Report {
	var all []findings.Report
	for _, p := range c.parts {
		r := findings.Report{Name: p.name, Tool: p.tool()}
		switch {
		case p.profile != nil:
			r.Findings = p.profile.rules()
		case p.suite != nil:
			r.Findings = p.suite.Judge(context.Background(), nil)
		}
		for i := range r.Findings {
			r.Findings[i].Result, r.Findings[i].Evidence = findings.NotChecked, ""
		}
		all = append(all, r)
	}
	return all
}

// Files returns the paths of all files that were read, including included files. It omits
// files that are included depending on the machine.
func (c *Checks) Files() (all []string) {
	for _, p := range c.parts {
		all = append(all, p.files...)
	}
	return all
}

func (p *part) tool() string {
	if p.profile != nil {
		return p.name
	}
	return "goss"
}

func (c *Checks) say(format string, args ...any) {
	if c.options.Say != nil {
		c.options.Say(format, args...)
	}
}

// Run checks a machine and returns a report for each file, in order. An error means that
// something could not be checked at all; it is [hcl.Diagnostics] if a file is the cause.
// Run may be called for several machines, also concurrently. m must be the communicator
// itself, not a wrapper, since it may implement more interfaces, such as
// [communicator.Forwarder].
func (c *Checks) Run(ctx context.Context, m communicator.Communicator) ([]findings.Report, error) {
	c = c.fresh()
	for _, p := range c.parts {
		if p.profile == nil {
			continue
		}
		c.say("Checking %s", p.name)
		report, err := p.profile.run(ctx, m, c.options.Remediate)
		if err != nil {
			return nil, err
		}
		p.report = report
	}
	start := time.Now()
	if err := c.files(ctx, m); err != nil {
		return nil, err
	}
	if c.options.Goss != nil {
		var results []goss.Result
		for _, p := range c.parts {
			results = append(results, p.results...)
		}
		if err := goss.WriteJSON(c.options.Goss, results, start, time.Now()); err != nil {
			return nil, err
		}
	}
	reports := make([]findings.Report, len(c.parts))
	for i, p := range c.parts {
		p.report.Name, p.report.Tool = p.name, p.tool()
		reports[i] = p.report
	}
	return reports, nil
}

// fresh returns the checks without anything learned from a machine.
func (c *Checks) fresh() *Checks {
	again := &Checks{options: c.options, vars: c.vars}
	for _, p := range c.parts {
		copied := *p
		again.parts = append(again.parts, &copied)
	}
	return again
}

// files checks the goss files.
func (c *Checks) files(ctx context.Context, m communicator.Communicator) error {
	var files []*part
	for _, p := range c.parts {
		if p.profile == nil {
			files = append(files, p)
		}
	}
	if len(files) == 0 {
		return nil
	}
	if err := c.reload(ctx, m, files); err != nil {
		return err
	}
	c.say("Checking what the files demand")
	err := c.until(ctx, m, files)
	if err != nil || !c.options.Remediate || !bad(files) {
		return err
	}
	return c.remediate(ctx, m, files)
}

// reload reads the files that depend on the machine.
func (c *Checks) reload(ctx context.Context, m communicator.Communicator, files []*part) error {
	for _, p := range files {
		if p.suite != nil {
			continue
		}
		suite, diags := goss.Load(p.name, goss.Options{Input: c.options.Input, Vars: c.vars, Env: c.options.Env, Read: func(paths []string) ([]facts.Fact, error) {
			return c.read(ctx, m, paths)
		}})
		if diags.HasErrors() {
			return diags
		}
		p.suite = suite
	}
	return nil
}

// read reads files of the machine.
func (c *Checks) read(ctx context.Context, m communicator.Communicator, paths []string) ([]facts.Fact, error) {
	questions := make([]facts.Question, len(paths))
	for i, path := range paths {
		questions[i] = facts.Question{Kind: "file", Key: path, Attributes: []string{"contents"}}
	}
	answers, err := facts.Learn(ctx, m, c.options.As, questions)
	if err != nil {
		return nil, err
	}
	contents := make([]facts.Fact, len(paths))
	for i, a := range answers {
		contents[i] = a["contents"]
	}
	return contents, nil
}

// until checks files until nothing fails, or RetryTimeout has passed.
func (c *Checks) until(ctx context.Context, m communicator.Communicator, files []*part) error {
	start := time.Now()
	sleep := c.options.Sleep
	if sleep <= 0 {
		sleep = time.Second
	}
	for {
		if err := c.once(ctx, m, files); err != nil {
			return err
		}
		if !bad(files) || time.Since(start)+sleep > c.options.RetryTimeout {
			return nil
		}
		c.say("Something fails; checking again in %s", sleep)
		if err := delay.For(ctx, sleep); err != nil {
			return err
		}
	}
}

// once checks all files, querying the facts that they need in one call.
func (c *Checks) once(ctx context.Context, m communicator.Communicator, files []*part) error {
	var questions []facts.Question
	for _, p := range files {
		questions = append(questions, p.suite.Questions()...)
	}
	start := time.Now()
	answers, err := facts.Learn(ctx, m, c.options.As, questions)
	if err != nil {
		return err
	}
	for _, p := range files {
		n := len(p.suite.Questions())
		if err := c.again(ctx, m, p.suite, answers[:n]); err != nil {
			return err
		}
		p.results = p.suite.Results(ctx, answers[:n])
		if err := context.Cause(ctx); err != nil {
			return err
		}
		p.report = findings.Report{Started: start, Findings: goss.Findings(p.results)}
		answers = answers[n:]
	}
	return nil
}

func bad(files []*part) bool {
	return slices.ContainsFunc(files, func(p *part) bool { return p.report.Count(findings.Fail, findings.Error) > 0 })
}

// fixTime is how long a fix may take, in milliseconds: it may install packages.
const fixTime = "1800000"

// remediate runs the fix of each check that failed, each once and one after another, and
// checks again.
func (c *Checks) remediate(ctx context.Context, m communicator.Communicator, files []*part) error {
	said := map[string]string{} // by fix
	before := make([][]findings.Finding, len(files))
	for i, p := range files {
		before[i] = p.report.Findings
		for _, f := range before[i] {
			if _, done := said[f.Fix]; done || f.Result != findings.Fail || f.Fix == "" {
				continue
			}
			c.say("Fixing %s", f.ID)
			answers, err := facts.Learn(ctx, m, facts.Root, []facts.Question{{
				Kind: "command", Key: f.Fix, Attributes: []string{"exit-status", "stderr"}, Options: map[string]string{"timeout": fixTime},
			}})
			if err != nil {
				return fmt.Errorf("fixing %s: %w", f.ID, err)
			}
			said[f.Fix] = outcome(answers[0])
		}
	}
	if len(said) == 0 {
		return nil
	}
	if err := c.until(ctx, m, files); err != nil {
		return err
	}
	for i, p := range files {
		if len(p.report.Findings) != len(before[i]) {
			return errors.New("a file has other checks than before")
		}
		for j := range p.report.Findings {
			f := &p.report.Findings[j]
			why, tried := said[f.Fix]
			switch {
			case f.Result == findings.Pass && before[i][j].Result == findings.Fail:
				f.Result, f.Evidence = findings.Fixed, "before: "+before[i][j].Evidence
			case f.Result == findings.Fail && tried:
				f.Evidence += "; its fix " + why
			}
		}
	}
	return nil
}

// outcome describes the result of a fix.
func outcome(a facts.Answer) string {
	status := a["exit-status"]
	if status.Err != "" {
		return "did not end: " + status.Err
	}
	if status.Value == int64(0) {
		return "did not help"
	}
	text, _ := a["stderr"].Value.(facts.Text)
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return fmt.Sprintf("ended with exit status %v: %.200s", status.Value, line)
}
