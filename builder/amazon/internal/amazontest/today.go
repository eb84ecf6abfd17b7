package amazontest

import (
	"hash/fnv"
	"os"
	"testing"
	"time"
)

// Today returns what a test goes through: all or, with BAKE_TEST_SCRIPTS=today, one of
// them, another each day.
func Today[T any](t testing.TB, all []T) []T {
	if os.Getenv("BAKE_TEST_SCRIPTS") != "today" || len(all) == 0 {
		return all
	}
	h := fnv.New32a()
	h.Write([]byte(t.Name()))
	n := (int64(h.Sum32()) + time.Now().Unix()/86400) % int64(len(all))
	return all[n : n+1]
}

// Frugal has the tests of a program that calls nothing but clouds on this machine cost
// less: their files are in memory, where the system has such a file system, and no session
// reads the certificates of AWS_CA_BUNDLE.
func Frugal() error {
	if err := os.Unsetenv("AWS_CA_BUNDLE"); err != nil {
		return err
	}
	const memory = "/dev/shm"
	if os.Getenv("TMPDIR") != "" {
		return nil
	}
	dir, err := os.MkdirTemp(memory, "")
	if err != nil {
		return nil //nolint:nilerr // there is none that is writable
	}
	if err := os.Remove(dir); err != nil {
		return err
	}
	return os.Setenv("TMPDIR", memory)
}
