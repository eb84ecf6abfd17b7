//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// replace makes another program of this process, which has its streams, and gets its
// signals.
func replace(path string, args []string) error {
	return fmt.Errorf("%s cannot be started: %w", path, syscall.Exec(path, append([]string{path}, args...), os.Environ()))
}
