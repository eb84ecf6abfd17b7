package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"bake/golden/plan"
	"bake/internal/filedigest"
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
	err := filedigest.Walk(h.abs(path), func(found string, info fs.FileInfo) error {
		switch {
		case info == nil || !info.IsDir(): // the link to what is not there is an input
			return h.file(found)
		case filepath.Base(found) == ".git":
			return fs.SkipDir
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
	digest, err := filedigest.File(path)
	if err != nil {
		return err
	}
	h.done[path] = plan.Input{Name: plan.FilePrefix + h.name(path), Digest: digest}
	return nil
}

// inputs are those of all files.
func (h *hasher) inputs() (all []plan.Input) {
	for _, in := range h.done {
		all = append(all, in)
	}
	return all
}
