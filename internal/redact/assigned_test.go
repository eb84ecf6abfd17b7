package redact_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/internal/redact"
)

func TestAssigned(t *testing.T) {
	for arg, want := range map[string][]string{
		"db_password=abc":                             {"abc"},
		"-e db_password='a b' x=1":                    {"a b"},
		`--extra-vars={"secret": "a"}`:                {"a"},
		`{"x_passwd" : 'a', "n": 1}`:                  {"a"},
		"ansible_become_pass=abc":                     {"abc"},
		"key_passphrase=abc":                          {"abc"},
		"num_passes=3 bypass=yes":                     nil,
		"--vault-password-file=/x":                    nil,
		"-v --vault-password-file=/x -e password=abc": {"abc"},
		"--flush-cache":                               nil,
		"":                                            nil,
	} {
		if diff := cmp.Diff(want, redact.Assigned([]string{arg})); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", arg, diff)
		}
	}
}
