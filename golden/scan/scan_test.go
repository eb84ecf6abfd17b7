package scan_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bake/communicator"
	"bake/golden/findings"
	"bake/golden/scan"
	"bake/internal/procgroup"
)

// machine is a machine on which scripts run as the user of the test.
type machine struct {
	communicator.Communicator
	rules map[string]string // of a script: what replaces it
}

func (m machine) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	script, err := io.ReadAll(c.Stdin)
	if err != nil {
		return communicator.Status{}, err
	}
	text := string(script)
	for old, now := range m.rules {
		text = strings.ReplaceAll(text, old, now)
	}
	fmt.Fprintln(c.Stdout, "Welcome to this machine!")
	cmd := exec.CommandContext(ctx, "sh", "-s")
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = strings.NewReader(text), c.Stdout, c.Stderr, time.Second
	err = procgroup.Run(cmd)
	var exit *exec.ExitError
	switch {
	case context.Cause(ctx) != nil:
		return communicator.Status{}, context.Cause(ctx)
	case errors.As(err, &exit):
		return communicator.Status{Code: exit.ExitCode()}, nil
	}
	return communicator.Status{}, err
}

func lines(r findings.Report) string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s %s", f.Result, f.ID))
	}
	return strings.Join(all, "|")
}

// A command's output and exit status count together, on the machine and on the host.
func TestCommand(t *testing.T) {
	const tap = `printf '1..2\nok 1 - a\nnot ok 2 - b\n'`
	for _, test := range []struct {
		command string
		format  findings.Format
		want    string // with ! the error
	}{
		{"true", scan.ExitCode, "pass scan.x"},
		{"echo no >&2; exit 3", scan.ExitCode, "fail scan.x"},
		{"/no/such/scanner", scan.ExitCode, "! cannot be run (exit status 127)"},
		{"kill -9 $$", scan.ExitCode, "! signal"},
		{tap, findings.TAP, "pass a|fail b"},
		{tap + "; exit 1", findings.TAP, "pass a|fail b"},
		{tap + "; exit 2", findings.TAP, "pass a|fail b|error exit status"},
		{tap + "; exit 100", findings.TAP, "pass a|fail b"},
		{`printf '1..1\nok 1 - a'; exit 100`, findings.TAP, "pass a|error exit status"},
		{`printf '1..1\nok 1 - a'`, findings.TAP, "pass a"},
		{`printf '1..1\nok 1 - a'; echo disk full >&2; exit 1`, findings.TAP, "pass a|error exit status"},
		{"exit 2", findings.SARIF, "! ended with exit status 2, and what it has written cannot be read"},
		{"true", findings.SARIF, "! it is empty"},
		{"echo '{}'", findings.SARIF, "! its version"},
		{"cat; " + tap, findings.TAP, "pass a|fail b"}, // it has no input
		{"sleep 4711", findings.TAP, "! took longer than 1s, its timeout"},
		{"yes 0123456789 | head -c 70000000", findings.TAP, "! more than 64 MB"},
	} {
		c := scan.Command{Name: "scan.x", Command: test.command, Format: test.format, Timeout: time.Minute}
		if strings.Contains(test.command, "exit 100") {
			c.Codes = []int{1, 100}
		}
		if strings.HasPrefix(test.command, "sleep") {
			c.Timeout = time.Second
		}
		check := func(where string, r findings.Report, err error) {
			got := lines(r)
			if err != nil {
				got = "! " + err.Error()
			}
			text, wrong := strings.CutPrefix(test.want, "! ")
			if !wrong && got != test.want || wrong && !strings.Contains(got, text) || wrong != (err != nil) {
				t.Errorf("%s on %s: %.300s, want %s", test.command, where, got, test.want)
			}
		}
		r, err := c.OnMachine(t.Context(), machine{})
		check("the machine", r, err)
		if strings.HasPrefix(test.command, "kill") {
			test.want = "! signal: killed"
		}
		r, err = c.OnHost(t.Context(), scan.Host{Env: os.Environ(), Exec: procgroup.Run})
		check("the host", r, err)
	}
}

// fake is a machine with other programs and another /var/lib.
func fake(t *testing.T, state string, programs map[string]string) machine {
	t.Helper()
	dir := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil { // a program
			t.Fatal(err)
		}
	}
	return machine{rules: map[string]string{"LC_ALL=C\n": "LC_ALL=C\nPATH=" + dir + ":$PATH\n", "/var/lib/": state + "/"}}
}

func content(t *testing.T) *scan.Content {
	t.Helper()
	c, err := scan.ReadContent("testdata/ds.xml", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A scan by oscap has a result only if oscap has written one, whatever its exit status is.
func TestOpenSCAP(t *testing.T) {
	results, err := filepath.Abs("../findings/testdata/read/xccdf.xml")
	if err != nil {
		t.Fatal(err)
	}
	const writes = `while [ $# -gt 1 ]; do if [ "$1" = --results ]; then to=$2; fi; shift; done; cmp -s "$1" CONTENT || exit 9; cat RESULTS >"$to"; echo said; `
	ours, err := filepath.Abs("testdata/ds.xml")
	if err != nil {
		t.Fatal(err)
	}
	program := strings.NewReplacer("RESULTS", results, "CONTENT", ours).Replace(writes)
	for _, test := range []struct{ oscap, want string }{
		{program + "exit 2", "pass xccdf_com.example_rule_issue|fail xccdf_com.example_rule_banner|fail xccdf_com.example_rule_motd|not checked xccdf_com.example_rule_asked|not applicable xccdf_com.example_rule_zos"},
		{program + "exit 1", "! oscap ended with exit status 1: said"},
		{"echo no such profile; exit 1", "! oscap ended with exit status 1: no such profile"},
		{"exit 0", "! oscap ended with exit status 0"},
		{strings.Replace(program, results, "/dev/null", 1), "! it is empty"},
		{program + "echo changed >STATE/dpkg/status; exit 0", "! has changed while it was scanned"},
	} {
		state := t.TempDir()
		if err := os.Mkdir(filepath.Join(state, "dpkg"), 0o700); err != nil {
			t.Fatal(err)
		}
		m := fake(t, state, map[string]string{"oscap": strings.ReplaceAll(test.oscap, "STATE", state)})
		o := scan.OpenSCAP{Name: "scan.openscap", Content: content(t), Profile: "small", Timeout: time.Minute}
		r, err := o.Run(t.Context(), m)
		got := lines(r)
		if err != nil {
			got = "! " + err.Error()
		}
		text, wrong := strings.CutPrefix(test.want, "! ")
		if !wrong && got != test.want || wrong && !strings.Contains(got, text) {
			t.Errorf("%s: %s, want %s", test.oscap, got, test.want)
		}
		if left, _ := filepath.Glob(filepath.Join(state, "bake-scan*")); len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	}
}

// A machine without oscap needs a package manager that has it.
func TestNoOpenSCAP(t *testing.T) {
	if path, err := exec.LookPath("oscap"); err == nil {
		t.Skip(path + " is there")
	}
	o := scan.OpenSCAP{Name: "scan.openscap", Content: content(t), Tailoring: content(t), Profile: "small", Timeout: time.Minute}
	m := fake(t, t.TempDir(), map[string]string{"apt-get": `echo "E: no network"; exit 100`})
	if _, err := o.Run(t.Context(), m); err == nil || !strings.Contains(err.Error(), "apt-get update failed: E: no network") {
		t.Error(err)
	}
	m = fake(t, t.TempDir(), map[string]string{"apt-get": `case "$*" in *install*) echo "E: Unable to locate package"; exit 100 ;; esac`})
	if _, err := o.Run(t.Context(), m); err == nil || !strings.Contains(err.Error(), "openscap-scanner cannot be fetched: E: Unable to locate package") {
		t.Error(err)
	}
}

// Nothing stays of a scan that is cut as soon as it has begun.
func TestCut(t *testing.T) {
	state := t.TempDir()
	m := fake(t, state, map[string]string{"oscap": "exit 0"})
	m.rules["d=$(mktemp"] = "d=$(kill -TERM $$; mktemp"
	o := scan.OpenSCAP{Name: "scan.openscap", Content: content(t), Profile: "small", Timeout: time.Minute}
	_, err := o.Run(t.Context(), m)
	if left, _ := os.ReadDir(state); err == nil || len(left) > 0 {
		t.Errorf("%v, and %v is left", err, left)
	}
}

func TestReadContent(t *testing.T) {
	c := content(t)
	if got := strings.Join(c.Profiles, " "); got != "xccdf_com.example_profile_small xccdf_com.example_profile_good" || len(c.SHA256) != 64 {
		t.Errorf("%s %s", got, c.SHA256)
	}
	for profile, want := range map[string]bool{"xccdf_com.example_profile_small": true, "_good": true, "nosuch": false} {
		if c.Has(profile) != want {
			t.Errorf("%s: %t", profile, !want)
		}
	}
	dir := t.TempDir()
	for text, want := range map[string]string{
		"":                 "there is no benchmark in it",
		"<a/>":             "there is no benchmark in it",
		"<a>":              "XML syntax error",
		"<!DOCTYPE a><a/>": "document type declaration",
	} {
		path := filepath.Join(dir, "x.xml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := scan.ReadContent(path, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := scan.ReadContent(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Error(err)
	}
}

// A date in the future must not make content count as new forever.
func TestDatedInTheFuture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.xml")
	text := `<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2"><status date="2020-03-01">accepted</status><status date="2999-01-01">draft</status></Benchmark>`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := scan.ReadContent(path, time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC))
	if want := time.Date(2020, 3, 1, 0, 0, 0, 0, time.UTC); err != nil || !c.Dated.Equal(want) {
		t.Errorf("it is of %v, want %v; %v", c, want, err)
	}
}
