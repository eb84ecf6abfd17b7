package findings

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

type sarifLog struct {
	Schema     string         `json:"$schema"`
	Version    string         `json:"version"`
	Runs       []sarifRun     `json:"runs"`
	Properties map[string]any `json:"properties,omitempty"`
}

type sarifRun struct {
	Tool              sarifTool         `json:"tool"`
	AutomationDetails sarifAutomation   `json:"automationDetails"`
	Invocations       []sarifInvocation `json:"invocations"`
	Results           []sarifResult     `json:"results"`
	Properties        map[string]any    `json:"properties,omitempty"`
}

type sarifAutomation struct {
	ID string `json:"id"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID                   string         `json:"id"`
	ShortDescription     sarifMessage   `json:"shortDescription"`
	FullDescription      sarifMessage   `json:"fullDescription"`
	Help                 sarifMessage   `json:"help"`
	DefaultConfiguration sarifConfig    `json:"defaultConfiguration"`
	Properties           map[string]any `json:"properties"`
}

type sarifConfig struct {
	Level string `json:"level"`
}

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifInvocation struct {
	ExecutionSuccessful bool                `json:"executionSuccessful"`
	StartTimeUTC        string              `json:"startTimeUtc,omitempty"`
	Notifications       []sarifNotification `json:"toolExecutionNotifications,omitempty"`
}

type sarifNotification struct {
	Level   string       `json:"level"`
	Message sarifMessage `json:"message"`
	Rule    sarifRuleRef `json:"associatedRule"`
}

type sarifRuleRef struct {
	ID    string `json:"id"`
	Index int    `json:"index"`
}

type sarifResult struct {
	RuleID       string             `json:"ruleId"`
	RuleIndex    int                `json:"ruleIndex"`
	Kind         string             `json:"kind"`
	Level        string             `json:"level"`
	Message      sarifMessage       `json:"message"`
	Locations    []sarifLocation    `json:"locations"`
	Fingerprints map[string]string  `json:"partialFingerprints"`
	Suppressions []sarifSuppression `json:"suppressions"`
	Properties   map[string]any     `json:"properties"`
}

type sarifLocation struct {
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   sarifRegion   `json:"region"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

type sarifLogical struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

type sarifSuppression struct {
	Kind          string `json:"kind"`
	Status        string `json:"status"`
	Justification string `json:"justification"`
}

// sarif writes SARIF 2.1.0 with all rules, but only the results of rules that failed, could
// not be judged or are waived: code scanning treats every result as a problem, whatever its
// kind.
func (d Document) sarif(w io.Writer) error {
	out := sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{}}
	for _, r := range d.reports() {
		out.Runs = append(out.Runs, r.sarif(d))
	}
	if v := d.Verdict; v != nil {
		out.Properties = map[string]any{"gate": jsonGate{v.Open, texts(v.Reasons), texts(v.Warnings)}}
	}
	return writeJSON(w, out)
}

func (r Report) sarif(d Document) sarifRun {
	tool, name := line(cmp.Or(r.Tool, "bake"), most), line(cmp.Or(r.Name, r.Tool, "checks"), most)
	run := sarifRun{
		Tool:              sarifTool{sarifDriver{Name: tool, Rules: []sarifRule{}}},
		AutomationDetails: sarifAutomation{name + "/"},
		Results:           []sarifResult{},
		Properties:        map[string]any{"counts": map[string]int{}},
	}
	if strings.HasPrefix(tool, "bake") {
		run.Tool.Driver.Version = d.Version
	}
	counts := map[string]int{}
	for _, result := range results() {
		counts[string(result)] = r.Count(result)
	}
	run.Properties["counts"] = counts
	invocation := sarifInvocation{ExecutionSuccessful: r.Count(Error) == 0 && r.applicable() > 0}
	if !r.Started.IsZero() {
		invocation.StartTimeUTC = r.Started.UTC().Format(time.RFC3339)
	}
	index := map[string]int{}
	for _, f := range r.Findings {
		id := text(f.ID, most)
		if _, ok := index[id]; !ok {
			index[id] = len(index)
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, f.sarifRule(id))
		}
		switch f.Result {
		case Error:
			invocation.Notifications = append(invocation.Notifications, sarifNotification{
				Level: "error", Message: sarifMessage{"Could not be judged: " + f.why(500)}, Rule: sarifRuleRef{id, index[id]},
			})
		case Fail, Waived:
		default:
			continue
		}
		run.Results = append(run.Results, f.sarif(d, r, id, index[id]))
	}
	run.Invocations = []sarifInvocation{invocation}
	return run
}

// levels are SARIF's names of severities, and their scores on the CVSS scale, by which
// code scanning sorts.
func (s Severity) levels() (level, number string) {
	switch s {
	case Critical:
		return "error", "9.5"
	case High:
		return "error", "8.0"
	case Medium:
		return "warning", "5.5"
	case Low:
		return "note", "2.0"
	}
	return "warning", ""
}

func (f Finding) sarifRule(id string) sarifRule {
	level, number := f.Severity.levels()
	title := line(cmp.Or(f.Title, f.ID, "rule"), 1000)
	rule := sarifRule{
		ID: id, ShortDescription: sarifMessage{title},
		FullDescription:      sarifMessage{cmp.Or(text(f.Rationale, most), title)},
		Help:                 sarifMessage{cmp.Or(text(f.Fix, most), text(f.Rationale, most), title)},
		DefaultConfiguration: sarifConfig{level},
		Properties:           map[string]any{"tags": []string{"security"}},
	}
	if number != "" {
		rule.Properties["security-severity"] = number
	}
	if len(f.Refs) > 0 {
		rule.Properties["references"] = texts(f.Refs)
	}
	return rule
}

func (f Finding) sarif(d Document, r Report, id string, index int) sarifResult {
	level, _ := f.Severity.levels()
	said := cmp.Or(line(f.Title, 1000), id)
	evidence := strings.TrimSpace(text(f.Evidence, most))
	switch {
	case f.Result == Error:
		level = "error"
		said = fmt.Sprintf("%s: could not be judged\n%s", said, evidence)
	case evidence != "":
		said += "\n" + evidence
	}
	said = strings.ReplaceAll(strings.TrimSpace(said), "](", "] (") // otherwise it would become a link
	sum := sha256.Sum256([]byte(r.Tool + "\x00" + r.Name + "\x00" + f.ID))
	out := sarifResult{
		RuleID: id, RuleIndex: index, Kind: "fail", Level: level, Message: sarifMessage{cmp.Or(said, "failed")},
		Locations:    []sarifLocation{{Physical: f.sarifPlace(d, r)}},
		Fingerprints: map[string]string{"primaryLocationLineHash": fmt.Sprintf("%x:1", sum[:8])},
		Suppressions: []sarifSuppression{}, // explicitly empty
		Properties:   map[string]any{"result": string(f.Result), "severity": string(f.Severity)},
	}
	if d.Machine != "" {
		out.Locations[0].Logical = []sarifLogical{{Name: line(d.Machine, most), Kind: "resource"}}
	}
	if f.Result == Waived {
		out.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: text(f.Waiver, most)}}
	}
	return out
}

// sarifPlace returns the location of the rule or, since code scanning requires a file,
// of the checks.
func (f Finding) sarifPlace(d Document, r Report) sarifPhysical {
	file, at := cmp.Or(d.File, r.Name, r.Tool, "checks"), 1
	if f.Source != nil && f.Source.Filename != "" {
		file, at = f.Source.Filename, max(1, f.Source.Start.Line)
	}
	u := url.URL{Path: filepath.ToSlash(file[:min(len(file), 4096)])} // the longest ones
	if filepath.IsAbs(file) {
		u.Scheme = "file"
		u.Path = "/" + strings.TrimPrefix(u.Path, "/")
	}
	return sarifPhysical{Artifact: sarifArtifact{u.String()}, Region: sarifRegion{at}}
}
