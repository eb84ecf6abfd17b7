package fleet_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"bake/cloud"
	"bake/cloud/ec2"
	"bake/fleet"
	"bake/run/runtest"
)

// ahead is a clock that is wrong, or of a host whose own one is.
type ahead struct {
	ec2.SystemClock
	by time.Duration
}

func (c ahead) Now() time.Time { return time.Now().Add(c.by) }

// TestBadDays: if an account cannot be accessed or refuses calls, its cells fail and say
// why, cells that need them are skipped, all others are baked, and nothing is left. A wrong
// clock is tolerated.
func TestBadDays(t *testing.T) {
	const other = "987654321098"
	for name, c := range map[string]struct {
		clock  time.Duration
		happen func(w *world, calls *runtest.Calls)
		want   []string // of the errors of the cells in the other account; none: they are built
	}{
		"no role": {happen: func(w *world, _ *runtest.Calls) {
			if _, err := iam.NewFromConfig(w.Config("other", "us-east-1")).DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("bake-build")}); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"arn:aws:iam::987654321098:role/bake-build", "AccessDenied"}},
		"refuses": {happen: func(_ *world, calls *runtest.Calls) {
			calls.Refuse = func(c runtest.Call) bool { return c.Account == other && c.Action == "ec2:RunInstances" }
		}, want: []string{"UnauthorizedOperation", "lack the permission ec2:RunInstances"}},
		"a clock that is slow": {clock: time.Hour},
		"a clock that is fast": {clock: -time.Hour},
	} {
		w := newWorldOn(t, cloud.Options{Clock: ahead{by: c.clock}}, template, bakeFile)
		address, calls := w.Watch()
		t.Setenv("AWS_ENDPOINT_URL", address)
		if c.happen != nil {
			c.happen(w, calls)
		}
		s, _ := w.run(fleet.RunOptions{})
		for _, one := range s.Cells {
			switch o := one.Outcome; {
			case c.want == nil || one.Cell.Account != other:
				if !o.Result.OK() {
					t.Errorf("%s: %s: %s", name, one.Cell.Short(), o.Error)
				}
			case one.Cell.Image == "web":
				if o.Result != fleet.Skipped {
					t.Errorf("%s: %s is %s", name, one.Cell.Short(), o.Result)
				}
			default:
				for _, want := range c.want {
					if o.Result != fleet.Failed || !strings.Contains(o.Error, want) {
						t.Errorf("%s: %s is %s, and lacks %q: %s", name, one.Cell.Short(), o.Result, want, o.Error)
					}
				}
			}
		}
		for _, region := range []string{"eu-west-1", "us-west-2"} {
			if left := w.Holdings("other", region); c.want != nil && len(left) > 0 {
				t.Errorf("%s: in %s there is %q", name, region, left)
			}
		}
	}
}
