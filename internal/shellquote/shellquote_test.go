package shellquote_test

import (
	"os/exec"
	"strings"
	"testing"

	"bake/internal/shellquote"
)

func TestJoin(t *testing.T) {
	for want, words := range map[string][]string{
		"":                         nil,
		"''":                       {""},
		"a /b-c.d e=f g@h:1 50%":   {"a", "/b-c.d", "e=f", "g@h:1", "50%"},
		"'a b' '~' '*' '$x' 'a;b'": {"a b", "~", "*", "$x", "a;b"},
		`'it'\''s'`:                {"it's"},
		"'a\nb' 'ü'":               {"a\nb", "ü"},
	} {
		if got := shellquote.Join(words...); got != want {
			t.Errorf("%q: %s, want %s", words, got, want)
		}
	}
}

// A shell reads every word unchanged.
func TestShellReadsItBack(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh")
	}
	var words []string
	for c := byte(1); c < 128; c++ {
		words = append(words, string(rune(c)), "a"+string(rune(c)), string(rune(c))+"a", "x"+string(rune(c))+"y")
	}
	words = append(words, "", "''", `\'`, "-n", "$(id)", "`id`", "\xff", "ü", "a  b", "{a,b}", "!x", "#x")
	out, err := exec.Command(sh, "-c", `for w in `+shellquote.Join(words...)+`; do printf '%s\0' "$w"; done`).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); len(got) != len(words) {
		t.Fatalf("the shell reads %d words, want %d", len(got), len(words))
	} else {
		for i := range words {
			if got[i] != words[i] {
				t.Errorf("the shell reads %q, want %q", got[i], words[i])
			}
		}
	}
}

// The shell of Windows supports double quotes, and no single ones.
func TestForWindows(t *testing.T) {
	for want, words := range map[string][]string{
		`ssh -i C:\Users\me\a.pem admin@h`:            {"ssh", "-i", `C:\Users\me\a.pem`, "admin@h"},
		`"C:\Program Files\bake.exe" "" "a&b"`:        {`C:\Program Files\bake.exe`, "", "a&b"},
		`"a b\\" "CertificateFile=\"C:\a b\"" "\\\""`: {`a b\`, `CertificateFile="C:\a b"`, `\"`},
	} {
		if got := shellquote.For("windows", words...); got != want {
			t.Errorf("%q:\n%s, want\n%s", words, got, want)
		}
	}
	if got := shellquote.For("linux", "a b"); got != "'a b'" {
		t.Errorf("For = %s, want 'a b' in quotation marks", got)
	}
}
