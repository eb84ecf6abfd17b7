package ec2

import "testing"

// TestKeyAhead checks that a key generated in advance is used only once.
func TestKeyAhead(t *testing.T) {
	s := &Service{}
	s.ExpectKey()
	ahead, err := (*s.ahead.Load())()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false} {
		key, err := s.rsaKey()
		if err != nil {
			t.Fatal(err)
		}
		if key.Equal(ahead) != want {
			t.Errorf("key %d: %t", i, !want)
		}
	}
}
