// Package filedigest tells whether files are what they were.
package filedigest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// limit is how many files one digest may be of.
const limit = 20_000

// Of returns the digest of files and directories with all that is in them: of names below
// them, contents, permissions, and where links lead. A link among paths stands for what
// it leads to. Paths that are empty do not count.
func Of(paths []string) (string, error) {
	d := &digest{Hash: sha256.New()}
	for _, path := range paths {
		if path == "" {
			continue
		}
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(d, "path %q\n", path)
		err = filepath.WalkDir(target, func(found string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return d.add(target, found)
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(d.Sum(nil)), nil
}

type digest struct {
	hash.Hash
	files int
}

// add adds what is at path, below root. What a link in a directory leads to is added in
// its place: it is uploaded in its place too.
func (d *digest) add(root, path string) error {
	if d.files++; d.files > limit {
		return fmt.Errorf("there are more than %d files in %s", limit, root)
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	link, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(d, "link %q %q\n", name, to)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // a link to nothing
	case err != nil:
		return err
	case info.IsDir() && link.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a link to a directory", path)
	}
	fmt.Fprintf(d, "%q %s %d\n", name, info.Mode(), info.Size())
	if info.IsDir() {
		return nil
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	fmt.Fprintf(d, "%x\n", sum.Sum(nil))
	return nil
}
