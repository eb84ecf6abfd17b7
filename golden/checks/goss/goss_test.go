package goss_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"bake/golden/checks/facts"
	"bake/golden/checks/goss"
	"bake/golden/findings"
)

// write writes files, by name, and returns their folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load reads a suite of one file, which must be valid.
func load(t *testing.T, text string, o goss.Options) *goss.Suite {
	t.Helper()
	s, diags := goss.Load(filepath.Join(write(t, map[string]string{"goss.yaml": text}), "goss.yaml"), o)
	if diags.HasErrors() {
		t.Fatalf("%s\n%v", text, diags)
	}
	return s
}

// said formats a diagnostic as "error x.yaml:3:5 summary: detail"; without a location, it is about
// the loaded file.
func said(diags hcl.Diagnostics) string {
	var b strings.Builder
	for _, d := range diags {
		kind := "error"
		if d.Severity == hcl.DiagWarning {
			kind = "hint"
		}
		if d.Subject == nil {
			fmt.Fprintf(&b, "%s %s: %s\n", kind, d.Summary, d.Detail)
			continue
		}
		fmt.Fprintf(&b, "%s %s:%d:%d %s: %s\n", kind, filepath.Base(d.Subject.Filename), d.Subject.Start.Line, d.Subject.Start.Column, d.Summary, d.Detail)
	}
	return b.String()
}

const xmlDocument = `'<?xml version="1.0" encoding="utf-8"?><shop day="1"><!-- x --><a xmlns:b="urn:b"><b:city> Old Town </b:city></a><book isbn="1"><title>A &amp; B</title><price>25</price><q/></book><book isbn="2"><title><![CDATA[C]]></title><price>18</price></book></shop>'`

// TestMatching judges values that need no machine.
func TestMatching(t *testing.T) {
	tests := []struct {
		content, matches string
		want             string // pass, fail, or what the error says
	}{
		{`42`, `"42"`, "pass"},
		{`"42"`, `42`, "pass"},
		{`" 42\n"`, `42`, "pass"},
		{`"42.0"`, `42`, "pass"},
		{`"128.3"`, `128.3`, "pass"},
		{`43`, `42`, "fail"},
		{`"abc"`, `42`, "not a number"},
		{`"true"`, `true`, "fail"},
		{`true`, `true`, "pass"},
		{`true`, `"true"`, "pass"},
		{`"a"`, `"b"`, "fail"},
		{`null`, `"<nil>"`, "pass"},
		{`[a, b, c]`, `[a, c]`, "pass"},
		{`[a, b, c]`, `[a, a]`, "fail"},
		{`[a, a]`, `[a, a]`, "pass"},
		{`[ab, a]`, `[{have-prefix: a}, ab]`, "pass"},
		{`"a"`, `[a]`, "only a list"},
		{`[a]`, `[]`, "pass"},
		{`[a, b]`, `{equal: [a, b]}`, "pass"},
		{`[a, b]`, `{equal: [b, a]}`, "fail"},
		{`42`, `{equal: 42}`, "pass"},
		{`42`, `{equal: "42"}`, "fail"},
		{`{a: 1}`, `{equal: {a: 1}}`, "pass"},
		{`{a: 1}`, `{equal: {a: 2}}`, "fail"},
		{`[a, b]`, `{consist-of: [b, a]}`, "pass"},
		{`[a, b, c]`, `{consist-of: [b, a]}`, "fail"},
		{`[a, b]`, `{consist-of: [{have-prefix: b}, a]}`, "pass"},
		{`"a\nb"`, `{consist-of: [b, a]}`, "only a list"},
		{`"a\nb\n"`, `{contain-element: b}`, "pass"},
		{`"a\nb\n"`, `{contain-element: ""}`, "pass"},
		{`"a\nb"`, `{contain-element: ""}`, "fail"},
		{`"a\r\nb"`, `{contain-element: a}`, "fail"},
		{`[x]`, `{contain-element: {gt: 1}}`, "not a number"},
		{`[x, 2]`, `{contain-element: {gt: 1}}`, "pass"},
		{`5`, `{contain-element: 5}`, "only a list"},
		{`"a\nb\n"`, `{contain-elements: [b, a]}`, "pass"},
		{`[x]`, `{contain-elements: [{gt: 1}]}`, "fail"},
		{`[1, 2]`, `{contain-element: 2}`, "pass"},
		{`"abc"`, `{have-len: 3}`, "pass"},
		{`"äb"`, `{have-len: 3}`, "pass"},
		{`"abc"`, `{have-len: 2}`, "fail"},
		{`5`, `{have-len: 1}`, "has a length"},
		{`{a: 1}`, `{have-len: 1}`, "pass"},
		{`{a: 1}`, `{have-key: a}`, "pass"},
		{`{abc: 1}`, `{have-key: {have-prefix: ab}}`, "pass"},
		{`{abc: 1}`, `{have-key: b}`, "fail"},
		{`[a]`, `{have-key: a}`, "has keys"},
		{`"5"`, `{gt: 4}`, "pass"}, {`5`, `{gt: 5}`, "fail"},
		{`5`, `{ge: 5}`, "pass"}, {`4`, `{ge: 5}`, "fail"},
		{`4`, `{lt: 5}`, "pass"}, {`5`, `{lt: 5}`, "fail"},
		{`5`, `{le: 5}`, "pass"}, {`6`, `{le: 5}`, "fail"},
		{`"NaN"`, `{ge: 5}`, "fail"},
		{`"abc"`, `{gt: 4}`, "not a number"},
		{`"abc"`, `{not: {gt: 4}}`, "not a number"},
		{`true`, `{gt: 0}`, "not a number"},
		{`"1.2.3"`, `{semver-constraint: ">=1.0.0"}`, "pass"},
		{`"1.2"`, `{semver-constraint: ">=1.0.0"}`, "not a semantic version"},
		{`"1.2.3\n"`, `{semver-constraint: ">=1.0.0"}`, "not a semantic version"},
		{`["1.2.3", "0.9.0"]`, `{semver-constraint: ">=1.0.0"}`, "fail"},
		{`"1.2.3-4+deb12u1"`, `{semver-constraint: ">=1.2.3"}`, "fail"},
		{`"1.2.3"`, `{semver-constraint: "1.x"}`, "pass"},
		{`["1:9.2p1-2"]`, `{semver-constraint: ">=1.2.3"}`, "not a semantic version"},
		{`"1.6.0"`, `{semver-constraint: ">=1.0.0 <2.0.0 !=1.5.0"}`, "pass"},
		{`"abc"`, `{and: [{have-prefix: a}, {have-suffix: c}]}`, "pass"},
		{`"abc"`, `{and: [{have-prefix: b}, {gt: 4}]}`, "fail"},
		{`"abc"`, `{and: [abc, {gt: 4}]}`, "not a number"},
		{`"abc"`, `{or: [{have-prefix: x}, abc]}`, "pass"},
		{`"abc"`, `{or: [{gt: 4}, abc]}`, "not a number"},
		{`"abc"`, `{or: [abc, {gt: 4}]}`, "pass"},
		{`"abc"`, `{or: [zzz, {gt: 4}]}`, "not a number"},
		{`"abc"`, `{or: [x, y]}`, "fail"},
		{`"abc"`, `{or: []}`, "fail"}, {`"abc"`, `{and: []}`, "pass"},
		{`"abc"`, `{not: abc}`, "fail"}, {`[a]`, `{not: [b]}`, "pass"},
		{`"x\nabc\ny"`, `{match-regexp: "^abc$"}`, "fail"},
		{`"x\nabc\ny"`, `{match-regexp: "(?m)^abc$"}`, "pass"},
		{`"x\n"`, `{match-regexp: "^x$"}`, "fail"},
		{`[abc, d]`, `{have-prefix: ab}`, "pass"}, {`[abc, d]`, `{have-suffix: "c\nd"}`, "pass"},
		{`"foo"`, `{have-prefix: o}`, "fail"}, {`"foo"`, `{have-suffix: f}`, "fail"},
		{`"foo"`, `{contain-substring: oo}`, "pass"}, {`"foo"`, `{contain-substring: x}`, "fail"},
		{`42`, `{match-regexp: '^\d+$'}`, "pass"},
		{`"foo bar\nbaz"`, `{have-patterns: ["/^foo/", "!qux", "ba"]}`, "pass"},
		{`"foo bar\nbaz"`, `{have-patterns: ["/^bar/"]}`, "fail"},
		{`'{"a":{"b":[1,2]},"c":"x"}'`, `{gjson: {a.b.0: 1, c: {have-prefix: x}, "a.b.#": 2}}`, "pass"},
		{`'{"a":1}'`, `{gjson: {a: 2}}`, "fail"},
		{`'{"a":1}'`, `{gjson: {b: 1}}`, "path not found: b"},
		{`'{"a":1'`, `{gjson: {a: 1}}`, "invalid JSON"},
		{`'{"foo": {"x": 1}}'`, `{gjson: {"@this": {have-key: foo}, foo: {and: [{have-key: x}, {not: {have-key: y}}]}}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book[title=''C'']/price/text()', result: '18'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book[title=''C'']/price', result: '<price>18</price>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book/price', result: '<price>25</price><price>18</price>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book[1]/@isbn', result: '<isbn>1</isbn>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book[1]/title', result: '<title>A &amp; B</title>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book[2]/title', result: '<title><![CDATA[C]]></title>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book[1]/q', result: '<q/>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//b:city', result: '<b:city>Old Town</b:city>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//*[namespace-uri()="urn:b"]/text()', result: 'Old Town'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: 'count(//book)', result: '2'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: 'sum(//price)', result: '43'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: 'boolean(//book[title="X"])', result: 'false'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: 'string(/shop/@day)', result: '1'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//book', result: ''}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//dvd', result: ''}}`, "fail"},
		{xmlDocument, `{xml: {xpath: 'count(//book)', result: ''}}`, "fail"},
		{xmlDocument, `{xml: {xpath: 'count(//book)', result: '3'}}`, "fail"},
		{xmlDocument, `{xml: {xpath: '//book[2]/preceding-sibling::book/@isbn', result: '<isbn>1</isbn>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '//price/..//title/text()', result: 'A &amp; B<![CDATA[C]]>'}}`, "pass"},
		{xmlDocument, `{xml: {xpath: '/shop/comment()', result: '<!-- x -->'}}`, "pass"},
		{`["<a/>", "<a/>", "<a><a/></a>"]`, `{contain-element: {xml: {xpath: 'count(//a[last()])', result: "2"}}}`, "pass"},
		{`"<b>2</b>"`, `{xml: {xpath: //b, result: "<b>2</b>"}}`, "pass"},
		{`"<b>2</b>"`, `{xml: {xpath: //b, result: "<b>2</b"}}`, "fail"},
		{`"<b>2</b>"`, `{xml: {xpath: //b, result: "<b>2</b> "}}`, "fail"},
		{`"\uFEFF<a/>\n"`, `{xml: {xpath: //a}}`, "pass"},
		{`"\n<a>"`, `{xml: {xpath: //a}}`, "invalid XML: line 2: the element that begins at line 2 does not end"},
		{`"<a></b>"`, `{xml: {xpath: //a}}`, "invalid XML: line 1: an end tag that ends nothing"},
		{`" "`, `{xml: {xpath: //a}}`, "invalid XML: there is no element"},
		{`"x"`, `{xml: {xpath: //a}}`, "invalid XML: line 1: there is text outside of the element"},
		{`"<a/>\n<a/>"`, `{xml: {xpath: //a}}`, "invalid XML: line 2: there is a second element beside the first"},
		{`"<a b='1' b='2'/>"`, `{xml: {xpath: //a}}`, "invalid XML: line 1: an element has an attribute twice"},
		{`"<?xml version='1.0' encoding='ISO-8859-1'?><a/>"`, `{xml: {xpath: //a}}`, "invalid XML: it is in ISO-8859-1; only UTF-8 is read"},
		{`"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"`, `{xml: {xpath: //a}}`, "invalid XML: line 1: it is not well-formed"},
		{"'" + strings.Repeat("<a>", 300) + "'", `{xml: {xpath: //a}}`, "nested more than 200 deep"},
		{`'{"foo": "bar"}'`, `{gjson: {"@this": {equal: {foo: bar}}}}`, "pass"},
		{`["45", "46", "47"]`, `[{contain-element: {match-regexp: "4."}}, "45", {and: [{ge: 46}, {le: 50}]}]`, "pass"},
		{`["45", "46", "47"]`, `[{contain-element: {match-regexp: "5."}}]`, "fail"},
	}
	for _, test := range tests {
		s := load(t, fmt.Sprintf("matching:\n  x: {content: %s, matches: %s}\n", test.content, test.matches), goss.Options{})
		check(t, test.content+" "+test.matches, s.Results(t.Context(), nil)[0], test.want)
	}
}

// check compares a result with pass, fail, skip or a part of an error.
func check(t *testing.T, what string, r goss.Result, want string) {
	t.Helper()
	got := []string{"pass", "fail", "skip"}[r.Outcome]
	if r.Err != "" {
		got = r.Err
	}
	if want == "pass" || want == "fail" || want == "skip" {
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	} else if !strings.Contains(r.Err, want) || r.Outcome != goss.Failed {
		t.Errorf("%s: %s, want an error with %q", what, got, want)
	}
}

// TestHostileJSON: JSON from a machine can be nested so deeply that it would overflow a parser's
// stack.
func TestHostileJSON(t *testing.T) {
	s := load(t, "command:\n  x: {exit-status: 0, stdout: {gjson: {a: 1}}}\n", goss.Options{})
	for _, text := range []string{strings.Repeat("[", 8<<20), strings.Repeat(`{"a":`, 2<<20), strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20)} {
		answers := []facts.Answer{{"exit-status": {Value: int64(0)}, "stdout": {Value: facts.Text(text)}}}
		check(t, text[:9], s.Results(t.Context(), answers)[1], "invalid JSON")
	}
}

// TestHostileXML: for a document from a machine, an expression may take time that is quadratic in
// its size. Its evaluation ends soon, if necessary with an error.
func TestHostileXML(t *testing.T) {
	const long = "takes too long"
	deep := strings.Repeat("<a>", 199) + strings.Repeat("x", 1<<20) + strings.Repeat("</a>", 199)
	wide := "<r>" + strings.Repeat("<a>1</a>", 33_000) + "</r>"
	attributes := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, " x%d=''", i)
		}
		return b.String()
	}
	half := "<a" + attributes(60_000) + "/>"
	for _, test := range []struct{ text, matcher, want string }{
		{deep, `{xpath: //a, result: x}`, "fail"},
		{deep, `{xpath: //a}`, "pass"},
		{deep, `{xpath: '//a[.="y"]'}`, long},
		{wide, `{xpath: //a}`, "pass"},
		{wide, `{xpath: 'count(//a)', result: "33000"}`, "pass"},
		{wide, `{xpath: //a//a}`, "fail"},
		{wide, `{xpath: '//a[last()]'}`, long},
		{wide, `{xpath: '//a[//a=2]'}`, long},
		{wide, `{xpath: '//a/following::a', result: x}`, "fail"},
		{wide, `{xpath: 'count(//a/following::a)'}`, long},
		{wide, `{xpath: 'count(//a/ancestor::r)', result: "1"}`, "pass"},
		{wide, `{xpath: 'count(//a | //r/a)', result: x}`, long},
		{"<r" + attributes(40_000) + ">" + strings.Repeat("<a/>", 50_000) + "</r>", `{xpath: '//*[namespace-uri()="x"]'}`, long},
		{"<r>" + half + half + "</r>", `{xpath: //a}`, "more than 100000 nodes"},
	} {
		s := load(t, "command:\n  x: {exit-status: 0, stdout: {xml: "+test.matcher+"}}\n", goss.Options{})
		answers := []facts.Answer{{"exit-status": {Value: int64(0)}, "stdout": {Value: facts.Text(test.text)}}}
		start := time.Now()
		check(t, test.text[:9]+test.matcher, s.Results(t.Context(), answers)[1], test.want)
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s took %s", test.matcher, took)
		}
	}
}

// TestHidden: no finding contains any content of a file, whatever is wrong with the file.
func TestHidden(t *testing.T) {
	const secret = "hunter2"
	for contents, text := range map[string]string{
		`{gt: 1}`:                                     secret,
		`{lt: 1}`:                                     secret + "\n1",
		`{semver-constraint: ">1.0.0"}`:               secret,
		`{have-key: a}`:                               secret,
		`{consist-of: [a]}`:                           secret,
		`{gjson: {a: {consist-of: [b]}}}`:             `{"a": ["` + secret + `"]}`,
		`{gjson: {a: {have-len: 1}}}`:                 `{"a": 1234567}`,
		`{gjson: {a: [b]}}`:                           `{"a": {"` + secret + `": 1}}`,
		`{xml: {xpath: //a}}`:                         "<" + secret + ">",
		`{xml: {xpath: /a}}`:                          "<a></" + secret + ">",
		`{xml: {xpath: /b}}`:                          "<a>&" + secret + ";</a>",
		`{xml: {xpath: 'sum(//a) + (//a > 1)'}}`:      "<a>" + secret + "</a>",
		`{xml: {xpath: 'matches("x", string(//a))'}}`: "<a>(" + secret + "</a>",
	} {
		s := load(t, "file:\n  /x: {exists: true, contents: "+contents+"}\n", goss.Options{})
		f := s.Judge(t.Context(), []facts.Answer{{"exists": {Value: true}, "contents": {Value: facts.Text(text)}}})[1]
		if f.Result != findings.Error && f.Result != findings.Fail || strings.Contains(f.Evidence, secret) || strings.Contains(f.Evidence, "1234567") {
			t.Errorf("%s: %s, %s", contents, f.Result, f.Evidence)
		}
	}
}

// TestPatterns judges texts by lists of patterns.
func TestPatterns(t *testing.T) {
	tests := []struct{ text, patterns, want string }{
		{"one two\nThree\n!bang\n/slash/\nlast", `["one", "/^Th/", "!zzz", "\\!bang", "\\/slash/", "last"]`, "pass"},
		{"one\nTHREE", `["/three/i"]`, "pass"}, {"one\nTHREE", `["/three/"]`, "fail"},
		{"one\ntwo", `["!/^two/"]`, "fail"}, {"one\n two", `["!/^two/"]`, "pass"},
		{"one", `["one", "one"]`, "pass"},
		{"one", `["", "!"]`, "fail"}, {"one", `[""]`, "pass"}, {"", `[""]`, "pass"}, {"", `["!x"]`, "pass"}, {"", `["x"]`, "fail"}, {"", `["!"]`, "pass"},
		{"one", `["//"]`, "pass"}, {"a/slash", `["/slash"]`, "pass"}, {"etc/foo/bar", `["/etc/foo/bar"]`, "pass"}, {"/etc/foo", `["/etc/foo/bar"]`, "fail"},
		{"xvar/libx", `["/var/lib/"]`, "pass"}, {"one two", `['\!two']`, "pass"}, {"one two", `['!\/tw']`, "fail"},
		{"x^/foo/", `["^/foo/"]`, "pass"}, {"/foo/", `["^/foo/"]`, "fail"},
		{"a\r\nb\r\n", `["/a$/", "/^b$/"]`, "pass"}, {"a\r\r\n", `["/a$/"]`, "fail"},
		{"\x00\xffx", `["x"]`, "pass"},
		{strings.Repeat("x", 1<<20) + "\nneedle", `["needle"]`, "a line is longer"},
		{"needle\n" + strings.Repeat("x", 1<<20), `["needle"]`, "pass"},
		{"needle\n" + strings.Repeat("x", 1<<20), `["needle", "!y"]`, "a line is longer"},
		{"hi\n", `"hi"`, "fail"}, {"hi\n", `"hi\n"`, "pass"}, {"", `""`, "pass"}, {"42\n", `{gt: 41}`, "pass"}, {"a\nb\n", `{have-len: 4}`, "pass"},
		{"a\nb\n", `{contain-element: a}`, "pass"}, {"a\nb", `{not: {contain-substring: zzz}}`, "pass"}, {"a\nb\n", `{consist-of: [a]}`, "only a list"},
	}
	for _, test := range tests {
		s := load(t, "command:\n  x: {exit-status: 0, stdout: "+test.patterns+"}\n", goss.Options{})
		answers := []facts.Answer{{"exit-status": {Value: int64(0)}, "stdout": {Value: facts.Text(test.text)}}}
		check(t, fmt.Sprintf("%.40q %s", test.text, test.patterns), s.Results(t.Context(), answers)[1], test.want)
	}
}

// TestResources judges every attribute of every resource type, met and unmet.
func TestResources(t *testing.T) {
	type list = []string
	tests := []struct {
		kind, attributes string
		answer           facts.Answer
		want             string // type, property and outcome of each result
	}{
		{"addr", `{reachable: true}`, facts.Answer{"reachable": {Value: true}}, "Addr reachable pass"},
		{"addr", `{reachable: true, timeout: 100}`, facts.Answer{"reachable": {Value: false}}, "Addr reachable fail"},
		{"command", `{exit-status: 0, stdout: [a], stderr: ""}`, facts.Answer{"exit-status": {Value: int64(0)}, "stdout": {Value: facts.Text("a\n")}, "stderr": {Value: facts.Text("")}},
			"Command exit-status pass, Command stdout pass, Command stderr pass"},
		{"command", `{exit-status: "2", stdout: [a], stderr: [b]}`, facts.Answer{"exit-status": {Value: int64(0)}, "stdout": {Value: facts.Text("b\n")}, "stderr": {Err: "timed out"}},
			"Command exit-status fail, Command stdout fail, Command stderr error"},
		{"command", `{exit-status: [0, 1]}`, facts.Answer{"exit-status": {Value: int64(0)}}, "Command exit-status error"},
		{"command", `{exit-status: {or: [0, 1]}, stdout: [], stderr: []}`, facts.Answer{"exit-status": {Value: int64(1)}}, "Command exit-status pass"},
		{"command", `{exit-status: -1}`, facts.Answer{"exit-status": {Value: int64(137)}}, "Command exit-status pass"},
		{"command", `{exit-status: "-1"}`, facts.Answer{"exit-status": {Value: int64(143)}}, "Command exit-status pass"},
		{"command", `{exit-status: {or: [0, -1]}}`, facts.Answer{"exit-status": {Value: int64(137)}}, "Command exit-status pass"},
		{"command", `{exit-status: {not: -1}}`, facts.Answer{"exit-status": {Value: int64(137)}}, "Command exit-status fail"},
		{"command", `{exit-status: -1}`, facts.Answer{"exit-status": {Value: int64(255)}}, "Command exit-status fail"},
		{"dns", `{resolvable: true, addrs: ["::1"]}`, facts.Answer{"resolvable": {Value: true}, "addrs": {Value: list{"127.0.0.1", "::1"}}}, "DNS resolvable pass, DNS addrs pass"},
		{"dns", `{resolveable: true, addrs: ["::1"]}`, facts.Answer{"resolvable": {Value: false}}, "DNS resolvable fail, DNS addrs skip"},
		{"file", `{exists: true, sha256: a, md5: b, contents: [x], contains: [y], filetype: file, linked-to: z, gid: 0, group: root, uid: {lt: 1}, owner: root, mode: "0644", size: 42, sha512: c}`,
			facts.Answer{
				"exists": {Value: true}, "mode": {Value: "0644"}, "owner": {Value: "root"}, "uid": {Value: int64(0)}, "group": {Value: "root"}, "gid": {Value: int64(0)}, "linked-to": {Value: "z"},
				"filetype": {Value: "file"}, "contents": {Value: facts.Text("xy")}, "size": {Value: int64(42)}, "md5": {Value: "b"}, "sha256": {Value: "a"}, "sha512": {Value: "c"},
			},
			"File exists pass, File mode pass, File owner pass, File uid pass, File group pass, File gid pass, File linkedto pass, File filetype pass, File contains pass, File contents pass, File size pass, File md5 pass, File sha256 pass, File sha512 pass"},
		{"file", `{exists: true, mode: 644, owner: daemon, size: "43", contents: [nope]}`,
			facts.Answer{"exists": {Value: true}, "mode": {Value: "0644"}, "owner": {Value: "root"}, "size": {Value: int64(42)}, "contents": {Err: "is a directory"}},
			"File exists pass, File mode pass, File owner fail, File contents error, File size fail"},
		{"file", `{exists: false, mode: "0644"}`, facts.Answer{"exists": {Value: false}}, "File exists pass, File mode skip"},
		{"file", `{exists: {or: [true, false]}, mode: "0644"}`, facts.Answer{"exists": {Value: false}}, "File exists pass, File mode skip"},
		{"file", `{exists: {not: true}, mode: "0644"}`, facts.Answer{"exists": {Value: true}, "mode": {Value: "0644"}}, "File exists fail, File mode skip"},
		{"file", `{exists: false, mode: "0644"}`, facts.Answer{"exists": {Err: "permission denied"}}, "File exists error, File mode skip"},
		{"file", `{exists: true, mode: null}`, facts.Answer{"exists": {Value: true}}, "File exists pass"},
		{"file", `{skip: yes, mode: "0644", contents: []}`, nil, "File exists skip, File mode skip"},
		{"file", `{exists: true, mode: "0644"}`, facts.Answer{"exists": {Value: true}}, "File exists pass, File mode error"},
		{"group", `{exists: true, gid: "27"}`, facts.Answer{"exists": {Value: true}, "gid": {Value: int64(27)}}, "Group exists pass, Group gid pass"},
		{"group", `{exists: false, gid: 1}`, facts.Answer{"exists": {Value: false}}, "Group exists pass, Group gid skip"},
		{"http", `{status: 200, headers: ["Content-Length: 42"], body: [x, "!y"]}`, facts.Answer{"status": {Value: int64(200)}, "headers": {Value: facts.Text("Content-Length: 42\n")}, "body": {Value: facts.Text("x")}},
			"HTTP status pass, HTTP Headers pass, HTTP Body pass"},
		{"http", `{status: 200, body: [x]}`, facts.Answer{"status": {Err: "connection refused"}}, "HTTP status error, HTTP Body skip"},
		{"interface", `{exists: true, addrs: ["127.0.0.1/8"], mtu: {gt: 1000}}`, facts.Answer{"exists": {Value: true}, "addrs": {Value: list{"127.0.0.1/8", "::1/128"}}, "mtu": {Value: int64(65536)}},
			"Interface exists pass, Interface addrs pass, Interface mtu pass"},
		{"interface", `{exists: true, mtu: 1}`, facts.Answer{"exists": {Value: false}}, "Interface exists fail, Interface mtu skip"},
		{"kernel-param", `{value: "0"}`, facts.Answer{"value": {Value: "0"}}, "KernelParam value pass"},
		{"kernel-param", `{value: {gt: 100}}`, facts.Answer{"value": {Value: "99"}}, "KernelParam value fail"},
		{"kernel-param", `{value: {not: "1"}}`, facts.Answer{"value": {Err: "no such key"}}, "KernelParam value error"},
		{"mount", `{exists: true, opts: [rw], vfs-opts: [rw], source: proc, filesystem: proc, usage: {lt: 101}}`,
			facts.Answer{"exists": {Value: true}, "opts": {Value: list{"rw", "nosuid"}}, "vfs-opts": {Value: list{"rw"}}, "source": {Value: "proc"}, "filesystem": {Value: "proc"}, "usage": {Value: int64(100)}},
			"Mount exists pass, Mount opts pass, Mount vfs-opts pass, Mount source pass, Mount filesystem pass, Mount usage pass"},
		{"mount", `{exists: true, opts: [noexec]}`, facts.Answer{"exists": {Value: true}, "opts": {Value: list{"rw"}}}, "Mount exists pass, Mount opts fail"},
		{"package", `{installed: true, versions: ["1.0"]}`, facts.Answer{"installed": {Value: true}, "versions": {Value: list{"1.0"}}}, "Package installed pass, Package version pass"},
		{"package", `{installed: true, versions: [{have-prefix: "2."}]}`, facts.Answer{"installed": {Value: true}, "versions": {Value: list{"1.0"}}}, "Package installed pass, Package version fail"},
		{"package", `{installed: false, versions: ["1.0"]}`, facts.Answer{"installed": {Value: false}}, "Package installed pass, Package version skip"},
		{"port", `{listening: true, ip: [0.0.0.0]}`, facts.Answer{"listening": {Value: true}, "ip": {Value: list{"0.0.0.0"}}}, "Port listening pass, Port ip pass"},
		{"port", `{listening: "true", ip: [10.0.0.1]}`, facts.Answer{"listening": {Value: true}, "ip": {Value: list{"0.0.0.0"}}}, "Port listening pass, Port ip fail"},
		{"process", `{running: true}`, facts.Answer{"running": {Value: true}}, "Process running pass"},
		{"process", `{running: false}`, facts.Answer{"running": {Value: true}}, "Process running fail"},
		{"service", `{running: true, enabled: true, runlevels: ["3"]}`, facts.Answer{"enabled": {Value: false}, "running": {Value: true}, "runlevels": {Value: list{}}}, "Service enabled fail, Service running pass, Service runlevels fail"},
		{"service", `{enabled: false, running: false}`, facts.Answer{"enabled": {Value: false}, "running": {Value: false}}, "Service enabled pass, Service running pass"},
		{"file", `{mode: "0644", owner: root}`, facts.Answer{"mode": {Value: "0644"}, "owner": {Value: "root"}}, "File exists error, File mode skip, File owner skip"},
		{"command", `{stdout: [a], stderr: [5], exit-status: {gt: "4"}}`, facts.Answer{"stdout": {Value: facts.Text("a")}}, "Command exit-status error, Command stdout pass, Command stderr error"},
		{"command", `{stdout: [a]}`, facts.Answer{"stdout": {Value: facts.Text("a")}}, "Command exit-status error, Command stdout pass"},
		{"kernel-param", `{value: {or: ["1", {have-len: x}]}}`, nil, "KernelParam value error"},
		{"user", `{exists: true, shell: /bin/bash, groups: [root], home: /root, gid: 0, uid: "0"}`,
			facts.Answer{"exists": {Value: true}, "uid": {Value: int64(0)}, "gid": {Value: int64(0)}, "home": {Value: "/root"}, "groups": {Value: list{"root"}}, "shell": {Value: "/bin/bash"}},
			"User exists pass, User uid pass, User gid pass, User home pass, User groups pass, User shell pass"},
		{"user", `{exists: true, groups: {consist-of: [a]}}`, facts.Answer{"exists": {Value: true}, "groups": {Value: list{"a", "b"}}}, "User exists pass, User groups fail"},
		{"matching", `{content: "a\nb", as-reader: true, matches: [a, "!c"]}`, nil, "Matching matches pass"},
		{"matching", `{content: "a\nb", as-reader: true, matches: [a, "!b"]}`, nil, "Matching matches fail"},
		{"matching", `{content: "a", as-reader: true, matches: a}`, nil, "Matching matches pass"},
	}
	for _, test := range tests {
		s := load(t, test.kind+":\n  x: "+test.attributes+"\n", goss.Options{})
		var got []string
		for _, r := range s.Results(t.Context(), []facts.Answer{test.answer}) {
			outcome := []string{"pass", "fail", "skip"}[r.Outcome]
			if r.Err != "" {
				outcome = "error"
			}
			got = append(got, r.Type+" "+r.Property+" "+outcome)
		}
		if got := strings.Join(got, ", "); got != test.want {
			t.Errorf("%s %s:\n%s\nwant\n%s", test.kind, test.attributes, got, test.want)
		}
	}
}

// TestFindings: the contents of a finding, whose identity is the author's if there is one.
func TestFindings(t *testing.T) {
	s := load(t, `
file:
  /etc/shadow:
    title: Shadow is closed
    exists: true
    mode: "0640"
    contents: ["!secret", "/^root:/"]
    meta: {id: shadow, severity: High, rationale: Hashes are in it., fix: "chmod 640 /etc/shadow\n", refs: [C 7.1.5, N AC-3]}
  /etc/gone: {exists: true, mode: "0644"}
  /etc/absent: {exists: false, mode: "0644"}
package:
  telnet: {installed: false, meta: {CIS_ID: [2.2.4, 2.2.5], severity: urgent}}
  later: {name: less, installed: true, skip: true}
kernel-param:
  a.b: {value: "1", meta: {id: shared}}
  c.d: {value: "1", meta: {id: shared}}
command:
  ls: {exit-status: 0, stdout: {have-suffix: "x"}, timeout: 5}
`, goss.Options{})
	results := []facts.Answer{
		{"exists": {Value: true}, "mode": {Value: "0644"}, "contents": {Value: facts.Text("root:secret\n")}},
		{"exists": {Value: false}},
		{"exists": {Value: false}},
		{"installed": {Value: true}},
		{"value": {Value: "0"}}, {"value": {Err: "no such key"}},
		{"exit-status": {Value: int64(0)}, "stdout": {Value: facts.Text(strings.Repeat("long ", 1000))}},
	}
	var got []string
	for _, f := range s.Judge(t.Context(), results) {
		if f.Source == nil || f.Source.Start.Line == 0 {
			t.Errorf("%s has no source", f.ID)
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%.120s|%s|%s|%s", f.ID, f.Title, f.Severity, f.Result, f.Evidence, f.Rationale, f.Fix, strings.Join(f.Refs, ";")))
	}
	want := `shadow: exists|Shadow is closed|high|pass||Hashes are in it.|chmod 640 /etc/shadow|C 7.1.5;N AC-3
shadow: mode|Shadow is closed|high|fail|expected "0644" to equal "0640"|Hashes are in it.|chmod 640 /etc/shadow|C 7.1.5;N AC-3
shadow: contents|Shadow is closed|high|fail|expected the contents to have patterns ["!secret","/^root:/"]; missing: ["!secret"]|Hashes are in it.|chmod 640 /etc/shadow|C 7.1.5;N AC-3
File: /etc/gone: exists||unknown|fail|expected false to equal true|||
File: /etc/gone: mode||unknown|not applicable|exists is not as it should be|||
File: /etc/absent: exists||unknown|pass||||
File: /etc/absent: mode||unknown|not applicable|exists is false|||
2.2.4, 2.2.5|Package: telnet: installed|unknown|fail|expected true to equal false|||2.2.4;2.2.5
Package: later: less: installed||unknown|not checked|skip is true|||
shared: KernelParam: a.b: value|KernelParam: a.b: value|unknown|fail|expected "0" to equal "1"|||
shared: KernelParam: c.d: value|KernelParam: c.d: value|unknown|error|no such key|||
Command: ls: exit-status||unknown|pass||||
Command: ls: stdout||unknown|fail|expected "` + strings.Repeat("long ", 22) + `|||`
	if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	// Missing answers are errors.
	for _, f := range s.Judge(t.Context(), nil) {
		if f.Result == findings.Pass || f.Result == findings.Fail {
			t.Errorf("%s: %s without an answer", f.ID, f.Result)
		}
	}
}

// TestWriteJSON: the format json of goss, as its own program writes it.
func TestWriteJSON(t *testing.T) {
	s := load(t, `matching:
  basic: {content: "a", matches: "a", title: T, meta: {k: v}}
  array: {content: [group1, group2], matches: [group1, group2, group2, group4]}
  consist: {content: [foo, bar], matches: {consist-of: [foo, {have-prefix: t}]}}
  gjson: {content: '{"count": "15"}', matches: {gjson: {count: {le: 10}}}}
  err: {content: abc, matches: {gt: 1}}
  skipped: {content: a, matches: b, skip: true}
`, goss.Options{})
	var b strings.Builder
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := goss.WriteJSON(&b, s.Results(t.Context(), nil), start, start.Add(1500*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Results []map[string]any
		Summary map[string]any
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	for i, want := range []map[string]any{
		{"resource-id": "basic", "result": 0.0, "successful": true, "title": "T", "err": nil, "summary-line": `Matching: basic: matches: matches expectation: "a"`},
		{"resource-id": "array", "result": 1.0, "skipped": false, "summary-line-compact": `Matching: array: matches: Expected ["group1","group2"] to contain elements matching ["group1","group2","group2","group4"] the missing elements were ["group2","group4"]`},
		{"resource-id": "consist", "summary-line": "Matching: consist: matches:\nExpected\n    [\"foo\",\"bar\"]\nto consist of\n    [\"foo\",{\"have-prefix\":\"t\"}]\nthe missing elements were\n    [{\"have-prefix\":\"t\"}]\nthe extra elements were\n    [\"bar\"]"},
		{"resource-id": "gjson", "summary-line-compact": `Matching: gjson: matches: Expected 15 to be numerically le 10 the transform chain was [{"gjson":{"Path":"count"}},{"to-numeric":{}}] the raw value was "{\"count\": \"15\"}"`},
		{"resource-id": "err", "result": 1.0, "err": `not a number: the string "abc"`},
		{"resource-id": "skipped", "result": 2.0, "skipped": true, "successful": true, "summary-line": "Matching: skipped: matches: skipped"},
	} {
		for name, v := range want {
			if got.Results[i][name] != v {
				t.Errorf("%s: %q\nwant %q", name, got.Results[i][name], v)
			}
		}
	}
	match := got.Results[1]["matcher-result"].(map[string]any)
	if diff := cmp.Diff([]any{"group1", "group2"}, match["found-elements"]); diff != "" {
		t.Errorf("found elements (-want +got):\n%s", diff)
	}
	want := map[string]any{"test-count": 6.0, "failed-count": 4.0, "skipped-count": 1.0, "total-duration": 1.5e9, "summary-line": "Count: 6, Failed: 4, Skipped: 1, Duration: 1.500s"}
	if diff := cmp.Diff(want, got.Summary); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

// FuzzLoad: no file makes the reader panic or hang, and what it has read can be judged.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{
		"file:\n  /x: {exists: true, mode: \"0644\", contents: [a, \"/b/i\", \"!c\"]}\n", "{\"port\": {\"22\": {\"listening\": true}}}",
		"a: &a {exists: true}\nfile: {x: {<<: *a, owner: {or: [root, {not: {have-prefix: a}}]}}}\n", "{{ range until 3 }}\nuser: {u{{ . }}: {exists: true}}{{ end }}",
		"matching:\n  x: {content: [1, a], matches: {consist-of: [{gt: 1}, {contain-element: a}]}}\n", "? [a]\n: b\n", "a: !!binary x\nb: 2001-01-01\n", "&a [*a]",
		"matching: {x: {content: '{\"a\":[1]}', matches: {gjson: {a.0: {semver-constraint: \">1\"}}}}}", "command: {x: {exit-status: null, stdout: [], skip: yes, meta: {a: {b: c}}}}\n---\n", "\xff\xfe", "%YAML 9", "\t- {",
	} {
		f.Add(text, false)
		f.Add(text, true)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string, isJSON bool) {
		name := filepath.Join(dir, "goss.yaml")
		if isJSON {
			name = filepath.Join(dir, "goss.json")
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, diags := goss.Load(name, goss.Options{})
		for _, d := range diags {
			if d.Subject.Start.Byte > len(text) || d.Subject.End.Byte > len(text) || d.Subject.Start.Byte > d.Subject.End.Byte {
				t.Errorf("%q: %s is outside", text, d.Subject)
			}
		}
		answers := make([]facts.Answer, len(s.Questions()))
		for i, q := range s.Questions() {
			answers[i] = facts.Answer{}
			for _, a := range q.Attributes {
				answers[i][a] = facts.Fact{Value: facts.Text("1.2.3\nx")}
			}
		}
		ids := map[string]bool{}
		for _, f := range s.Judge(t.Context(), answers) {
			if ids[f.ID] {
				t.Errorf("%q: two findings are %q", text, f.ID)
			}
			ids[f.ID] = true
		}
		if err := goss.WriteJSON(io.Discard, s.Results(t.Context(), answers), time.Time{}, time.Time{}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
