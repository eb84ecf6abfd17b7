// Package contents lists what is installed on a machine, from the databases of its package
// managers and other files, and writes it as a bill of materials (SBOM).
package contents

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/package-url/packageurl-go"
)

// Contents are the installed packages and the system.
type Contents struct {
	OS       OS
	Packages []Package // sorted

	// Problems describe what could not be read. Packages in it are missing.
	Problems []string
}

// OS is the operating system, as its os-release describes it. The fields of a system
// without one are empty.
type OS struct {
	ID        string // such as "debian"
	VersionID string // such as "12"
	Name      string // for people
	CPE       string
}

// Kind is the type of a package, as in package URLs.
type Kind string

// The kinds of packages that are found.
const (
	Deb    Kind = "deb"
	RPM    Kind = "rpm"
	APK    Kind = "apk"
	Python Kind = "pypi"
	Node   Kind = "npm"
	Go     Kind = "golang"
)

// Package is an installed package.
type Package struct {
	Kind     Kind
	Name     string
	Version  string // in the format of its package manager, without RPM's epoch
	Epoch    string // of RPM; empty if there is none
	Arch     string
	Source   string   // package that it was built from, "name" or "name@version"; of RPM a file name
	Supplier string   // the distributor
	Licenses []string // SPDX expressions, or names that are not in SPDX's list
	Paths    []string // location of a package that no package manager has installed, from the root
}

// FromFS reads the root file system of a machine. fsys resolves links, and must not
// lead out of the machine's files.
func FromFS(fsys fs.FS) (*Contents, error) {
	t, err := walk(fsys)
	if err != nil {
		return nil, err
	}
	return read(t)
}

// URL returns the package's URL (https://github.com/package-url/purl-spec), with qualifiers
// for a package of the operating system os.
func (p Package) URL(os OS) string {
	var q packageurl.Qualifiers
	add := func(key, value string) {
		if value != "" {
			q = append(q, packageurl.Qualifier{Key: key, Value: value})
		}
	}
	namespace, name := "", p.Name
	switch p.Kind {
	case Deb, RPM, APK:
		namespace = os.ID
		if os.ID == "rhel" {
			namespace = "redhat"
		}
		add("arch", p.Arch)
		add("distro", strings.TrimSuffix(os.ID+"-"+os.VersionID, "-"))
		add("epoch", p.Epoch)
		add("upstream", p.Source)
	case Python:
		name = pythonName(name)
	case Node, Go:
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			namespace, name = name[:i], name[i+1:]
		}
	}
	return packageurl.NewPackageURL(string(p.Kind), namespace, name, p.Version, q, "").ToString()
}

// pythonName returns the normalized name of a Python package, as used in package URLs.
func pythonName(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "-")) }

// read returns the contents of t.
func read(t tree) (*Contents, error) {
	r := &reader{tree: t, owned: map[string]bool{}, packages: map[string]*Package{}}
	r.os()
	r.databases()
	r.languages()
	if r.tooMany {
		return nil, fmt.Errorf("there are more than %d packages", maxPackages)
	}
	if len(r.packages) == 0 && len(r.Problems) == 0 {
		return nil, fmt.Errorf("there is no dpkg, RPM or apk database, and nothing else that is recognized")
	}
	for _, p := range r.packages {
		slices.Sort(p.Paths)
		p.Paths = slices.Compact(p.Paths)
		r.Packages = append(r.Packages, *p)
	}
	sort.Slice(r.Packages, func(i, j int) bool {
		a, b := r.Packages[i], r.Packages[j]
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Arch, b.Arch)) < 0
	})
	return &r.Contents, nil
}

// reader gathers the contents of a tree.
type reader struct {
	Contents
	tree     tree
	owned    map[string]bool     // files of packages that could be packages themselves
	packages map[string]*Package // by URL
	tooMany  bool                // packages
}

// add adds a package, or its paths to those of the same package found before.
func (r *reader) add(p Package) {
	if p.Name == "" || p.Version == "" && p.Kind != Go {
		return
	}
	id := p.URL(OS{})
	if old := r.packages[id]; old != nil {
		old.Paths = append(old.Paths, p.Paths...)
		return
	}
	if len(r.packages) == maxPackages {
		r.tooMany = true
		return
	}
	p.Licenses = slices.Compact(slices.Sorted(slices.Values(p.Licenses)))
	r.packages[id] = &p
}

// problem records that a file could not be read.
func (r *reader) problem(path string, err error) {
	r.Problems = append(r.Problems, fmt.Sprintf("%s: %s", path, err))
}

// own records that a package manager has installed a file.
func (r *reader) own(path string) {
	if path = strings.TrimPrefix(path, "/"); candidate(path) {
		r.owned[path] = true
	}
}

// os reads os-release, whose lines are assignments of a shell.
func (r *reader) os() {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		text, ok := r.file(path)
		if !ok {
			continue
		}
		values := map[string]string{}
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
				values[key] = unquote(value)
			}
		}
		r.OS = OS{ID: values["ID"], VersionID: values["VERSION_ID"], Name: cmp.Or(values["PRETTY_NAME"], values["NAME"]), CPE: values["CPE_NAME"]}
		if r.OS.CPE != "" && !strings.HasPrefix(r.OS.CPE, "cpe:") {
			r.OS.CPE = ""
		}
		return
	}
}

// unquote removes shell quotes from a word.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	return strings.NewReplacer(`\"`, `"`, `\$`, `$`, `\\`, `\`, "\\`", "`").Replace(s)
}

// file returns the content of a file, if it exists and can be read.
func (r *reader) file(path string) ([]byte, bool) {
	if _, there := slices.BinarySearch(r.tree.paths(), path); !there {
		return nil, false
	}
	text, err := contentOf(r.tree, path)
	if err != nil {
		r.problem(path, err)
		return nil, false
	}
	return text, true
}

// fields reads paragraphs of lines "Name: value", whose continuations begin with a space:
// control files, METADATA and, with one-letter names, apk's database. yield gets the
// first value of each name. Long values are truncated.
func fields(text []byte, yield func(map[string]string)) {
	one, last := map[string]string{}, ""
	end := func() {
		if len(one) > 0 {
			yield(maps.Clone(one))
		}
		clear(one)
		last = ""
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			end()
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			if last != "" && len(one[last]) < maxValue {
				one[last] += "\n" + strings.TrimSpace(line)
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		last = ""
		if _, twice := one[name]; ok && !twice {
			last = name
			one[name] = strings.TrimSpace(value)
		}
	}
	end()
}
