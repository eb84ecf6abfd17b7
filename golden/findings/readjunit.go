package findings

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// junit reads JUnit's XML in any dialect: nested suites, or a single one.
func (b *building) junit(src []byte) error {
	r := &junitReader{newXMLReader(src), b}
	root, err := r.root()
	if err != nil {
		return err
	}
	switch root.Name.Local {
	case "testsuites", "testsuite":
	default:
		return fmt.Errorf("its root element is <%s>", root.Name.Local)
	}
	if _, err := r.suite(root); err != nil {
		return err
	}
	return r.end()
}

type junitReader struct {
	*xmlReader
	b *building
}

// suite reads a suite, and returns how many of its tests did not pass.
func (r *junitReader) suite(e xml.StartElement) (bad int, err error) {
	name := attribute(e, "name")
	if t, err := time.Parse(time.RFC3339, attribute(e, "timestamp")); err == nil && r.b.report.Started.IsZero() {
		r.b.report.Started = t
	}
	err = r.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "testsuite":
			n, err := r.suite(e)
			bad += n
			return err
		case "testcase":
			n, err := r.test(e, name)
			bad += n
			return err
		case "failure", "error": // of the whole suite
			bad++
			said, err := r.said(e)
			if err != nil {
				return err
			}
			return r.b.wrong(cmp.Or(name, "suite"), "%s", cmp.Or(said.Evidence, "The suite failed."))
		}
		return r.skip(e)
	})
	if err != nil {
		return bad, err
	}
	counted := number(attribute(e, "failures")) + number(attribute(e, "errors"))
	if counted > bad {
		return counted, r.b.wrong(cmp.Or(name, "suite"), "The suite says that %d of its tests did not pass, and holds %d such.", counted, bad)
	}
	return bad, nil
}

// number parses a number of tests; an invalid number is 0.
func number(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 0 || n > MaxRead {
		return 0
	}
	return n
}

func (r *junitReader) test(e xml.StartElement, suite string) (bad int, err error) {
	name, class := attribute(e, "name"), attribute(e, "classname")
	f := Finding{ID: name, Title: name, Severity: Unknown, Result: Pass}
	if class = cmp.Or(class, suite); class != "" && name != "" {
		f.ID = class + "." + name
	}
	if s, err := strconv.ParseFloat(attribute(e, "time"), 64); err == nil && s > 0 && s < 1e6 {
		f.Took = time.Duration(s * float64(time.Second))
	}
	err = r.children(func(e xml.StartElement) error {
		result, ok := map[string]Result{"failure": Fail, "error": Error, "skipped": NotChecked}[e.Name.Local]
		if !ok {
			return r.skip(e)
		}
		said, err := r.said(e)
		if Rank(Worst(), result) < Rank(Worst(), f.Result) || f.Result == Pass {
			f.Result, f.Evidence, f.Severity = result, said.Evidence, said.Severity
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"status", "result"} {
		said := attribute(e, name)
		if result := status(said); result != Pass && (f.Result == Pass || Rank(Worst(), result) < Rank(Worst(), f.Result)) {
			f.Result, f.Evidence = result, fmt.Sprintf("Its %s is %s.", name, line(said, 50))
		}
	}
	if f.Result == Fail || f.Result == Error {
		bad = 1
	}
	return bad, r.b.add(f)
}

// status interprets the attribute status or result of a test, for tools that use it
// instead of an element; any other value is Pass.
func status(said string) Result {
	switch strings.ToLower(strings.TrimSpace(said)) {
	case "notrun", "disabled", "suppressed", "skipped", "ignored", "pending":
		return NotChecked
	case "fail", "failed", "failure":
		return Fail
	case "error":
		return Error
	}
	return Pass
}

// said returns a test's message about its failure. Some tools use the type for the
// severity.
func (r *junitReader) said(e xml.StartElement) (Finding, error) {
	text, err := r.text()
	message := attribute(e, "message")
	if first, _, _ := strings.Cut(text, "\n"); first == message || strings.HasPrefix(text, message+"\n") {
		message = ""
	}
	return Finding{Evidence: strings.TrimSpace(message + "\n" + text), Severity: severity(attribute(e, "type"))}, err
}
