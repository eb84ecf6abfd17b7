// Package file is the provisioner that copies files to and from the machine.
package file

import (
	"bytes"
	"context"
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
	"bake/provisioner"
	"bake/step"
)

// Component describes the file provisioner.
func Component() component.Factory[provisioner.Provisioner] {
	return component.Define("file", []string{source}, defaults,
		func(o *Options, src *schema.Source) provisioner.Provisioner {
			return &file{Options: o, hasContent: src.Set(&o.Content)}
		})
}

type file struct {
	*Options
	hasContent bool
}

// Provision implements [provisioner.Provisioner].
func (p *file) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	c := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	destination, err := c.RenderAll(p.Destination, m.Data)
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
		source, err := c.RenderAll(text, m.Data)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if err := transfer(ctx, s, m, source, destination); err != nil {
			return err
		}
	}
	return nil
}

// write makes a file of content.
func (p *file) write(ctx context.Context, s *step.Scope, m builder.Machine, destination string) error {
	dir, name := path.Split(destination)
	if name == "" {
		name = fmt.Sprintf("pkr-file-content%d", rand.Uint32())
	}
	s.Say(ctx, "Uploading content => %s", dir+name)
	return m.Put(ctx, orHere(dir), communicator.File(name, 0o600, []byte(p.Content)))
}

// orHere is dir, or the directory that relative paths start at.
func orHere(dir string) string {
	if dir == "" {
		return "."
	}
	return dir
}

func upload(ctx context.Context, s *step.Scope, m builder.Machine, source, destination string) error {
	s.Say(ctx, "Uploading %s => %s", source, destination)
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	contents := strings.HasSuffix(source, "/")
	switch {
	case info.IsDir() && contents:
		return m.Put(ctx, destination, communicator.LocalDir("", source))
	case info.IsDir():
		whole, err := filepath.Abs(source) // "." and ".." have names too
		if err != nil {
			return err
		}
		return m.Put(ctx, destination, communicator.LocalDir(filepath.Base(whole), source))
	case contents:
		return fmt.Errorf("upload: %s ends in / but is a file", source)
	}
	dir, name := path.Split(destination)
	if name == "" {
		name = filepath.Base(source)
	}
	return m.Put(ctx, orHere(dir), communicator.LocalFile(name, source))
}

func download(ctx context.Context, s *step.Scope, m builder.Machine, source, destination string) error {
	s.Say(ctx, "Downloading %s => %s", source, destination)
	switch {
	case strings.HasSuffix(source, "/"):
		return downloadInto(ctx, m, destination, source+".")
	case strings.ContainsAny(source, "*?["):
		matches, err := glob(ctx, m, source)
		if err != nil {
			return err
		}
		return downloadInto(ctx, m, destination, matches...)
	}
	name := filepath.Base(destination)
	dir := filepath.Dir(destination)
	if strings.HasSuffix(destination, "/") {
		dir, name = destination, path.Base(source)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return downloadFile(ctx, m, source, dir, name)
}

// downloadInto puts files and directories of the machine into a local directory.
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

// downloadFile puts one file of the machine at dir/name, whole or not at all.
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
		return fmt.Errorf("download: %s is a directory of the machine; write %s/ to download what is in it", source, source)
	}
	if err := os.Chmod(got, 0o644); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	to := filepath.Join(dir, name)
	if err := os.Rename(got, to); err != nil {
		if info, serr := os.Stat(to); serr == nil && info.IsDir() {
			return fmt.Errorf("download: %s is a directory; write %s/ to download into it", to, to)
		}
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

// glob asks the machine's shell which paths match a pattern.
func glob(ctx context.Context, m builder.Machine, pattern string) ([]string, error) {
	var out, errOut bytes.Buffer
	st, err := m.Run(ctx, communicator.Command{
		Line:   "for f in " + quoteExceptWildcards(pattern) + `; do [ -e "$f" ] && printf '%s\0' "$f"; done; true`,
		Stdout: &out, Stderr: &errOut,
	})
	if err != nil {
		return nil, err
	}
	if st.Code != 0 {
		return nil, fmt.Errorf("looking for %s on the machine: %s (exit status %d)", pattern, strings.TrimSpace(errOut.String()), st.Code)
	}
	if out.Len() == 0 {
		return nil, fmt.Errorf("download: %w: nothing on the machine matches %s", fs.ErrNotExist, pattern)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00"), nil
}

// quoteExceptWildcards makes pattern one word for a shell, which expands its
// wildcards and a "~" at its start.
func quoteExceptWildcards(pattern string) string {
	var b strings.Builder
	for i, r := range pattern {
		switch {
		case strings.ContainsRune("*?[]-!^/._", r), r == '~' && i == 0,
			r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
			b.WriteRune(r)
		case r == '\'':
			b.WriteString(`"'"`)
		default:
			b.WriteString("'" + string(r) + "'")
		}
	}
	return b.String()
}
