package wire

import "testing"

func TestToken(t *testing.T) {
	token := NewToken("rows", "ami-1")
	if after, ok := OpenToken("rows", token); !ok || after != "ami-1" {
		t.Errorf("%q, %v", after, ok)
	}
	for _, bad := range []string{"", "abcd", "not base64!", token + "AAAA", "A" + token[1:]} {
		if bad == token {
			continue
		}
		if after, ok := OpenToken("rows", bad); ok {
			t.Errorf("%q opens to %q", bad, after)
		}
	}
	if _, ok := OpenToken("other rows", token); ok {
		t.Error("a token of another list opens")
	}
}
