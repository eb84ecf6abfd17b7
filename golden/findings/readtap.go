package findings

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"bake/internal/lazyregexp"
)

// tapReader reads the Test Anything Protocol, versions 12 to 14. It ignores unknown lines,
// as the protocol requires. Subtests are covered by the test that summarizes them.
type tapReader struct {
	b     *building
	plan  int // the number of planned tests; -1: not known yet
	skip  string
	seen  map[int]bool
	last  int
	now   *Finding // the last test, to which comments and diagnostics belong
	yaml  bool
	notes strings.Builder
}

var (
	tapPlan = lazyregexp.New(`^1\.\.(\d{1,9})\s*(?:#\s*(.*))?$`)
	tapTest = lazyregexp.New(`^(not )?ok\b(?:\s+(\d{1,9})\b)?\s*(?:-\s)?\s*(.*)$`)
	// A TODO excuses a failure, so it must be exactly as in the protocol, and not part of a
	// word such as https://host/#todo/list.
	tapDirective = lazyregexp.New(`(?i)^(.*?[^\\]|)(?:\s*#\s*(skip)\S*\s*|(?:^|\s+)#\s*(todo)(?:[\s:]+|$))(.*)$`)
)

func (b *building) tap(src []byte) error {
	r := &tapReader{b: b, plan: -1, seen: map[int]bool{}}
	for l := range bytes.Lines(src) {
		if err := r.line(strings.TrimRight(string(l[:min(len(l), 1<<16)]), "\r\n")); err != nil {
			return err
		}
	}
	if err := r.flush(); err != nil {
		return err
	}
	switch {
	case r.plan < 0 && len(r.seen) == 0:
		return fmt.Errorf("it has no test and no plan such as 1..12")
	case r.plan < 0:
		return b.wrong("plan", "There is no plan such as 1..%d: it may have ended early.", len(r.seen))
	case r.plan == 0 && len(r.seen) == 0:
		return b.add(Finding{ID: "plan", Severity: Unknown, Result: NotChecked, Evidence: cmp.Or(r.skip, "no test is planned")})
	case r.plan != len(r.seen):
		return b.wrong("plan", "There were %d tests, and %d were planned.", len(r.seen), r.plan)
	}
	return nil
}

func (r *tapReader) line(l string) error {
	trimmed := strings.TrimSpace(l)
	if reason, ok := strings.CutPrefix(trimmed, "Bail out!"); ok && !r.yaml {
		if err := r.flush(); err != nil {
			return err
		}
		return r.b.wrong("Bail out!", "The tests were given up. %s", reason)
	}
	switch {
	case r.yaml:
		if trimmed == "..." {
			r.yaml = false
		} else {
			r.note(trimmed)
		}
		return nil
	case r.now != nil && trimmed == "---" && l != trimmed:
		r.yaml = true
		return nil
	case strings.HasPrefix(l, "    "): // of a subtest
		return nil
	}
	if comment, ok := strings.CutPrefix(l, "#"); ok {
		r.note(strings.TrimSpace(comment))
		return nil
	}
	if m := tapPlan.Get().FindStringSubmatch(l); m != nil {
		if r.plan >= 0 {
			return fmt.Errorf("it has two plans")
		}
		r.plan, _ = strconv.Atoi(m[1])
		r.skip = m[2]
		if len(r.skip) > 4 && strings.EqualFold(r.skip[:4], "skip") {
			r.skip = strings.TrimSpace(r.skip[4:])
		}
		return nil
	}
	if m := tapTest.Get().FindStringSubmatch(l); m != nil {
		return r.test(m[1] == "", m[2], m[3])
	}
	return nil
}

func (r *tapReader) note(s string) {
	if r.now != nil && r.notes.Len() < maxText {
		r.notes.WriteString(s + "\n")
		if name, ok := strings.CutPrefix(s, "severity:"); ok && r.yaml && r.now.Severity == Unknown {
			r.now.Severity = severity(strings.Trim(strings.TrimSpace(name), `"'`))
		}
	}
}

func (r *tapReader) test(ok bool, number, said string) error {
	if err := r.flush(); err != nil {
		return err
	}
	n := r.last + 1
	if number != "" {
		n, _ = strconv.Atoi(number)
	}
	r.last = n
	switch {
	case r.seen[n]:
		return r.b.wrong("plan", "There are two tests with the number %d.", n)
	case len(r.seen) == maxFindings:
		return errTooMany
	}
	r.seen[n] = true
	f := &Finding{Severity: Unknown, Result: Pass}
	if !ok {
		f.Result = Fail
	}
	if m := tapDirective.Get().FindStringSubmatch(said); m != nil {
		said = m[1]
		switch todo := m[3] != ""; {
		case todo && !ok:
			f.Result, f.Evidence = NotChecked, strings.TrimSpace("To do: "+m[4])
		case !todo && ok:
			f.Result, f.Evidence = NotChecked, cmp.Or(m[4], "skipped")
		}
	}
	f.Title = strings.TrimSpace(strings.NewReplacer(`\\`, `\`, `\#`, `#`).Replace(said))
	f.ID = cmp.Or(f.Title, fmt.Sprintf("test %d", n))
	r.now = f
	return nil
}

// flush adds the last test.
func (r *tapReader) flush() error {
	f := r.now
	if f == nil {
		return nil
	}
	if f.Result == Fail {
		f.Evidence = strings.TrimSpace(r.notes.String())
	}
	r.now, r.yaml = nil, false
	r.notes.Reset()
	return r.b.add(*f)
}
