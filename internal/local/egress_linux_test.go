package local

import "testing"

func TestURLDestination(t *testing.T) {
	for text, want := range map[string]string{
		"http://deb.example/debian":           "deb.example:80",
		"https://user:secret@10.1.2.3/debian": "10.1.2.3:443",
		"http://proxy.example:3128":           "proxy.example:3128",
		"proxy.example:3128":                  "proxy.example:3128",
		"10.0.0.1:8080":                       "10.0.0.1:8080",
		"http://[fd00::1]:3128/":              "",
		"cdrom://x":                           "",
		"":                                    "",
		"http://bad host/":                    "",
	} {
		if got, ok := urlDestination(text); got != want && ok || ok != (want != "") {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
}
