package ssh

import "testing"

func FuzzRemotePath(f *testing.F) {
	for _, s := range []string{"/tmp/a b", "~", "~/it's", "~root/x", "~$(id)/x", "-n", "", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		word := remotePath(path)
		// Outside single quotes there is only a home directory.
		outside, quoted := "", false
		for i := 0; i < len(word); i++ {
			switch {
			case word[i] == '\'':
				quoted = !quoted
			case !quoted && word[i] == '\\' && i+1 < len(word) && word[i+1] == '\'':
				i++
			case !quoted:
				outside += word[i : i+1]
			}
		}
		if quoted {
			t.Errorf("%q: the quotes of %q do not close", path, word)
		}
		for _, r := range outside {
			if r != '~' && r != '/' && !plainName(string(r)) {
				t.Errorf("%q: %q leaves %q to the shell", path, word, outside)
			}
		}
	})
}
