package hcljson_test

import (
	stdjson "encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/json"

	"bake/internal/hcljson"
)

func TestByteOrderMark(t *testing.T) {
	if got := hcljson.Source([]byte("\ufeff{\"a\": \"\ufeff\"}")); string(got) != "{\"a\": \"\ufeff\"}" {
		t.Errorf("got %q", got)
	}
}

// TestSource reads strings in which each character precedes everything that is special in a
// string.
func TestSource(t *testing.T) {
	for r := rune(0x80); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) || r > 0x20000 && r < 0xe0000 || r > 0xe1000 { // ideographs and nothing
			continue
		}
		char := string(r)
		src := []byte(`["` + char + `", "` + char + `\"` + char + char + `\\"]`)
		expr, diags := json.ParseExpression(hcljson.Source(src), "x.json")
		if diags.HasErrors() {
			t.Fatalf("%U: %v", r, diags)
		}
		v, _ := expr.Value(nil)
		got := v.AsValueSlice()
		if got[0].Type().FriendlyName() != "string" || len(got) != 2 {
			t.Fatalf("%U: %#v", r, v)
		}
		var want []string
		if err := stdjson.Unmarshal(hcljson.Source(src), &want); err != nil || want[0] != char || want[1] != char+`"`+char+char+`\` {
			t.Errorf("%U: %q, %v", r, want, err)
		}
	}
}

func TestSourceLeavesTheRest(t *testing.T) {
	for _, src := range []string{"", `"a\\"`, `"\`, "\"\\\u08e2\"", "\"\xff\xfe\"", `{"ä": "é"}`} {
		if got := string(hcljson.Source([]byte(src))); got != src {
			t.Errorf("%q became %q", src, got)
		}
	}
}
