package findings

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Readable returns the formats of other tools from which findings can be read.
func Readable() []Format { return []Format{SARIF, JUnit, TAP, XCCDF} }

// Limits of a document, which another tool wrote, possibly on a machine.
const (
	// MaxRead is the maximum size of a document, in bytes.
	MaxRead = 64 << 20

	maxFindings = 50_000
	maxText     = 4 << 10 // of each text that is kept
	maxDepth    = 200     // of elements
)

// Read reads the findings of another tool as a report called name. Results of one rule
// become one finding, the worst of them. If a document is incomplete or does not say what
// was checked, the result is an error or a finding that could not be judged, never a
// success.
func Read(r io.Reader, format Format, name string) (Report, error) {
	b := &building{report: Report{Name: name}, index: map[string]int{}}
	src, err := io.ReadAll(io.LimitReader(r, MaxRead+1))
	switch {
	case err != nil:
		return b.report, err
	case len(src) > MaxRead:
		return b.report, fmt.Errorf("there is more than %d MB of %s", MaxRead>>20, format)
	}
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	switch format {
	case SARIF:
		err = b.sarif(src)
	case JUnit:
		err = b.junit(src)
	case TAP:
		err = b.tap(src)
	case XCCDF:
		err = b.xccdf(src)
	default:
		return b.report, fmt.Errorf("%q is not a format that findings are read from; use one of %q", format, Readable())
	}
	if err != nil {
		return b.report, fmt.Errorf("this is not %s as a tool writes it: %w", title(format), err)
	}
	b.report.Tool = cmp.Or(b.report.Tool, string(format))
	return b.report, nil
}

// building is a report that is being read.
type building struct {
	report Report
	index  map[string]int // of findings, by ID
}

var errTooMany = fmt.Errorf("it has more than %d results", maxFindings)

// add adds a result. The worst result of a rule is that of the rule, with the evidence for
// it; the severity is the worst of any.
func (b *building) add(f Finding) error {
	f.ID = cmp.Or(line(f.ID, 500), "(without an ID)")
	for _, s := range []*string{&f.Title, &f.Evidence, &f.Rationale, &f.Fix, &f.Waiver} {
		*s = clip(strings.TrimSpace(*s))
	}
	i, ok := b.index[f.ID]
	if !ok {
		if len(b.report.Findings) == maxFindings {
			return errTooMany
		}
		b.index[f.ID] = len(b.report.Findings)
		b.report.Findings = append(b.report.Findings, f)
		return nil
	}
	old := &b.report.Findings[i]
	if Rank(Severities(), f.Severity) < Rank(Severities(), old.Severity) {
		old.Severity = f.Severity
	}
	old.Took += f.Took
	switch now, was := Rank(Worst(), f.Result), Rank(Worst(), old.Result); {
	case now < was:
		old.Result, old.Evidence, old.Waiver = f.Result, f.Evidence, f.Waiver
	case now == was && f.Evidence != "" && len(old.Evidence) < maxText && !strings.Contains(old.Evidence, f.Evidence):
		old.Evidence = clip(strings.TrimSpace(old.Evidence + "\n" + f.Evidence))
	}
	return nil
}

// wrong records that something could not be judged.
func (b *building) wrong(id, format string, args ...any) error {
	return b.add(Finding{ID: id, Severity: Unknown, Result: Error, Evidence: fmt.Sprintf(format, args...)})
}

// Worst lists all results, worst first.
func Worst() []Result {
	return []Result{Error, Fail, Waived, Fixed, Pass, NotApplicable, NotChecked}
}

// Rank returns the index of a value in an order. Unknown values come last.
func Rank[T comparable](order []T, v T) int {
	for i, o := range order {
		if o == v {
			return i
		}
	}
	return len(order)
}

// clip cuts a text that is too long.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	s = s[:maxText]
	for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s[:max(0, len(s)-1)] + " […]"
}

// severity returns the severity of that name, ignoring case; Unknown if there is none.
func severity(name string) Severity {
	for _, s := range Severities() {
		if strings.EqualFold(strings.TrimSpace(name), string(s)) {
			return s
		}
	}
	return Unknown
}

var errEmpty = errors.New("it is empty")

// title returns the name of a format, as people write it.
func title(f Format) string {
	switch f {
	case JUnit:
		return "JUnit's XML"
	case XCCDF:
		return "a result of XCCDF"
	}
	return strings.ToUpper(string(f))
}
