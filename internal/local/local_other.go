//go:build !linux

package local

import (
	"context"
	"log/slog"
	"runtime"
)

// Child reports that this process is not part of a machine.
func Child([]string) (ran bool, code int) { return false, 0 }

// Open returns the local cloud that this process or another one serves.
func Open(context.Context, Options) (*Cloud, error) { return nil, ErrUnsupported }

// Serve opens the local cloud in this process.
func Serve(context.Context, Options) (*Cloud, error) { return nil, ErrUnsupported }

// Trouble returns nothing: there is no cloud.
func Trouble(string) string { return "" }

// Examine reports that machines need another system.
func Examine(context.Context, string, *slog.Logger) ([]Finding, error) {
	return []Finding{{Name: "system", Fatal: true, Detail: "machines are Linux machines, and this is " + runtime.GOOS, Remedy: remedy}}, nil
}

// ImportImage makes an image of the cloud in dir.
func ImportImage(context.Context, string, *slog.Logger, Import) ([]string, error) {
	return nil, ErrUnsupported
}

// Releases returns the names of the releases that the cloud offers.
func Releases() []string { return nil }

// Bases returns the bases of the cloud in dir.
func Bases(context.Context, string, *slog.Logger) ([]Base, error) { return nil, ErrUnsupported }

// MakeBase makes the base of a release.
func MakeBase(context.Context, Options, BaseOptions) error { return ErrUnsupported }

// Alias makes an AWS image id refer to the images of a release.
func Alias(string, *slog.Logger, string, string) error { return ErrUnsupported }

// Reset deletes the contents of the cloud in dir.
func Reset(context.Context, Options, bool) error { return ErrUnsupported }

// Rehearse returns [ErrUnsupported].
func Rehearse(context.Context, string, string) (Rehearsed, error) {
	return Rehearsed{}, ErrUnsupported
}

// ClearFaults removes all fault rules from the cloud in dir.
func ClearFaults(context.Context, string) (Rehearsed, error) { return Rehearsed{}, ErrUnsupported }
