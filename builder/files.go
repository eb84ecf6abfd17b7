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

// FilePrefix is the prefix of the resource kind of local files.
const FilePrefix = "file"

// File is a local file as a resource. Its key is its absolute path.
func File(path string) (step.Resource, error) {
	whole, err := filepath.Abs(path)
	return step.Resource{Kind: FilePrefix + ":file", Key: whole, ID: whole}, err
}

// DestroyFile is the [step.Destroyer] for the resources of File.
func DestroyFile(_ context.Context, r step.Resource) error {
	// A path below something that is not a directory does not exist either.
	if err := os.Remove(r.Key); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("deleting a file: %w", err)
	}
	return nil
}

// SameFile returns the entry of files that refers to the same file as path, under any name.
func SameFile(path string, files []string) (string, bool) {
	whole, _ := filepath.Abs(path)
	info, err := os.Stat(path)
	for _, f := range files {
		if other, _ := filepath.Abs(f); other == whole {
			return f, true
		}
		if other, fault := os.Stat(f); err == nil && fault == nil && os.SameFile(info, other) {
			return f, true
		}
	}
	return "", false
}
