package cloud_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestREADME checks that the lists of actions are those of the action tables.
func TestREADME(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	action := regexp.MustCompile(`(?m)^\t*"([A-Za-z]+)":\s+wire\.Answer\(`)
	var want strings.Builder
	for _, s := range [][2]string{
		{"autoscaling", "Auto Scaling"}, {"ec2", "EC2"}, {"iam", "IAM"}, {"kms", "KMS"}, {"organizations", "Organizations"},
		{"secretsmanager", "Secrets Manager"}, {"ssm", "Systems Manager"}, {"sts", "STS"},
	} {
		table, err := os.ReadFile(s[0] + "/api.go")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range action.FindAllStringSubmatch(string(table), -1) {
			names = append(names, m[1])
		}
		if len(names) == 0 {
			t.Fatalf("%s/api.go has no actions", s[0])
		}
		slices.Sort(names)
		fmt.Fprintf(&want, "### %s: %d actions\n\n%s\n\n", s[1], len(names), wrapped(strings.Join(names, ", ")+"."))
	}
	if _, rest, _ := strings.Cut(string(text), "\n## Actions\n"); !strings.Contains(rest, want.String()) {
		t.Errorf("README.md should hold, below \"Actions\":\n\n%s", want.String())
	}
}

// wrapped breaks lines at spaces after at most 118 characters.
func wrapped(text string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case width == 0:
		case width+1+len(word) > 118:
			b.WriteByte('\n')
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += len(word)
	}
	return b.String()
}
