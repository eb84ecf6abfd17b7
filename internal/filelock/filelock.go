// Package filelock locks open files against other processes. A lock ends with the process
// that holds it, however that process ends.
package filelock

import "errors"

// ErrLocked says that another process, or another open file of this one, holds the lock.
var ErrLocked = errors.New("locked by another process")
