// Package filelock locks open files against other processes. A lock ends with the process
// that holds it, however that process ends.
package filelock

import "errors"

// ErrLocked is the error if another process, or another open file of this process, holds
// the lock.
var ErrLocked = errors.New("locked by another process")
