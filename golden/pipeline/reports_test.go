package pipeline

import (
	"path/filepath"
	"strings"
	"testing"
)

// Each report has a file of its own, below the directory of reports.
func TestFileName(t *testing.T) {
	long := strings.Repeat("x", 300)
	names := []string{
		"amazon-ebs.web.leftovers", "a/b.leftovers", "a_b.leftovers", "a%2fb.leftovers", "a b.leftovers", `a\b.leftovers`, "a\x00b", "ä.leftovers",
		"..", "../../x", "", "a.verify.boot.ami-1.t3.small", long, long + "y", long + "/",
	}
	seen := map[string]string{}
	for _, name := range names {
		file := fileName(name)
		if other, twice := seen[file]; twice {
			t.Errorf("%q and %q are both %s", name, other, file)
		}
		seen[file] = name
		if len(file) > longestName || filepath.Base("d/"+file+".json") != file+".json" || strings.ContainsAny(file, "/\\\x00 ") {
			t.Errorf("%.40q is %q", name, file)
		}
	}
	if got := fileName(names[0]); got != names[0] {
		t.Errorf("got %s", got)
	}
}
