package findings

import (
	"encoding/json"
	"io"
	"time"
)

// jsonVersion changes with each incompatible change of the format.
const jsonVersion = 1

type jsonDocument struct {
	Version int          `json:"version"`
	Bake    string       `json:"bake,omitempty"`
	Machine string       `json:"machine,omitempty"`
	Gate    *jsonGate    `json:"gate,omitempty"`
	Reports []jsonReport `json:"reports"`
}

type jsonGate struct {
	Open     bool     `json:"open"`
	Reasons  []string `json:"reasons"`
	Warnings []string `json:"warnings"`
}

type jsonReport struct {
	Name     string         `json:"name"`
	Tool     string         `json:"tool"`
	Started  *time.Time     `json:"started,omitempty"`
	Score    *float64       `json:"score"` // null: no rule was judged
	Counts   map[Result]int `json:"counts"`
	Findings []jsonFinding  `json:"findings"`
}

type jsonFinding struct {
	ID         string     `json:"id"`
	Title      string     `json:"title,omitempty"`
	Severity   Severity   `json:"severity"`
	Result     Result     `json:"result"`
	Evidence   string     `json:"evidence,omitempty"`
	Rationale  string     `json:"rationale,omitempty"`
	Fix        string     `json:"fix,omitempty"`
	References []string   `json:"references,omitempty"`
	Waiver     string     `json:"waiver,omitempty"`
	Source     *jsonPlace `json:"source,omitempty"`
	Seconds    float64    `json:"seconds"`
}

type jsonPlace struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

func (d Document) json(w io.Writer) error {
	out := jsonDocument{Version: jsonVersion, Bake: d.Version, Machine: text(d.Machine, most), Reports: []jsonReport{}}
	if v := d.Verdict; v != nil {
		out.Gate = &jsonGate{Open: v.Open, Reasons: texts(v.Reasons), Warnings: texts(v.Warnings)}
	}
	for _, r := range d.reports() {
		one := jsonReport{Name: text(r.Name, most), Tool: text(r.Tool, most), Counts: map[Result]int{}, Findings: []jsonFinding{}}
		if !r.Started.IsZero() {
			started := r.Started.UTC()
			one.Started = &started
		}
		if r.Count(Pass, Fixed, Fail, Error) > 0 {
			score := r.score()
			one.Score = &score
		}
		for _, result := range results() {
			one.Counts[result] = r.Count(result)
		}
		for _, f := range r.Findings {
			j := jsonFinding{
				ID: text(f.ID, most), Title: text(f.Title, most), Severity: f.Severity, Result: f.Result,
				Evidence: text(f.Evidence, most), Rationale: text(f.Rationale, most), Fix: text(f.Fix, most),
				References: texts(f.Refs), Waiver: text(f.Waiver, most), Seconds: took(f.Took),
			}
			if f.Source != nil {
				j.Source = &jsonPlace{text(f.Source.Filename, most), f.Source.Start.Line, f.Source.Start.Column}
			}
			one.Findings = append(one.Findings, j)
		}
		out.Reports = append(out.Reports, one)
	}
	return writeJSON(w, out)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// texts applies text to each of the texts.
func texts(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = text(s, most)
	}
	return out
}
