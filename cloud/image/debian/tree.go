package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// WriteTar writes the root file system with every package unpacked: the packages' files, a dpkg
// database in which they are unpacked, and the configuration of a cloud image. It reports progress
// in bytes of packages.
func (s *System) WriteTar(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &tree{tar: tar.NewWriter(w), owner: map[string]string{}, system: s}
	if err := t.skeleton(); err != nil {
		return err
	}
	progress := Progress{Phase: "unpack packages"}
	for _, p := range s.Packages {
		progress.Total += p.Size
	}
	opened := s.open(ctx)
	for _, p := range s.Packages {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case next := <-opened:
			result := <-next
			if result.err != nil {
				return fmt.Errorf("package %s: %w", p.Name, result.err)
			}
			if err := t.add(p, result.deb); err != nil {
				return fmt.Errorf("unpack package %s: %w", p.Name, err)
			}
		}
		progress.Done += p.Size
		s.fetcher.report(progress)
	}
	if err := t.database(); err != nil {
		return err
	}
	if err := t.configuration(); err != nil {
		return err
	}
	return t.tar.Close()
}

type openedDeb struct {
	deb *deb
	err error
}

// open decompresses packages on all processors, slightly ahead of the reader. For each package, in
// order, it sends a channel on which the package follows when it is ready. It stops when ctx ends.
func (s *System) open(ctx context.Context) <-chan chan openedDeb {
	workers := runtime.GOMAXPROCS(0)
	queue := make(chan chan openedDeb, 2*workers)
	slots := make(chan struct{}, workers)
	go func() {
		for _, p := range s.Packages {
			result := make(chan openedDeb, 1)
			select {
			case <-ctx.Done():
				return
			case queue <- result:
			}
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				d, err := s.openPackage(p)
				result <- openedDeb{d, err}
			}()
		}
	}()
	return queue
}

func (s *System) openPackage(p *Package) (*deb, error) {
	b, err := os.ReadFile(s.fetcher.path(p.item()))
	if err != nil {
		return nil, err
	}
	return openDeb(b)
}

// tree writes a root file system entry by entry.
type tree struct {
	tar    *tar.Writer
	owner  map[string]string // the package that each path is from; "" for directories
	system *System

	status       strings.Builder // /var/lib/dpkg/status
	fileTriggers strings.Builder // /var/lib/dpkg/triggers/File
	triggers     map[string]string
}

// merged are the directories that a Debian 12 root has below /usr, with symbolic links in their
// place. Packages may still use the old paths.
var merged = map[string]bool{"bin": true, "sbin": true, "lib": true, "lib64": true}

// place returns the path in the tree of a file in a package, without a leading slash; "" is the
// root.
func place(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	top, _, _ := strings.Cut(name, "/")
	if merged[top] {
		return "usr/" + name
	}
	return name
}

// skeleton writes the directories and links that belong to no package.
func (t *tree) skeleton() error {
	for _, dir := range []string{"usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/updates"} {
		if err := t.dir(dir); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		t.owner[name] = "the merged /usr"
		if err := t.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "usr/" + name, Mode: 0o777}); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) header(h *tar.Header) error {
	if h.ModTime.IsZero() {
		h.ModTime = t.system.date
	}
	return t.tar.WriteHeader(h)
}

func (t *tree) dir(name string) error {
	if _, ok := t.owner[name]; ok {
		return nil
	}
	t.owner[name] = ""
	return t.header(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
}

// file writes a file that belongs to no package, and its missing parent directories.
func (t *tree) file(name string, mode int64, content string) error {
	for i, c := range name {
		if c == '/' {
			if err := t.dir(name[:i]); err != nil {
				return err
			}
		}
	}
	if owner := t.owner[name]; owner != "" {
		return fmt.Errorf("/%s already belongs to %s", name, owner)
	}
	t.owner[name] = "the base"
	if err := t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := io.WriteString(t.tar, content)
	return err
}

// add writes the files of a package and records its data for dpkg's database.
func (t *tree) add(p *Package, d *deb) error {
	var control paragraph
	err := parseControl(string(d.control["control"].content), func(c paragraph) error {
		control = slices.Clone(c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if control.get("Package") != p.Name || control.get("Version") != p.Version {
		return fmt.Errorf("it claims to be %s %s", control.get("Package"), control.get("Version"))
	}
	// The package's name in dpkg's database and in the names of its files there.
	name := p.Name
	if control.get("Multi-Arch") == "same" {
		name += ":" + control.get("Architecture")
	}

	files, err := t.addFiles(p, d)
	if err != nil {
		return err
	}
	info := "var/lib/dpkg/info/" + name + "."
	if err := t.file(info+"list", 0o644, files.list); err != nil {
		return err
	}
	if files.sums != "" {
		if err := t.file(info+"md5sums", 0o644, files.sums); err != nil {
			return err
		}
	}
	for _, script := range slices.Sorted(maps.Keys(d.control)) {
		if script == "control" {
			continue
		}
		mode := int64(0o644)
		if d.control[script].executable {
			mode = 0o755
		}
		if err := t.file(info+script, mode, string(d.control[script].content)); err != nil {
			return err
		}
	}
	if err := t.interests(name, string(d.control["triggers"].content)); err != nil {
		return err
	}
	t.writeStatus(control, files.conffiles)
	return nil
}

// packageFiles describes the files of a package for dpkg's database.
type packageFiles struct {
	list      string            // paths, one on each line
	sums      string            // MD5 sums in the format of md5sums, if the package has no such file
	conffiles map[string]string // MD5 sums by path
}

// addFiles writes the files of a package.
func (t *tree) addFiles(p *Package, d *deb) (packageFiles, error) {
	conffiles := conffileNames(string(d.control["conffiles"].content))
	out := packageFiles{conffiles: map[string]string{}}
	var list, sums strings.Builder
	_, haveSums := d.control["md5sums"]

	for r := tar.NewReader(bytes.NewReader(d.data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return out, fmt.Errorf("data: %w", err)
		}
		original := path.Clean("/" + h.Name)
		if original == "/" {
			list.WriteString("/.\n") // dpkg's notation for the root
		} else {
			list.WriteString(original + "\n")
		}
		target := place(h.Name)
		if target == "" || merged[strings.TrimPrefix(original, "/")] {
			continue
		}
		if owner, taken := t.owner[target]; taken {
			if h.Typeflag == tar.TypeDir && owner == "" {
				continue // the first package wins, as with dpkg
			}
			return out, fmt.Errorf("/%s is in package %s too", target, owner)
		}
		entry := &tar.Header{
			Typeflag: h.Typeflag, Name: target, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode,
			Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, Devmajor: h.Devmajor, Devminor: h.Devminor, PAXRecords: h.PAXRecords,
		}
		t.owner[target] = p.Name
		switch h.Typeflag {
		case tar.TypeDir:
			entry.Name += "/"
			t.owner[target] = ""
		case tar.TypeLink:
			entry.Linkname = place(h.Linkname)
		}
		if err := t.header(entry); err != nil {
			return out, fmt.Errorf("/%s: %w", target, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if !conffiles[original] && haveSums {
			if _, err := io.Copy(t.tar, r); err != nil {
				return out, fmt.Errorf("/%s: %w", target, err)
			}
			continue
		}
		sum := md5.New()
		if _, err := io.Copy(io.MultiWriter(t.tar, sum), r); err != nil {
			return out, fmt.Errorf("/%s: %w", target, err)
		}
		if hash := hex.EncodeToString(sum.Sum(nil)); conffiles[original] {
			out.conffiles[original] = hash
		} else {
			sums.WriteString(hash + "  " + original[1:] + "\n")
		}
	}
	out.list = list.String()
	if !haveSums {
		out.sums = sums.String()
	}
	return out, nil
}

// conffileNames parses a conffiles file: one absolute path on each line, optionally after a flag,
// which only matters for upgrades.
func conffileNames(s string) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
			names[line] = true
		}
	}
	return names
}

// interests records the triggers that a package is interested in (deb-triggers(5)) in the format of
// dpkg's database.
func (t *tree) interests(name, triggers string) error {
	for line := range strings.Lines(triggers) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") || !strings.HasPrefix(f[0], "interest") {
			continue
		}
		if len(f) != 2 {
			return fmt.Errorf("triggers: %q is not a directive", clip(line))
		}
		who := name
		if f[0] == "interest-noawait" {
			who += "/noawait"
		}
		if strings.HasPrefix(f[1], "/") {
			t.fileTriggers.WriteString(f[1] + " " + who + "\n")
			continue
		}
		if t.triggers == nil {
			t.triggers = map[string]string{}
		}
		t.triggers[f[1]] += who + "\n"
	}
	return nil
}

// writeStatus adds a package to the status file, as unpacked.
func (t *tree) writeStatus(control paragraph, conffiles map[string]string) {
	b := &t.status
	for _, f := range control {
		fmt.Fprintf(b, "%s: %s\n", f.Name, f.Value)
		if f.Name == "Package" {
			b.WriteString("Status: install ok unpacked\n")
		}
	}
	if len(conffiles) > 0 {
		b.WriteString("Conffiles:\n")
		for _, name := range slices.Sorted(maps.Keys(conffiles)) {
			fmt.Fprintf(b, " %s %s\n", name, conffiles[name])
		}
	}
	b.WriteByte('\n')
}

// database writes the files of dpkg's database that are not specific to a package.
func (t *tree) database() error {
	err := errors.Join(
		t.file("var/lib/dpkg/status", 0o644, t.status.String()),
		t.file("var/lib/dpkg/available", 0o644, ""),
		t.file("var/lib/dpkg/diversions", 0o644, ""),
		t.file("var/lib/dpkg/statoverride", 0o644, ""),
		t.file("var/lib/dpkg/arch", 0o644, t.system.arch+"\n"),
		t.file("var/lib/dpkg/info/format", 0o644, "1\n"),
		t.file("var/lib/dpkg/triggers/File", 0o644, t.fileTriggers.String()),
	)
	for _, name := range slices.Sorted(maps.Keys(t.triggers)) {
		err = errors.Join(err, t.file("var/lib/dpkg/triggers/"+name, 0o644, t.triggers[name]))
	}
	return err
}
