package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	goversion "github.com/hashicorp/go-version"

	"bake/internal/delay"
	"bake/internal/filelock"
	"bake/internal/hostpath"
	"bake/internal/wholefile"
)

// Describe runs a plugin's binary and returns the version that it reports, and the version of its
// protocol: "1.1.0" and "x5.0".
type Describe func(ctx context.Context, path string) (version, api string, err error)

// Installed is an installed binary.
type Installed struct {
	Path    string
	Source  Source
	Version string
	SHA256  string // of the binary
}

// Install downloads the archive of a release for the platform p, on which bake runs, and installs
// its binary below root. It verifies that the archive has the published checksum and that the
// binary reports the expected version. If locked is not empty, it is the required checksum of the
// binary. On any error nothing is installed, and what was installed before is unchanged.
func (r *Registry) Install(ctx context.Context, root string, rel *Release, p Platform, locked string, describe Describe) (*Installed, error) {
	archive, ok := rel.archive(p)
	if !ok {
		return nil, fmt.Errorf("version %s of %s has no build for %s", rel.Version, rel.Source, p)
	}
	return place(ctx, root, rel.Source, func(dir string) (string, error) {
		zip, err := r.fetch(ctx, archive, dir)
		if err != nil {
			return "", err
		}
		defer zip.Close()
		path := filepath.Join(dir, rel.Source.binaryName(rel.Version, rel.API, p))
		if err := write(path, func(w io.Writer) error { return unpack(zip, filepath.Base(path), w, maxBinary) }); err != nil {
			return "", fmt.Errorf("%s: %w", r.shown(archive.url), err)
		}
		if locked != "" {
			sum, err := sumOf(path)
			if err != nil {
				return "", err
			}
			if sum != locked {
				return "", &UntrustedError{fmt.Errorf("%s: the plugin in it has the SHA-256 checksum %s, and the lock file has %s", r.shown(archive.url), sum, locked)}
			}
		}
		version, api, err := describe.patient(ctx, path)
		if err != nil {
			return "", fmt.Errorf("%s: the plugin in it does not run: %w", r.shown(archive.url), err)
		}
		if version != rel.Version || api != rel.API {
			return "", fmt.Errorf("%s: the plugin in it reports version %q for version %q of the plugin protocol", r.shown(archive.url), clip(version), clip(api))
		}
		return path, nil
	})
}

// InstallFile installs a binary that was built on this host or obtained in some other way. Its
// version is the one that it reports: a release, or a -dev version.
func InstallFile(ctx context.Context, root string, s Source, binary string, p Platform, describe Describe) (*Installed, error) {
	return place(ctx, root, s, func(dir string) (string, error) {
		in, err := hostpath.Open(binary)
		if err != nil {
			return "", err
		}
		defer in.Close()
		// The copy is both described and installed, whatever happens to the original.
		path := filepath.Join(dir, s.repository()+p.exe())
		if err := write(path, func(w io.Writer) error { return copyAtMost(w, in, maxBinary) }); err != nil {
			return "", fmt.Errorf("%s: %w", binary, err)
		}
		version, api, err := describe.patient(ctx, path)
		if err != nil {
			return "", fmt.Errorf("%s is not a plugin for this host: %w", binary, err)
		}
		v, err := goversion.NewSemver(version)
		switch {
		case err != nil || v.Metadata() != "" || v.String() != version || v.Prerelease() != "" && v.Prerelease() != "dev":
			return "", fmt.Errorf("%s reports version %q; only versions such as 1.2.3 and 1.2.3-dev can be installed", binary, clip(version))
		case api != apiKept:
			return "", fmt.Errorf("%s uses version %q of the plugin protocol; bake supports %s", binary, clip(api), apiKept)
		}
		named := filepath.Join(dir, s.binaryName(version, api, p))
		return named, wholefile.Rename(path, named)
	})
}

// patient describes a binary that was just written. It retries, because another goroutine that
// starts a process at that moment may hold the file open for writing, and then the file cannot be
// executed.
func (d Describe) patient(ctx context.Context, path string) (version, api string, err error) {
	for range 50 {
		version, api, err = d(ctx, path)
		if !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		if err := delay.For(ctx, 20*time.Millisecond); err != nil {
			return "", "", err
		}
	}
	return strings.TrimPrefix(version, "v"), strings.TrimPrefix(api, "x"), err
}

// write creates an executable file with the content that fill writes.
func write(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Sync(), f.Close())
}

// scratch starts the names of temporary directories in which a plugin is prepared.
const scratch = ".bake-"

// place calls fill to make a binary in a temporary directory, moves the binary to the directory of
// its source and writes its checksum file.
func place(ctx context.Context, root string, s Source, fill func(dir string) (path string, err error)) (*Installed, error) {
	home := s.dir(root)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the plugin: %w", err)
	}
	dir, err := os.MkdirTemp(home, scratch)
	if err != nil {
		return nil, fmt.Errorf("make a directory for the download: %w", err)
	}
	defer os.RemoveAll(dir)
	path, err := fill(dir)
	if err != nil {
		return nil, err
	}
	sum, err := sumOf(path)
	if err != nil {
		return nil, err
	}
	version, _, _, _ := s.parseName(strings.TrimSuffix(filepath.Base(path), ".exe"), "")
	made := &Installed{Path: filepath.Join(home, filepath.Base(path)), Source: s, Version: version, SHA256: sum}
	return made, locked(ctx, root, func() error {
		tidy(home)
		if old, err := installedSum(made.Path); err == nil && old == sum {
			return nil
		}
		// A binary without a checksum file is not used. Until the new file is written, there is
		// none.
		if err := remove(made.Path + sumSuffix); err != nil {
			return err
		}
		if err := replace(path, made.Path); err != nil {
			return err
		}
		return wholefile.WriteData(made.Path+sumSuffix, 0o644, []byte(sum))
	})
}

// replace moves a file to a name that may exist. Windows does not allow replacing a running
// program, but allows renaming it.
func replace(from, to string) error {
	if os.Rename(from, to) == nil {
		return nil
	}
	old := filepath.Join(filepath.Dir(from), "old"+filepath.Ext(to))
	moved := wholefile.Rename(to, old) == nil
	err := wholefile.Rename(from, to)
	if err != nil && moved {
		err = errors.Join(err, wholefile.Rename(old, to))
	}
	return err
}

// remove deletes a file, if it exists.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// tidy deletes the remains of killed installations. No installation takes a day.
func tidy(home string) {
	entries, _ := os.ReadDir(home)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && strings.HasPrefix(e.Name(), scratch) && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(filepath.Join(home, e.Name()))
		}
	}
}

// installedSum returns the checksum of an installed binary if it matches its checksum file.
func installedSum(path string) (string, error) {
	beside, err := hostpath.Open(path + sumSuffix)
	if err != nil {
		return "", err
	}
	defer beside.Close()
	text, err := io.ReadAll(io.LimitReader(beside, 1024))
	if err != nil {
		return "", err
	}
	sum, err := sumOf(path)
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(strings.TrimSpace(string(text)), sum) {
		return "", errors.New("the checksum differs")
	}
	return sum, nil
}

// lockWait is how long another process may take to move a plugin into place.
const lockWait = 2 * time.Minute

// locked runs fn while no other process of bake changes the installed plugins below root.
func locked(ctx context.Context, root string, fn func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, fmt.Errorf("another bake process has been installing plugins in %s for more than %s; try again when it has finished", root, lockWait))
	defer cancel()
	name := filepath.Join(root, ".bake.lock")
	for {
		// Opened each time, so that a lock that this process holds conflicts too.
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		err = filelock.Try(f)
		if err == nil {
			return errors.Join(fn(), f.Close())
		}
		f.Close()
		if !errors.Is(err, filelock.ErrLocked) {
			return fmt.Errorf("lock %s: %w", name, err)
		}
		if err := delay.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// Remove deletes a plugin's binaries for the platform p below roots, with their checksum files, and
// returns their paths. It deletes those whose version allows accepts, including unusable ones.
func Remove(ctx context.Context, roots []string, s Source, p Platform, allows func(version string) bool) (removed []string, err error) {
	for _, root := range roots {
		home := s.dir(root)
		entries, err := os.ReadDir(home)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, err
		}
		err = locked(ctx, root, func() error {
			for _, e := range entries {
				version, _, platform, ok := s.parseName(e.Name(), p.exe())
				if !ok || platform != p || !allows(version) {
					continue
				}
				path := filepath.Join(home, e.Name())
				if err := removeBinary(path); err != nil {
					return err
				}
				removed = append(removed, path)
			}
			return nil
		})
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// removeBinary deletes a binary and its checksum.
func removeBinary(path string) error {
	return errors.Join(os.Remove(path), remove(path+sumSuffix))
}

// RemoveFile deletes one binary and its checksum file. path is absolute and must be a plugin's
// below one of roots.
func RemoveFile(ctx context.Context, roots []string, path string) error {
	for _, root := range roots {
		root, err := filepath.Abs(root)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		dir, name := filepath.Split(filepath.ToSlash(rel))
		s, err := ParseSource(strings.TrimSuffix(dir, "/"))
		if err != nil {
			continue
		}
		if _, _, _, ok := s.parseName(strings.TrimSuffix(name, ".exe"), ""); !ok {
			return fmt.Errorf("%s is not a plugin binary", path)
		}
		return locked(ctx, root, func() error { return removeBinary(path) })
	}
	return fmt.Errorf("%s is not in the plugin directory (%s)", path, strings.Join(roots, ", "))
}
