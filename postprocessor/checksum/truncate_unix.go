//go:build unix

package checksum

import "os"

// truncate cuts off what a file that is open for appending has beyond size bytes.
func truncate(f *os.File, size int64) error { return f.Truncate(size) }
