package ssm

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
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
	s, err := Open(Options{Dir: t.TempDir(), Machines: busy{}, Now: time.Now, Wrote: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	row := &command{Sent: ssm.Command{CommandId: aws.String("c"), MaxErrors: aws.String("0"), RequestedDateTime: aws.Time(time.Now())}}
	for _, id := range []string{"i-1", "i-2", "i-3"} {
		row.Invocations = append(row.Invocations, invocation{InstanceID: id, Status: ssm.CommandInvocationStatusPending})
	}
	p := plan{limit: time.Hour, concurrency: 1, expires: time.Now().Add(200 * time.Millisecond)}
	if err := s.guarded.Update(func(st *state) error {
		s.begin(st, wire.Caller{}, "c", row.Invocations, p)
		return st.commands.Put("c", row)
	}); err != nil {
		t.Fatal(err)
	}
	details := func() (all []string) {
		_ = s.guarded.Update(func(st *state) error {
			for _, v := range st.commands.Rows["c"].Invocations {
				all = append(all, v.Details)
			}
			return nil
		})
		return all
	}
	for deadline := time.Now().Add(10 * time.Second); details()[2] != deliveryTimedOut; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the invocations are %q", details())
		}
	}
	if got := details(); got[0] != "InProgress" || got[1] != deliveryTimedOut {
		t.Errorf("the invocations are %q", got)
	}
	_ = s.guarded.Update(func(st *state) error { st.running["c"].cancel(errCancelled); return nil })
	s.work.Wait()
}
