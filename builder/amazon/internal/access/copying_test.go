package access_test

import (
	"errors"
	"testing"
	"time"

	"bake/builder/amazon/internal/access"
)

func TestCopying(t *testing.T) {
	pace := access.Pace{Retry: 10 * time.Second}
	tooMany := &access.Error{Code: "ResourceLimitExceeded", Message: "Too many snapshot copies in progress. The limit is 20 for this destination region."}
	for _, tt := range []struct {
		name     string
		err      error
		min, max time.Duration // for how long it is retried
		attempts int           // at least
	}{
		{"a broken copy", &access.ImageError{}, 40 * time.Second, 40 * time.Second, 3},
		{"an error of EC2", &access.Error{Code: "InternalError"}, 40 * time.Second, 40 * time.Second, 3},
		{"a quota", &access.Error{Code: "ResourceLimitExceeded", Message: "There are too many images."}, 40 * time.Second, 40 * time.Second, 3},
		{"too many at once", tooMany, 30 * time.Minute, 32 * time.Minute, 20},
		{"a refusal", &access.Error{Code: "UnauthorizedOperation"}, 0, 0, 1},
		{"anything else", errors.New("x"), 0, 0, 1},
	} {
		c := access.Copying{Pace: pace}
		var waited time.Duration
		attempts := 1
		for ; attempts < 1000; attempts++ {
			pause, text, ok := c.Again(tt.err)
			if !ok {
				break
			}
			if text == "" || pause > 90*time.Second {
				t.Errorf("%s: %q, a pause of %s", tt.name, text, pause)
			}
			waited += pause
		}
		if waited < tt.min || waited > tt.max || attempts < tt.attempts || attempts > 100 {
			t.Errorf("%s: %d attempts in %s", tt.name, attempts, waited)
		}
	}
}
