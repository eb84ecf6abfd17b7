// Package cloudinit waits until cloud-init has set up a machine, so that provisioners
// do not interfere while it installs packages, adds users or runs the user data.
package cloudinit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/internal/cloudinit"
	"bake/internal/delay"
	"bake/step"
)

// The machine's answer follows the mark. Output before the mark comes from the start-up
// files of its login shell.
const (
	mark    = "bake-asks-cloud-init: "
	running = "running" // cloud-init is still running
	failed  = "failed"  // it has finished, with errors, which follow
)

// look is a shell script that prints the state of cloud-init: nothing if it is not
// installed, is disabled or has succeeded. If it has failed, the script prints the end of
// its log.
const look = cloudinit.Busy + `d=/run/cloud-init
if [ -e $d/result.json ]; then
	case $(tr -d ' \t\n' <$d/result.json) in
	*'"errors":[]'*) ;;
	*) echo '` + mark + failed + `'; tr -d '\t\n' <$d/result.json; echo
		f=/var/log/cloud-init-output.log; tail -n 15 $f 2>/dev/null || sudo -n tail -n 15 $f 2>/dev/null || :;;
	esac
elif busy; then echo '` + mark + running + `'; fi`

// wait is a shell script that waits for cloud-init. Its parameter is the maximum number of
// polls, of which there are at most [polls] per second.
const wait = cloudinit.Busy + `n=0; while busy && [ $n -lt %d ]; do sleep 0.2 2>/dev/null || sleep 1; n=$((n+1)); done`

// polls is the maximum number of times per second that wait polls.
const polls = 5

// The environment variable and the flag that set the limit of a new run. Neither changes the
// limit of a resumed run.
const (
	Variable = "BAKE_CLOUD_INIT_TIMEOUT"
	Flag     = "-cloud-init-timeout"
)

// DefaultTimeout is the default limit.
const DefaultTimeout = 5 * time.Minute

// Limit is how long to wait for cloud-init.
type Limit struct {
	Timeout time.Duration // 0: do not wait
	SetBy   string        // how the user can set it, for messages
}

// Wait waits until cloud-init on m has finished, for at most limit. A failure or timeout
// is only a warning: steps that depend on cloud-init will fail themselves. Wait does nothing
// for machines that are not reached over SSH, since they may have no shell.
func Wait(ctx context.Context, s *step.Scope, m builder.Machine, limit Limit) error {
	said, err := settled(ctx, s, m, limit)
	if log, ok := strings.CutPrefix(said, failed+"\n"); ok {
		s.Warn(ctx, "cloud-init has finished with errors. What it reports, and the end of its log, /var/log/cloud-init-output.log:\n%s", log)
	}
	return err
}

// Again waits like [Wait], but does not report failures. It is for a machine that [Wait]
// has waited for already, and that may have rebooted since.
func Again(ctx context.Context, s *step.Scope, m builder.Machine, limit Limit) error {
	_, err := settled(ctx, s, m, limit)
	return err
}

// settled waits until cloud-init has finished or limit has passed, and returns the
// machine's answer.
func settled(ctx context.Context, s *step.Scope, m builder.Machine, limit Limit) (string, error) {
	if _, ok := m.Communicator.(communicator.Accessible); !ok || limit.Timeout <= 0 {
		return "", nil
	}
	said := ask(ctx, m)
	if said == running {
		err := step.Run(ctx, s, "wait for cloud-init", func(ctx context.Context) error {
			s.Say(ctx, "Waiting until cloud-init has finished, up to %s (%s)", limit.Timeout, limit.SetBy)
			return await(ctx, s, m, limit)
		})
		if err != nil {
			return "", err
		}
		said = ask(ctx, m)
	}
	return said, context.Cause(ctx)
}

// ask returns the answer of a machine. It returns "" if the machine cannot be reached, which
// the provisioners will report.
func ask(ctx context.Context, m builder.Machine) string {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	out := communicator.Head{Max: 8 << 10}
	status, err := m.Run(ctx, communicator.Command{Line: line(look), Stdout: &out})
	if err != nil || status.Code != 0 {
		return ""
	}
	// With ssh_pty, lines end as on a terminal.
	_, answer, _ := strings.Cut(strings.ReplaceAll(out.String(), "\r\n", "\n"), mark)
	return strings.TrimSpace(answer)
}

// askLimit is how long ask waits for an answer.
const askLimit = time.Minute

// line returns a command line that runs a script with sh, whatever the login shell is.
func line(script string) string {
	return "exec env LC_ALL=C sh -c '" + strings.ReplaceAll(script, "'", `'\''`) + "'"
}

// await waits until cloud-init has finished or limit has passed. cloud-init may restart
// the machine meanwhile.
func await(ctx context.Context, s *step.Scope, m builder.Machine, limit Limit) error {
	late := errors.New("cloud-init takes too long")
	within, cancel := context.WithTimeoutCause(ctx, limit.Timeout, late)
	defer cancel()
	for {
		_, err := m.Run(within, communicator.Command{Line: line(fmt.Sprintf(wait, int(limit.Timeout/time.Second+1)*polls))})
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case errors.Is(context.Cause(within), late):
			s.Warn(ctx, "cloud-init has not finished within %s; continuing without it; how long to wait is set by %s", limit.Timeout, limit.SetBy)
			return nil
		case errors.Is(err, communicator.ErrDisconnected):
			if delay.For(within, time.Second) != nil {
				continue
			}
		default:
			return nil
		}
	}
}
