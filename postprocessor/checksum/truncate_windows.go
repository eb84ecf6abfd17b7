package checksum

import (
	"errors"
	"fmt"
	"os"
)

// truncate cuts off what a file that is open for appending has beyond size bytes. Windows needs
// another handle for it, which is of whatever has the name of the file now.
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
		return fmt.Errorf("%s is another file now, and what was added to the old one is not taken back", f.Name())
	}
	return again.Truncate(size)
}
