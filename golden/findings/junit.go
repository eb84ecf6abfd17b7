package findings

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

type junitDocument struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Time     seconds      `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string      `xml:"name,attr"`
	Tests      int         `xml:"tests,attr"`
	Failures   int         `xml:"failures,attr"`
	Errors     int         `xml:"errors,attr"`
	Skipped    int         `xml:"skipped,attr"`
	Time       seconds     `xml:"time,attr"`
	Timestamp  string      `xml:"timestamp,attr,omitempty"`
	Hostname   string      `xml:"hostname,attr,omitempty"`
	Properties *junitProps `xml:"properties"`
	Cases      []junitCase `xml:"testcase"`
}

type junitProps struct {
	Property []junitProperty `xml:"property"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Name      string     `xml:"name,attr"`
	Classname string     `xml:"classname,attr"`
	Time      seconds    `xml:"time,attr"`
	Failure   *junitText `xml:"failure"`
	Error     *junitText `xml:"error"`
	Skipped   *junitText `xml:"skipped"`
	SystemOut string     `xml:"system-out,omitempty"`
}

type junitText struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// seconds formats a duration as test runners do.
type seconds float64

func (s seconds) MarshalXMLAttr(name xml.Name) (xml.Attr, error) {
	return xml.Attr{Name: name, Value: fmt.Sprintf("%.3f", float64(s))}, nil
}

// junit writes JUnit's XML in the dialect of Jenkins' xUnit plugin, the strictest of those
// that CI servers read. The result of a gate is a separate test case, since CI servers do
// not report missing tests.
func (d Document) junit(w io.Writer) error {
	out := junitDocument{Name: line(cmp.Or(d.Machine, "checks"), most)}
	for _, r := range d.reports() {
		out.add(r.junit(d))
	}
	if v := d.Verdict; v != nil {
		out.add(v.junit())
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (d *junitDocument) add(s junitSuite) {
	d.Tests += s.Tests
	d.Failures += s.Failures
	d.Errors += s.Errors
	d.Time += s.Time
	d.Suites = append(d.Suites, s)
}

func (r Report) junit(d Document) junitSuite {
	name := line(cmp.Or(r.Name, r.Tool), most)
	s := junitSuite{
		Name: name, Hostname: line(d.Machine, most), Tests: len(r.Findings),
		Failures: r.Count(Fail), Errors: r.Count(Error), Skipped: r.Count(Waived, NotApplicable, NotChecked),
	}
	if !r.Started.IsZero() {
		s.Timestamp = r.Started.UTC().Format("2006-01-02T15:04:05")
	}
	s.Properties = &junitProps{[]junitProperty{{"tool", line(r.Tool, most)}}}
	if r.Count(Pass, Fixed, Fail, Error) > 0 {
		s.Properties.Property = append(s.Properties.Property, junitProperty{"score", decimals(r.score())})
	}
	for _, f := range r.Findings {
		c := junitCase{Name: line(f.ID, most), Classname: name, Time: seconds(took(f.Took))}
		if f.Title != "" && f.Title != f.ID {
			c.Name += ": " + line(f.Title, most)
		}
		said := &junitText{Message: f.why(500), Type: string(f.Severity), Text: f.about()}
		switch f.Result {
		case Fail:
			c.Failure = said
		case Error:
			c.Error = said
		case Waived, NotApplicable, NotChecked:
			said.Type = string(f.Result)
			c.Skipped = said
		case Fixed:
			c.SystemOut = strings.TrimSpace("This failed, and was fixed. " + text(f.Evidence, most))
		default:
			c.SystemOut = text(f.Evidence, most)
		}
		s.Time += c.Time
		s.Cases = append(s.Cases, c)
	}
	return s
}

func (v *Verdict) junit() junitSuite {
	c := junitCase{Name: "gate", Classname: "gate", SystemOut: text(strings.Join(v.Warnings, "\n"), most)}
	s := junitSuite{Name: "gate", Tests: 1, Cases: []junitCase{c}}
	if !v.Open {
		s.Failures = 1
		s.Cases[0].Failure = &junitText{Message: "The gate is closed.", Type: "gate", Text: text(strings.Join(v.Reasons, "\n"), most)}
	}
	return s
}
