package checksum

import (
	"os"
	"path/filepath"
	"testing"
)

// An incomplete line is removed again, but never what others have appended before or since.
func TestTakeBack(t *testing.T) {
	for later, want := range map[string]string{"": "before", "later": "beforepartlater"} {
		path := filepath.Join(t.TempDir(), "sum")
		open := func() *os.File {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		first, other := open(), open()
		defer first.Close()
		defer other.Close()
		if _, err := other.WriteString("before"); err != nil {
			t.Fatal(err)
		}
		n, err := first.WriteString("part")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.WriteString(later); err != nil {
			t.Fatal(err)
		}
		if err := takeBack(first, n); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("it holds %q, %v; want %q", got, err, want)
		}
	}
}
