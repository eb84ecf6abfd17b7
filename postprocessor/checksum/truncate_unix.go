//go:build unix

package checksum

import "os"

// truncate truncates a file that is open for appending to size bytes.
func truncate(f *os.File, size int64) error { return f.Truncate(size) }
