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
	"bake/internal/hostpath"
)

const (
	mostFiles  = 20_000        // maximum number that an image may depend on
	mostVisits = 5 * mostFiles // maximum number of files and directories visited; links can lead to the same ones repeatedly
)

// hasher computes the digests of files, each once.
type hasher struct {
	name func(path string) string // prefix of the names of inputs that are files
	cwd  string
	done map[string]plan.Input // by path

	visits int
}

// visit counts the files and directories that are examined, and fails if there are too
// many: links between a few directories can result in billions of paths.
func (h *hasher) visit() error {
	if h.visits++; h.visits > mostVisits {
		return fmt.Errorf("there are more than %d files and directories to look through, counting those behind each link again; name what the image depends on more precisely, or remove links between directories", mostVisits)
	}
	return nil
}

func (h *hasher) abs(path string) string {
	return filepath.Clean(hostpath.In(h.cwd, path))
}

// path adds a file, or all files of a directory. It ignores a path that does not exist, or
// is neither. If a file disappears meanwhile, that is an error, because others may have
// been missed.
func (h *hasher) path(path string) error {
	root := h.abs(path)
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return filedigest.Walk(root, func(found string, info fs.FileInfo) error {
		if err := h.visit(); err != nil {
			return err
		}
		switch {
		case info == nil || !info.IsDir(): // a link to a missing file is an input
			return h.file(found)
		case found != root && filepath.Base(found) == ".git":
			return fs.SkipDir
		}
		return nil
	})
}

// glob adds the files that match a pattern, and returns their number.
func (h *hasher) glob(pattern string) (n int, err error) {
	base, rest := doublestar.SplitPattern(filepath.ToSlash(h.abs(pattern)))
	tree := &visited{FS: os.DirFS(filepath.FromSlash(base)), visit: h.visit}
	err = doublestar.GlobWalk(tree, rest, func(found string, d fs.DirEntry) error {
		if d.IsDir() || strings.HasPrefix(found, ".git/") || strings.Contains(found, "/.git/") {
			return nil
		}
		n++
		return h.file(filepath.Join(filepath.FromSlash(base), filepath.FromSlash(found)))
	})
	return n, errors.Join(err, tree.err)
}

// visited is a file system that records errors that a search ignores: too many files, and
// directories that cannot be read.
type visited struct {
	fs.FS

	visit func() error
	err   error // the first
}

// ReadDir implements [fs.ReadDirFS].
func (v *visited) ReadDir(name string) ([]fs.DirEntry, error) {
	if v.err == nil {
		v.err = v.visit()
	}
	if v.err != nil {
		return nil, v.err
	}
	list, err := fs.ReadDir(v.FS, name)
	if errors.Is(err, fs.ErrPermission) {
		v.err = err
	}
	return list, err
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

// inputs returns the inputs for all files.
func (h *hasher) inputs() (all []plan.Input) {
	for _, in := range h.done {
		all = append(all, in)
	}
	return all
}
