package checksum

import (
	"errors"
	"fmt"
	"os"
)

// truncate truncates a file that is open for appending to size bytes. On Windows this takes
// another handle, to the file that has the name now.
func truncate(f *os.File, size int64) error {
	again, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(truncateSame(f, again, size), again.Close())
}

func truncateSame(f, again *os.File, size int64) error {
	was, err := f.Stat()
	is, more := again.Stat()
	if err := errors.Join(err, more); err != nil {
		return err
	}
	if !os.SameFile(was, is) {
		return fmt.Errorf("%s is a different file now, so the lines added to the old one are not removed", f.Name())
	}
	return again.Truncate(size)
}
