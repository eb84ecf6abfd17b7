package ssh

import "testing"

// A machine cannot make bake list an unlimited number of parts of a file.
func TestParseFacts(t *testing.T) {
	for line, parts := range map[string]bool{
		"file 20971520 644 40960 512":                        true,
		"file 20971520 644 8 512":                            false, // sparse
		"file 9223372036854775807 644 18014398509481984 512": false,
		"file -1 644 0 512":                                  false,
		"file 20971520 644 40960":                            false,
		"":                                                   false,
	} {
		if f, ok := parseFacts(line); ok != parts {
			t.Errorf("%q: %+v, %v", line, f, ok)
		}
	}
}

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
