package pipeline

import (
	"path/filepath"
	"strings"
	"testing"

	"bake/config"
	"bake/step"
)

// The same image made in another place has separate reports.
func TestTitle(t *testing.T) {
	here := &pipeline{Options: Options{Template: new(config.Template)}}
	there := &pipeline{Options: Options{Template: here.Template, Place: "111111111111.us-east-1"}}
	s := &step.Scope{Build: "amazon-ebs.web"}
	if a, b := here.title(s), there.title(s); a != "amazon-ebs.web" || b != "amazon-ebs.web.111111111111.us-east-1" {
		t.Errorf("the titles are %s and %s", a, b)
	}
}

// Each report has a separate file below the directory of reports.
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
