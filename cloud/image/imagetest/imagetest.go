// Package imagetest gives tests of real machines a base to boot them of.
package imagetest

import (
	"context"
	"fmt"
	"os"

	"bake/cloud/image"
	"bake/cloud/machine"
)

// Dir is the image store that the tests of this user share: BAKE_TEST_BASE, or
// a directory below /var/tmp. It is not below the home directory, where a
// machine's own root could not reach what a link leads to.
func Dir() string {
	if dir := os.Getenv("BAKE_TEST_BASE"); dir != "" {
		return dir
	}
	return fmt.Sprintf("/var/tmp/bake-test-%d", os.Getuid())
}

// Debian returns the shared store and the Debian base in it, which it makes if
// need be; however many tests ask, it is made once. Nobody may write to its
// layers. logf is told how it goes.
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
