package instance_test

import (
	"slices"
	"strings"
	"testing"

	"bake/builder/amazon/instance"
	"bake/builder/amazon/internal/amazontest"
)

// TestPolicy compares the policy with the calls of a build, and with the bucket that the command
// on the machine uses.
func TestPolicy(t *testing.T) {
	w := amazontest.NewWorld(t, instance.Factory)
	amazontest.InstanceStore(w)
	text, _ := body(t, "ami_regions = [\"eu-west-1\"]\n")
	w.MustBuild(t, amazontest.Plain(text))
	e := amazontest.Evaluator{Policy: amazontest.PolicyOf(t, instance.Factory, amazontest.Input(amazontest.Plain(text)))}
	if refused := e.Refused(w.Calls); refused != nil {
		t.Errorf("the policy does not allow:\n%s", strings.Join(refused, "\n"))
	}
	var buckets []string
	for _, s := range e.Policy.Statement {
		if strings.HasPrefix(s.Action[0], "s3:") {
			buckets = append(buckets, s.Resource...)
		}
	}
	slices.Sort(buckets)
	if want := []string{"arn:aws:s3:::images", "arn:aws:s3:::images/web/*"}; !slices.Equal(buckets, want) {
		t.Errorf("buckets %v, want %v", buckets, want)
	}
}
