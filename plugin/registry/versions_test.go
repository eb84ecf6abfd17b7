package registry_test

import (
	"testing"

	"bake/plugin/registry"
)

func TestParseVersions(t *testing.T) {
	for _, test := range []struct {
		text, version string
		want          bool
	}{
		{"", "1.0.0", true},
		{"", "x", true},
		{"1.1.0", "1.1.0", true},
		{"1.1", "1.1.0", true},
		{"1.1.0", "1.1.0-dev", false}, // a version is that one alone
		{"1.1.0-dev", "1.1.0-dev", true},
		{"~> 1.1", "1.9.3", true},
		{"~> 1.1", "2.0.0", false},
		{"~> 1.1", "1.2.0-dev", true},
		{"< 1.1", "1.1.0-dev", false},
		{"> 1, < 2", "1.5.0", true},
		{"> 1", "x", false},
	} {
		allows, err := registry.ParseVersions(test.text)
		if err != nil || allows(test.version) != test.want {
			t.Errorf("%q allows %q: %t, %v", test.text, test.version, !test.want, err)
		}
	}
	if _, err := registry.ParseVersions("the newest"); err == nil {
		t.Error("words are a constraint")
	}
}
