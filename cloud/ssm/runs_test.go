package ssm

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
	"bake/cloud/durable"
	"bake/cloud/machine"
	"bake/cloud/wire"
)

// busy simulates machines on which a command lasts until it is cancelled.
type busy struct{ Machines }

func (busy) RunManaged(ctx context.Context, _ wire.Caller, _ string, _ machine.Command) (int, error) {
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// TestDeliveryTimesOut checks that instances whose turn does not come in time are given
// up.
func TestDeliveryTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Options{Dir: t.TempDir(), Machines: busy{}, Now: time.Now, Wrote: func() {}})
		if err != nil {
			t.Fatal(err)
		}
		row := &command{Sent: ssm.Command{CommandId: aws.String("c"), MaxErrors: aws.String("0"), RequestedDateTime: aws.Time(time.Now())}}
		for _, id := range []string{"i-1", "i-2", "i-3"} {
			row.Invocations = append(row.Invocations, invocation{InstanceID: id, Status: ssm.CommandInvocationStatusPending})
		}
		p := plan{limit: 2 * time.Hour, concurrency: 1, expires: time.Now().Add(time.Hour)}
		if err := s.guarded.Update(func(st *state) error {
			s.begin(st, wire.Caller{}, "c", row.Invocations, p)
			return st.commands.Put("c", row)
		}); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			passes time.Duration
			want   []string
		}{
			{time.Hour - time.Second, []string{"InProgress", "", ""}},
			{2 * time.Second, []string{"InProgress", deliveryTimedOut, deliveryTimedOut}},
		} {
			time.Sleep(step.passes)
			synctest.Wait()
			got := durable.View(s.guarded, func(st *state) (details []string) {
				for _, v := range st.commands.Rows["c"].Invocations {
					details = append(details, v.Details)
				}
				return details
			})
			if !slices.Equal(got, step.want) {
				t.Errorf("the invocations are %q, want %q", got, step.want)
			}
		}
		_ = s.guarded.Update(func(st *state) error { st.running["c"].cancel(errCancelled); return nil })
		s.work.Wait()
	})
}
