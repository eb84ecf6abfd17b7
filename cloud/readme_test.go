package cloud_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud"
	"bake/cloud/cloudtest"
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

// TestImages is the example in README.md.
func TestImages(t *testing.T) {
	client := cloudtest.Start(t, cloud.Options{}).EC2("default", "us-east-1") // an *ec2.Client of the AWS SDK
	out, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"136693071363"}})
	if err != nil || len(out.Images) != 1 {
		t.Errorf("%v, %v", out, err)
	}
}

// TestExample: what README.md shows in Go is a test here.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(text), "\n```go\n")
	if code, _, ok := strings.Cut(code, "```"); !ok || !strings.Contains(string(here), code) {
		t.Errorf("readme_test.go lacks the example of README.md:\n%s", code)
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
