package envvar

import (
	"fmt"
	"testing"
)

func TestGet(t *testing.T) {
	env := []string{"A=1", "a=2", "AB=3", "A=4=5", "EMPTY=", "A"}
	for _, tt := range []struct {
		name    string
		anyCase bool
		want    string
	}{
		{"A", false, "4=5"}, {"a", false, "2"}, {"AB", false, "3"}, {"ab", false, ""}, {"ab", true, "3"}, {"a", true, "4=5"},
		{"EMPTY", false, ""}, {"MISSING", true, ""},
	} {
		if got := get(env, tt.name, tt.anyCase); got != tt.want {
			t.Errorf("%s, in any case %v: %q, want %q", tt.name, tt.anyCase, got, tt.want)
		}
	}
}

func TestSplit(t *testing.T) {
	env := []string{"KEY=1", "key=2", "KEY_FILE=3", "X=KEY=4", "KEY=5", "KEY"}
	for anyCase, want := range map[bool]string{false: "[KEY=1 KEY=5 KEY] [key=2 KEY_FILE=3 X=KEY=4]", true: "[KEY=1 key=2 KEY=5 KEY] [KEY_FILE=3 X=KEY=4]"} {
		taken, rest := split(env, []string{"KEY", "OTHER"}, anyCase)
		if got := fmt.Sprint(taken, rest); got != want {
			t.Errorf("in any case %v: %s, want %s", anyCase, got, want)
		}
	}
}

func TestHome(t *testing.T) {
	for _, tt := range []struct {
		env          []string
		system, want string
	}{
		{[]string{"HOME=/h", "USERPROFILE=u"}, "linux", "/h"}, {[]string{"USERPROFILE=u"}, "linux", ""},
		{[]string{"HOME=/h", "USERPROFILE=u"}, "windows", "/h"}, {[]string{"USERPROFILE=u"}, "windows", "u"},
	} {
		if got := home(func(name string) string { return Get(tt.env, name) }, tt.system); got != tt.want {
			t.Errorf("%q on %s: %q, want %q", tt.env, tt.system, got, tt.want)
		}
	}
}
