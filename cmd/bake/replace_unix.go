//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// replace makes another program of this process, which has its streams, and gets its
// signals, and an environment.
func replace(path string, args, env []string) error {
	return fmt.Errorf("%s cannot be started: %w", path, syscall.Exec(path, append([]string{path}, args...), env))
}
