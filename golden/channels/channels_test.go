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
	late := now.Add(-24*time.Hour + time.Second)
	good := channels.State{Passed: []string{"checks.base", "verify.boot"}, In: true, Since: now.Add(-24 * time.Hour), Approved: true, Now: now}
	for name, test := range map[string]struct {
		change func(*channels.State)
		want   string // part of the last reason
		waits  channels.Wait
	}{
		"open":        {func(*channels.State) {}, "", channels.Wait{}},
		"not passed":  {func(s *channels.State) { s.Passed = []string{"verify.boot"} }, "checks.base has not passed", channels.Wait{}},
		"not told":    {func(s *channels.State) { s.Passed, s.Untold = nil, true }, "tags do not say which checks", channels.Wait{}},
		"not in from": {func(s *channels.State) { s.In = false }, "channel candidate does not name it", channels.Wait{}},
		"too early":   {func(s *channels.State) { s.Since = late }, "from 2026-11-28T12:00:01Z on", channels.Wait{Until: late.Add(rule.Soak)}},
		"no approval": {func(s *channels.State) { s.Approved = false }, "bake images approve AMI stable", channels.Wait{Approval: true}},
		"both":        {func(s *channels.State) { s.Since, s.Approved = late, false }, "bake images approve AMI stable", channels.Wait{Until: late.Add(rule.Soak), Approval: true}},
		"more":        {func(s *channels.State) { s.Passed, s.Since, s.Approved = nil, late, false }, "bake images approve AMI stable", channels.Wait{}},
	} {
		s := good
		test.change(&s)
		reasons, waits := rule.Closed(s)
		if (test.want == "") != (len(reasons) == 0) || test.want != "" && !strings.Contains(reasons[len(reasons)-1], test.want) {
			t.Errorf("%s: %q", name, reasons)
		}
		if waits != test.waits {
			t.Errorf("%s: it waits for %+v", name, waits)
		}
	}
	if reasons, waits := (channels.Rule{Name: "candidate"}).Closed(channels.State{}); reasons != nil || waits != (channels.Wait{}) {
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
