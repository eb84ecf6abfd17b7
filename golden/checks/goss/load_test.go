package goss_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/golden/checks/facts"
	"bake/golden/checks/goss"
)

// TestFaults: errors in a file are reported at their place.
func TestFaults(t *testing.T) {
	tests := []struct{ text, want string }{
		{"file:\n  /x:\n    exists: true\n    nosuch: 1\n", `error goss.yaml:4:5 Unknown attribute: file "/x": there is no attribute "nosuch".`},
		{"file:\n  /x: {exists: true, ower: root}\n", `error goss.yaml:2:22 Unknown attribute: file "/x": there is no attribute "ower". Did you mean "owner"?`},
		{"file:\n  /x:\n", `error goss.yaml:2:3 Nothing demanded: file "/x" has nothing`},
		{"file:\n  - /x\n", "error goss.yaml:2:3 Not a section: file must be a mapping from names"},
		{"file:\n  /x: {mode: \"0644\"}\n", `hint goss.yaml:2:3 Missing attribute: file "/x" needs the attribute exists, and fails without it.`},
		{"file:\n  /x: {exists: null}\n", "Missing attribute"},
		{"command:\n  ls: {stdout: [x]}\n", `command "ls" needs the attribute exit-status, and`},
		{"file:\n  a: {exists: true}\nfile:\n  b: {exists: true}\n", `error goss.yaml:3:1 Defined twice: "file" is already defined in line 1.`},
		{"file:\n  a: {exists: true}\n  a: {exists: true}\n", `error goss.yaml:3:3 Defined twice: "a" is already defined in line 2.`},
		{"file:\n  a: {exists: true}\n---\nfile:\n  b: {exists: true}\n", "error goss.yaml:3:1 Several documents in one file"},
		{"{}\n", "error goss.yaml:1:1 No tests"}, {"", "No tests"}, {"# nothing\n", "No tests"}, {"file:\n", "No tests"},
		{"- a\n", "error goss.yaml:1:1 Not a goss file"}, {"hello\n", "Not a goss file"},
		{"file:\n  a: {exists: true\n", "Invalid YAML"}, {"file:\n  a: {exists: true}\n  b: {x: \"y\"z}\n", "error goss.yaml:3:3 Invalid YAML"}, {"file:\n  a: b: c\n", "error goss.yaml:2:3 Invalid YAML"}, {"file:\n\ta: 1\n", "error goss.yaml:2:2 Invalid YAML"},
		{"registry:\n  a: {}\n", "error goss.yaml:1:1 Section for Windows only"},
		{"bogus:\n  a: 1\nfile:\n  a: {exists: true}\n", "hint goss.yaml:1:1 Unknown section: It is ignored, as goss does. Begin"},
		{"files:\n  a: {exists: true}\nport: {\"22\": {listening: true}}\n", `Did you mean "file"?`},
		{"file:\n  a: {exists: true, mode: 0644}\n", `hint goss.yaml:2:27 An octal number: 0644 without quotes is the number 420, which is no mode of a file. Write "0644".`},
		{"file:\n  a: {exists: yes}\n", `hint goss.yaml:2:15 A string, not a boolean: exists is the string "yes" here and never equals true. Write true.`},
		{"file:\n  a: {exists: true, mode: {or: [\"0600\", {not: 0644}]}}\n", "hint goss.yaml:2:47 An octal number"},
		{"service:\n  a: {enabled: \"no\"}\n", "never equals false. Write false."},
		{"command:\n  a: {exit-status: 0, stdout: []}\n", "hint goss.yaml:2:23 Nothing demanded"},
		{"command:\n  a: {exit-status: 0, stdout: [5]}\n", "hint goss.yaml:2:32 Not a pattern: A pattern is a string, not a number."},
		{"command:\n  a: {exit-status: 0, stdout: ['/(/']}\n", "hint goss.yaml:2:32 Invalid regular expression"},
		{"command:\n  a: {exit-status: 0, stdout: {match-regexp: '(?=x)'}}\n", "hint goss.yaml:2:46 Invalid regular expression"},
		{"command:\n  a: {exit-status: x}\n", "error goss.yaml:2:20 Not a number"},
		{"user:\n  a: {exists: true, uid: root}\n", `Not a number: uid is a number, not "root".`},
		{"command:\n  a: {exit-status: 0, timeout: 1s}\n", "error goss.yaml:2:32 Wrong value: timeout is a whole number of milliseconds, not a string."},
		{"command:\n  a: {exit-status: 0, timeout: -1}\n", "Wrong value"}, {"command:\n  a: {exit-status: 0, timeout: 1.5}\n", "Wrong value"},
		{"command:\n  a: {exit-status: 0, exec: [ls]}\n", "Wrong value: exec is a string, not a list."},
		{"command:\n  a: {exit-status: 0, skip: maybe}\n", "Wrong value: skip is true or false, not a string."},
		{"command:\n  a: {exit-status: 0, meta: x}\n", "Not a mapping: meta"},
		{"command:\n  a: {exit-status: 0, retry_count: -1}\n", "error goss.yaml:2:36 Wrong value: retry_count is a number of attempts"},
		{"package:\n  a: {installed: true, retry_count: \"3\"}\n", "Wrong value: retry_count"},
		{"dns:\n  a: {resolvable: true, retry_delay: soon}\n", "error goss.yaml:2:38 Wrong value: retry_delay is a number of milliseconds"},
		{"dns:\n  a: {resolvable: true, retry_delay: -5ms}\n", "Wrong value: retry_delay"},
		{"file:\n  a: {exists: true, retry_count: 3}\n", `there is no attribute "retry_count"`},
		{"service:\n  a: {}\nfile:\n  b: {exists: true}\n", `hint goss.yaml:2:3 Nothing demanded: service "a" is not looked at. It can demand enabled, running, runlevels.`},
		{"service:\n  a: {}\n", "error goss.yaml:1:1 No tests"}, {"service:\n  a: {skip: true}\n", ""}, {"service:\n  a: {skip: false}\n", "No tests"},
		{"port:\n  tpc:22: {listening: false}\n", `hint goss.yaml:2:3 Cannot be checked: port "tpc:22" fails on every machine: "tpc:22" is not a port such as`},
		{"port:\n  \"0\": {listening: false}\n", "Cannot be checked"}, {"port:\n  tcp:x: {port: tcp6:70000, listening: false}\n", `"tcp6:70000" is not a port`},
		{"addr:\n  quic://x:1: {reachable: true}\n", `"quic" is neither tcp nor udp`}, {"addr:\n  x: {reachable: true}\n", "missing port"},
		{"http:\n  ftp://x: {status: 200}\n", "is not an HTTP URL"}, {"http:\n  http://x: {status: 200, request-headers: [a]}\n", `the request header "a" is not of the form`},
		{"dns:\n  HINFO:x: {resolvable: true, server: 127.0.0.1}\n", "records of the type HINFO cannot be asked for"}, {"dns:\n  MX:x: {resolvable: true}\n", "set server"},
		{"http:\n  a: {status: 200, request-headers: \"a: b\"}\n", "Wrong value: request-headers is a list of strings"},
		{"http:\n  a: {status: 200, request-headers: [\"a: b\\nc: d\"]}\n", "Wrong value: request-headers is a list of strings of one line each."},
		{"matching:\n  a: {content: a, matches: {have-foo: a}}\n", "error goss.yaml:2:29 Unknown matcher: There is no matcher of the name have-foo."},
		{"matching:\n  a: {content: a, matches: {have-sufix: a}}\n", `Did you mean "have-suffix"?`},
		{"matching:\n  a: {content: a, matches: {have-key-with-value: {a: 1}}}\n", "goss has had no have-key-with-value since version 0.4"},
		{"matching:\n  a: {content: a, matches: {xml: a}}\n", "Wrong argument: xml takes a mapping of xpath and result, not a string."},
		{"matching:\n  a: {content: a, matches: {xml: {xpath: 'count(//a', result: a}}}\n", "hint goss.yaml:2:42 Invalid XPath expression"},
		{"matching:\n  a: {content: a, matches: {xml: {result: a}}}\n", "xml needs an xpath"},
		{"matching:\n  a: {content: a, matches: {xml: {xpath: //a, result: 2}}}\n", "Wrong argument: result is a string, not a number"},
		{"matching:\n  a: {content: a, matches: {xml: {xpaht: //a}}}\n", `error goss.yaml:2:35 Unknown attribute: xml has the attributes xpath and result, and no "xpaht". Did you mean "xpath"?`},
		{"matching:\n  a: {content: a, matches: {have-prefix: a, have-suffix: a}}\n", "hint goss.yaml:2:45 Several matchers in one mapping"},
		{"matching:\n  a: {content: a, matches: {}}\n", "Missing matcher"},
		{"matching:\n  a: {content: a}\n", "needs the attribute matches"},
		{"matching:\n  a: {content: a, matches: {or: [null]}}\n", "hint goss.yaml:2:34 Missing value"},
		{"matching:\n  a: {content: a, matches: {or: abc}}\n", "hint goss.yaml:2:33 Wrong argument: or takes a list, not a string."},
		{"matching:\n  a: {content: a, matches: {gt: \"4\"}}\n", "Wrong argument: gt takes a number without quotes, not a string."},
		{"matching:\n  a: {content: a, matches: {have-prefix: 4}}\n", "Wrong argument: have-prefix takes a string, not a number."},
		{"matching:\n  a: {content: a, matches: {have-len: a}}\n", "Wrong argument"}, {"matching:\n  a: {content: a, matches: {gjson: a}}\n", "Wrong argument"},
		{"matching:\n  a: {content: a, matches: {contain-element: [a]}}\n", "Wrong argument"}, {"matching:\n  a: {content: a, matches: {contain-element: true}}\n", "Wrong argument"},
		{"matching:\n  a: {content: a, matches: {have-patterns: a}}\n", "Wrong argument"}, {"matching:\n  a: {content: a, matches: {have-patterns: [5]}}\n", "Not a pattern"},
		{"matching:\n  a: {content: a, matches: {semver-constraint: latest}}\n", "Invalid version constraint"},
		{"matching:\n  a: {content: a, matches: 2001-01-01}\n", "error goss.yaml:2:28 Not a string, a number or a boolean: 2001-01-01 has a type of its own in YAML."},
		{"gossfile:\n  nomatch*.yaml: {}\n", "error goss.yaml:2:3 No file to include"},
		{"gossfile:\n  a: {fil: b}\n", `Did you mean "file"?`}, {"gossfile:\n  a:\n", "Nothing demanded"}, {"gossfile:\n  - a\n", "Not a section: gossfile"},
		{"gossfile:\n  goss.yaml: {}\nfile: {a: {exists: true}}\n", "error goss.yaml:2:3 A file includes itself"},
		{"a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e, *e]\n", "The file is too large"},
		{"a: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "\n", "The file is nested too deeply"},
		{"a: &a [*a]\n", "The file is nested too deeply"},
		{"file: {a: {<<: x, exists: true}}\n", "error goss.yaml:1:12 Not a mapping: Only mappings can be merged with <<"},
		{strings.Repeat("#", 1<<20+1), "is larger than 1048576 bytes"},
	}
	for _, test := range tests {
		_, diags := goss.Load(filepath.Join(write(t, map[string]string{"goss.yaml": test.text}), "goss.yaml"), goss.Options{})
		if got := said(diags); !strings.Contains(got, test.want) {
			t.Errorf("%.200s\n%.400s\nwant %s", test.text, got, test.want)
		}
	}
	if _, diags := goss.Load("x.toml", goss.Options{}); !strings.Contains(said(diags), "Unknown format") {
		t.Errorf("diagnostics = %s, want an unknown format", said(diags))
	}
	if _, diags := goss.Load(filepath.Join(t.TempDir(), "x.yaml"), goss.Options{}); !strings.Contains(said(diags), "Cannot read a goss file") {
		t.Errorf("diagnostics = %s, want that the file cannot be read", said(diags))
	}
}

// TestJSON reads JSON, with locations.
func TestJSON(t *testing.T) {
	for text, want := range map[string]string{
		"{\n \"file\": {\n  \"/x\": {\"exists\": true, \"mode\": \"0644\", \"uid\": 0, \"title\": \"\\ud83d\\ude00\"}\n }\n}\n": "",
		"{\n \"file\": {\n  \"/x\": {\"exists\": true, \"mod\": \"0644\"}\n }\n}\n":                                             `error goss.json:3:26 Unknown attribute: file "/x": there is no attribute "mod". Did you mean "mode"?`,
		"{\"file\": {}, \"file\": {}}": `error goss.json:1:14 Defined twice`,
		"{\"file\": {\n":               "Invalid JSON", "": "Invalid JSON: the file ends too early", "{} x": "Invalid JSON",
		"{\"file\":\n  tru}":           "error goss.json:2:3 Invalid JSON",
		"[" + strings.Repeat("[", 200): "The file is nested too deeply",
		"{\"matching\": {\"a\": {\"content\": 42, \"matches\": {\"equal\": 42}}}}": "",
	} {
		s, diags := goss.Load(filepath.Join(write(t, map[string]string{"goss.json": text}), "goss.json"), goss.Options{})
		if got := said(diags); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s\n%s\nwant %s", text, got, want)
		}
		if want == "" {
			for _, r := range s.Results(t.Context(), []facts.Answer{{"exists": {Value: true}, "mode": {Value: "0644"}, "uid": {Value: int64(0)}}}) {
				check(t, text, r, "pass")
			}
		}
	}
}

// TestIncludes: an included file is relative to the file that includes it.
func TestIncludes(t *testing.T) {
	dir := write(t, map[string]string{
		"goss.yaml": "x-common: &c {exists: true, owner: root}\nanchors: {a: &m {mode: \"0644\"}}\n" +
			"gossfile:\n  z.yaml: {}\n  named: {file: \"d/*.yaml\"}\n  gone.yaml: {skip: yes}\n" +
			"file:\n  /b: *c\n  /a: {<<: [*c, *m], owner: admin}\n",
		"z.yaml":       "---\nfile:\n  /b: {exists: false}\n---\n",
		"d/2.yaml":     "gossfile: {sub/x.json: {}}\nport:\n  22: {listening: true}\n",
		"d/1.yaml":     "user: {root: {exists: true}}\n",
		"d/sub/x.json": "{\"group\": {\"adm\": {\"exists\": true}}}",
	})
	s, diags := goss.Load(filepath.Join(dir, "goss.yaml"), goss.Options{})
	if got := said(diags); got != fmt.Sprintf("hint z.yaml:3:3 Defined twice: This takes the place of file \"/b\" in %s:8,3-5.\n", filepath.Join(dir, "goss.yaml")) {
		t.Errorf("diagnostics = %s, want one hint about /b", got)
	}
	var got []string
	for _, r := range s.Results(t.Context(), nil) {
		got = append(got, r.ID)
	}
	want := "File: /a: exists, File: /a: mode, File: /a: owner, User: root: exists, Port: 22: listening, Group: adm: exists, File: /b: exists"
	if got := strings.Join(got, ", "); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestIncludeFolder: the name of a folder is no pattern.
func TestIncludeFolder(t *testing.T) {
	dir := write(t, map[string]string{"a[b]/goss.yaml": "gossfile: {\"*.yml\": {}}\n", "a[b]/x.yml": "port: {22: {listening: true}}\n"})
	s, diags := goss.Load(filepath.Join(dir, "a[b]", "goss.yaml"), goss.Options{})
	if diags.HasErrors() || len(s.Questions()) != 1 {
		t.Errorf("%d questions, want 1; diagnostics: %v", len(s.Questions()), diags)
	}
}

// TestDocs: the example in docs/goss.md is valid.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/goss.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	dir := write(t, map[string]string{"goss.yaml": example, "goss.d/more.yaml": "user: {root: {exists: true}}\n"})
	s, diags := goss.Load(filepath.Join(dir, "goss.yaml"), goss.Options{})
	if len(diags) > 0 || len(s.Results(t.Context(), nil)) != 5 || s.Results(t.Context(), nil)[0].ID != "ssh-root-login: exists" {
		t.Errorf("results = %v, want 5 that begin with ssh-root-login: exists; diagnostics: %v", s.Results(t.Context(), nil), diags)
	}
}

// TestQuestions: equal queries are made once, in goss's terms.
func TestQuestions(t *testing.T) {
	s := load(t, `
file:
  /x: {exists: true, contains: [a]}
  again: {path: /x, exists: true, contents: [b], mode: "0644"}
  skipped: {path: /y, exists: true, skip: true}
command:
  ls: {exit-status: 0, stdout: [x], timeout: 5}
  two: {exec: ls, exit-status: 0, timeout: 5}
service: {nothing: {}}
http:
  http://localhost/: {status: 200, request-headers: ["a: b", "c: d"], allow-insecure: yes, timeout: 0}
matching: {x: {content: a, matches: a}}
`, goss.Options{})
	var got []string
	for _, q := range s.Questions() {
		got = append(got, fmt.Sprint(q))
	}
	want := `{file /x [exists contents mode] map[]}
{command ls [exit-status stdout] map[timeout:5]}
{command ls [exit-status] map[timeout:5]}
{http http://localhost/ [status] map[allow-insecure:true method:GET request-headers:a: b
c: d timeout:5000]}`
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
