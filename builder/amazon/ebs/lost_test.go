package ebs_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// TestLostAnswer loses the response to a call that has made something: the SDK's retry
// finds the existing resource, and the build continues with it.
func TestLostAnswer(t *testing.T) {
	for _, action := range []string{"CreateSecurityGroup", "CreateKeyPair"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var lost atomic.Bool
			w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
				if c.Action == action && lost.CompareAndSwap(false, true) {
					serve(httptest.NewRecorder())
					panic(http.ErrAbortHandler) // hangs up
				}
				serve(rw)
			}
			w.MustBuild(t, plain(`ami_name = "web"`))
			if !lost.Load() {
				t.Error("the call was not made")
			}
			if left := w.Holdings(); len(left) != 2 { // the image and its snapshot
				t.Errorf("left: %q", left)
			}
		})
	}
}
