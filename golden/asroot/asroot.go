// Package asroot runs scripts on a machine as root.
package asroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"bake/communicator"
	"bake/internal/prose"
)

// line starts a shell as root, whatever the login shell is. If that is impossible, sudo
// prints the reason.
const line = `sh -c 'if [ "$(id -u)" = 0 ]; then exec sh -s; fi; exec sudo -n sh -s'`

// limit is the maximum amount of output of a script.
const limit = 1 << 20

// mark precedes each line of a script's real output: start-up files of the login shell may
// print other lines.
const mark = "\x01bake "

// Run runs a shell script as root and returns the texts that it passed to its function
// say, one per call. The user who is logged in is root, or becomes root with sudo without
// a password. A script that does not finish, or prints too much, is an error.
func Run(ctx context.Context, on communicator.Communicator, script string) ([]string, error) {
	out, errOut := communicator.Head{Max: limit}, communicator.Head{Max: 4 << 10}
	script = "LC_ALL=C; export LC_ALL\nsay() { printf '\\001bake %s\\n' \"$(printf '%s' \"$*\" | tr '\\n\\001' '  ')\"; }\n" + script + "\nsay done\nexit 0\n"
	st, err := on.Run(ctx, communicator.Command{Line: line, Stdin: strings.NewReader(script), Stdout: &out, Stderr: &errOut})
	switch {
	case err != nil:
		return nil, err
	case st.Code != 0:
		return nil, fmt.Errorf("exit status %d: %s", st.Code, prose.Excerpt(errOut.String()))
	case out.Cut():
		return nil, fmt.Errorf("the machine says more than %d kB", limit>>10)
	}
	if out.String() == "" && errOut.String() == "" {
		return nil, errors.New("there is no machine to inspect, or it returns no output: the communicator of the build must be ssh")
	}
	var said []string
	for l := range strings.Lines(out.String()) {
		if text, ok := strings.CutPrefix(l, mark); ok {
			said = append(said, strings.TrimRight(text, "\r\n"))
		}
	}
	if len(said) == 0 || said[len(said)-1] != "done" {
		return nil, fmt.Errorf("the script did not get to its end: %s", prose.Excerpt(errOut.String()))
	}
	return said[:len(said)-1], nil
}

// Stream runs a shell script as root, like Run, and writes all output of the machine to
// out, which may include more than the script's own.
func Stream(ctx context.Context, on communicator.Communicator, script string, out io.Writer) error {
	return stream(ctx, on, line, script, out)
}

func stream(ctx context.Context, on communicator.Communicator, shell, script string, out io.Writer) error {
	errOut := communicator.Head{Max: 4 << 10}
	st, err := on.Run(ctx, communicator.Command{Line: shell, Stdin: strings.NewReader(script), Stdout: out, Stderr: &errOut})
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("exit status %d: %s", st.Code, prose.Excerpt(errOut.String()))
	}
	return err
}
