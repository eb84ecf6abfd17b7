package findings

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"
)

// xccdfReader reads results of XCCDF 1.1 and 1.2: as a separate document, in a
// benchmark, or in a report of the Asset Reporting Format.
type xccdfReader struct {
	*xmlReader
	rules   map[string]Finding // the benchmark's descriptions of its rules
	results []Finding
	tests   int // number of complete test results
	b       *building
}

func (b *building) xccdf(src []byte) error {
	r := &xccdfReader{xmlReader: newXMLReader(src), rules: map[string]Finding{}, b: b}
	root, err := r.root()
	if err != nil {
		return err
	}
	if !isXCCDF(root) && root.Name.Local != "asset-report-collection" {
		return fmt.Errorf("its root element is <%s>", root.Name.Local)
	}
	if err := r.any(root); err != nil {
		return err
	}
	if err := r.end(); err != nil {
		return err
	}
	if r.tests == 0 {
		return errors.New("it has no TestResult")
	}
	for _, f := range r.results {
		if rule, ok := r.rules[f.ID]; ok {
			f.Title, f.Rationale, f.Fix, f.Refs = rule.Title, rule.Rationale, rule.Fix, rule.Refs
			if f.Severity == Unknown {
				f.Severity = rule.Severity
			}
		}
		if err := b.add(f); err != nil {
			return err
		}
	}
	return nil
}

func isXCCDF(e xml.StartElement) bool {
	return strings.HasPrefix(e.Name.Space, "http://checklists.nist.gov/xccdf/")
}

// any looks for rules and results at any level.
func (r *xccdfReader) any(e xml.StartElement) error {
	if isXCCDF(e) {
		switch e.Name.Local {
		case "Rule":
			return r.rule(e)
		case "TestResult":
			return r.test(e)
		}
	}
	return r.children(r.any)
}

func (r *xccdfReader) rule(e xml.StartElement) error {
	rule := Finding{ID: attribute(e, "id"), Severity: xccdfSeverity(attribute(e, "severity"))}
	err := r.children(func(e xml.StartElement) (err error) {
		switch e.Name.Local {
		case "title":
			rule.Title, err = r.text()
		case "rationale":
			rule.Rationale, err = r.text()
		case "fixtext":
			rule.Fix, err = r.text()
		case "ident":
			var ident string
			if ident, err = r.text(); ident != "" && len(rule.Refs) < 20 {
				rule.Refs = append(rule.Refs, line(ident, 200))
			}
		default:
			err = r.skip(e)
		}
		return err
	})
	if len(r.rules) < maxFindings {
		r.rules[rule.ID] = rule
	}
	return err
}

func (r *xccdfReader) test(e xml.StartElement) error {
	r.tests++
	if started, err := time.Parse(time.RFC3339, attribute(e, "start-time")); err == nil && r.b.report.Started.IsZero() {
		r.b.report.Started = started
	}
	if r.b.report.Tool == "" {
		r.b.report.Tool = tool(attribute(e, "test-system"))
	}
	return r.children(func(e xml.StartElement) error {
		if e.Name.Local != "rule-result" {
			return r.skip(e)
		}
		return r.result(e)
	})
}

// tool returns the name of the tool with the given CPE.
func tool(cpe string) string {
	parts := strings.Split(cpe, ":") // cpe:/a:redhat:openscap:1.3.7
	if len(parts) >= 4 && parts[0] == "cpe" && strings.HasPrefix(parts[1], "/") {
		return line(strings.Join(parts[3:], " "), 100)
	}
	return line(cpe, 100)
}

func (r *xccdfReader) result(e xml.StartElement) error {
	f := Finding{ID: attribute(e, "idref"), Severity: xccdfSeverity(attribute(e, "severity"))}
	result, evidence := "", []string{}
	err := r.children(func(e xml.StartElement) (err error) {
		switch e.Name.Local {
		case "result":
			result, err = r.text()
		case "message", "instance":
			var said string
			if said, err = r.text(); said != "" && len(evidence) < 20 {
				evidence = append(evidence, said)
			}
		default:
			err = r.skip(e)
		}
		return err
	})
	if err != nil || result == "notselected" {
		return err
	}
	if len(r.results) == maxFindings {
		return errTooMany
	}
	f.Evidence = strings.Join(evidence, "\n")
	var ok bool
	if f.Result, ok = xccdfResults()[result]; !ok {
		f.Result, f.Evidence = Error, strings.TrimSpace(fmt.Sprintf("The result is %q. %s", result, f.Evidence))
	} else if result == "unknown" || result == "informational" {
		f.Evidence = strings.TrimSpace(fmt.Sprintf("The result is %s. %s", result, f.Evidence))
	}
	r.results = append(r.results, f)
	return nil
}

// xccdfResults maps the results of selected rules. Informational results neither pass nor
// fail.
func xccdfResults() map[string]Result {
	return map[string]Result{
		"pass": Pass, "fail": Fail, "fixed": Fixed, "error": Error, "unknown": Error,
		"notapplicable": NotApplicable, "notchecked": NotChecked, "informational": NotChecked,
	}
}

func xccdfSeverity(name string) Severity {
	if name == "info" {
		return Low
	}
	return severity(name)
}
