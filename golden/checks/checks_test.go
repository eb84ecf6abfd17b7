package checks_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/communicator"
	"bake/golden/checks"
	"bake/golden/checks/facts"
	"bake/golden/findings"
)

// local is the host that runs the test, as a machine; bake is root there without sudo.
type local struct {
	communicator.Communicator
	calls int
	lost  error
}

func (l *local) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	l.calls++
	if l.lost != nil {
		return communicator.Status{}, l.lost
	}
	cmd := exec.CommandContext(ctx, "sh", "-s")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return communicator.Status{Code: exit.ExitCode()}, nil
	}
	return communicator.Status{}, err
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, o checks.Options) *checks.Checks {
	t.Helper()
	c, diags := checks.Load(o)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return c
}

func results(r findings.Report) string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, string(f.Result))
	}
	return strings.Join(all, ", ")
}

func TestFilesAreAskedForAtOnce(t *testing.T) {
	dir := t.TempDir()
	one := write(t, dir, "one.yaml", "file:\n  "+dir+":\n    exists: {{ .Vars.there }}\n")
	two := write(t, dir, "two.json", `{"command": {"echo `+"{{ .Env.WORD }}"+`": {"exit-status": 0, "stdout": ["no"]}}}`)
	vars := write(t, dir, "vars.yaml", "there: false\n")
	m := &local{}
	c := load(t, checks.Options{Files: []string{one, two}, VarsFiles: []string{vars}, VarsInline: "there: true", Env: map[string]string{"WORD": "yes"}})
	reports, err := c.Run(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if m.calls != 1 {
		t.Errorf("%d calls", m.calls)
	}
	if len(reports) != 2 || reports[0].Name != one || reports[0].Tool != "goss" || results(reports[0]) != "pass" || results(reports[1]) != "pass, fail" {
		t.Errorf("%+v", reports)
	}
	if rules := c.Rules(); results(rules[1]) != "not checked, not checked" {
		t.Errorf("%+v", rules)
	}
}

func TestRetry(t *testing.T) {
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	file := write(t, dir, "x.yaml", "command:\n  echo x >>"+count+"; wc -l <"+count+":\n    exit-status: 0\n    stdout: [\"3\"]\n")
	m := &local{}
	o := checks.Options{Files: []string{file}, RetryTimeout: time.Minute, Sleep: time.Millisecond}
	reports, err := load(t, o).Run(t.Context(), m)
	if err != nil || results(reports[0]) != "pass, pass" || m.calls != 3 {
		t.Errorf("%v, %v after %d calls", reports, err, m.calls)
	}
	o.RetryTimeout = 0
	if reports, err = load(t, o).Run(t.Context(), m); err != nil || results(reports[0]) != "pass, fail" || m.calls != 4 {
		t.Errorf("%v, %v after %d calls", reports, err, m.calls)
	}
}

// TestRetryOfOne: only resources with a retry_count are checked again, until they meet
// the requirements.
func TestRetryOfOne(t *testing.T) {
	dir := t.TempDir()
	count := func(name string) string {
		return "echo x >>" + filepath.Join(dir, name) + "; wc -l <" + filepath.Join(dir, name)
	}
	file := write(t, dir, "x.yaml", `
command:
  becomes: {exec: "`+count("a")+`", exit-status: 0, stdout: ["3"], retry_count: 5, retry_delay: 1ms}
  never: {exec: "`+count("b")+`", exit-status: 0, stdout: ["no"], retry_count: 2, retry_delay: 1}
  is: {exec: "`+count("c")+`", exit-status: 0, stdout: ["1"], retry_count: 5}
  once: {exec: "`+count("d")+`", exit-status: 0, stdout: ["no"]}
  skipped: {exec: "`+count("e")+`", exit-status: 1, skip: true, retry_count: 5}
`)
	reports, err := load(t, checks.Options{Files: []string{file}}).Run(t.Context(), &local{})
	if want := "pass, pass, pass, fail, pass, pass, pass, fail, not checked"; err != nil || results(reports[0]) != want {
		t.Errorf("%v, %v, want %s", results(reports[0]), err, want)
	}
	for name, want := range map[string]int{"a": 3, "b": 3, "c": 1, "d": 1, "e": 0} {
		if text, _ := os.ReadFile(filepath.Join(dir, name)); strings.Count(string(text), "x") != want {
			t.Errorf("%s was run %d times, want %d", name, strings.Count(string(text), "x"), want)
		}
	}
}

func TestRemediation(t *testing.T) {
	dir := t.TempDir()
	there, log := filepath.Join(dir, "there"), filepath.Join(dir, "log")
	file := write(t, dir, "x.yaml", `
file:
  `+dir+`: {exists: true, meta: {fix: "exit 9"}}
  `+there+`: {exists: true, meta: {fix: "echo run >>`+log+`; touch `+there+`"}}
  `+there+`/below: {exists: true, skip: true, meta: {fix: "exit 9"}}
  `+dir+`/other: {exists: true, meta: {fix: "echo sorry >&2; exit 3"}}
command:
  test -e `+there+`: {exit-status: 0, meta: {fix: "echo run >>`+log+`; touch `+there+`"}}
`)
	before, err := load(t, checks.Options{Files: []string{file}}).Run(t.Context(), &local{})
	if err != nil || results(before[0]) != "pass, fail, not checked, fail, fail" {
		t.Fatalf("%v, %v", before, err)
	}
	if _, err := os.Stat(there); err == nil {
		t.Fatal("a fix was run that nobody has asked for")
	}
	after, err := load(t, checks.Options{Files: []string{file}, Remediate: true}).Run(t.Context(), &local{})
	if err != nil || results(after[0]) != "pass, fixed, not checked, fail, fixed" {
		t.Fatalf("%v, %v", after, err)
	}
	if f := after[0].Findings[3]; !strings.HasSuffix(f.Evidence, "; its fix ended with exit status 3: sorry") {
		t.Errorf("the fix that failed: %s", f.Evidence)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "run\n" {
		t.Errorf("the fix has run: %q, %v", text, err)
	}
}

func TestTemplatesThatReadTheMachine(t *testing.T) {
	dir := t.TempDir()
	names := write(t, dir, "names", dir)
	file := write(t, dir, "x.yaml", "file:\n  {{ readFile \""+names+"\" }}:\n    exists: true\n")
	m := &local{}
	c := load(t, checks.Options{Files: []string{file}})
	for range 2 {
		reports, err := c.Run(t.Context(), m)
		if err != nil || results(reports[0]) != "pass" {
			t.Errorf("%v, %v", reports, err)
		}
	}
	write(t, dir, "names", "- [") // what the machine says makes no sense now
	if _, err := c.Run(t.Context(), m); err == nil {
		t.Error("nonsense is taken")
	} else if _, ok := errors.AsType[hcl.Diagnostics](err); !ok {
		t.Errorf("%T: %v", err, err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "x.yaml", "group: {root: {exists: true}}")
	for name, o := range map[string]checks.Options{
		"nothing":         {},
		"no file":         {Files: []string{filepath.Join(dir, "absent.yaml")}},
		"twice":           {Files: []string{good, good}},
		"no profile":      {Files: []string{"bake:nosuch"}},
		"no rule":         {Files: []string{"bake:baseline/nosuch"}},
		"no variables":    {Files: []string{good}, VarsFiles: []string{filepath.Join(dir, "absent")}},
		"wrong variables": {Files: []string{good}, VarsInline: "- ["},
	} {
		if _, diags := checks.Load(o); !diags.HasErrors() {
			t.Errorf("%s is no error", name)
		}
	}
	c := load(t, checks.Options{Files: []string{"bake:baseline", good}})
	rules := c.Rules()
	if len(rules[0].Findings) < 50 || slices.ContainsFunc(rules[0].Findings, func(f findings.Finding) bool { return f.ID == "" || f.Title == "" }) {
		t.Errorf("%+v", rules[0])
	}
	lost := errors.New("lost")
	if _, err := load(t, checks.Options{Files: []string{good}, As: facts.Root}).Run(t.Context(), &local{lost: lost}); !errors.Is(err, lost) {
		t.Error(err)
	}
}

func TestParseEnv(t *testing.T) {
	got, err := checks.ParseEnv([]string{"ROLE=web", "EMPTY=", "EXPR=a=b", "ROLE=db"})
	if err != nil || len(got) != 3 || got["ROLE"] != "db" || got["EXPR"] != "a=b" || got["EMPTY"] != "" {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "ROLE", "=web"} {
		if _, err := checks.ParseEnv([]string{text}); err == nil || !strings.Contains(err.Error(), "is not NAME=VALUE") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
