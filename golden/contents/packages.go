package contents

import (
	"debug/buildinfo"
	"encoding/json"
	"io"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"bake/golden/contents/rpmdb"
)

// databases reads the databases of package managers.
func (r *reader) databases() {
	licenses := map[string][]string{}
	for _, p := range r.tree.paths() {
		dir, name := path.Split(p)
		switch {
		case dir == "var/lib/dpkg/info/":
			if text, ok := r.file(p); ok {
				for line := range strings.Lines(string(text)) {
					r.own(strings.TrimSuffix(line, "\n"))
				}
			}
		case name == "copyright" && strings.HasPrefix(dir, "usr/share/doc/"):
			if text, ok := r.file(p); ok {
				licenses[path.Base(dir)] = debianLicenses(text)
			}
		}
	}
	for _, p := range r.tree.paths() {
		if p == "var/lib/dpkg/status" || strings.HasPrefix(p, "var/lib/dpkg/status.d/") && !strings.HasSuffix(p, ".md5sums") {
			if text, ok := r.file(p); ok {
				r.dpkg(text, p == "var/lib/dpkg/status", licenses)
			}
		}
	}
	for _, p := range apkDatabases {
		if text, ok := r.file(p); ok {
			r.apk(text)
		}
	}
	for _, p := range rpmDatabases {
		if db, ok := r.file(p); ok && len(db) > 0 {
			log, _ := r.file(p + "-wal")
			r.rpm(p, db, log)
			break
		}
	}
}

// dpkg reads a status file. One of a folder of them has no field Status.
func (r *reader) dpkg(text []byte, status bool, licenses map[string][]string) {
	fields(text, func(f map[string]string) {
		state := strings.Fields(f["Status"])
		if status && (len(state) != 3 || state[2] == "not-installed" || state[2] == "config-files") {
			return
		}
		p := Package{Kind: Deb, Name: f["Package"], Version: f["Version"], Arch: f["Architecture"], Supplier: f["Maintainer"], Licenses: licenses[f["Package"]]}
		if name, version, ok := strings.Cut(f["Source"], " ("); ok {
			p.Source = name + "@" + strings.TrimSuffix(version, ")")
		} else if name != p.Name {
			p.Source = name
		}
		r.add(p)
	})
}

// apk reads the database of apk, whose fields have one-letter names. F is a folder, and
// R a file in it.
func (r *reader) apk(text []byte) {
	fields(text, func(f map[string]string) {
		p := Package{Kind: APK, Name: f["P"], Version: f["V"], Arch: f["A"], Supplier: f["m"], Licenses: expression(f["L"])}
		if f["o"] != p.Name {
			p.Source = f["o"]
		}
		r.add(p)
	})
	dir := ""
	for line := range strings.Lines(string(text)) {
		switch name := strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(name, "F:"):
			dir = name[2:]
		case strings.HasPrefix(name, "R:"):
			r.own(path.Join(dir, name[2:]))
		}
	}
}

func (r *reader) rpm(p string, db, log []byte) {
	list, err := rpmdb.Read(db, log)
	if err != nil {
		r.problem(p, err)
		return
	}
	for _, one := range list {
		q := Package{
			Kind: RPM, Name: one.Name, Version: one.Version, Arch: one.Arch, Supplier: one.Vendor, Source: one.SourceRPM,
			Licenses: expression(one.License),
		}
		if one.Release != "" {
			q.Version += "-" + one.Release
		}
		if one.Epoch != nil {
			q.Epoch = strconv.Itoa(int(*one.Epoch))
		}
		r.add(q)
		for _, file := range one.Files {
			r.own(file)
		}
	}
}

// languages reads packages of programming languages that the system's package manager
// has not installed.
func (r *reader) languages() {
	for _, p := range r.tree.paths() {
		switch {
		case r.owned[p]:
		case pythonFile(p):
			r.python(p)
		case nodeFile(p):
			r.node(p)
		case program(p):
			r.goProgram(p)
		}
	}
}

// python reads the METADATA of a package, up to the description.
func (r *reader) python(p string) {
	text, ok := r.file(p)
	if !ok {
		return
	}
	head, _, _ := strings.Cut(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n\n")
	fields([]byte(head), func(f map[string]string) {
		q := Package{Kind: Python, Name: f["Name"], Version: f["Version"], Paths: []string{p}}
		if l := f["License-Expression"]; l != "" {
			q.Licenses = []string{l}
		} else if l := f["License"]; l != "" && l != "UNKNOWN" && len(l) < 100 && !strings.Contains(l, "\n") {
			q.Licenses = expression(l)
		}
		r.add(q)
	})
}

func (r *reader) node(p string) {
	text, ok := r.file(p)
	if !ok {
		return
	}
	var module struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		License any    `json:"license"`
	}
	if err := json.Unmarshal(text, &module); err != nil {
		r.problem(p, err)
		return
	}
	q := Package{Kind: Node, Name: module.Name, Version: module.Version, Paths: []string{p}}
	switch l := module.License.(type) {
	case string:
		q.Licenses = expression(l)
	case map[string]any: // of old modules
		if name, ok := l["type"].(string); ok {
			q.Licenses = expression(name)
		}
	}
	r.add(q)
}

// goProgram reads the modules that a Go program was built from; other files have none.
func (r *reader) goProgram(p string) {
	f, _, err := r.tree.open(p)
	if err != nil {
		r.problem(p, err)
		return
	}
	if c, ok := f.(io.Closer); ok {
		defer c.Close()
	}
	info, err := buildinfo.Read(f)
	if err != nil {
		return
	}
	version := strings.TrimPrefix(strings.Fields(info.GoVersion + " ")[0], "go")
	r.add(Package{Kind: Go, Name: "stdlib", Version: version, Licenses: []string{"BSD-3-Clause"}, Paths: []string{p}})
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		for m.Replace != nil {
			m = m.Replace
		}
		version := m.Version
		if version == "(devel)" {
			version = ""
		}
		r.add(Package{Kind: Go, Name: m.Path, Version: version, Paths: []string{p}})
	}
}
