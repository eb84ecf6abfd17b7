package pipeline

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"bake/builder"
	"bake/golden/bakefile"
	"bake/golden/reports"
	"bake/step"
)

// A scan on the host has a directory for its reports, even if nothing was written yet.
func TestScanFindsReports(t *testing.T) {
	l, err := step.CreateLedger(t.TempDir(), step.Header{Run: "r"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := step.NewScope(step.Scope{Run: step.Invocation{ID: "r", Env: os.Environ()}, Ledger: l, Emit: func(step.Event) {}})
	dir := filepath.Join(t.TempDir(), "runs", "r.reports")
	p := &pipeline{Options: Options{Reports: reports.Store{Dir: dir}}}
	p.image.Image = new(bakefile.Image)
	block := &bakefile.Scan{Kind: bakefile.Command, On: bakefile.OnHost, Format: "tap", Timeout: time.Minute,
		Command: `echo of mine > "$BAKE_REPORTS/mine.txt" && printf 'TAP version 13\n1..1\nok 1 - fine\n'`}
	if _, err := p.scanned(t.Context(), s, builder.Machine{}, scanner{block: block}, "scan.mine"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine.txt")); err != nil {
		t.Error(err)
	}
}
