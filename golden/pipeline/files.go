package pipeline

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
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"bake/golden/plan"
)

// mostFiles is how many files an image may depend on.
const mostFiles = 20_000

// hasher computes the digests of files, each once.
type hasher struct {
	name func(path string) string // of a file in inputs
	cwd  string
	done map[string]plan.Input // by path
}

func (h *hasher) abs(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(h.cwd, path)
	}
	return filepath.Clean(path)
}

// path adds a file, or all that is in a directory. One that is not there, and what is
// neither, say nothing.
func (h *hasher) path(path string) error {
	path = h.abs(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return h.file(path)
	}
	return h.tree(path, []fs.FileInfo{info})
}

// tree adds all that is in the last of the directories above, which has that path. Links are
// followed, as they are when a directory is uploaded, but into none of the directories above.
func (h *hasher) tree(path string, above []fs.FileInfo) error {
	list, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, d := range list {
		found := filepath.Join(path, d.Name())
		info, err := os.Stat(found)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err != nil || !info.IsDir(): // the link to what is not there is an input
			err = h.file(found)
		case d.Name() == ".git" || slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }):
			err = nil
		default:
			err = h.tree(found, append(above, info))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// glob adds the files that match a pattern, and says how many there are.
func (h *hasher) glob(pattern string) (n int, err error) {
	base, rest := doublestar.SplitPattern(filepath.ToSlash(h.abs(pattern)))
	err = doublestar.GlobWalk(os.DirFS(filepath.FromSlash(base)), rest, func(found string, d fs.DirEntry) error {
		if d.IsDir() || strings.HasPrefix(found, ".git/") || strings.Contains(found, "/.git/") {
			return nil
		}
		n++
		return h.file(filepath.Join(filepath.FromSlash(base), filepath.FromSlash(found)))
	})
	return n, err
}

// file adds a file.
func (h *hasher) file(path string) error {
	if _, ok := h.done[path]; ok {
		return nil
	}
	if len(h.done) == mostFiles {
		return fmt.Errorf("an image cannot depend on more than %d files", mostFiles)
	}
	digest, err := digestOf(path)
	if err != nil {
		return err
	}
	h.done[path] = plan.Input{Name: plan.FilePrefix + h.name(path), Digest: digest}
	return nil
}

// errChanging is the error of a file that is written while it is read.
var errChanging = errors.New("it was changed while it was read; run bake again")

// digestOf is the digest of a file: of its content, and whether it is a program. Of what is
// no regular file it is that of the kind, and of a link to none of these where it leads.
func digestOf(path string) (string, error) {
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

// inputs are those of all files.
func (h *hasher) inputs() (all []plan.Input) {
	for _, in := range h.done {
		all = append(all, in)
	}
	return all
}
