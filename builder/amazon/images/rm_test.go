package images_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/internal/turns"
	"bake/step"
)

// task runs something that removes images, with a ledger.
type task struct {
	w      *world
	scope  *step.Scope
	ledger *step.FileLedger
	path   string
}

func (w *world) task(t *testing.T) *task {
	t.Helper()
	dir := t.TempDir()
	l, err := step.CreateLedger(dir, step.Header{Run: "run"})
	if err != nil {
		t.Fatal(err)
	}
	return &task{w, step.NewScope(step.Scope{Ledger: l, Emit: func(step.Event) {}, Grace: time.Minute}), l, filepath.Join(dir, "run.jsonl")}
}

// remover removes images in the task.
func (t *task) remover(a *images.Account, g images.Guards) *images.Remover {
	return &images.Remover{Account: a, Scope: t.scope, Guards: g}
}

// sweep deletes what a copy of the ledger lists, as another process would.
func (t *task) sweep(ctx context.Context, ledger []byte) error {
	path := filepath.Join(filepath.Dir(t.path), "copy.jsonl")
	if err := os.WriteFile(path, ledger, 0o600); err != nil {
		return err
	}
	l, err := step.OpenLedger(path)
	if err != nil {
		return err
	}
	defer l.Close()
	owned, err := l.Owned()
	d := amazon.Destroyer(func(context.Context, string) (amazon.Cloud, error) { return t.w.cloud, nil })
	for _, r := range slices.Backward(owned) {
		err = errors.Join(err, d.Destroy(ctx, r))
	}
	return err
}

// holdings are the account's images and snapshots in a region.
func (w *world) holdings(region string) (all []string) {
	c := w.client("default", region)
	found, err := c.DescribeImages(context.Background(), &ec2.DescribeImagesInput{Owners: []string{"self"}, IncludeDisabled: aws.Bool(true)})
	w.fatal(err)
	for _, i := range found.Images {
		all = append(all, *i.ImageId)
	}
	snapshots, err := c.DescribeSnapshots(context.Background(), &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	w.fatal(err)
	for _, s := range snapshots.Snapshots {
		all = append(all, *s.SnapshotId)
	}
	return all
}

// TestRemove: an image is removed with its snapshots, except those of other images; of
// several images, all or none; and never images of other accounts.
func TestRemove(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	ctx := t.Context()
	w.watch(answering(nobody))
	own, both := w.snapshot("default", home, nil), w.snapshot("default", home, nil)
	first := w.register("default", home, "first", []string{own, both})
	second := w.register("default", home, "second", []string{w.snapshot("default", home, nil), both}, "bake:hold", "Ann")
	theirs := w.register(other, home, "theirs", []string{w.snapshot(other, home, nil)})
	a := w.open(home)
	w.fatal(permit(w.client(other, home), theirs, types.LaunchPermission{UserId: &a.ID}))
	find := func(refs ...string) (all []images.Image) {
		for _, ref := range refs {
			found, err := a.Find(ctx, ref)
			w.fatal(err)
			all = append(all, found...)
		}
		return all
	}
	before := w.holdings(home)
	task := w.task(t)
	r := task.remover(a, images.Guards{Now: later})
	err := r.Remove(ctx, find(first, second))
	used, ok := errors.AsType[*images.InUseError](err)
	if !ok || len(used.Images) != 1 || !strings.Contains(err.Error(), "held by the tag bake:hold: Ann") {
		t.Errorf("one of two is held: %v", err)
	}
	if err := r.Remove(ctx, find(first, theirs)); err == nil || !strings.Contains(err.Error(), "belongs to account 987654321098") {
		t.Errorf("one of two is somebody else's: %v", err)
	}
	if left := w.holdings(home); !slices.Equal(left, before) {
		t.Errorf("something was removed: %v of %v", left, before)
	}
	var said []images.Removal
	r.OnRemoval = func(done images.Removal) { said = append(said, done) }
	w.fatal(r.Remove(ctx, find(first)))
	if len(said) != 1 || said[0].Outcome != images.Removed || !slices.Equal(said[0].Deleted, []string{own}) || !slices.Equal(said[0].Kept, []string{both}) {
		t.Errorf("removed: %+v", said)
	}
	r.Guards.Ignore = []string{images.GuardHeld}
	w.fatal(r.Remove(ctx, find(second)))
	if left := w.holdings(home); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if owned, err := task.ledger.Owned(); err != nil || len(owned) > 0 {
		t.Errorf("the ledger owns %v, %v", owned, err)
	}
}

// TestRemoveLeavesSnapshots: a snapshot that cannot be deleted causes an error with
// advice, and stays in the ledger.
func TestRemoveLeavesSnapshots(t *testing.T) {
	for _, code := range []string{"missing-permissions", "internal-error", "client-error"} {
		w := newWorld(t, cloud.Options{})
		id := w.image(home, "web")
		a := w.open(home)
		found, err := a.Find(t.Context(), id)
		w.fatal(err)
		none := answering(nobody)
		allowed := false
		w.watch(func(n int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			switch c.Action {
			case "DeregisterImage": // as if its snapshots could not be deleted
				_, err := w.client("default", home).DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &id})
				if err != nil {
					t.Error(err)
				}
				fmt.Fprintf(rw, "<DeregisterImageResponse><return>true</return><deleteSnapshotResultSet><item><snapshotId>%s</snapshotId><returnCode>%s</returnCode></item></deleteSnapshotResultSet></DeregisterImageResponse>", found[0].Snapshots()[0], code)
			case "DeleteSnapshot":
				if allowed {
					serve(rw)
				} else {
					refuse(rw)
				}
			default:
				none(n, c, rw, serve)
			}
		})
		task := w.task(t)
		err = task.remover(a, images.Guards{Now: later}).Remove(t.Context(), found)
		left, ok := errors.AsType[*images.SnapshotsLeftError](err)
		if want := "aws ec2 delete-snapshot --region us-east-1 --snapshot-id " + found[0].Snapshots()[0]; !ok || !strings.Contains(left.Error(), want) {
			t.Errorf("%s: %v", code, err)
		}
		if err := task.scope.Close(t.Context(), t.Context()); err == nil {
			t.Errorf("%s: the end of the task says nothing", code)
		}
		allowed = true
		ledger, err := os.ReadFile(task.path)
		w.fatal(err)
		w.fatal(task.sweep(t.Context(), ledger))
		if left := w.holdings(home); len(left) > 0 {
			t.Errorf("%s: left after a sweep: %v", code, left)
		}
	}
}

// fault is what happens to one call.
type fault struct {
	name                                         string
	refuse, perform, lose, spoil, cancel, killed bool
}

var faults = []fault{
	{name: "refused", refuse: true},
	{name: "answer lost", perform: true, lose: true},
	{name: "answer spoilt", perform: true, spoil: true},
	{name: "cancelled before", lose: true, cancel: true},
	{name: "cancelled after", perform: true, cancel: true},
	{name: "killed before", lose: true, cancel: true, killed: true},
	{name: "killed after", perform: true, lose: true, cancel: true, killed: true},
}

// keepingSnapshots is like answering, for an EC2 that does not delete snapshots with
// their image, as in some regions in 2025: then more steps can fail.
func (w *world) keepingSnapshots(answers ...map[string]string) func(int, call, http.ResponseWriter, func(http.ResponseWriter)) {
	others := answering(answers...)
	return func(n int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action != "DeregisterImage" {
			others(n, c, rw, serve)
			return
		}
		_, err := w.client("default", c.Region).DeregisterImage(context.Background(), &ec2.DeregisterImageInput{ImageId: aws.String(c.Params.Get("ImageId"))})
		var refused smithy.APIError
		if errors.As(err, &refused) {
			rw.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(rw, "<Response><Errors><Error><Code>%s</Code><Message>no</Message></Error></Errors></Response>", refused.ErrorCode())
			return
		}
		fmt.Fprint(rw, "<DeregisterImageResponse><return>true</return></DeregisterImageResponse>")
	}
}

// walk makes each call of act fail in each way, or in the named ones, or in that of the day. ready
// prepares the resources, and returns a function that checks what is left.
func walk(t *testing.T, act func(context.Context, *task, *images.Account) error, ready func(*world) func(where string), ways ...string) {
	var lanes sync.WaitGroup
	asked := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return len(ways) > 0 && !slices.Contains(ways, f.name) })
	for _, f := range turns.One(t, asked) {
		w := newWorld(t, cloud.Options{})
		lanes.Go(func() {
			for n := 1; f.strike(t, w, n, act, ready); n++ {
				if n == 200 {
					t.Errorf("%s: there is no end of calls", f.name)
					return
				}
			}
		})
	}
	lanes.Wait()
}

// strike makes call n fail, and reports whether there was one.
func (f fault) strike(t *testing.T, w *world, n int, act func(context.Context, *task, *images.Account) error, ready func(*world) func(string)) bool {
	w.watch(nil)
	inspect := ready(w)
	a, task := w.open(home), w.task(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var (
		mu       sync.Mutex
		underWay sync.RWMutex // read-locked by each call in progress
		ledger   []byte       // its state when the call arrived
		action   string
	)
	none := w.keepingSnapshots(nobody)
	w.watch(func(i int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		underWay.RLock()
		defer underWay.RUnlock()
		mu.Lock()
		dead := f.killed && action != ""
		if i == n {
			action = c.Action
			ledger, _ = os.ReadFile(task.path)
		}
		mu.Unlock()
		answer := httptest.NewRecorder()
		switch {
		case i != n && dead: // the process is dead and makes no calls
			refuse(rw)
			return
		case i != n:
			none(i, c, rw, serve)
			return
		case f.refuse:
			refuse(rw)
			return
		case f.perform:
			none(i, c, answer, serve)
		}
		if f.cancel {
			cancel(errInterrupted)
		}
		if f.lose {
			panic(http.ErrAbortHandler) // hangs up
		}
		for k, v := range answer.Header() {
			rw.Header()[k] = v
		}
		body := answer.Body.Bytes()
		switch {
		case f.spoil && n%2 == 1:
			rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
			body = body[:len(body)/2]
		case f.spoil:
			rw.Header().Del("Content-Length")
			body = []byte("<html>The gateway has lost its way.</html>")
		}
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(body)
	})
	err := act(ctx, task, a)
	stop := context.Background()
	if f.killed {
		stop = ctx
	}
	closeErr := task.scope.Close(ctx, stop)
	mu.Lock()
	struck := action != ""
	mu.Unlock()
	underWay.Lock()
	underWay.Unlock() //nolint:staticcheck // all have ended
	w.watch(answering(nobody))
	where := fmt.Sprintf("%s, call %d (%s): error %v", f.name, n, action, err)
	if f.killed && struck {
		closeErr = task.sweep(t.Context(), ledger)
	} else if closeErr != nil {
		closeErr = task.scope.Close(t.Context(), t.Context())
	}
	if closeErr != nil {
		t.Errorf("%s: %v", where, closeErr)
	}
	if f.cancel && !f.killed && struck && err != nil && !errors.Is(err, errInterrupted) {
		t.Errorf("%s: it is not the cause of the cancellation", where)
	}
	inspect(where)
	return struck
}

// TestRemoveFaults: whatever call fails, an image exists with its snapshots or is gone with
// them, and others are not affected.
func TestRemoveFaults(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	target := map[string]string{}
	walk(t, func(ctx context.Context, task *task, a *images.Account) error {
		mu.Lock()
		id := target[task.w.URL]
		mu.Unlock()
		found, err := a.Find(ctx, id)
		if err != nil {
			return err
		}
		return task.remover(a, images.Guards{Now: later}).Remove(ctx, found)
	}, func(w *world) func(string) {
		own, both := w.snapshot("default", home, nil), w.snapshot("default", home, nil)
		name := "web-" + own
		id := w.register("default", home, name, []string{own, both})
		keeper := w.register("default", home, name+"-keeper", []string{both})
		mu.Lock()
		target[w.URL] = id
		mu.Unlock()
		return func(where string) {
			left := w.holdings(home)
			has := func(id string) bool { return slices.Contains(left, id) }
			if has(id) != has(own) {
				t.Errorf("%s: of the image and its snapshot, there is one: image %t, snapshot %t", where, has(id), has(own))
			}
			if !has(keeper) || !has(both) {
				t.Errorf("%s: another image or its snapshot is gone", where)
			}
		}
	})
}
