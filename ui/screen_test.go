package ui

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bake/step"
)

// TestScreen draws with a fake clock: frames are drawn periodically, none while another
// program uses the terminal, and the last one when the screen is closed.
func TestScreen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := NewScreen(NewLive(&out, PlainOptions{}), func() (int, int) { return 60, 10 })
		at := time.Now()
		s.Handle(step.Event{Time: at, Kind: step.RunStarted, Text: "null.x"})
		s.Handle(step.Event{Time: at, Kind: step.BuildStarted, Build: "null.x"})
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		if n := strings.Count(out.String(), "null.x"); n != 2 {
			t.Errorf("%d frames in 250 ms, want 2", n)
		}

		resume := s.Suspend()
		out.Reset()
		s.Handle(step.Event{Time: at, Kind: step.Say, Build: "null.x", Text: "meanwhile"})
		time.Sleep(time.Second)
		synctest.Wait()
		if out.Len() > 0 {
			t.Errorf("drawn while suspended: %q", out.String())
		}
		resume()
		time.Sleep(60 * time.Millisecond)
		synctest.Wait()
		if got := out.String(); !strings.Contains(got, "meanwhile") || strings.Contains(got, "\x1b[1A") {
			t.Errorf("the first frame after that is %q; it must tell what was said and not draw over what is above", got)
		}

		s.Suspend() // and never resumed
		out.Reset()
		s.Handle(step.Event{Time: at, Kind: step.RunFinished})
		s.Close()
		if !strings.Contains(out.String(), "Wait completed") {
			t.Errorf("the last frame is %q", out.String())
		}
	})
}
