package envvar

import "testing"

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
