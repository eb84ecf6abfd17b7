package age_test

import (
	"testing"
	"time"

	"bake/internal/age"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "24h": 24 * time.Hour, "1d12h": 36 * time.Hour, "1s": time.Second} {
		if got, err := age.Parse(text); err != nil || time.Duration(got) != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0d", "0s", "-1d", "1d-1h", "+1d", "d", "30", "1w", "1.5d", "99999999d", "1d1d"} {
		if got, err := age.Parse(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for text, want := range map[string]string{"48h": "2d", "1d12h": "36h0m0s"} {
		if got, _ := age.Parse(text); got.String() != want {
			t.Errorf("%s is shown as %s", text, got)
		}
	}
}
