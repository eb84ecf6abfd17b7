// Package file is the provisioner that copies files to and from the machine.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"

	"bake/builder"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/wholefile"
	"bake/provisioner"
	"bake/provisioner/internal/remote"
	"bake/step"
)

// Factory returns the factory of the file provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("file", defaults,
		func(o *Options, src *schema.Source) provisioner.Provisioner {
			return &file{Options: o, hasContent: src.Set(&o.Content) && o.Source == "" && len(o.Sources) == 0}
		})
}

type file struct {
	*Options
	hasContent bool
}

// Key implements [provisioner.Keyed].
func (p *file) Key() (options any, files []string, err error) {
	switch {
	case p.Direction == Download:
		return nil, nil, errors.New("it downloads files")
	case p.Generated:
		return nil, nil, errors.New("its files are made during the build (generated = true)")
	}
	files = append([]string{p.Source}, p.Sources...)
	for _, path := range files {
		if strings.Contains(path, "{{") {
			return nil, nil, fmt.Errorf("the path %s is not known before it runs", path)
		}
	}
	return p.Options, files, nil
}

// Provision implements [provisioner.Provisioner].
func (p *file) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	c := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	destination, err := c.RenderAll(p.Destination, m.Data.Plain())
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	if p.hasContent {
		return p.write(ctx, s, m, destination)
	}
	transfer := upload
	if p.Direction == Download {
		transfer = download
	}
	sources := p.Sources
	if p.Source != "" {
		sources = append(sources[:len(sources):len(sources)], p.Source)
	}
	for _, text := range sources {
		source, err := c.RenderAll(text, m.Data.Plain())
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if err := transfer(ctx, s, m, source, destination); err != nil {
			return err
		}
	}
	return nil
}

// write writes content to a file on the machine.
func (p *file) write(ctx context.Context, s *step.Scope, m builder.Machine, destination string) error {
	dir, name := path.Split(destination)
	if name == "" {
		name = fmt.Sprintf("pkr-file-content%d", rand.Uint32())
	}
	s.Say(ctx, "Uploading content => %s", dir+name)
	dir, err := remote.Expand(ctx, m, orHere(dir))
	if err != nil {
		return err
	}
	return put(ctx, m, dir, communicator.File(name, 0o600, []byte(*p.Content)))
}

// orHere returns dir, or "." if it is empty.
func orHere(dir string) string {
	if dir == "" {
		return "."
	}
	return dir
}

// endsInSeparator reports whether a local path ends in a separator, and so names a
// directory.
func endsInSeparator(path string) bool {
	return path != "" && os.IsPathSeparator(path[len(path)-1])
}

func upload(ctx context.Context, s *step.Scope, m builder.Machine, source, destination string) error {
	s.Say(ctx, "Uploading %s => %s", source, destination)
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	contents := endsInSeparator(source)
	switch {
	case info.IsDir():
		if destination, err = remote.Expand(ctx, m, destination); err != nil {
			return err
		}
		if contents {
			return put(ctx, m, destination, communicator.LocalDir("", source))
		}
		return uploadDir(ctx, m, source, destination)
	case contents:
		return fmt.Errorf("upload: %s ends in / but is a file", source)
	}
	dir, name := path.Split(destination)
	if name == "" {
		name = filepath.Base(source)
	}
	if dir, err = remote.Expand(ctx, m, orHere(dir)); err != nil {
		return err
	}
	return put(ctx, m, dir, communicator.LocalFile(name, source))
}

// uploadDir copies a local directory into destination or, if that does not exist on the
// machine, to destination, like scp -r and cp -R.
func uploadDir(ctx context.Context, m builder.Machine, source, destination string) error {
	whole, err := filepath.Abs(source) // the actual name, even for "." and ".."
	if err != nil {
		return err
	}
	err = put(ctx, m, destination, communicator.LocalDir(filepath.Base(whole), source))
	if here := (*fs.PathError)(nil); !errors.Is(err, fs.ErrNotExist) || errors.As(err, &here) {
		return err
	}
	parent, name := path.Split(path.Clean(destination))
	if m.Data["ConnType"].Text == "winrm" || strings.HasPrefix(name, "~") || name == "." || name == ".." {
		return err
	}
	if there, failed := remote.Exists(ctx, m, strings.ReplaceAll(path.Clean(destination), "$", `\$`)); failed != nil || there {
		return cmp.Or(failed, err) // a file of that name exists
	}
	if again := put(ctx, m, orHere(parent), communicator.LocalDir(name, source)); !errors.Is(again, fs.ErrNotExist) {
		return again
	}
	return err // the error names the destination
}

func download(ctx context.Context, s *step.Scope, m builder.Machine, source, destination string) error {
	s.Say(ctx, "Downloading %s => %s", source, destination)
	if !strings.ContainsAny(source, "*?[") {
		var err error
		if source, err = remote.Expand(ctx, m, source); err != nil {
			return err
		}
	}
	switch {
	case strings.ContainsAny(source, "*?["):
		matches, err := glob(ctx, m, source)
		if err != nil {
			return err
		}
		return downloadInto(ctx, m, destination, matches...)
	case strings.HasSuffix(source, "/"):
		return downloadDir(ctx, m, source, destination)
	}
	name := filepath.Base(destination)
	dir := filepath.Dir(destination)
	if endsInSeparator(destination) {
		dir, name = destination, path.Base(source)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return downloadFile(ctx, m, source, dir, name)
}

// downloadInto downloads files and directories into a local directory.
func downloadInto(ctx context.Context, m builder.Machine, dir string, sources ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	defer root.Close()
	for _, source := range sources {
		if err := m.Get(ctx, source, root); err != nil {
			return err
		}
	}
	return nil
}

// downloadDir downloads a directory into a local directory under its own name. source
// ends in a slash.
func downloadDir(ctx context.Context, m builder.Machine, source, dir string) error {
	from := strings.TrimRight(source, "/")
	if strings.HasPrefix(from, "~") && !strings.Contains(from, "/") {
		var err error
		if from, err = remote.Resolve(ctx, m, from); err != nil { // the actual name of a home directory
			return err
		}
	}
	name := path.Base(from)
	if from == "" || name == "." || name == ".." {
		return downloadInto(ctx, m, dir, source+".")
	}
	if err := downloadInto(ctx, m, dir, from); err != nil {
		return err
	}
	got := filepath.Join(dir, name)
	info, err := os.Stat(got)
	if err == nil && !info.IsDir() {
		err = errors.Join(fmt.Errorf("%s ends in / but is a file on the machine", source), os.Remove(got))
	}
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

// downloadFile downloads one file to dir/name, completely or not at all.
func downloadFile(ctx context.Context, m builder.Machine, source, dir, name string) error {
	tmp, err := os.MkdirTemp(dir, ".download-")
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := downloadInto(ctx, m, tmp, source); err != nil {
		return err
	}
	got := filepath.Join(tmp, path.Base(source))
	info, err := os.Stat(got)
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	if info.IsDir() {
		return fmt.Errorf("download: %s is a directory on the machine; write %s/ to download it", source, source)
	}
	if err := permit(got); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	to := filepath.Join(dir, name)
	if err := wholefile.Rename(got, to); err != nil {
		if info, serr := os.Stat(to); serr == nil && info.IsDir() {
			return fmt.Errorf("download: %s is a directory; write %s/ to download into it", to, to)
		}
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

// permit gives a file the permissions of a newly created one, which depend on the
// umask.
func permit(path string) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = os.Chmod(path, info.Mode().Perm())
	}
	return errors.Join(err, f.Close())
}

// glob returns the paths on the machine that match a pattern of its shell.
func glob(ctx context.Context, m builder.Machine, pattern string) ([]string, error) {
	out, errOut := communicator.Head{Max: 1 << 20}, communicator.Head{Max: 4 << 10}
	st, err := m.Run(ctx, communicator.Command{
		Line:   "for f in " + remote.Word(pattern, true) + `; do [ -e "$f" ] && printf '%s\0' "$f"; done; true`,
		Stdout: &out, Stderr: &errOut,
	})
	if err != nil {
		return nil, err
	}
	if st.Code != 0 {
		return nil, fmt.Errorf("looking for %s on the machine: %s (exit status %d)", pattern, strings.TrimSpace(errOut.String()), st.Code)
	}
	if out.Cut() {
		return nil, fmt.Errorf("download: too many files on the machine match %s: their names take more than 1 MB; download their directory instead", pattern)
	}
	if out.String() == "" {
		return nil, fmt.Errorf("download: %w: nothing on the machine matches %s", fs.ErrNotExist, pattern)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00"), nil
}
