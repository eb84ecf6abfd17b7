//go:build !linux

package main

import (
	"context"

	"bake/internal/local"
)

// sharedBase says that this system has no machines.
func sharedBase(context.Context, func(string, ...any)) (string, error) {
	return "", local.ErrUnsupported
}
