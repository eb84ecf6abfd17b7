//go:build unix

package main

import "syscall"

// keepOwnAccess keeps the file mode mask from denying bake the files and directories that it makes.
func keepOwnAccess() {
	const owner = 0o700
	syscall.Umask(syscall.Umask(owner) &^ owner)
}
