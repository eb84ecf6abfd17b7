package report

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"bake/golden/findings"
)

var (
	//go:embed page.css
	css string

	//go:embed page.js
	script string
)

// page writes HTML.
type page struct{ w *bufio.Writer }

// raw is HTML written by this package. Everything else is text.
type raw string

// put writes HTML in which each % is replaced by the next of the values, escaped as text.
func (p page) put(format string, values ...any) {
	for i, part := range strings.Split(format, "%") {
		if i > 0 {
			switch v := values[i-1].(type) {
			case raw:
				_, _ = p.w.WriteString(string(v)) // Flush returns the error
			case string:
				_, _ = p.w.WriteString(escape(v))
			default:
				_, _ = p.w.WriteString(escape(fmt.Sprint(v)))
			}
		}
		_, _ = p.w.WriteString(part)
	}
}

// escape makes a string from a machine, a template or a tag safe to show as plain text. The
// string may contain markup, control characters, or characters that reverse the direction
// of text.
func escape(s string) string { return html.EscapeString(findings.Text(s)) }

// HTML writes the report as a page that loads nothing and runs only its own script.
func (r *Report) HTML(w io.Writer) error {
	p := page{bufio.NewWriter(w)}
	sum := sha256.Sum256([]byte(script))
	p.put(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-%'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<title>bake: %, %</title>
<style>%</style></head><body><a class="skip" href="#main">Skip to the content</a>
<header><h1>Run <code>%</code></h1>
`, base64.StdEncoding.EncodeToString(sum[:]), first(r.names(), "run"), r.State, raw(css), r.Run)
	p.put(`<dl><dt>Result</dt><dd>%</dd><dt>Started</dt><dd><time datetime="%">%</time></dd><dt>Took</dt><dd>%</dd>`,
		state(r.State), r.Started.UTC().Format(time.RFC3339), r.Started.UTC().Format("2006-01-02 15:04:05 MST"), words(r.Seconds))
	if r.Command != "" {
		p.put(`<dt>Command</dt><dd><code>%</code></dd>`, r.Command)
	}
	p.put("</dl></header>\n")
	p.overview(r)
	p.put("<main id=\"main\" tabindex=\"-1\">\n")
	if len(r.Builds) == 0 {
		p.put("<p>The run had no builds.</p>\n")
	}
	for i, b := range r.Builds {
		p.build(r, b, i)
	}
	p.put("</main>\n<footer>Written by bake %. Times are in UTC.</footer>\n<script>%</script>\n</body></html>\n", r.Bake, raw(script))
	return p.w.Flush()
}

// overview links to the builds, if there are several.
func (p page) overview(r *Report) {
	if len(r.Builds) < 2 {
		return
	}
	p.put("<nav aria-label=\"Builds\"><ul>\n")
	for i, b := range r.Builds {
		p.put("<li><a href=\"#build-%\">%</a> %</li>\n", i, b.Name, state(b.outcome()))
	}
	p.put("</ul></nav>\n")
}

// outcome returns the state of a build for people.
func (b *Build) outcome() string {
	if b.Reused {
		return "reused"
	}
	return b.State
}

func (r *Report) names() (all []string) {
	for _, b := range r.Builds {
		all = append(all, b.Name)
	}
	return all
}

func first(names []string, other string) string {
	switch len(names) {
	case 0:
		return other
	case 1:
		return names[0]
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}

// state returns a state as a colored word.
func state(s string) raw {
	class := map[string]string{"succeeded": "good", "reused": "good", "failed": "bad"}[s]
	if class == "" {
		class = "warn"
	}
	return raw(`<span class="state ` + class + `">` + escape(s) + `</span>`)
}

// words formats a duration for people.
func words(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Second:
		return strconv.Itoa(int(d.Milliseconds())) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Round(time.Second).Seconds())) + " s"
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func (p page) build(r *Report, b *Build, n int) {
	p.put("<section aria-labelledby=\"build-%\"><h2 id=\"build-%\">%: %</h2>\n", n, n, b.Name, state(b.outcome()))
	if b.Reused {
		p.put("<p>Nothing had to be built. Checks, contents and changes are from when the image was made.</p>\n")
	}
	if b.Error != "" {
		p.put("<p>It failed after %", words(b.Seconds))
		if b.Place != "" {
			p.put(", at <code>%</code>", b.Place)
		}
		p.put(":</p>\n<pre>%</pre>\n", b.Error)
	}
	p.images(b)
	p.places(b, n)
	if len(b.Left) > 0 {
		p.put("<h3 class=\"bad\">Left behind</h3>\n")
		p.list(b.Left)
	}
	p.findings(b, n)
	p.changes(b.Changes, n)
	p.contents(b.Contents, n)
	if len(b.Warnings) > 0 {
		p.put("<h3>Warnings</h3>\n")
		p.list(b.Warnings)
	}
	p.timeline(r, b)
	p.documents(b)
	p.put("</section>\n")
}

// maxItems is the maximum number of texts in a list.
const maxItems = 500

func (p page) list(all []string) {
	p.put("<ul>\n")
	for i, s := range all {
		if i == maxItems {
			p.put("<li>and % more</li>\n", len(all)-i)
			break
		}
		p.put("<li>%</li>\n", s)
	}
	p.put("</ul>\n")
}

func (p page) images(b *Build) {
	if len(b.Images) > 0 {
		p.put("<h3>Images, and how to launch them</h3>\n<dl class=\"images\">\n")
		for _, i := range b.Images {
			p.put("<dt>%</dt><dd><code>%</code>", i.Region, i.ID)
			if i.Launch != "" {
				p.put("<pre>%</pre>", i.Launch)
			}
			p.put("</dd>\n")
		}
		p.put("</dl>\n")
	}
	if len(b.Files) > 0 {
		p.put("<h3>Files</h3>\n")
		p.list(b.Files)
	}
}

func (p page) timeline(r *Report, b *Build) {
	if len(b.Steps) == 0 {
		return
	}
	whole := max(r.Seconds, 0.001)
	for _, s := range b.Steps {
		whole = max(whole, s.End)
	}
	p.put("<h3>Timeline</h3>\n<ol class=\"timeline\" role=\"list\">\n")
	for _, s := range b.Steps {
		class, failed := "", raw("")
		if s.Failed {
			class, failed = "failed", ` <strong class="bad">failed</strong>`
		}
		name, depth := s.Name, strings.Count(s.Name, " > ")
		if i := strings.LastIndex(name, " > "); i >= 0 {
			name = name[i+3:]
		}
		left, width := 100*s.Begin/whole, 100*(s.End-s.Begin)/whole
		p.put("<li class=\"%\"><span style=\"padding-left:%rem\">%%</span><span class=\"track\" aria-hidden=\"true\"><i style=\"margin-left:%;width:%\"></i></span><span class=\"took\"><span class=\"unseen\">after %, for </span>%</span></li>\n",
			class, min(depth, 8), name, failed, percent(min(left, 99.7)), percent(width), words(s.Begin), words(s.End-s.Begin))
	}
	p.put("</ol>\n")
}

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" }

func (p page) documents(b *Build) {
	if len(b.Documents) == 0 {
		return
	}
	p.put("<details><summary>Documents of this build (%)</summary>\n<ul>\n", len(b.Documents))
	for _, d := range b.Documents {
		p.put("<li>%: <code>%</code><br><span class=\"soft\">SHA-256 <code>%</code></span></li>\n", d.Name, d.Path, d.SHA256)
	}
	p.put("</ul></details>\n")
}

// row is a finding with the report that contains it.
type row struct {
	Finding
	report string
}

func (p page) findings(b *Build, n int) {
	if len(b.Findings) == 0 {
		return
	}
	var rows []row
	p.put("<h3>Checks and scans</h3>\n<ul class=\"gates\">\n")
	for _, f := range b.Findings {
		p.gate(f)
		for _, report := range f.Reports {
			for _, one := range report.Findings {
				rows = append(rows, row{one, f.Name})
			}
		}
	}
	p.put("</ul>\n")
	if len(rows) == 0 {
		return
	}
	results, severities := findings.Worst(), findings.Severities()
	sort.SliceStable(rows, func(i, j int) bool {
		if a, b := findings.Rank(results, rows[i].Result), findings.Rank(results, rows[j].Result); a != b {
			return a < b
		}
		return findings.Rank(severities, rows[i].Severity) < findings.Rank(severities, rows[j].Severity)
	})
	p.table(table{
		id: "findings-" + strconv.Itoa(n), class: "findings", caption: "All findings, the worst first",
		columns: []string{"Result", "Severity", "Rule"}, choices: []choice{{"result", "Result", texts(results)}, {"severity", "Severity", texts(severities)}}, rows: len(rows),
	}, func(i int) { p.finding(rows[i]) })
}

func (p page) gate(f Findings) {
	p.put("<li><strong>%</strong>", f.Name)
	if f.Machine != "" {
		p.put(" <span class=\"soft\">on %</span>", f.Machine)
	}
	if f.Missing != "" {
		p.put(": <span class=\"warn\">the document cannot be shown: %</span></li>\n", f.Missing)
		return
	}
	if f.Gate != nil {
		word := raw(`<span class="state good">the gate is open</span>`)
		if !f.Gate.Open {
			word = `<span class="state bad">the gate is closed</span>`
		}
		p.put(": %", word)
	}
	for _, r := range f.Reports {
		var counts []string
		for _, result := range findings.Worst() {
			if r.Counts[result] > 0 {
				counts = append(counts, fmt.Sprintf("%d %s", r.Counts[result], result))
			}
		}
		p.put("<br>%: %", r.Tool, strings.Join(counts, ", "))
		if r.Score != nil {
			p.put(", score %", strconv.FormatFloat(*r.Score, 'f', 1, 64))
		}
	}
	if f.Gate != nil {
		if len(f.Gate.Reasons) > 0 {
			p.list(f.Gate.Reasons)
		}
		if len(f.Gate.Warnings) > 0 {
			p.put("<p class=\"warn\">Warnings:</p>")
			p.list(f.Gate.Warnings)
		}
	}
	p.put("</li>\n")
}

func (p page) finding(f row) {
	class := map[findings.Result]string{findings.Error: "bad", findings.Fail: "bad", findings.Waived: "warn", findings.Fixed: "good", findings.Pass: "good"}[f.Result]
	p.put("<tr role=\"row\" data-result=\"%\" data-severity=\"%\"><td role=\"cell\"><span class=\"state %\">%</span></td><td role=\"cell\">%</td><td role=\"cell\"><strong>%</strong>", f.Result, f.Severity, class, f.Result, f.Severity, f.ID)
	if f.Title != "" && f.Title != f.ID {
		p.put(" %", f.Title)
	}
	p.put(" <span class=\"soft\">%</span>", f.report)
	if bad := f.Result == findings.Fail || f.Result == findings.Error; bad && f.Evidence != "" {
		p.put("<pre>%</pre>", f.Evidence)
		f.Evidence = ""
	}
	if f.Waiver != "" {
		p.put("<br>Waived: %", f.Waiver)
	}
	if f.Evidence+f.Rationale+f.Fix == "" && len(f.Refs) == 0 {
		p.put("</td></tr>\n")
		return
	}
	p.put("<details><summary>More</summary><dl>")
	for _, more := range [][2]string{{"Found", f.Evidence}, {"Why", f.Rationale}, {"What to do", f.Fix}, {"See", strings.Join(f.Refs, ", ")}} {
		if more[1] != "" {
			p.put("<dt>%</dt><dd><pre>%</pre></dd>", more[0], more[1])
		}
	}
	p.put("</dl></details></td></tr>\n")
}
