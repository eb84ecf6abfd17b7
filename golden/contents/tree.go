package contents

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Limits of everything that is read.
const (
	maxFile  = 256 << 20 // bytes of a file
	maxTotal = 768 << 20 // total bytes that a machine sends
	maxPaths = 100_000

	maxPackages = 200_000
	maxValue    = 4 << 10 // bytes of a field, after which no continuation is added
)

// tree holds the relevant files of a machine.
type tree interface {
	paths() []string // from the root, without a slash at the start; sorted
	open(path string) (io.ReaderAt, int64, error)
}

// contentOf reads a whole file.
func contentOf(t tree, path string) ([]byte, error) {
	r, size, err := t.open(path)
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if size > maxFile {
		return nil, fmt.Errorf("it is %d MB, more than the limit of %d MB", size>>20, maxFile>>20)
	}
	return io.ReadAll(io.NewSectionReader(r, 0, size))
}

// Paths of the files to look for. The first RPM database in the list takes precedence.
var (
	rpmDatabases = []string{
		"var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "usr/share/rpm/rpmdb.sqlite",
		"var/lib/rpm/Packages.db", "usr/lib/sysimage/rpm/Packages.db",
		"var/lib/rpm/Packages", "usr/lib/sysimage/rpm/Packages", "usr/share/rpm/Packages",
	}
	apkDatabases = []string{"lib/apk/db/installed", "usr/lib/apk/db/installed"}
	otherFiles   = []string{"etc/os-release", "usr/lib/os-release", "var/lib/dpkg/status"}
)

// fixed are all files with a fixed location.
func fixed() []string {
	list := slices.Concat(otherFiles, apkDatabases, rpmDatabases)
	for _, p := range rpmDatabases {
		if strings.HasSuffix(p, ".sqlite") {
			list = append(list, p+"-wal")
		}
	}
	return list
}

// Directories in which packages of languages and programs are searched for, and directories
// whose files are all examined. "*" stands for one name.
var (
	languageDirs = []string{"usr/lib/python*", "usr/lib64/python*", "usr/lib/node_modules", "usr/lib64/node_modules", "usr/local", "opt"}
	programDirs  = []string{"usr/local", "opt"}
	flatDirs     = []string{"var/lib/dpkg/status.d/*", "var/lib/dpkg/info/*.list", "usr/share/doc/*/copyright"}
)

// pythonFile reports whether a path is the metadata file of a Python package.
func pythonFile(p string) bool {
	return strings.HasSuffix(p, ".dist-info/METADATA") || strings.HasSuffix(p, ".egg-info/PKG-INFO") || strings.HasSuffix(p, ".egg-info")
}

// nodeFile reports whether a path is the metadata file of a Node module, rather than a
// file of the same name within one.
func nodeFile(p string) bool {
	dir, name := path.Split(p)
	if name != "package.json" {
		return false
	}
	parent := path.Dir(path.Clean(dir))
	if strings.HasPrefix(path.Base(parent), "@") {
		parent = path.Dir(parent)
	}
	return path.Base(parent) == "node_modules"
}

// program reports whether a path is in a directory that is searched for programs.
func program(p string) bool {
	return slices.ContainsFunc(programDirs, func(dir string) bool { return strings.HasPrefix(p, dir+"/") })
}

// candidate reports whether a path could be a package that was not installed by a package
// manager.
func candidate(p string) bool { return pythonFile(p) || nodeFile(p) || program(p) }

// walked is a tree of an fs.FS.
type walked struct {
	fsys fs.FS
	list []string
}

func (w *walked) paths() []string { return w.list }

// walk lists the relevant files of fsys.
func walk(fsys fs.FS) (tree, error) {
	w := &walked{fsys: fsys}
	add := func(p string) error {
		if len(w.list) == maxPaths {
			return fmt.Errorf("there are more than %d files to look at", maxPaths)
		}
		w.list = append(w.list, p)
		return nil
	}
	for _, p := range fixed() {
		if info, err := fs.Stat(fsys, p); err == nil && info.Mode().IsRegular() {
			if err := add(p); err != nil {
				return nil, err
			}
		}
	}
	for _, pattern := range flatDirs {
		list, err := fs.Glob(fsys, pattern)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if info, err := fs.Stat(fsys, p); err != nil || !info.Mode().IsRegular() {
				continue
			}
			if err := add(p); err != nil {
				return nil, err
			}
		}
	}
	for _, pattern := range languageDirs {
		dirs, err := fs.Glob(fsys, pattern)
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			err := fs.WalkDir(fsys, dir, func(p string, e fs.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() || !pythonFile(p) && !nodeFile(p) && (!program(p) || !w.isGo(p)) {
					return nil // a directory that cannot be listed counts as absent
				}
				return add(p)
			})
			if err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(w.list)
	w.list = slices.Compact(w.list)
	return w, nil
}

// isGo reports whether a file may be a program built by Go.
func (w *walked) isGo(p string) bool {
	r, _, err := w.open(p)
	if err != nil {
		return false
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	var magic [4]byte
	_, err = r.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == "\x7fELF"
}

func (w *walked) open(p string) (io.ReaderAt, int64, error) {
	f, err := w.fsys.Open(p)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, 0, errors.Join(err, f.Close(), errors.New("it is not a regular file"))
	}
	if r, ok := f.(io.ReaderAt); ok {
		return r, info.Size(), nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	return bytes.NewReader(text), int64(len(text)), err
}
