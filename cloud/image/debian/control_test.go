package debian

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parseAll(text string) ([]paragraph, error) {
	var all []paragraph
	err := parseControl(text, func(p paragraph) error {
		all = append(all, slices.Clone(p))
		return nil
	})
	return all, err
}

func TestParseControl(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []paragraph
		err  string
	}{
		"two paragraphs":  {"A: 1\nB:2\n\n\n \nC:  3  \n", []paragraph{{{"A", "1"}, {"B", "2"}}, {{"C", "3"}}}, ""},
		"no last newline": {"A: 1", []paragraph{{{"A", "1"}}}, ""},
		"continuation":    {"A: 1\n 2\n\t3\nB: x\n", []paragraph{{{"A", "1\n 2\n\t3"}, {"B", "x"}}}, ""},
		"empty first":     {"Sums:\n a 1\n b 2\n", []paragraph{{{"Sums", "\n a 1\n b 2"}}}, ""},
		"comment within":  {"# c\nA: 1\n# c\n 2\n 3\nB: x\n", []paragraph{{{"A", "1\n 2\n 3"}, {"B", "x"}}}, ""},
		"spaces at end":   {"A: 1  \n 2\nB: x\n", []paragraph{{{"A", "1\n 2"}, {"B", "x"}}}, ""},
		"carriage return": {"A: 1\r\nB: 2\r\n\r\nC: 3\r\n", []paragraph{{{"A", "1"}, {"B", "2"}}, {{"C", "3"}}}, ""},
		"two returns":     {"A: 1\n \r\rB\n 2\r\r\n\r\r\nB: 2\r\r", []paragraph{{{"A", "1\n \r\rB\n 2"}}, {{"B", "2"}}}, ""},
		"blank returns":   {"0:\n \r\r\nB: 2", []paragraph{{{"0", ""}}, {{"B", "2"}}}, ""},
		"nothing":         {"\n# c\n", nil, ""},
		"orphan":          {"\n 1\n", nil, "line 2: a continuation line"},
		"no colon":        {"A: 1\nB\n", nil, "line 2: \"B\" is no"},
		"space in name":   {"a b: 1\n", nil, "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseAll(test.text)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("paragraph (-want +got):\n%s", d)
			}
		})
	}
}

// FuzzParseControl checks that formatting a parsed paragraph gives the original again.
func FuzzParseControl(f *testing.F) {
	f.Add("A: 1\nB:\n x\n\nC: 2")
	f.Add("A: 1\n# c\n x\r\n y\n")
	f.Add("Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n")
	f.Add("A:  \n \n1: \t")
	f.Add("0:\n \r\r")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := parseAll(text)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, p := range first {
			for _, f := range p {
				b.WriteString(f.Name + ": " + f.Value + "\n")
			}
			b.WriteString("\n")
		}
		second, err := parseAll(b.String())
		if err != nil {
			t.Fatalf("%v in %q", err, b.String())
		}
		if d := cmp.Diff(first, second); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	})
}
