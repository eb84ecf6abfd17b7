package debian

import (
	"os/exec"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	// Ascending; neighbours within a group are equal.
	for _, order := range [][][]string{
		{{"0~~"}, {"0~~a"}, {"0~"}, {"0", ""}, {"0a"}, {"0+"}},
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

// FuzzCompareVersions checks the laws of an order and, where there is a dpkg,
// that it agrees.
func FuzzCompareVersions(f *testing.F) {
	for _, v := range []string{"1.0-1", "1:2~rc1+dfsg-3.1~bpo12+1", "0", "a-b", "2.36-9+deb12u10", "1.2.3-4-5", "~", "1~~a"} {
		f.Add(v, "1.0-1")
		f.Add(v, v+"~")
	}
	dpkg, _ := exec.LookPath("dpkg")
	f.Fuzz(func(t *testing.T, a, b string) {
		c := compareVersions(a, b)
		if d := compareVersions(b, a); (c < 0) != (d > 0) || (c == 0) != (d == 0) {
			t.Errorf("compare %q, %q: %d one way and %d the other", a, b, c, d)
		}
		if compareVersions(a, a) != 0 {
			t.Errorf("%q differs from itself", a)
		}
		if dpkg == "" || !plainVersion(a) || !plainVersion(b) {
			return
		}
		for op, want := range map[string]bool{"lt": c < 0, "eq": c == 0, "gt": c > 0} {
			if got := exec.Command(dpkg, "--compare-versions", a, op, b).Run() == nil; got != want {
				t.Errorf("%q %s %q: dpkg says %v", a, op, b, got)
			}
		}
	})
}

// plainVersion reports whether dpkg is sure to take v for a version.
func plainVersion(v string) bool {
	_, upstream, revision := splitVersion(v)
	if upstream == "" || !isDigit(upstream[0]) || len(v) > 40 || (revision == "" && v != upstream) {
		return false
	}
	for _, c := range v {
		if c > 127 || !isDigit(byte(c)) && weight(string(c)) < 0 && c != '~' || c < '+' || c == ',' || c == '/' || c > 'z' && c != '~' || c == ':' {
			return false
		}
		if c > '9' && c < 'A' || c > 'Z' && c < 'a' {
			return false
		}
	}
	return true
}
