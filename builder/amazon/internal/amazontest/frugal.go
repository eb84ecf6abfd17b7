package amazontest

import "os"

// Frugal reduces the cost of tests of a program that calls only clouds on this machine:
// their files are in memory, where the system has such a file system, and no session reads
// the certificates of AWS_CA_BUNDLE.
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
		return nil // there is none that is writable
	}
	if err := os.Remove(dir); err != nil {
		return err
	}
	return os.Setenv("TMPDIR", memory)
}
