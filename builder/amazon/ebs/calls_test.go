package ebs_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the expected calls anew")

// TestCalls bakes each source block in testdata/calls and compares the calls that
// change something with the recorded ones. Its lines replace the lines of [plain] that
// set the same arguments.
func TestCalls(t *testing.T) {
	blocks, err := filepath.Glob(filepath.Join("testdata", "calls", "*.hcl"))
	if err != nil || len(blocks) < 25 {
		t.Fatalf("Glob = %q, %v, want 25 files or more", blocks, err)
	}
	for _, file := range blocks {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hcl"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			b := w.Bake(t)
			_, err = b.Build(t.Context(), overlaid(plain(""), string(text)))
			if fails := strings.Contains(string(text), "the build fails"); fails != (err != nil) {
				t.Errorf("error: %v", err)
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Fatal(err)
			}
			demandAllowed(t, input(overlaid(plain(""), string(text))), w.Calls, string(text))
			got := written(w.Calls, string(text))
			golden := strings.TrimSuffix(file, ".hcl") + ".calls"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil { // no secret
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("calls differ (-want +got):\n%s", diff)
			}
		})
	}
}

// overlaid returns text after the lines of base that set other arguments.
func overlaid(base, text string) string {
	var out []string
	for line := range strings.Lines(base) {
		name, _, sets := strings.Cut(line, "=")
		if !sets || strings.HasPrefix(line, " ") || !regexp.MustCompile(`(?m)^`+strings.TrimSpace(name)+` *=`).MatchString(text) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "") + text
}

var (
	anyID   = regexp.MustCompile(`\b(ami|sg|i|snap|vol|key|subnet|vpc|sgr)-[0-9a-f]{17}\b`)
	anyUUID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	anyRun  = regexp.MustCompile(`\brun-\d+\b`)
	random  = regexp.MustCompile(`^[A-Za-z0-9]{7}$`) // the name of a temporary image
)

// written is the calls that change something, one paragraph each, ordered by
// action and region: side by side, their order is not certain. A zone that text
// does not name is any zone.
func written(calls []call, text string) string {
	var out []string
	for _, c := range calls {
		if !c.Changes() {
			continue
		}
		lines := []string{c.Action + " in " + c.Region}
		for k, v := range c.Params {
			v = anyRun.ReplaceAllString(anyID.ReplaceAllString(v, "$1-ID"), "RUN")
			if !strings.HasPrefix(k, "KmsKeyId") && !strings.HasSuffix(k, "KmsKeyId") {
				v = anyUUID.ReplaceAllString(v, "UUID")
			}
			if k == "Placement.AvailabilityZone" && !strings.Contains(text, v) {
				v = "ZONE"
			}
			if k == "Name" && random.MatchString(v) {
				v = "RANDOM"
			}
			lines = append(lines, fmt.Sprintf("  %s = %s", k, v))
		}
		slices.SortFunc(lines[1:], natural)
		out = append(out, strings.Join(lines, "\n")+"\n")
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

var digits = regexp.MustCompile(`\d+`)

// natural compares numbers in texts by their value.
func natural(a, b string) int {
	pad := func(s string) string {
		return digits.ReplaceAllStringFunc(s, func(n string) string { return fmt.Sprintf("%03s", n) })
	}
	return strings.Compare(pad(a), pad(b))
}
