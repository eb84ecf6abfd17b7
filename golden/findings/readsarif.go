package findings

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// many is a JSON array with a limited number of elements; few keeps only the first
// elements. Both are nil if the array is absent or null.
type (
	many[T any] []T
	few[T any]  []T
)

const (
	fewest     = 20
	maxObjects = 500_000 // in a document
)

// UnmarshalJSON implements [json.Unmarshaler].
func (m *many[T]) UnmarshalJSON(src []byte) error {
	return each(src, func(d *json.Decoder) error {
		if *m == nil {
			*m = many[T]{}
		}
		if d == nil {
			return nil
		}
		if len(*m) == maxFindings {
			return errTooMany
		}
		var v T
		err := d.Decode(&v)
		*m = append(*m, v)
		return err
	})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *few[T]) UnmarshalJSON(src []byte) error {
	return each(src, func(d *json.Decoder) error {
		if d == nil {
			return nil
		}
		var v T
		err := d.Decode(&v)
		if len(*f) < fewest {
			*f = append(*f, v)
		}
		return err
	})
}

// each calls read for each element of an array, and once with nil before the first.
func each(src []byte, read func(*json.Decoder) error) error {
	d := json.NewDecoder(bytes.NewReader(src))
	switch t, err := d.Token(); {
	case err != nil:
		return err
	case t == nil:
		return nil
	case t != json.Delim('['):
		return errors.New("there is something else where an array has to be")
	}
	err := read(nil)
	for err == nil && d.More() {
		err = read(d)
	}
	return err
}

// The parts of SARIF that are read. They differ from what is written, since tools differ
// in how they use SARIF.
type (
	sarifIn struct {
		Version string `json:"version"`
		Runs    few[struct {
			Tool struct {
				Driver     sarifComponent       `json:"driver"`
				Extensions many[sarifComponent] `json:"extensions"`
			} `json:"tool"`
			Invocations many[sarifCall]    `json:"invocations"`
			Results     many[sarifFinding] `json:"results"`
		}] `json:"runs"`
	}
	sarifComponent struct {
		Name    string              `json:"name"`
		Version string              `json:"version"`
		Rules   many[sarifMetadata] `json:"rules"`
	}
	sarifMetadata struct {
		ID      string          `json:"id"`
		Name    string          `json:"name"`
		Short   sarifMessage    `json:"shortDescription"`
		Full    sarifMessage    `json:"fullDescription"`
		Help    sarifMessage    `json:"help"`
		HelpURI string          `json:"helpUri"`
		Default sarifConfig     `json:"defaultConfiguration"`
		Props   sarifProperties `json:"properties"`
	}
	sarifProperties struct {
		Severity json.RawMessage `json:"security-severity"` // a text, by the rules of code scanning; some write a number
	}
	sarifCall struct {
		Successful    *bool                   `json:"executionSuccessful"`
		Start         string                  `json:"startTimeUtc"`
		ExitCode      int                     `json:"exitCode"`
		Exit          string                  `json:"exitCodeDescription"`
		Signal        int                     `json:"exitSignalNumber"`
		SignalName    string                  `json:"exitSignalName"`
		StartFailure  string                  `json:"processStartFailureMessage"`
		Notifications many[sarifNotification] `json:"toolExecutionNotifications"`
		Configuration many[sarifNotification] `json:"toolConfigurationNotifications"` // such as a rule that could not be loaded
	}
	sarifFinding struct {
		RuleID string `json:"ruleId"`
		Index  *int   `json:"ruleIndex"`
		Rule   struct {
			ID        string `json:"id"`
			Index     *int   `json:"index"`
			Component struct {
				Index *int `json:"index"` // of an extension
			} `json:"toolComponent"`
		} `json:"rule"`
		Kind      string `json:"kind"`
		Level     string `json:"level"`
		Message   sarifMessage
		Baseline  string `json:"baselineState"`
		Locations few[struct {
			Physical sarifPhysical     `json:"physicalLocation"`
			Logical  few[sarifLogical] `json:"logicalLocations"`
		}] `json:"locations"`
		Suppressions few[sarifSuppression] `json:"suppressions"`
		Props        sarifProperties       `json:"properties"`
	}
)

// sarif reads SARIF 2.1.0.
func (b *building) sarif(src []byte) error {
	var in sarifIn
	if len(bytes.TrimSpace(src)) == 0 {
		return errEmpty
	}
	if bytes.Count(src, []byte("{")) > maxObjects {
		return fmt.Errorf("it has more than %d objects", maxObjects)
	}
	if err := json.Unmarshal(src, &in); err != nil {
		return err
	}
	if !strings.HasPrefix(in.Version, "2.1.") {
		return fmt.Errorf("its version is %q, and must be 2.1.0", line(in.Version, 50))
	}
	if len(in.Runs) == 0 {
		return errors.New("it has no run")
	}
	if len(in.Runs) == fewest {
		return fmt.Errorf("it has %d runs or more", fewest)
	}
	for _, run := range in.Runs {
		name := cmp.Or(line(run.Tool.Driver.Name, 100), "scanner")
		if b.report.Tool == "" {
			b.report.Tool = strings.TrimSpace(name + " " + line(run.Tool.Driver.Version, 50))
		}
		known := knownRules{components: append(many[sarifComponent]{run.Tool.Driver}, run.Tool.Extensions...), byID: map[string]*sarifMetadata{}}
		for _, c := range known.components {
			for i := range c.Rules {
				if r := &c.Rules[i]; known.byID[r.ID] == nil {
					known.byID[r.ID] = r
				}
			}
		}
		seen := 0 // results of this run: those of one rule become one finding, possibly together with those of an earlier run
		for _, r := range run.Results {
			if r.Baseline == "absent" { // only an earlier run had it
				continue
			}
			seen++
			if err := b.add(r.finding(known)); err != nil {
				return err
			}
		}
		if err := b.calls(name, run.Invocations); err != nil {
			return err
		}
		switch { // by the standard, a missing array means that nothing was scanned, and an empty one that nothing was found
		case run.Results == nil:
			if err := b.wrong(name, "The run has no array of results: nothing was scanned."); err != nil {
				return err
			}
		case seen == 0: // the worst of this and the results added with this ID counts
			if err := b.add(Finding{ID: name, Title: "Nothing was found", Severity: Unknown, Result: Pass}); err != nil {
				return err
			}
		}
	}
	return nil
}

// calls determines whether the tool has run to completion.
func (b *building) calls(name string, calls many[sarifCall]) error {
	for _, c := range calls {
		if t, err := time.Parse(time.RFC3339, c.Start); err == nil && b.report.Started.IsZero() {
			b.report.Started = t
		}
		said := c.failures()
		switch { // a run that does not report success and contains a failure was not successful
		case c.Successful != nil && !*c.Successful, c.Successful == nil && len(said) > 0:
			if err := b.wrong(name, "The run was not successful. %s", strings.Join(said, "\n")); err != nil {
				return err
			}
		default:
			for _, s := range said {
				b.report.Warnings = append(b.report.Warnings, name+": "+s)
			}
		}
	}
	return nil
}

// failures returns the indications that a call failed, at most fewest.
func (c sarifCall) failures() (said []string) {
	if c.StartFailure != "" {
		said = append(said, line(c.StartFailure, 500))
	}
	if c.Signal != 0 || c.SignalName != "" {
		said = append(said, "It was ended by the signal "+cmp.Or(line(c.SignalName, 50), strconv.Itoa(c.Signal))+".")
	}
	if c.ExitCode != 0 {
		said = append(said, strings.TrimSpace(fmt.Sprintf("Its exit code is %d. %s", c.ExitCode, line(c.Exit, 500))))
	}
	for _, all := range []many[sarifNotification]{c.Notifications, c.Configuration} {
		for _, n := range all {
			if n.Level == "error" && len(said) < fewest {
				said = append(said, line(n.Message.Text, 500))
			}
		}
	}
	return said
}

func (r sarifFinding) finding(known knownRules) Finding {
	id := cmp.Or(r.RuleID, r.Rule.ID)
	rule := r.metadata(id, known)
	id = cmp.Or(id, rule.ID)
	f := Finding{
		ID: cmp.Or(id, r.Message.Text), Title: cmp.Or(rule.Short.Text, rule.Name, rule.Full.Text), Rationale: rule.Full.Text, Fix: cmp.Or(rule.Help.Text, rule.HelpURI),
		Severity: r.severity(rule), Result: r.result(),
	}
	places := []string{r.Message.Text}
	for _, l := range r.Locations {
		place := l.Physical.Artifact.URI
		if place != "" && l.Physical.Region.StartLine > 0 {
			place += ":" + strconv.Itoa(l.Physical.Region.StartLine)
		}
		for _, logical := range l.Logical {
			place = cmp.Or(place, logical.Name)
		}
		if place != "" {
			places = append(places, line(place, 500))
		}
	}
	f.Evidence = strings.TrimSpace(strings.Join(places, "\n"))
	if f.Result == Waived {
		f.Waiver = "suppressed by the scanner"
		for _, s := range r.Suppressions {
			if s.Justification != "" {
				f.Waiver += ": " + line(s.Justification, 500)
			}
		}
	}
	return f
}

// knownRules holds a tool's descriptions of its rules.
type knownRules struct {
	components many[sarifComponent]
	byID       map[string]*sarifMetadata
}

// metadata returns the tool's description of the rule of a result: by its index, or by its
// ID, of which only the part before a slash may identify the rule.
func (r sarifFinding) metadata(id string, known knownRules) sarifMetadata {
	at := 0
	if i := r.Rule.Component.Index; i != nil && *i >= 0 && *i < len(known.components) {
		at = *i + 1
	}
	for _, i := range []*int{r.Rule.Index, r.Index} {
		if i != nil && at < len(known.components) && *i >= 0 && *i < len(known.components[at].Rules) {
			if rule := known.components[at].Rules[*i]; id == "" || id == rule.ID || strings.HasPrefix(id, rule.ID+"/") {
				return rule
			}
		}
	}
	for _, name := range []string{id, id[:max(0, strings.LastIndex(id, "/"))]} {
		if rule := known.byID[name]; rule != nil && name != "" {
			return *rule
		}
	}
	return sarifMetadata{}
}

// result converts a kind. Results that are open or need review were not judged.
func (r sarifFinding) result() Result {
	switch cmp.Or(r.Kind, "fail") {
	case "pass":
		return Pass
	case "notApplicable":
		return NotApplicable
	case "informational":
		return NotChecked
	case "fail":
		if r.suppressed() {
			return Waived
		}
		return Fail
	}
	return Error
}

// suppressed reports whether the result is suppressed. A suppression that is under review
// or rejected invalidates all others.
func (r sarifFinding) suppressed() bool {
	if len(r.Suppressions) == fewest { // and more, which were not read
		return false
	}
	for _, s := range r.Suppressions {
		if s.Status != "" && s.Status != "accepted" {
			return false
		}
	}
	return len(r.Suppressions) > 0
}

// severity returns the severity of the number by which code scanning sorts, or else of the
// level.
func (r sarifFinding) severity(rule sarifMetadata) Severity {
	for _, p := range []sarifProperties{r.Props, rule.Props} {
		switch n, _ := strconv.ParseFloat(strings.Trim(string(p.Severity), "\" "), 64); {
		case !(n > 0 && n <= 10):
		case n >= 9:
			return Critical
		case n >= 7:
			return High
		case n >= 4:
			return Medium
		default:
			return Low
		}
	}
	switch cmp.Or(r.Level, rule.Default.Level, "warning") {
	case "error":
		return High
	case "warning":
		return Medium
	case "note":
		return Low
	}
	return Unknown
}
