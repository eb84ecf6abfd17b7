package main

import (
	"context"

	"bake/cloud/image/imagetest"
	"bake/cloud/machine/sandbox"
)

// sharedBase makes the Debian base unless it exists, and returns its image store.
func sharedBase(ctx context.Context, logf func(string, ...any)) (string, error) {
	driver, err := sandbox.New(sandbox.Options{Dir: imagetest.Dir()})
	if err != nil {
		return "", err
	}
	_, _, err = imagetest.Debian(ctx, driver, logf)
	return imagetest.Dir(), err
}
