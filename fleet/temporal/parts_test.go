package temporal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	common "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"bake/builder/amazon"
	"bake/fleet"
	"bake/run"
	"bake/step"
)

// TestLooks: cells that wait in the same place share a call.
func TestLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		calls := map[string]int{}
		l := looks{ask: func(_ context.Context, p amazon.Place, ids []string) (map[string]string, error) {
			mu.Lock()
			defer mu.Unlock()
			calls[p.Region] += len(ids) * 1000
			calls[p.Region]++
			return map[string]string{"ami-1": "pending", "ami-2": "available"}, nil
		}}
		var all sync.WaitGroup
		for _, c := range []struct {
			region, id string
			want       bool
		}{{"a", "ami-1", false}, {"a", "ami-2", true}, {"b", "ami-2", true}, {"a", "ami-gone", true}} {
			all.Go(func() {
				got, err := l.settled(t.Context(), amazon.Place{Region: c.region}, []string{c.id})
				if err != nil || got != c.want {
					t.Errorf("%s in %s: %t, %v", c.id, c.region, got, err)
				}
			})
		}
		all.Wait()
		if calls["a"] != 3001 || calls["b"] != 1001 {
			t.Errorf("the calls: %v", calls)
		}
	})
}

// TestCodec: encrypted payloads can be read only with their key, and others do not change.
func TestCodec(t *testing.T) {
	key, _ := run.NewKey("a key for the tests")
	other, _ := run.NewKey("another key for the tests")
	p, err := sealed(key, true).ToPayloads("secret text")
	if err != nil || strings.Contains(p.String(), "secret") {
		t.Fatalf("%v, %v", p, err)
	}
	var text string
	for _, encrypt := range []bool{true, false} { // a codec without encryption reads it, too
		if err := sealed(key, encrypt).FromPayloads(p, &text); err != nil || text != "secret text" {
			t.Errorf("%q, %v", text, err)
		}
	}
	if err := sealed(other, true).FromPayloads(p, &text); err == nil {
		t.Error("it can be read with another key")
	}
	plain, err := converter.GetDefaultDataConverter().ToPayloads("old")
	if err != nil {
		t.Fatal(err)
	}
	if err := sealed(key, true).FromPayloads(plain, &text); err != nil || text != "old" {
		t.Errorf("%q, %v", text, err)
	}
	clear, err := sealed(key, false).ToPayloads("clear text")
	if err != nil || !strings.Contains(string(clear.GetPayloads()[0].GetData()), "clear text") {
		t.Errorf("%v, %v", clear, err)
	}
}

// TestPacked: a fleet with the maximum number of cells fits into one message of the service,
// even when all of them have ended; small payloads stay readable.
func TestPacked(t *testing.T) {
	in := fleetIn{Fleet: "big"}
	s := fleet.Status{Fleet: "big"}
	random := rand.New(rand.NewPCG(1, 2))
	digits := func(n int) string {
		b := make([]byte, n/2)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return hex.EncodeToString(b)
	}
	const most = 10_000
	for i := range most {
		c := fleet.Cell{Fleet: "big", Image: fmt.Sprint("image", i%100), Account: fmt.Sprintf("1111111111%02d", i/100), Region: "eu-west-1", Role: fmt.Sprintf("arn:aws:iam::1111111111%02d:role/bake-build", i/100)}
		out := &fleet.Outcome{Cell: c, Result: fleet.Built, Run: digits(32), Started: time.Unix(int64(i), 0), Ended: time.Unix(int64(2*i), int64(i))}
		out.Image = fleet.Image{ID: "ami-" + digits(16), Name: c.Image + "-2026", Inputs: "sha256:" + digits(64)}
		out.Image.IDs = map[string]string{c.Region: out.Image.ID}
		in.Cells, s.Cells = append(in.Cells, c), append(s.Cells, fleet.CellStatus{Cell: c, State: fleet.State(out.Result), Run: out.Run, Started: out.Started, Outcome: out})
	}
	if err := tooLarge(in); err != nil {
		t.Error(err)
	}
	p, err := packing().ToPayload(s)
	if err != nil || len(p.GetData()) > payloadLimit {
		t.Errorf("%d bytes, %v", len(p.GetData()), err)
	}
	t.Logf("the ends of %d cells take %d bytes each", most, len(p.GetData())/most)
	var again fleet.Status
	if err := packing().FromPayload(p, &again); err != nil || len(again.Cells) != most || again.Cells[most-1].Run != s.Cells[most-1].Run {
		t.Error(err)
	}
	small, err := packing().ToPayload(fleetIn{Fleet: "small"})
	if err != nil || !strings.Contains(string(small.GetData()), "small") {
		t.Errorf("%s, %v", small, err)
	}
	bomb, err := packer{}.Encode([]*common.Payload{{Data: make([]byte, mostUnpacked+1)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (packer{}).Decode(bomb); err == nil {
		t.Errorf("%d bytes become too many without an error", len(bomb[0].GetData()))
	}
}

// TestAllFailed: the result of a fleet fits into a message even if all of its cells have
// failed with long, incompressible errors; the first ones are complete, and the count
// continues in a following workflow.
func TestAllFailed(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	text := func() string {
		b := make([]byte, longestError)
		for i := range b {
			b[i] = byte(' ' + 1 + random.IntN(94))
		}
		return string(b)
	}
	for _, many := range []int{300, 3000, 10_000} {
		in := fleetIn{Fleet: "big"}
		for i := range many {
			in.Cells = append(in.Cells, fleet.Cell{Fleet: "big", Image: fmt.Sprint("image", i%100), Account: fmt.Sprintf("1111111111%02d", i/100), Region: "eu-west-1", Role: fmt.Sprintf("arn:aws:iam::1111111111%02d:role/bake-build", i/100)})
		}
		if err := tooLarge(in); err != nil {
			t.Error(err)
		}
		r := &fleetRun{fleetIn: in}
		if err := r.goOn(); err != nil {
			t.Fatal(err)
		}
		for i, c := range r.order.Begin() {
			if i == many/2 { // another workflow continues
				done := r.outcomes
				r = &fleetRun{fleetIn: in}
				r.Done = done
				if err := r.goOn(); err != nil {
					t.Fatal(err)
				}
				r.order.Begin()
			}
			r.ended(fleet.Outcome{Cell: c, Result: fleet.Failed, Run: uuid.NewString(), Code: 1, Error: text(), Started: time.Unix(int64(i), 0), Ended: time.Unix(int64(2*i), int64(i))})
		}
		s := r.status()
		p, err := packing().ToPayload(s)
		if err != nil || len(p.GetData()) > payloadLimit {
			t.Errorf("%d cells: %d bytes, %v", many, len(p.GetData()), err)
		}
		t.Logf("%d cells that have failed: %d bytes", many, len(p.GetData()))
		whole := 0
		for _, c := range s.Cells {
			switch {
			case len(c.Outcome.Error) == longestError:
				whole++
			case len(c.Outcome.Error) > shortError || !strings.HasSuffix(c.Outcome.Error, "..."):
				t.Errorf("%s: %q", c.Cell.Short(), c.Outcome.Error)
			}
		}
		if whole != longErrors {
			t.Errorf("%d of %d errors are told whole", whole, many)
		}
	}
}

// TestFailuresAreEncrypted: the messages of errors, which contain the names of images and
// accounts, are encrypted.
func TestFailuresAreEncrypted(t *testing.T) {
	key, _ := run.NewKey("a key for the tests")
	for _, encrypt := range []bool{true, false} {
		c := failures(sealed(key, encrypt), encrypt)
		f := c.ErrorToFailure(sdk.NewApplicationError("secret text", "State", "secret detail"))
		if clear := strings.Contains(f.String(), "secret text"); clear == encrypt {
			t.Errorf("encrypted %t: %s", encrypt, f)
		}
		for _, reader := range []bool{true, false} {
			if err := failures(sealed(key, reader), reader).FailureToError(f); err == nil || !strings.Contains(err.Error(), "secret text") {
				t.Errorf("encrypted %t: it reads %v", encrypt, err)
			}
		}
	}
}

// TestEmitsOneByOne: cells that are baked side by side do not emit at once.
func TestEmitsOneByOne(t *testing.T) {
	var inside atomic.Bool
	n := 0
	emit := oneByOne(func(step.Event) {
		if !inside.CompareAndSwap(false, true) {
			t.Error("two events at once")
		}
		for range 100 {
			runtime.Gosched()
		}
		inside.Store(false)
		n++
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { emit(step.Event{}) })
	}
	all.Wait()
	if n != 20 {
		t.Errorf("%d events", n)
	}
	if oneByOne(nil) != nil {
		t.Error("nobody to tell has become somebody")
	}
}

// TestRunIsNoPath: the run in a history cannot name a file elsewhere.
func TestRunIsNoPath(t *testing.T) {
	a := &activities{}
	for _, id := range []string{"", "../x", "/etc/passwd"} {
		if _, err := a.stage(t.Context(), stageIn{Run: id}); err == nil || !strings.Contains(err.Error(), "not the id of a run") {
			t.Errorf("stage %q: %v", id, err)
		}
		if _, err := a.teardown(t.Context(), teardownIn{Run: id}); err == nil || !strings.Contains(err.Error(), "not the id of a run") {
			t.Errorf("teardown %q: %v", id, err)
		}
	}
}

// TestPlace: a worker assumes only roles that its template names for the place.
func TestPlace(t *testing.T) {
	own := fleet.Cell{Fleet: "nightly", Image: "web", Account: "111111111111", Region: "eu-west-1", Role: "arn:aws:iam::111111111111:role/bake"}
	a := &activities{fleets: map[string]*fleet.Fleet{"nightly": {Name: "nightly", Cells: []fleet.Cell{own}}}}
	a.host.Options = func(context.Context, fleet.Cell, []fleet.Outcome) (run.Options, error) {
		t.Error("the worker has begun")
		return run.Options{}, errors.New("begun")
	}
	admin, elsewhere, another := own, own, own
	admin.Role, elsewhere.Region, another.Fleet = "arn:aws:iam::111111111111:role/admin", "us-east-1", "weekly"
	for c, want := range map[*fleet.Cell]string{&admin: "has \"arn:aws:iam::111111111111:role/bake\"", &elsewhere: "has no cell in account 111111111111, region us-east-1", &another: "does not work for the fleet weekly"} {
		out, err := a.stage(t.Context(), stageIn{Cell: *c, Run: "0197a1b2-0000-4000-8000-000000000001"})
		if err != nil || out.Outcome == nil || out.Outcome.Result != fleet.Failed || !strings.Contains(out.Outcome.Error, want) {
			t.Errorf("%+v: %+v, %v", *c, out.Outcome, err)
		}
	}
	if c, err := a.place(admin); err != nil || c.Role != own.Role { // for a later teardown
		t.Errorf("%+v, %v", c, err)
	}
	approved := false
	a.host.Approve = func(_ context.Context, o fleet.Outcome, _ fleet.Approval, _ fleet.Wait) error {
		approved = o.Cell.Role == own.Role
		return nil
	}
	env := new(testsuite.WorkflowTestSuite).NewTestActivityEnvironment()
	env.RegisterActivity(a.approve)
	if _, err := env.ExecuteActivity(a.approve, approveIn{Outcome: fleet.Outcome{Cell: admin}}); err != nil || !approved {
		t.Error("it is not approved as the role of the template", err)
	}
	if _, err := env.ExecuteActivity(a.approve, approveIn{Outcome: fleet.Outcome{Cell: another}}); err == nil {
		t.Error("an image of another fleet is approved")
	}
}

// TestMetrics: metrics are in the format of Prometheus, each after its description.
func TestMetrics(t *testing.T) {
	m := newMetrics("eu-west-1", "eu-west-2")
	m.event(step.Event{Kind: step.StepFinished, Elapsed: 1500 * time.Millisecond})
	m.event(step.Event{Kind: step.StepFailed})
	tally{Metrics: m}.WithTags(map[string]string{resultTag: string(fleet.Built)}).Counter(cellsCounter).Inc(1)
	tally{Metrics: m}.Counter("temporal_request").Inc(1) // which is the SDK's
	m.call("ec2", "eu-west-1")
	m.call("ec2", "eu-west-1")
	var out strings.Builder
	if err := m.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# TYPE bake_api_calls_total counter\nbake_api_calls_total{service=\"ec2\",region=\"eu-west-1\"} 2\n",
		"bake_api_calls_total{service=\"ec2\",region=\"eu-west-2\"} 0\n",
		"bake_cells_total{result=\"built\"} 1\n", "bake_cells_total{result=\"failed\"} 0\n", "bake_resources_total{change=\"kept\"} 0\n", "bake_teardown_failures_total 0\n",
		"bake_step_seconds_total 1.5\n", "bake_steps_total{result=\"failed\"} 1\nbake_steps_total{result=\"finished\"} 1\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, out.String())
		}
	}
}
