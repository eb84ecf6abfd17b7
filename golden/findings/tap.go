package findings

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// tap writes the Test Anything Protocol, version 13. Waived rules do not count, like TODO
// tests. Rules that do not apply or are excluded are skipped. The result of a gate is a
// separate test.
func (d Document) tap(w io.Writer) error {
	out := bufio.NewWriter(w)
	reports, n := d.reports(), 0
	for _, r := range reports {
		n += len(r.Findings)
	}
	if d.Verdict != nil {
		n++
	}
	fmt.Fprintf(out, "TAP version 13\n1..%d\n", n)
	n = 0
	for _, r := range reports {
		for _, f := range r.Findings {
			n++
			f.tap(out, n)
		}
	}
	if v := d.Verdict; v != nil {
		if v.Open {
			fmt.Fprintf(out, "ok %d - gate\n", n+1)
		} else {
			fmt.Fprintf(out, "not ok %d - gate\n", n+1)
			for _, reason := range v.Reasons {
				fmt.Fprintf(out, "# %s\n", line(reason, most))
			}
		}
		for _, warning := range v.Warnings {
			fmt.Fprintf(out, "# warning: %s\n", line(warning, most))
		}
	}
	return out.Flush()
}

// tap writes the finding as test n.
func (f Finding) tap(out io.Writer, n int) {
	result, directive := "ok", ""
	switch f.Result {
	case Fail, Error:
		result = "not ok"
	case Waived:
		result, directive = "not ok", " # TODO waived: "
	case NotApplicable, NotChecked:
		directive = " # SKIP " + tapText(line(string(f.Result), 100)) + ": "
	}
	if directive != "" {
		directive += tapText(f.why(500))
	}
	name := tapText(line(f.ID, most))
	if f.Title != "" && f.Title != f.ID {
		name += ": " + tapText(line(f.Title, most))
	}
	fmt.Fprintf(out, "%s %d - %s%s\n", result, n, name, directive)
	if f.Result != Fail && f.Result != Error {
		return
	}
	fmt.Fprintf(out, "  ---\n  message: %s\n  severity: %s\n  data:\n    result: %s\n", tapQuoted(f.why(most)), tapQuoted(line(string(f.Severity), 100)), f.Result)
	if f.Fix != "" {
		fmt.Fprintf(out, "    fix: %s\n", tapQuoted(line(f.Fix, most)))
	}
	io.WriteString(out, "  ...\n")
}

// tapText escapes a line for a description, in which a # would start a directive.
func tapText(s string) string { return strings.NewReplacer(`\`, `\\`, `#`, `\#`).Replace(s) }

// tapQuoted formats a line as a YAML string.
func tapQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
