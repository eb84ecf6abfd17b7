package sleep_test

import (
	"testing"
	"testing/synctest"
	"time"

	"bake/provisioner/provisionertest"
	"bake/provisioner/sleep"
)

func TestConformance(t *testing.T) {
	provisionertest.Run(t, sleep.Factory(), `duration = "0s"`, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		provisionertest.Cancelled(t, provisionertest.New(t, sleep.Factory(), `duration = "1h"`))
	})
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s, _ := provisionertest.Scope(t)
		err := provisionertest.New(t, sleep.Factory(), `duration = "1h30m"`).Provision(t.Context(), s, provisionertest.NewMachine(t).Builder())
		if slept := time.Since(start); err != nil || slept != 90*time.Minute {
			t.Errorf("slept for %s, %v", slept, err)
		}
	})
}

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		``: "duration", `duration = "-1s"`: "cannot be negative", `duration = "soon"`: "duration", `duration = 5`: "duration",
	} {
		provisionertest.Invalid(t, sleep.Factory(), body, "", want)
	}
}
