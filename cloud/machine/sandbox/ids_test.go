package sandbox

import (
	"os/user"
	"strings"
	"testing"
)

// TestGiveIDs: the remedy names the user of the process, whatever the environment says.
func TestGiveIDs(t *testing.T) {
	want := "USER" // of a user without a name
	if u, err := user.Current(); err == nil {
		want = u.Username
	}
	for _, name := range []string{"", "somebody-else"} {
		t.Setenv("USER", name)
		if got := giveIDs(); !strings.HasSuffix(got, " "+want) {
			t.Errorf("USER=%s: %s", name, got)
		}
	}
}
