package sourceami

import (
	"slices"
	"testing"
)

func TestValues(t *testing.T) {
	for in, want := range map[string][]string{
		"debian-12-*": {"debian-12-*"},
		"x86_64,i386": {"x86_64", "i386"},
		`"a, b", c`:   {"a, b", "c"},
		`say "hi"`:    {`say "hi"`}, // not CSV
		"":            {""},
	} {
		if got := values(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFiltersAreInOrder(t *testing.T) {
	f := Filters{Filters: map[string]string{"b": "1", "a": "2", "c": "3"}, Filter: []NameValue{{"b", "4"}}}
	var got []string
	for _, x := range f.EC2() {
		got = append(got, *x.Name+x.Values[0])
	}
	if !slices.Equal(got, []string{"a2", "b4", "c3"}) {
		t.Errorf("filters = %q, want a2, b4 and c3", got)
	}
}
