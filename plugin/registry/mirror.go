package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"bake/internal/wholefile"
)

// Mirror copies a release to the directory dir, from which plugins can be installed
// without a network, or whose files a web server can serve: the layout is that of
// releases.hashicorp.com, below HOST/NAMESPACE. The archives are those of platforms; it
// is an error if there are none. Existing archives are not downloaded again. It returns
// the names of the archives.
func (r *Registry) Mirror(ctx context.Context, dir string, rel *Release, platforms Platforms) (names []string, err error) {
	s := rel.Source
	home := filepath.Join(dir, s.Host, filepath.FromSlash(s.Path), s.repository())
	files := filepath.Join(home, rel.Version)
	if err := os.MkdirAll(files, 0o755); err != nil {
		return nil, fmt.Errorf("make the mirror: %w", err)
	}
	temp, err := os.MkdirTemp(files, scratch)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	for _, a := range rel.Archives {
		if !platforms.has(a.Platform) {
			continue
		}
		name := treeFile(s, rel.Version, a.Platform.String()+".zip")
		names = append(names, name)
		to := filepath.Join(files, name)
		if sum, err := sumOf(to); err == nil && sum == a.SHA256 {
			continue
		}
		f, err := r.fetch(ctx, a, temp)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close(), wholefile.Rename(f.Name(), to)); err != nil {
			return nil, err
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("version %s of %s has no build for the platforms asked for", rel.Version, s)
	}
	return names, locked(ctx, dir, func() error {
		tidy(files)
		texts := map[string][]byte{"SHA256SUMS": rel.sums, "manifest.json": rel.manifest}
		if rel.manifest == nil { // the names of its archives differ here
			texts["SHA256SUMS"] = rel.treeSums()
			texts["manifest.json"] = fmt.Appendf(nil, `{"version":"1","metadata":{"protocol_version":%q}}`+"\n", rel.API)
		}
		if rel.signed() {
			texts["SHA256SUMS.sig"] = rel.signature
		} else if err := remove(filepath.Join(files, treeFile(s, rel.Version, "SHA256SUMS.sig"))); err != nil {
			return err // of other checksums: the release was copied from another site earlier
		}
		for name, text := range texts {
			if err := wholefile.WriteData(filepath.Join(files, treeFile(s, rel.Version, name)), 0o644, text); err != nil {
				return err
			}
		}
		return addToIndex(filepath.Join(home, "index.json"), rel)
	})
}

// signed reports whether there is a signature for the checksums in the form of a tree.
func (r *Release) signed() bool { return r.signature != nil && r.manifest != nil }

// treeSums returns the checksums under the names that archives have in a tree.
func (r *Release) treeSums() []byte {
	var b strings.Builder
	for _, a := range r.Archives {
		fmt.Fprintf(&b, "%s  %s\n", a.SHA256, treeFile(r.Source, r.Version, a.Platform.String()+".zip"))
	}
	return []byte(b.String())
}

// The list of versions of a tree, in the format of releases.hashicorp.com.
type (
	treeIndex struct {
		Name     string                     `json:"name"`
		Versions map[string]json.RawMessage `json:"versions"`
	}
	treeVersion struct {
		Name       string      `json:"name"`
		Version    string      `json:"version"`
		Sums       string      `json:"shasums"`
		Signature  string      `json:"shasums_signature,omitempty"`
		Signatures []string    `json:"shasums_signatures,omitempty"`
		Builds     []treeBuild `json:"builds"`
	}
	treeBuild struct {
		Name     string `json:"name"`
		Version  string `json:"version"`
		OS       string `json:"os"`
		Arch     string `json:"arch"`
		Filename string `json:"filename"`
	}
)

// addToIndex adds a release to the list of versions at path, with the existing
// archives.
func addToIndex(path string, rel *Release) error {
	index := treeIndex{Name: rel.Source.repository(), Versions: map[string]json.RawMessage{}}
	f, err := os.Open(path)
	if err == nil {
		var text []byte
		text, err = io.ReadAll(io.LimitReader(f, maxIndex))
		err = errors.Join(err, f.Close())
		if err == nil {
			err = json.Unmarshal(text, &index)
		}
		if err != nil {
			return fmt.Errorf("%s is not a list of versions: %w; delete it and mirror all plugins again", path, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := rel.Source.repository()
	v := treeVersion{Name: name, Version: rel.Version, Sums: treeFile(rel.Source, rel.Version, "SHA256SUMS"), Builds: []treeBuild{}}
	if rel.signed() {
		v.Signature = v.Sums + ".sig"
		v.Signatures = []string{v.Signature}
	}
	for _, a := range rel.Archives {
		file := treeFile(rel.Source, rel.Version, a.Platform.String()+".zip")
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), rel.Version, file)); err == nil {
			v.Builds = append(v.Builds, treeBuild{name, rel.Version, a.Platform.OS, a.Platform.Arch, file})
		}
	}
	sort.Slice(v.Builds, func(i, j int) bool { return v.Builds[i].Filename < v.Builds[j].Filename })
	entry, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if index.Versions == nil {
		index.Versions = map[string]json.RawMessage{}
	}
	index.Name, index.Versions[rel.Version] = name, entry
	text, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.WriteData(path, 0o644, append(text, '\n'))
}
