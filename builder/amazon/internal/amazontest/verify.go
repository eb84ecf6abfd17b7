package amazontest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"bake/builder"
)

// Verified builds body twice. The first time, the image is verified on a machine before it
// is copied or shared, and want resources are left in the cloud. The second time,
// verification fails, and nothing is left. provision, if not nil, makes the content of the
// image.
func Verified(t *testing.T, w *World, body string, boot builder.Boot, want int, provision builder.Provision) {
	t.Helper()
	before := len(w.Holdings())
	for _, bad := range []error{nil, errors.New("it does not start")} {
		looked := 0
		w.ImageCreated = func(ctx context.Context, image builder.Image) error {
			w.Mu.Lock()
			for _, c := range w.Calls {
				if slices.Contains([]string{"CopyImage", "ModifyImageAttribute", "ModifySnapshotAttribute"}, c.Action) {
					t.Errorf("%s before the image was looked at", c.Action)
				}
			}
			w.Mu.Unlock()
			err := image.Boot(ctx, boot, func(_ context.Context, m builder.Machine) error {
				if looked++; m.Data["SSHPublicKey"].Text == "" {
					t.Error("the machine has no key of its own")
				}
				return bad
			})
			if err != nil {
				return &builder.RejectedError{Action: builder.Delete, Err: err}
			}
			return nil
		}
		w.Mu.Lock()
		w.Calls = nil
		w.Mu.Unlock()
		b := w.Bake(t)
		b.Provision = provision
		a, err := b.Build(t.Context(), body)
		if !errors.Is(err, bad) || bad == nil && err != nil || looked != 1 {
			t.Errorf("looked %d times: %v", looked, err)
		}
		if bad != nil && !errors.Is(err, builder.ErrGate) {
			t.Errorf("the error is not one of a gate: %v", err)
		}
		w.Fatal(b.Scope.Close(t.Context(), context.Background()))
		expected := before
		if bad == nil {
			expected += want
		}
		if left := w.Holdings(); len(left) != expected {
			t.Errorf("%d wanted, left:\n%s", expected, strings.Join(left, "\n"))
		}
		if a != nil {
			for _, r := range a.Resources {
				w.Fatal(b.Scope.Destroyers().Destroy(t.Context(), r))
			}
		}
	}
}
