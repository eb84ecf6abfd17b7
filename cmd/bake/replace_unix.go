//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// replace executes another program in this process, with the given environment. The program
// inherits the streams and receives the signals.
func replace(path string, args, env []string) error {
	return fmt.Errorf("%s cannot be started: %w", path, syscall.Exec(path, append([]string{path}, args...), env))
}
