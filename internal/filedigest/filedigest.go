// Package filedigest computes digests of files to detect changes.
package filedigest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// limit is the maximum number of files in one digest.
const limit = 20_000

// Of returns the digest of files and directories with all their content: relative names,
// contents and permissions. Links are replaced by their targets, as in an upload. Empty
// paths are ignored.
func Of(paths []string) (string, error) {
	sum := sha256.New()
	files := 0
	for _, root := range paths {
		if root == "" {
			continue
		}
		fmt.Fprintf(sum, "path %q\n", root)
		err := Walk(root, func(path string, info fs.FileInfo) error {
			if files++; files > limit {
				return fmt.Errorf("there are more than %d files in %s", limit, root)
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			if info != nil && info.IsDir() {
				fmt.Fprintf(sum, "%q %s\n", name, info.Mode())
				return nil
			}
			if info != nil && !info.Mode().IsRegular() {
				return fmt.Errorf("%s is no regular file", path)
			}
			digest, err := File(path)
			if err != nil {
				return err
			}
			mode := fs.ModeSymlink
			if info != nil {
				mode = info.Mode()
			}
			fmt.Fprintf(sum, "%q %s %s\n", name, mode, digest)
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Walk calls visit with the file at path or, if it is a directory, with the directory and
// everything in it, by name. It follows links, as the upload of a directory does; a
// dangling link, or one to a directory that contains it, is visited itself, with no info.
// If visit returns [fs.SkipDir] for a directory, Walk skips its content.
func Walk(path string, visit func(path string, info fs.FileInfo) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return walk(path, info, nil, visit)
}

// walk is [Walk] within the directories above.
func walk(path string, info fs.FileInfo, above []fs.FileInfo, visit func(string, fs.FileInfo) error) error {
	if !info.IsDir() {
		return visit(path, info)
	}
	err := visit(path, info)
	if errors.Is(err, fs.SkipDir) {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	above = append(slices.Clip(above), info)
	for _, d := range list {
		found := filepath.Join(path, d.Name())
		info, err := os.Stat(found)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }):
			err = visit(found, nil)
		case err == nil:
			err = walk(found, info, above, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errChanging is the error of a file that changes while it is read.
var errChanging = errors.New("it was changed while it was read; run bake again")

// File returns the digest of a file: of its content, and whether it is executable. For a
// file that is not regular, it is the digest of its kind, and for a dangling link that of
// its target.
func File(path string) (string, error) {
	sum := sha256.New()
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.IsDir(): // a link
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "link to %s", to)
		return hex.EncodeToString(sum.Sum(nil)), nil
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		fmt.Fprintf(sum, "%s", info.Mode().Type())
		return hex.EncodeToString(sum.Sum(nil)), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if runtime.GOOS != "windows" && info.Mode()&0o100 != 0 {
		fmt.Fprint(sum, "program ")
	}
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	after, err := os.Stat(path)
	if err == nil && (after.Size() != info.Size() || !after.ModTime().Equal(info.ModTime()) || !os.SameFile(info, after)) {
		err = errChanging
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
