package wire

import "testing"

func TestToken(t *testing.T) {
	token := newToken("rows", "ami-1")
	if after, ok := openToken("rows", token); !ok || after != "ami-1" {
		t.Errorf("%q, %v", after, ok)
	}
	for _, bad := range []string{"", "abcd", "not base64!", token + "AAAA", "A" + token[1:]} {
		if bad == token {
			continue
		}
		if after, ok := openToken("rows", bad); ok {
			t.Errorf("%q opens to %q", bad, after)
		}
	}
	if _, ok := openToken("other rows", token); ok {
		t.Error("a token of another list opens")
	}
}
