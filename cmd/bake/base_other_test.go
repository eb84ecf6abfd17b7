//go:build !linux

package main

import (
	"context"

	"bake/internal/local"
)

// sharedBase returns an error, since this system has no machines.
func sharedBase(context.Context, func(string, ...any)) (string, error) {
	return "", local.ErrUnsupported
}
