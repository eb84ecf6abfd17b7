package scan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"bake/communicator"
	"bake/golden/findings"
	"bake/internal/prose"
	"bake/internal/shellquote"
)

// ExitCode is the format of a command whose only result is its exit status: 0 is a
// success.
const ExitCode findings.Format = "exit-code"

// Command is a scan with any program that writes its findings to standard output.
type Command struct {
	Name    string // of the report
	Command string // for sh
	Format  findings.Format
	Timeout time.Duration

	// Codes are the exit statuses, besides 0, of a scan that was carried out; empty: 1.
	// [ExitCode] does not use them.
	Codes []int
}

// Host is where bake runs.
type Host struct {
	Env  []string
	Exec func(*exec.Cmd) error // runs a command, created with a context, to its end
}

// commandScript forwards the output of the command, and prints its exit status.
const commandScript = `
exec 3>&1
printf '\n\001bake output\n'
said=$({ sh -c "$COMMAND" </dev/null >&3 3>&-; printf '\n%s\n' "$?" >&2; } 2>&1 | tail -c 4000 | base64)
printf '\n\001bake status\n%s\n' "$said"
printf '\n\001bake end\n'
exit 0
`

// OnMachine runs the command on a machine, as root. An error means that the scan was not
// carried out.
func (c Command) OnMachine(ctx context.Context, on communicator.Communicator) (findings.Report, error) {
	report := findings.Report{Name: c.Name, Tool: "command", Started: time.Now()}
	ctx, cancel := limited(ctx, c.Timeout)
	defer cancel()
	parts, err := run(ctx, on, "COMMAND="+shellquote.Join(c.Command)+commandScript)
	if err != nil {
		return report, err
	}
	code, why := parts.status()
	if code < 0 {
		return report, errors.New("the machine says no exit status")
	}
	return c.judge(report, code, []byte(parts["output"]), why)
}

// killGrace is how long a command that was ended may take to close its output.
const killGrace = 2 * time.Second

// OnHost runs the command on the host that bake runs on.
func (c Command) OnHost(ctx context.Context, h Host) (findings.Report, error) {
	report := findings.Report{Name: c.Name, Tool: "command", Started: time.Now()}
	within, cancel := limited(ctx, c.Timeout)
	defer cancel()
	out, errOut := communicator.Head{Max: maxWire}, communicator.Head{Max: 16 << 10}
	cmd := exec.CommandContext(within, "sh", "-c", c.Command)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = h.Env, &out, &errOut, killGrace
	err := h.Exec(cmd)
	if cause := context.Cause(within); cause != nil {
		return report, cause
	}
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		code = exit.ExitCode()
	case errors.Is(err, exec.ErrNotFound):
		return report, fmt.Errorf("the command cannot be run: %w: this host has no POSIX shell, or not in PATH; on Windows, Git brings one", err)
	case err != nil:
		return report, fmt.Errorf("the command cannot be run: %w", err)
	case out.Cut():
		return report, fmt.Errorf("the command writes more than %d MB", maxWire>>20)
	}
	return c.judge(report, code, []byte(out.String()), errOut.String())
}

func (c Command) codes() []int {
	if len(c.Codes) == 0 {
		return []int{1}
	}
	return c.Codes
}

// judge reads the findings of the command. The shell's message about a command that it
// could not run is not a finding, and a report without failures does not count if the exit
// status reports failures.
func (c Command) judge(report findings.Report, code int, out []byte, errOut string) (findings.Report, error) {
	said := prose.Excerpt(cmp.Or(strings.TrimSpace(errOut), string(bytes.TrimSpace(out))))
	switch {
	case code == 126 || code == 127:
		return report, fmt.Errorf("the command cannot be run (exit status %d): %s", code, said)
	case code > 128:
		return report, fmt.Errorf("the command was ended by a signal (exit status %d): %s", code, said)
	case c.Format == ExitCode:
		f := findings.Finding{ID: c.Name, Title: "The command succeeds", Severity: findings.Unknown, Result: findings.Pass}
		if code != 0 {
			f.Result, f.Evidence = findings.Fail, strings.TrimSpace(fmt.Sprintf("exit status %d\n%s", code, said))
		}
		report.Findings = append(report.Findings, f)
		return report, nil
	}
	report, err := read(bytes.NewReader(out), c.Format, report)
	switch {
	case err != nil && code != 0:
		return report, fmt.Errorf("the command ended with exit status %d, and what it has written cannot be read: %w: %s", code, err, said)
	case err != nil:
		return report, err
	case code != 0 && !slices.Contains(c.codes(), code):
		report.Findings = append(report.Findings, findings.Finding{
			ID: "exit status", Title: "The command ends as it does after a scan", Severity: findings.Unknown, Result: findings.Error,
			Evidence: strings.TrimSpace(fmt.Sprintf("The command ended with exit status %d, which may mean that it has not looked at everything. If this status means that it has findings, add it to exit_codes. %s", code, said)),
		})
	case code != 0 && report.Count(findings.Fail, findings.Error, findings.Waived) == 0:
		report.Findings = append(report.Findings, findings.Finding{
			ID: "exit status", Title: "The command succeeds if nothing fails", Severity: findings.Unknown, Result: findings.Error,
			Evidence: strings.TrimSpace(fmt.Sprintf("The command ended with exit status %d, and its report says that nothing failed. %s", code, said)),
		})
	}
	return report, nil
}
