package debian

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRelations(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"a":                         "a",
		"a, b (>= 1.0~rc1-1)":       "a, b (>= 1.0~rc1-1)",
		"a | b:any | c (<< 2),\n d": "a | b | c (<< 2), d",
		"a:amd64 (=1:2-3), ":        "a (= 1:2-3)",
		"a(>=1)":                    "a (>= 1)",
		"a (< 1), b (> 1)":          "a (<= 1), b (>= 1)",
		"a (1)":                     "error",
		"a (>= )":                   "error",
		"a (>= 1":                   "error",
		"a (>= 1) x":                "error",
		"a b":                       "error",
		"| a":                       "error",
		"a (~ 1)":                   "error",
	} {
		groups, err := parseRelations(text)
		var and []string
		for _, g := range groups {
			var or []string
			for _, r := range g {
				or = append(or, r.String())
			}
			and = append(and, strings.Join(or, " | "))
		}
		got := strings.Join(and, ", ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: got %q (%v), want %q", text, got, err, want)
		}
	}
}

func FuzzParseRelations(f *testing.F) {
	f.Add("a | b:any (>= 1.0), c (<< 2)")
	f.Add("libc6 (= 2.36-9+deb12u10), x [amd64] <!nocheck>")
	f.Fuzz(func(t *testing.T, text string) {
		groups, err := parseRelations(text)
		if err != nil {
			return
		}
		for _, g := range groups {
			for _, r := range g {
				again, err := parseRelation(r.String())
				if err != nil || again != r {
					t.Errorf("%q: %q parses to %v, %v", text, r, again, err)
				}
			}
		}
	})
}

// index returns a Packages file with a package for each line of the form "name version; Field:
// value; ...".
func index(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		fields := strings.Split(l, "; ")
		name, version, _ := strings.Cut(fields[0], " ")
		fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: %s.deb\nSize: 1\nSHA256: %064d\n", name, version, name, 0)
		for _, f := range fields[1:] {
			b.WriteString(f + "\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestResolve(t *testing.T) {
	for name, test := range map[string]struct {
		indexes []string
		include string
		want    string
		err     string
	}{
		"required, before what needs them": {
			indexes: []string{index("z 1; Priority: required; Depends: lib", "lib 1", "e 1; Essential: yes", "unwanted 1; Priority: optional")},
			want:    "e lib z",
		},
		"include": {
			indexes: []string{index("a 1; Pre-Depends: p; Depends: d", "p 1", "d 1", "r 1; Recommends: a")},
			include: "r a", want: "r p d a",
		},
		"the newest of several indexes": {
			indexes: []string{index("a 1.2; Depends: old", "old 1"), index("a 1.10; Depends: new", "new 1"), index("a 1.9; Depends: old")},
			include: "a", want: "new a",
		},
		"first alternative": {
			indexes: []string{index("a 1; Depends: x | y", "x 1", "y 1")}, include: "a", want: "x a",
		},
		"alternative that is wanted anyway": {
			indexes: []string{index("a 1; Depends: x | y", "x 1", "y 1")}, include: "a y", want: "y a",
		},
		"alternative that exists": {
			indexes: []string{index("a 1; Depends: gone | x (>= 2) | y (>= 2)", "x 1", "y 2")}, include: "a", want: "y a",
		},
		"provided": {
			indexes: []string{index("a 1; Depends: virtual", "z 1; Provides: virtual", "y 1; Provides: other, virtual")}, include: "a", want: "y a",
		},
		"provided by the required one": {
			indexes: []string{index("a 1; Depends: awk", "gawk 1; Provides: awk", "mawk 1; Priority: required; Provides: awk")}, include: "a", want: "mawk a",
		},
		"provided at a version": {
			indexes: []string{index("a 1; Depends: v (>= 2)", "x 1; Provides: v", "y 1; Provides: v (= 1)", "z 1; Provides: v (= 2)")}, include: "a", want: "z a",
		},
		"a cycle": {
			indexes: []string{index("a 1; Depends: b", "b 1; Depends: c", "c 1; Depends: a")}, include: "a", want: "c b a",
		},
		"no such package":    {indexes: []string{index("a 1")}, include: "a b c", err: "no package named b\nthe mirror has no package named c"},
		"dependency missing": {indexes: []string{index("a 1; Depends: x (>= 2) | y", "x 1")}, include: "a", err: "package a: the mirror has nothing for its dependency x (>= 2) | y"},
		"conflict": {
			indexes: []string{index("a 1; Depends: b", "b 1", "c 1; Conflicts: b")}, include: "a c", err: "packages c and b cannot be installed together",
		},
		"breaks an older version only": {
			indexes: []string{index("a 1; Breaks: b (<< 2)", "b 2")}, include: "a b", want: "a b",
		},
		"conflicts with what it provides itself": {
			indexes: []string{index("a 1; Provides: mta; Conflicts: mta")}, include: "a", want: "a",
		},
		"bad relation": {indexes: []string{index("a 1; Depends: x y")}, include: "a", err: `package a: "x y" is not a package relation`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive()
			for _, i := range test.indexes {
				if err := a.add(i, "http://mirror.example/debian"); err != nil {
					t.Fatal(err)
				}
			}
			order, err := a.resolve(strings.Fields(test.include))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range order {
				names = append(names, p.Name)
			}
			if d := cmp.Diff(test.want, strings.Join(names, " ")); d != "" {
				t.Errorf("order (-want +got):\n%s", d)
			}
		})
	}
}

func TestIndexErrors(t *testing.T) {
	for _, text := range []string{
		"Package: a\nVersion: 1\nFilename: x\nSize: 1\n",
		strings.Replace(index("a 1"), "Size: 1", "Size: -1", 1),
		strings.Replace(index("a 1"), "Filename", "File", 1),
	} {
		if err := newArchive().add(text, "http://mirror.example"); err == nil || !strings.Contains(err.Error(), `package "a"`) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

// TestVersions checks that versions are ordered as by dpkg, which determines the newest version and
// whether constraints are satisfied, and that invalid versions are rejected.
func TestVersions(t *testing.T) {
	for _, c := range []struct {
		relation, version string
		want              bool
	}{
		{"a (>= 1.0-1)", "1.0~rc1-1", false},
		{"a (>= 1.0-1)", "1.0-1+b1", true},
		{"a (<< 1:0.1)", "9.9", true},
		{"a (= 01.0-1)", "1.00-1", true},
		{"a (>> 2.36-9+deb12u9)", "2.36-9+deb12u10", true},
		{"a (< 9999999999999999999998)", "9999999999999999999999", false},
	} {
		groups, err := parseRelations(c.relation)
		if err != nil {
			t.Fatal(err)
		}
		if got := groups[0][0].admits(c.version); got != c.want {
			t.Errorf("%s with %s: %v", c.relation, c.version, got)
		}
	}
	// In ascending order; versions within a group are equal.
	for _, order := range [][][]string{
		{{"0~~"}, {"0~~a"}, {"0~"}, {"0"}, {"0a"}, {"0+"}},
		{{"1.0~rc1-1"}, {"1.0-1~bpo12+1"}, {"1.0-1", "0:1.0-1", "01.0-1", "1.00-1"}, {"1.0-1+b1"}, {"1.0-1.1"}, {"1.0-2"}, {"1.0a-1"}, {"1.0+dfsg-1"}, {"1.0.1-1"}, {"1.9"}, {"1.10"}, {"1:0.1"}},
		{{"2.36-9+deb12u9"}, {"2.36-9+deb12u10"}},
		{{"1-1-1"}, {"1-1-2"}, {"1-2-1"}},
		{{"9999999999999999999998"}, {"9999999999999999999999"}},
		{{"1.2.A"}, {"1.2.a"}, {"1.2.+"}},
	} {
		for i, low := range order {
			for _, a := range low {
				for _, b := range low {
					if c := compareVersions(a, b); c != 0 {
						t.Errorf("compare %q and %q: got %d, want 0", a, b, c)
					}
				}
				for _, high := range order[i+1:] {
					for _, b := range high {
						if compareVersions(a, b) >= 0 || compareVersions(b, a) <= 0 {
							t.Errorf("%q must be before %q", a, b)
						}
					}
				}
			}
		}
	}
}
