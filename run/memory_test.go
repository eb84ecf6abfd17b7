package run

import (
	"context"
	"slices"
	"testing"
	"time"

	"bake/builder/amazon"
	"bake/config"
	"bake/engine"
	"bake/run/localcloud"
	"bake/step"
)

// TestMemoryOptions: a resumed run has its original options, except those that are given
// again.
func TestMemoryOptions(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := Memory{
		Run: "r1", Command: "bake build .", Started: began, OnError: engine.Keep, Force: true, Parallel: 3, FailFast: true, CloudInit: new(time.Minute),
		Path: "t.pkr.hcl", Cwd: "/work", VarFiles: []string{"v.pkrvars.hcl"}, Only: []string{"a"}, Except: []string{"b"}, Within: &amazon.Within{Region: "eu-west-1"},
	}
	given := Options{
		ID: "r2", Command: "bake resume", Timeout: time.Hour, CloudInit: time.Second, Template: Template{Options: config.Options{Env: []string{"A=1"}}},
		Cloud: func(context.Context, func(step.Event)) (*localcloud.Cloud, error) { return nil, nil },
	}
	got := m.options(given, []string{"x=1"})
	if got.ID != "r1" || got.Command != m.Command || !got.Force || got.Parallel != 3 || !got.FailFast || got.CloudInit != time.Minute || got.OnError != engine.Keep || got.Within != m.Within {
		t.Errorf("the options are %+v", got)
	}
	for remembered, want := range map[*time.Duration]time.Duration{new(time.Duration(0)): 0, nil: 5 * time.Minute} {
		m.CloudInit = remembered
		if got := m.options(given, nil).CloudInit; got != want {
			t.Errorf("cloud-init is waited for up to %s, want %s", got, want)
		}
	}
	if got.Timeout != time.Hour || got.Cloud != nil {
		t.Errorf("the time limit is %s, and the run is on the local cloud: %v", got.Timeout, got.Cloud != nil)
	}
	tt := got.Template
	if tt.Path != m.Path || tt.Cwd != m.Cwd || !tt.Now.Equal(began) || !slices.Equal(tt.Vars, []string{"x=1"}) || !slices.Equal(tt.VarFiles, m.VarFiles) || !slices.Equal(tt.Only, m.Only) || !slices.Equal(tt.Except, m.Except) || !slices.Equal(tt.Env, given.Template.Env) {
		t.Errorf("the template is %+v", tt)
	}
	given.OnError, m.Local = engine.Abort, true
	if got := m.options(given, nil); got.OnError != engine.Abort || got.Cloud == nil {
		t.Errorf("of the given options %s is left, and the local cloud: %v", got.OnError, got.Cloud != nil)
	}
}
