package sandbox

import (
	"os/user"
	"strings"
	"testing"
)

// TestGiveIDs: the remedy names the user of the process, whatever the environment says.
func TestGiveIDs(t *testing.T) {
	u, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"", "somebody-else"} {
		t.Setenv("USER", name)
		if got := giveIDs(); !strings.HasSuffix(got, " "+u.Username) {
			t.Errorf("USER=%s: %s", name, got)
		}
	}
}
