package cloud_test

import (
	"context"
	"errors"
	"testing"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestDrain checks that a cloud is not closed while others use it, and that no use can
// begin once it is about to be closed.
func TestDrain(t *testing.T) {
	dir := t.TempDir()
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		first, err := cloud.Use(dir)
		if err != nil {
			t.Fatal(err)
		}
		second, err := cloud.Use(dir)
		if err != nil {
			t.Fatal(err)
		}

		impatient, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		if err := s.Drain(impatient, func() { cancel(enough) }); !errors.Is(err, enough) {
			t.Errorf("drained under two users: %v", err)
		}

		waiting, drained := make(chan struct{}), make(chan error, 1)
		go func() { drained <- s.Drain(t.Context(), func() { close(waiting) }) }()
		<-waiting
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		third, err := cloud.Use(dir) // while others use it, another can join
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(second.Close(), third.Close(), <-drained); err != nil {
			t.Error(err)
		}
		if _, err := cloud.Use(dir); !errors.Is(err, cloud.ErrClosing) {
			t.Errorf("used a cloud that is being closed: %v", err)
		}
	})
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		use, err := cloud.Use(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := use.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Drain(t.Context(), func() { t.Error("waits for nobody") }); err != nil {
			t.Error(err)
		}
	})
}
