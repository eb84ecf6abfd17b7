package script

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestLinesOverwritten: the text of a line before it overwrote itself is reported if it
// was legible, and never an incomplete text.
func TestLinesOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines, live []string
		l := NewLines(func(s string) { lines = append(lines, s) })
		l.Overwritten = func(s string) { live = append(live, s) }
		for i := range 10 {
			fmt.Fprintf(l, "\r%d%% ", 10*i)
			time.Sleep(40 * time.Millisecond)
		}
		fmt.Fprint(l, "\r100%\nhalf a wo")
		l.Flush()
		if diff := cmp.Diff([]string{"100%", "half a wo"}, lines); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"0%", "30%", "60%"}, live); diff != "" {
			t.Errorf("live lines (-want +got):\n%s", diff)
		}
	})
}
