package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// block is a fenced block of a guide: a file, or a console session.
type block struct {
	line int
	info []string // after the fence
	text string
}

// blocks returns the fenced blocks of a document.
func blocks(text string) (all []block) {
	var now *block
	for i, line := range strings.SplitAfter(text, "\n") {
		switch fence, isFence := strings.CutPrefix(line, "```"); {
		case isFence && now == nil:
			now = &block{line: i + 1, info: strings.Fields(fence)}
		case isFence:
			all, now = append(all, *now), nil
		case now != nil:
			now.text += line
		}
	}
	return all
}

// guide is the script command "guide FILE": it carries out a document in the current directory. A
// block "```LANGUAGE NAME" is written to the file NAME. In a block "```console", each line after
// "$ " is run by a shell, and the lines below it must occur in the output, in this order. IDs and
// times may differ, and "..." stands for any lines, or for the rest of a line. If a later command
// contains an ID or an address of an earlier output in the document, it gets the one that was
// really printed. Shell variables persist. A command that ends in " &" runs until "kill %N", where
// N is 1 for the first one, or until the end of the document, and then gets Ctrl-C. A last line
// "(exit code N)" is the exit code, if not 0.
func guide(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: guide file")
	}
	text, err := os.ReadFile(args[0])
	ts.Check(err)
	known := ""                  // shell code that sets the variables
	means := map[string]string{} // what the document shows -> what was printed
	var jobs []*job
	for _, b := range blocks(string(text)) {
		at := fmt.Sprintf("%s:%d", filepath.Base(args[0]), b.line)
		switch {
		case len(b.info) == 2:
			path := ts.MkAbs(b.info[1])
			ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
			ts.Check(os.WriteFile(path, []byte(b.text), 0o755))
		case len(b.info) == 1 && b.info[0] == "console":
			for _, typed := range strings.Split("\n"+b.text, "\n$ ")[1:] {
				command, shown, _ := strings.Cut(strings.TrimSuffix(typed, "\n"), "\n")
				ts.Logf("%s: $ %s", at, command)
				command = typedHere(command, means)
				if in, ok := strings.CutSuffix(command, " &"); ok {
					jobs = append(jobs, behind(ts, known+in, shown, means))
					continue
				}
				if number, ok := strings.CutPrefix(command, "kill %"); ok {
					n, err := strconv.Atoi(number)
					if err != nil || n < 1 || n > len(jobs) {
						ts.Fatalf("%s: %s: %d commands were started in the background", at, command, len(jobs))
					}
					ts.Check(jobs[n-1].end(syscall.SIGTERM))
					continue
				}
				got, code := shell(ts, known+command)
				if assignment.MatchString(command) {
					known += command + "\n"
				}
				if wrong := differs(shown, got, code, means); wrong != "" {
					ts.Fatalf("%s: %s: %s\nIt printed:\n%s", at, command, wrong, got)
				}
			}
		}
	}
}

// typedHere returns a command of the document, with the printed IDs and addresses in place of
// those in the document.
func typedHere(command string, means map[string]string) string {
	return named.ReplaceAllStringFunc(command, func(shown string) string {
		if is, ok := means[shown]; ok {
			return is
		}
		if address, ok := strings.CutPrefix(shown, "http://"); ok {
			return "http://" + typedHere(address, means)
		}
		return shown
	})
}

// conforms is the script command "conforms SCHEMA FILE...": the files must conform to a JSON
// schema.
func conforms(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: conforms schema file...")
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile(args[0])
	ts.Check(err)
	for _, name := range args[1:] {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(ts.ReadFile(name)))
		ts.Check(err)
		ts.Check(schema.Validate(v))
	}
}

// userCommand is a command as a user types it.
func userCommand(ts *testscript.TestScript, command string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "HOME="+ts.Getenv("HOME"))
	for _, name := range []string{"BAKE_STATE_DIR", "BAKE_CLOUD_DIR", "BAKE_CLOUD_INIT_TIMEOUT", "PACKER_PLUGIN_PATH", "BAKE_PLUGIN_MIRROR", "TMPDIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	return cmd
}

// job is a command in the background.
type job struct {
	process *os.Process
	ended   chan struct{} // closed when it has ended
}

// end sends the command a signal, and waits until it has ended.
func (j *job) end(signal os.Signal) error {
	err := j.process.Signal(signal)
	<-j.ended
	return err
}

// behind starts a command in the background, waits until it has printed the expected output, and
// ends it with the script.
func behind(ts *testscript.TestScript, command, shown string, means map[string]string) *job {
	path := ts.MkAbs(".printed-" + strconv.Itoa(len(command)))
	out, err := os.Create(path)
	ts.Check(err)
	defer out.Close()
	cmd := userCommand(ts, "exec "+command)
	cmd.Stdout, cmd.Stderr = out, out
	ts.Check(cmd.Start())
	j := &job{cmd.Process, make(chan struct{})}
	go func() {
		defer close(j.ended)
		_ = cmd.Wait()
	}()
	ts.Defer(func() { _ = j.end(os.Interrupt) })
	for {
		got, err := os.ReadFile(path)
		ts.Check(err)
		wrong := differs(shown, string(got), 0, means)
		if wrong == "" {
			return j
		}
		select {
		case <-j.ended:
			ts.Fatalf("%s: %s: it has ended (%v) after printing\n%s", command, wrong, cmd.ProcessState, got)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// shell runs a command as a user types it.
func shell(ts *testscript.TestScript, command string) (output string, code int) {
	cmd := userCommand(ts, command)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%s: %v", command, err)
	}
	return string(bytes.ToValidUTF8(out, []byte("?"))), cmd.ProcessState.ExitCode()
}

// webPage returns the URL of a machine's web server. The port is another one if the user may not
// listen on its own.
const webPage = `http://127(?:\.[0-9]{1,3}){3}(?::[0-9]+)?/`

var (
	assignment = regexp.MustCompile(`^(?:[a-z]+=\S|\. \./)`)
	exitLine   = regexp.MustCompile(`^\(exit code (\d+)\)$`)
	named      = regexp.MustCompile(webPage + `|(?:ami|snap|i)-[0-9a-f]{17}|127(?:\.[0-9]{1,3}){3}|\b[0-9a-f]{8}\b`)
	meant      = regexp.MustCompile(`^(?:` + webPage + `|(?:ami|snap|i)-[0-9a-f]{17}|127(?:\.[0-9]{1,3}){3}|[0-9a-f]{8})$`)
	// anyOther matches the parts that differ in each run.
	anyOther = regexp.MustCompile(webPage + `|(?:ami|snap|i)-[0-9a-f]{17}|127(?:\.[0-9]{1,3}){3}|[0-9]{8}-[0-9]{6}|\b[0-9]+(\.[0-9]+)?(ms|s|m|h|d)\b|[0-9a-f]{64}|\b[0-9a-f]{8}\b(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{8}\b|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:]+Z?)?|\.\.\.$`)
)

// differs describes the difference between the output of a command and the document, or returns
// "". It records in means what was printed for the IDs and addresses in the document.
func differs(shown, got string, code int, means map[string]string) string {
	want := 0
	lines := strings.Split(got, "\n")
	for _, line := range strings.Split(shown, "\n") {
		if m := exitLine.FindStringSubmatch(line); m != nil {
			want, _ = strconv.Atoi(m[1])
			continue
		}
		if strings.TrimSpace(line) == "" || line == "..." {
			continue
		}
		pattern, rest := "", line
		var others []string
		for rest != "" {
			at := anyOther.FindStringIndex(rest)
			if at == nil {
				pattern, rest = pattern+regexp.QuoteMeta(rest), ""
				continue
			}
			others = append(others, rest[at[0]:at[1]])
			pattern, rest = pattern+regexp.QuoteMeta(rest[:at[0]])+`(.+)`, rest[at[1]:]
		}
		is := regexp.MustCompile(`^` + pattern + `\s*$`)
		n := 0
		for n < len(lines) && !is.MatchString(lines[n]) {
			n++
		}
		if n == len(lines) {
			return fmt.Sprintf("it does not print %q (here)", line)
		}
		for i, printed := range is.FindStringSubmatch(lines[n])[1:] {
			if meant.MatchString(others[i]) && meant.MatchString(printed) {
				means[others[i]] = printed
			}
		}
		lines = lines[n+1:]
	}
	if code != want {
		return fmt.Sprintf("it ends with exit code %d, and not %d", code, want)
	}
	return ""
}

// TestGuides: differences from what really happens are found.
func TestGuides(t *testing.T) {
	const printed = "base: build, because\n  file x: 01234567 -> 89abcdef\nReusing ami-0123456789abcdef0 (web-20261128-101112), 3s old\nend\n"
	for _, test := range []struct {
		shown string
		code  int
		ok    bool
	}{
		{"", 0, true},
		{"base: build, because\n...\nend", 0, true},
		{"Reusing ami-ffffffffffffffff1 (web-20260101-000000), 12m old", 0, true},
		{"  file x: 11111111 -> 22222222", 0, true},
		{"Reusing ...", 0, true},
		{"(exit code 3)", 3, true},
		{"(exit code 3)", 0, false},
		{"", 3, false},
		{"end\nbase: build, because", 0, false},
		{"base: reuse", 0, false},
		{"base: build", 0, false},
	} {
		if wrong := differs(test.shown, printed, test.code, map[string]string{}); (wrong == "") != test.ok {
			t.Errorf("%q, %d: %q", test.shown, test.code, wrong)
		}
	}
	means := map[string]string{}
	differs("Reusing ami-ffffffffffffffff1 (web-20260101-000000), 12m old", printed, 0, means)
	if diff := cmp.Diff(map[string]string{"ami-ffffffffffffffff1": "ami-0123456789abcdef0"}, means); diff != "" {
		t.Errorf("IDs (-want +got):\n%s", diff)
	}
	differs("runs at 127.1.2.3\nHTTP: http://127.1.2.3/", "runs at 127.4.5.6\nHTTP: http://127.4.5.6:20080/", 0, means)
	differs("runs at 127.1.1.1", "runs at 127.9.9.9", 0, means)
	if got, want := typedHere("curl http://127.1.2.3/ http://127.1.1.1/x http://127.1.1.2/; ping 127.1.2.3", means), "curl http://127.4.5.6:20080/ http://127.9.9.9/x http://127.1.1.2/; ping 127.4.5.6"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got := blocks("a\n```hcl x.hcl\nb\n```\n```console\n$ c\n```\n"); len(got) != 2 || got[0].text != "b\n" || got[1].info[0] != "console" || got[1].line != 5 {
		t.Errorf("blocks = %+v, want b, and $ c of line 5", got)
	}
}
