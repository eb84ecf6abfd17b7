package sprig

import (
	"testing"

	"github.com/Masterminds/semver/v3"
)

// TestSemverCompare compares with the library that sprig uses: operators, versions with
// parts that are left out or anything, prereleases, ranges, alternatives, and what is wrong.
func TestSemverCompare(t *testing.T) {
	versions := []string{
		"0.0.0", "0.0.1", "0.0.3", "0.1.0", "0.2.3", "0.2.9", "0.3.0", "1", "1.0", "1.0.0", "v1.2.3", "1.2.3+build.5", "1.2.4", "1.3.0", "1.12.0", "2.0.0", "2.1.1", "10.0.0", "01.02.03",
		"1.2.3-alpha", "1.2.3-alpha.1", "1.2.3-alpha.beta", "1.2.3-beta", "1.2.3-beta.2", "1.2.3-beta.11", "1.2.3-rc.1", "2.0.0-0", "0.0.0-a", "1.3.0-a",
		"", "x", "1.2.3.4", "1.2.3-", "1.2.3-01", "1.2.3-0a", " 1.2.3", "99999999999999999999", "1..2", "-1",
	}
	var constraints []string
	for _, op := range []string{"", "=", "!=", ">", "<", ">=", "=>", "<=", "=<", "~", "~>", "^", "==", "><", "!"} {
		for _, v := range []string{
			"0.0.0", "0.0.3", "0.2.3", "0.2", "0.0", "0", "1", "1.2", "1.2.3", " 1.2.3 ", "v1.2.3", "1.2.3-beta.2", "1.2-beta.2", "1-beta", "1.x", "1.2.x", "1.x.3", "*", "x", "X.1", "*-a", "1.2.*", "2.0.0-0", "1.2.3+meta", "01.2",
			"1x", "1.2.3.4", "1.2.3-01", "99999999999999999999", "", "a",
		} {
			constraints = append(constraints, op+v)
		}
	}
	constraints = append(constraints,
		">=1.2 <2", ">=1.2, <2", ">=1.2,<2", ">=1.2 ,<2", ">=1.2,", ",>=1.2", ">=1.2 , , <2", ">=1.2<2", "1.2 - 2.0", "1.2 - 2", "1.2.3 - 1.2.3-beta", ">1 - 2", "0 1 - 2", "1 - 2 - 3", "1 -2", "1- 2", "1 - 2, !=1.3",
		"^1.2 || ^2", "^1.2||^2.0.0-0", "<1 || >=1.2.3-alpha <1.2.3", "1 ||", "|| 1", "||", "1 | 2", ">=1.2.3-alpha !=1.2.3-beta", "~1.2 ~1.2.3", "1 2", " * ", "* || 1", "1.2.3 -", "\t>=\n1", "1,2", "1, 2", "1 , 2", "v1 - v2")
	agreed := 0
	for _, c := range constraints {
		want, wantErr := semver.NewConstraint(c)
		for _, v := range versions {
			version, versionErr := semver.NewVersion(v)
			got, err := semverCompare(c, v)
			switch {
			case (err != nil) != (wantErr != nil || versionErr != nil):
				t.Errorf("%q %q: error %v, want %v, %v", c, v, err, wantErr, versionErr)
			case err == nil && got != want.Check(version):
				t.Errorf("%q %q: %t, want %t", c, v, got, !got)
			case err == nil && got:
				agreed++
			}
		}
	}
	if agreed < 1000 {
		t.Errorf("only %d were satisfied", agreed)
	}
}

// FuzzSemverCompare compares likewise.
func FuzzSemverCompare(f *testing.F) {
	f.Add("^1.2 || >=2.0.0-a, <3", "2.0.0-b")
	f.Add("1.2 - 2.x", "v1.9")
	f.Fuzz(func(t *testing.T, constraint, v string) {
		c, cErr := semver.NewConstraint(constraint)
		version, vErr := semver.NewVersion(v)
		got, err := semverCompare(constraint, v)
		if cErr == nil && vErr == nil && (err != nil || got != c.Check(version)) {
			t.Errorf("%q %q: %t, %v, want %t", constraint, v, got, err, !got)
		}
	})
}
