package ui

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// TestEndlessFile checks that lines of an endless file are not shown.
func TestEndlessFile(t *testing.T) {
	var b bytes.Buffer
	at := hcl.Range{Filename: "/dev/zero", Start: hcl.InitialPos, End: hcl.InitialPos}
	err := Diagnostics(&b, nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Bad", Detail: "Very.", Subject: &at}}, 80, false)
	if err != nil || !strings.Contains(b.String(), "In /dev/zero") {
		t.Errorf("%v %s", err, b.String())
	}
}
