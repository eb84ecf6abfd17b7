package baseline

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocs: the guide lists every rule as it is. BAKE_UPDATE=1 writes the list.
func TestDocs(t *testing.T) {
	const file, marker = "../../../docs/baseline.md", "<!-- rules -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	guide, _, found := strings.Cut(string(text), marker)
	if !found {
		t.Fatalf("%s has no %s", file, marker)
	}
	var b strings.Builder
	b.WriteString(guide + marker + "| rule | severity | level | requirement | fix |\n|---|---|---|---|---|\n")
	for _, r := range table {
		fix := r.Fix
		if !r.automatic() {
			fix = "by hand: " + fix
		}
		if r.AppliesTo != "" {
			fix += " (" + r.AppliesTo + ")"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %d | %s. %s | %s |\n", r.ID, r.Severity, r.Level, r.Title, r.Rationale, strings.NewReplacer("*", `\*`, "<", "&lt;").Replace(fix))
	}
	if b.String() == string(text) {
		return
	}
	if os.Getenv("BAKE_UPDATE") == "" {
		t.Fatalf("%s is out of date: run BAKE_UPDATE=1 go test ./golden/checks/baseline -run Docs", file)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
