package remote

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"bake/builder"
	"bake/communicator"
	"bake/internal/lazyregexp"
)

var (
	variable = lazyregexp.New(`^\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})`)
	uses     = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(strings.TrimPrefix(variable.Get().String(), "^")) })
	home     = lazyregexp.New(`^~[A-Za-z0-9_.-]*(?:/|$)`)
	plain    = lazyregexp.New(`^[A-Za-z0-9/._-]+`)
	wildcard = lazyregexp.New(`^[][*?!^-]+`)
)

// Word quotes a path as one word for the machine's shell. The shell still expands a "~" at
// its start and variables, as for scp, and wildcards if wildcards is set. No other
// character is special, so a path cannot contain a command. A backslash before a "$" makes
// the "$" an ordinary character.
func Word(p string, wildcards bool) string {
	var b strings.Builder
	take := func(n int) string {
		text := p[:n]
		p = p[n:]
		return text
	}
	b.WriteString(take(len(home.Get().FindString(p))))
	for p != "" {
		if m := variable.Get().FindStringSubmatch(p); m != nil {
			take(len(m[0]))
			b.WriteString(`"$` + m[1] + m[2] + `"`)
			continue
		}
		if n := len(plain.Get().FindString(p)); n > 0 {
			b.WriteString(take(n))
			continue
		}
		if n := len(wildcard.Get().FindString(p)); wildcards && n > 0 {
			b.WriteString(take(n))
			continue
		}
		if strings.HasPrefix(p, `\$`) {
			take(1)
		}
		if c := take(1); c == "'" {
			b.WriteString(`"'"`)
		} else {
			b.WriteString("'" + c + "'")
		}
	}
	if b.Len() == 0 {
		return "''"
	}
	return b.String()
}

// mark precedes each value in the shell's answer to Resolve, because a login shell may
// print a greeting first.
const mark = "\x01"

// Expand returns a path with its variables expanded by the machine's login shell. A path
// without variables, and every path of Windows, is returned unchanged.
func Expand(ctx context.Context, m builder.Machine, p string) (string, error) {
	if !strings.Contains(p, "$") || m.Data["ConnType"].Text == "winrm" {
		return p, nil
	}
	return Resolve(ctx, m, p)
}

// Resolve is like Expand, and also expands a "~" at the start. A variable that is not set
// is an error, because the path would otherwise be a different one.
func Resolve(ctx context.Context, m builder.Machine, p string) (string, error) {
	used := uses().FindAllString(strings.ReplaceAll(p, `\$`, ""), -1)
	line := `printf '\001%s' ` + Word(p, false)
	for _, v := range used {
		line += " " + Word(v, false)
	}
	out, errOut := communicator.Head{Max: 64 << 10}, communicator.Head{Max: 4 << 10}
	st, err := m.Run(ctx, communicator.Command{Line: line, Stdout: &out, Stderr: &errOut})
	if err != nil {
		return "", err
	}
	parts := strings.Split(out.String(), mark)
	if st.Code != 0 || len(parts) != len(used)+2 {
		return "", fmt.Errorf("the shell of the machine cannot expand the path %s: exit status %d: %s", p, st.Code, strings.TrimSpace(errOut.String()))
	}
	for i, value := range parts[2:] {
		if value == "" {
			return "", fmt.Errorf("the path %s cannot be expanded: %s is not set in the login shell of the machine", p, used[i])
		}
	}
	return parts[1], nil
}

// Exists reports whether a path exists on the machine.
func Exists(ctx context.Context, m builder.Machine, p string) (bool, error) {
	st, err := m.Run(ctx, communicator.Command{Line: "test -e " + Word(p, false) + " || test -L " + Word(p, false)})
	return st.Code == 0, err
}
