package ui

import (
	"sync"
	"time"

	"bake/step"
)

// Screen draws a [Live] display periodically.
type Screen struct {
	mu   sync.Mutex
	live *Live
	size func() (width, height int)
	stop chan struct{}
	done sync.WaitGroup

	suspended bool
}

// frame is the interval between frames.
const frame = 100 * time.Millisecond

// NewScreen starts to draw live. size returns the terminal's current size in cells. The caller must
// close the screen.
func NewScreen(live *Live, size func() (width, height int)) *Screen {
	s := &Screen{live: live, size: size, stop: make(chan struct{})}
	s.done.Go(func() {
		tick := time.NewTicker(frame)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.draw()
			case <-s.stop:
				return
			}
		}
	})
	return s
}

func (s *Screen) draw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.suspended {
		return
	}
	w, h := s.size()
	s.live.draw(time.Now(), w, h)
}

// Suspend draws a frame and leaves the terminal below it to the caller until resume is called.
// Events are still handled meanwhile.
func (s *Screen) Suspend() (resume func()) {
	s.draw()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspended = true
	s.live.leave()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.suspended = false
	}
}

// Handle implements [Display]. It may be called by several goroutines.
func (s *Screen) Handle(e step.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.Handle(e)
}

// Close draws the last frame and leaves the cursor below it.
func (s *Screen) Close() {
	close(s.stop)
	s.done.Wait()
	s.mu.Lock()
	s.suspended = false
	s.mu.Unlock()
	s.draw()
}
