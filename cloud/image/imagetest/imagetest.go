// Package imagetest provides a base for tests that boot real machines.
package imagetest

import (
	"context"
	"fmt"
	"os"

	"bake/cloud/image"
	"bake/cloud/machine"
)

// Dir returns the image store that all tests of this user share: BAKE_TEST_BASE, or a directory
// below /var/tmp. It is not below the home directory, which the machines' root may not be allowed
// to pass through.
func Dir() string {
	if dir := os.Getenv("BAKE_TEST_BASE"); dir != "" {
		return dir
	}
	return fmt.Sprintf("/var/tmp/bake-test-%d", os.Getuid())
}

// Debian returns the shared store and its Debian base, which it makes if necessary. Concurrent
// tests make it only once. Tests must not write to its layers. Progress is written to logf.
func Debian(ctx context.Context, driver machine.Driver, logf func(string, ...any)) (*image.Store, image.Base, error) {
	store, err := image.Open(Dir(), driver)
	if err != nil {
		return nil, image.Base{}, err
	}
	phase := ""
	base, err := store.Ensure(ctx, "debian-12", image.EnsureOptions{Progress: func(p image.Progress) {
		if p.Phase != phase {
			phase = p.Phase
			logf("base debian-12: %s", phase)
		}
	}})
	return store, base, err
}
