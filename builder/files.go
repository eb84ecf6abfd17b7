package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"bake/step"
)

// FilePrefix is how the kind of a local file as a resource starts.
const FilePrefix = "file"

// File is a local file as a resource. Its key is its absolute path.
func File(path string) (step.Resource, error) {
	whole, err := filepath.Abs(path)
	return step.Resource{Kind: FilePrefix + ":file", Key: whole, ID: whole}, err
}

// DestroyFile is the [step.Destroyer] of what File returns.
func DestroyFile(_ context.Context, r step.Resource) error {
	// Below something that is not a directory there is no file either.
	if err := os.Remove(r.Key); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("deleting a file: %w", err)
	}
	return nil
}
