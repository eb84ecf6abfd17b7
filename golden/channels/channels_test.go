package channels_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"bake/golden/channels"
)

func TestClosed(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	rule := channels.Rule{Name: "stable", Requires: []string{"verify.boot", "checks.base"}, From: "candidate", Soak: 24 * time.Hour, Approval: true}
	good := channels.State{Passed: []string{"checks.base", "verify.boot"}, In: true, Since: now.Add(-24 * time.Hour), Approved: true, Now: now}
	for name, test := range map[string]struct {
		change func(*channels.State)
		want   string // part of the only reason
	}{
		"open":        {func(*channels.State) {}, ""},
		"not passed":  {func(s *channels.State) { s.Passed = []string{"verify.boot"} }, "checks.base has not passed"},
		"not told":    {func(s *channels.State) { s.Passed, s.Untold = nil, true }, "not in its tags"},
		"not in from": {func(s *channels.State) { s.In = false }, "channel candidate does not name it"},
		"too early":   {func(s *channels.State) { s.Since = now.Add(-24*time.Hour + time.Second) }, "from 2026-11-28T12:00:01Z on"},
		"no approval": {func(s *channels.State) { s.Approved = false }, "bake images approve AMI stable"},
	} {
		s := good
		test.change(&s)
		reasons := rule.Closed(s)
		if (test.want == "") != (len(reasons) == 0) || len(reasons) > 1 || test.want != "" && !strings.Contains(reasons[0], test.want) {
			t.Errorf("%s: %q", name, reasons)
		}
	}
	if reasons := (channels.Rule{Name: "candidate"}).Closed(channels.State{}); reasons != nil {
		t.Errorf("a channel that asks for nothing: %q", reasons)
	}
}

func TestPassed(t *testing.T) {
	for tag, want := range map[string][]string{"": nil, "verify.boot": {"verify.boot"}, "a,b": {"a", "b"}} {
		if got, ok := channels.Passed(tag); !ok || !slices.Equal(got, want) {
			t.Errorf("%q: %q", tag, got)
		}
	}
	if _, ok := channels.Passed("sha256:12"); ok {
		t.Error("a digest lists names")
	}
}
