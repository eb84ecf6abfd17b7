package baseline

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bake/communicator"
	"bake/internal/prose"
)

// Machine provides access to a machine.
type Machine interface {
	// Run runs a script in a POSIX shell, as root, and writes its output to out. It
	// fails if the exit status is not 0, or not known. What comes before and after the
	// output, such as a greeting, does not matter.
	Run(ctx context.Context, script string, out io.Writer) error

	// LogIn logs in over a new connection, while Run's connection stays open, becomes
	// root, and disconnects. It fails if any of these fails.
	LogIn(ctx context.Context) error
}

// On returns the machine behind a communicator. Its user is root, or becomes root with
// sudo without a password.
func On(c communicator.Communicator) Machine { return remote{c} }

type remote struct{ on communicator.Communicator }

// asRoot starts a shell as root. If that is impossible, sudo prints the reason.
const asRoot = `sh -c 'if [ "$(id -u)" = 0 ]; then exec sh -s; fi; exec sudo -n sh -s'`

func (r remote) Run(ctx context.Context, script string, out io.Writer) error {
	return run(ctx, r.on, script, out)
}

func run(ctx context.Context, on communicator.Communicator, script string, out io.Writer) error {
	errOut := &communicator.Head{Max: 4 << 10}
	st, err := on.Run(ctx, communicator.Command{Line: asRoot, Stdin: strings.NewReader(script), Stdout: out, Stderr: errOut})
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("exit status %d: %s", st.Code, prose.Excerpt(errOut.String()))
	}
	return err
}

func (r remote) LogIn(ctx context.Context) (err error) {
	again, ok := r.on.(communicator.Reopener)
	if !ok {
		return errors.New("the communicator cannot log in a second time while it is connected")
	}
	c := again.Another()
	defer func() { err = errors.Join(err, c.Close()) }()
	return run(ctx, c, "exit 0\n", io.Discard)
}

//go:embed scripts/*.sh
var files embed.FS

// scripts is the beginning of every script: the functions of all rules.
func scripts() string {
	var b strings.Builder
	entries, err := files.ReadDir("scripts")
	if err != nil {
		panic(err) // embedded in the program
	}
	for _, e := range entries {
		text, err := files.ReadFile("scripts/" + e.Name())
		if err != nil {
			panic(err)
		}
		b.Write(text)
	}
	return b.String()
}

// The exit statuses of checks and fixes. Any other is an error, and so is a check that
// ends without one of them.
const (
	passed        = 0
	failed        = 1
	notApplicable = 3
	rebootNeeded  = 4 // will be met after a reboot, but not before
	kernelNeeded  = 5 // does not apply to a machine that shares its host's kernel
)

// answer is the result that a script reports for a rule.
type answer struct {
	status int
	text   string // the evidence, or the reason
}

const (
	unsupported = "unsupported" // in place of the ID of a rule
	begin       = "\x01bake "   // precedes every line of real output
	maxEvidence = 1000          // characters of it that are kept, with a mark where it is cut
	maxOutput   = 1 << 20       // bytes of all answers
	maxLine     = 8 << 10       // bytes of one line
	checkTime   = 5 * time.Minute
	fixTime     = 30 * time.Minute // including packages from a slow mirror
)

// ask runs check or fix for rules, in that order, in one call. There is an answer for
// each rule, and none for any other.
func ask(ctx context.Context, m Machine, what string, limit time.Duration, ids []string) (map[string]answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the machine takes longer than %s", limit))
	defer cancel()
	script := scripts() + "\n" + what + " " + strings.Join(ids, " ") + " </dev/null\nexit\n"
	out := &communicator.Head{Max: maxOutput}
	if err := m.Run(ctx, script, out); err != nil {
		return nil, err
	}
	return parse(strings.NewReader(out.String()), ids)
}

func parse(out io.Reader, ids []string) (map[string]answer, error) {
	answers := map[string]answer{}
	id := ""
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	for lines.Scan() && id != "end" {
		l, ok := strings.CutPrefix(strings.TrimSuffix(lines.Text(), "\r"), begin)
		if !ok {
			continue
		}
		if text, more := strings.CutPrefix(l, ". "); more {
			if a, ok := answers[id]; ok && utf8.RuneCountInString(a.text) < maxEvidence {
				answers[id] = answer{a.status, prose.Cut(strings.TrimPrefix(a.text+"; "+prose.Line(text), "; "), maxEvidence-1)}
			}
			continue
		}
		var status string
		id, status, _ = strings.Cut(l, " ")
		if id == "end" {
			continue
		}
		n, err := strconv.Atoi(status)
		_, twice := answers[id]
		if err != nil || twice || !slices.Contains(ids, id) && id != unsupported {
			return nil, fmt.Errorf("the machine sent an invalid response: %.60q", l)
		}
		answers[id] = answer{status: n}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("the machine sends a line that does not end: %w", err)
	}
	if a, ok := answers[unsupported]; ok {
		return nil, fmt.Errorf("%s knows Debian, Ubuntu, RHEL 9 and Amazon Linux 2023; the system of this machine is %s", Name, a.text)
	}
	if id != "end" {
		return nil, errors.New("the output of the machine ends early")
	}
	for _, id := range ids {
		if _, ok := answers[id]; !ok {
			answers[id] = answer{-1, "the machine did not answer"}
		}
	}
	return answers, nil
}
