package communicator_test

import (
	"io"
	"strings"
	"testing"

	"bake/communicator"
)

func TestHead(t *testing.T) {
	h := &communicator.Head{Max: 5}
	for _, text := range []string{"abc", "", "de"} {
		if n, err := io.Copy(h, strings.NewReader(text)); int(n) != len(text) || err != nil || h.Cut() {
			t.Fatalf("%q: %d, %v, %t", text, n, err, h.Cut())
		}
	}
	// A source without WriteTo, as connections are, for which io.Copy looks for ReadFrom.
	if n, err := io.Copy(h, struct{ io.Reader }{strings.NewReader("fgh")}); n != 3 || err != nil || h.String() != "abcde" || !h.Cut() {
		t.Errorf("%d, %v, %q", n, err, h)
	}
}
