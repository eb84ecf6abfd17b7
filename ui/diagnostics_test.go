package ui

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// What a plugin or a server has said cannot move the cursor or change the terminal.
func TestDiagnosticsArePrintable(t *testing.T) {
	var b strings.Builder
	err := Diagnostics(&b, nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No\x1b]0;title\a", Detail: "one\r\x1b[2Jtwo\n\tthree\u202e"}}, 80, true)
	if err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, bad := range []string{"\x1b]", "\x1b[2J", "\r", "\a", "\u202e"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q contains %q", text, bad)
		}
	}
	if !strings.Contains(text, "two\n\tthree") {
		t.Errorf("got %q", text)
	}
}
