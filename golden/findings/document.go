package findings

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/internal/prose"
)

// Format is a format of documents with findings.
type Format string

// The formats.
const (
	Plain Format = "plain" // for people: what failed, counts and scores
	JSON  Format = "json"  // everything; the schema is docs/findings.schema.json
	JUnit Format = "junit" // a test case for each rule, as CI servers show them
	SARIF Format = "sarif" // 2.1.0, only failures: code scanning treats every result as a problem
	TAP   Format = "tap"   // the Test Anything Protocol: version 13 is written, 12 to 14 are read
	XCCDF Format = "xccdf" // results of OpenSCAP and its like: read only
)

// Formats returns the formats that findings are written in.
func Formats() []Format { return []Format{Plain, JSON, JUnit, SARIF, TAP} }

// Extension returns the file name extension of the format.
func (f Format) Extension() string {
	switch f {
	case JSON:
		return ".json"
	case JUnit:
		return ".xml"
	case SARIF:
		return ".sarif"
	case TAP:
		return ".tap"
	}
	return ".txt"
}

// Document is a document to write.
type Document struct {
	Reports []Report
	Verdict *Verdict // of a gate; its reports are written instead of Reports
	Machine string   // that the reports are about, such as its address or the ID of an image
	Version string   // of bake
	File    string   // the file that requested the checks: the location of rules that are not in a user's file
}

// Write writes the document. The same d makes the same bytes, with control characters
// escaped, and with long texts cut.
func (d Document) Write(w io.Writer, format Format) error {
	switch format {
	case Plain:
		return d.plain(w)
	case JSON:
		return d.json(w)
	case JUnit:
		return d.junit(w)
	case SARIF:
		return d.sarif(w)
	case TAP:
		return d.tap(w)
	}
	return fmt.Errorf("%q is not a format of findings; use one of %q", format, Formats())
}

// reports returns the reports to write.
func (d Document) reports() []Report {
	in := d.Reports
	if d.Verdict != nil {
		in = d.Verdict.Reports
	}
	out := slices.Clone(in)
	for i := range out {
		out[i].Findings = slices.Clone(out[i].Findings)
		for j, f := range out[i].Findings {
			out[i].Findings[j] = f.sound()
		}
	}
	return out
}

// why describes the result of a finding on one line, without the title.
func (f Finding) why(limit int) string {
	said := f.Evidence
	if f.Result == Waived {
		said = f.Waiver
	}
	return line(cmp.Or(strings.TrimSpace(said), string(f.Result)), limit)
}

// about returns everything known about a finding, in lines.
func (f Finding) about() string {
	var b strings.Builder
	add := func(name, value string) {
		if value = strings.TrimSpace(text(value, most)); value != "" {
			fmt.Fprintf(&b, "%s%s\n", name, value)
		}
	}
	add("", f.Title)
	add("", f.Evidence)
	add("Waived: ", f.Waiver)
	add("Rationale: ", f.Rationale)
	add("Fix: ", f.Fix)
	add("References: ", strings.Join(f.Refs, ", "))
	add("Severity: ", string(f.Severity))
	if f.Source != nil {
		add("Rule: ", place(f.Source))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// place returns the line of a file.
func place(r *hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }

// plain writes the failed findings as a table, followed by counts and scores.
func (d Document) plain(w io.Writer) error {
	reports := d.reports()
	table, rows := prose.NewTable("RESULT", "SEVERITY", "RULE", "FOUND"), 0
	for _, result := range []Result{Error, Fail, Waived, Fixed} {
		for _, severity := range Severities() {
			for _, r := range reports {
				for _, f := range r.Findings {
					if f.Result == result && f.Severity == severity {
						table.Row(f.Result, f.Severity, line(f.ID, 80), f.why(200))
						rows++
					}
				}
			}
		}
	}
	var b strings.Builder
	if rows > 0 {
		fmt.Fprintf(&b, "%s\n\n", table)
	}
	for _, r := range reports {
		fmt.Fprintf(&b, "%s: %s\n", line(cmp.Or(r.Name, r.Tool), 80), r.summary())
	}
	if v := d.Verdict; v != nil {
		for _, s := range v.Warnings {
			fmt.Fprintf(&b, "warning: %s\n", line(s, most))
		}
		if v.Open {
			fmt.Fprintln(&b, "The gate is open.")
		} else {
			fmt.Fprintln(&b, "The gate is closed:")
		}
		for _, s := range v.Reasons {
			fmt.Fprintf(&b, "  - %s\n", line(s, most))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// results are all results, in the order in which summaries list them.
func results() []Result {
	return []Result{Pass, Fixed, Fail, Error, Waived, NotApplicable, NotChecked}
}

// summary counts the results of a report.
func (r Report) summary() string {
	if len(r.Findings) == 0 {
		return "nothing was checked"
	}
	names := map[Result]string{Pass: "passed", Fixed: "fixed", Fail: "failed", Error: "could not be judged", Waived: "waived", NotApplicable: "not applicable", NotChecked: "not checked"}
	var parts []string
	for _, result := range results() {
		if n := r.Count(result); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, names[result]))
		}
	}
	if r.Count(Pass, Fixed, Fail, Error) > 0 {
		parts = append(parts, "score "+decimals(r.score()))
	}
	return strings.Join(parts, ", ")
}

// took formats a duration in seconds.
func took(d time.Duration) float64 { return max(0, d.Round(time.Millisecond).Seconds()) }
