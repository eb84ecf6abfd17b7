package contents

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"bake/internal/lazyregexp"
)

// spdxIDs are the identifiers of SPDX's list that occur in distributions. Other
// licenses are written with their names.
func spdxIDs() map[string]bool {
	ids := map[string]bool{}
	for _, id := range strings.Fields(`
		0BSD AFL-2.0 AFL-2.1 AFL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-1.0 Apache-1.1 Apache-2.0 Artistic-1.0
		Artistic-1.0-Perl Artistic-2.0 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause
		BSD-4-Clause BSD-4-Clause-UC BSD-Source-Code BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0
		CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 CDDL-1.1 CPL-1.0 curl ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.2 FSFAP FSFUL FSFULLR
		 FTL GFDL-1.1-only GFDL-1.1-or-later GFDL-1.2-only GFDL-1.2-or-later GFDL-1.3-only GFDL-1.3-or-later
		GPL-1.0-only GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND
		HPND-sell-variant ICU IJG Info-ZIP ISC JSON LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later
		LGPL-3.0-only LGPL-3.0-or-later Libpng libpng-2.0 libtiff LPPL-1.3c MirOS MIT MIT-0 MIT-CMU MPL-1.0 MPL-1.1
		MPL-2.0 MS-PL NCSA Net-SNMP NTP OFL-1.1 OLDAP-2.8 OpenSSL OSL-3.0 PHP-3.01 PostgreSQL PSF-2.0 Python-2.0
		 Ruby Sleepycat SSH-OpenSSH  TCL TCP-wrappers  Unicode-DFS-2016 Unlicense UPL-1.0
		Vim W3C WTFPL X11 XFree86-1.1 Zlib zlib-acknowledgement ZPL-2.1`) {
		ids[id] = true
	}
	return ids
}

// spdxExceptions are those of SPDX's exceptions that occur in distributions.
const spdxExceptions = ` Autoconf-exception-2.0 Autoconf-exception-3.0 Bison-exception-2.2 Bootloader-exception Classpath-exception-2.0
	Font-exception-2.0 GCC-exception-2.0 GCC-exception-3.1 Libtool-exception Linux-syscall-note LLVM-exception
	OCaml-LGPL-linking-exception Qt-GPL-exception-1.0 u-boot-exception-2.0 `

// aliases are the names that Debian's copyright files and RPM's older headers have for
// licenses of SPDX's list.
func aliases(ids map[string]bool) map[string]string {
	names := map[string]string{}
	for id := range ids {
		names[strings.ToLower(id)] = id
	}
	maps.Copy(names, map[string]string{
		"Expat": "MIT", "X11": "X11", "Apache-2": "Apache-2.0", "ASL 2.0": "Apache-2.0", "ASL-2.0": "Apache-2.0", "Apache 2.0": "Apache-2.0",
		"BSD-2-clause": "BSD-2-Clause", "BSD-3-clause": "BSD-3-Clause", "BSD-4-clause": "BSD-4-Clause", "MPLv1.1": "MPL-1.1",
		"MPLv2.0": "MPL-2.0", "zlib": "Zlib", "Boost": "BSL-1.0", "CC0": "CC0-1.0", "PSF-2": "PSF-2.0", "Artistic": "Artistic-1.0-Perl",
		"Artistic-2": "Artistic-2.0", "Artistic 2.0": "Artistic-2.0", "OFL": "OFL-1.1", "Apache License 2.0": "Apache-2.0",
		"MIT License": "MIT", "Python-2": "Python-2.0", "Unicode": "Unicode-DFS-2016", "ISC License": "ISC",
	})
	for _, f := range []struct{ name, versions string }{{"GPL", "1 2 3"}, {"LGPL", "2 2.1 3"}, {"AGPL", "3"}, {"GFDL", "1.1 1.2 1.3"}} {
		for _, v := range strings.Fields(f.versions) {
			id := f.name + "-" + v
			if !strings.Contains(v, ".") {
				id += ".0"
			}
			for _, name := range []string{f.name + "-" + v, f.name + "v" + v, id} {
				names[name], names[name+"+"] = id+"-only", id+"-or-later"
			}
		}
	}
	return names
}

// licenses are the names of licenses.
var licenses = &licenseNames{}

type licenseNames struct {
	once    sync.Once
	ids     map[string]bool
	aliases map[string]string
}

// load returns the names, which are put together when they are first used.
func (l *licenseNames) load() *licenseNames {
	l.once.Do(func() {
		l.ids = spdxIDs()
		l.aliases = aliases(l.ids)
	})
	return l
}

// spdxOf returns the identifier of the license called name, or name. Case does not matter.
func spdxOf(name string) string {
	for _, key := range []string{name, strings.ToLower(name)} {
		if id, ok := licenses.load().aliases[key]; ok {
			return id
		}
	}
	return name
}

var words = lazyregexp.New(`[()]|[^\s()]+`)

// isSPDX reports whether s is an SPDX expression of known identifiers.
func isSPDX(s string) bool {
	depth, operand := 0, true
	list := words.Get().FindAllString(s, -1)
	for i, w := range list {
		switch {
		case !operand && w == "WITH" && list[i-1] != ")":
		case !operand && list[i-1] == "WITH" && slices.Contains(strings.Fields(spdxExceptions), w):
		case i > 0 && list[i-1] == "WITH":
			return false
		case operand && w == "(":
			depth++
		case !operand && w == ")" && depth > 0:
			depth--
		case !operand && (w == "AND" || w == "OR"):
			operand = true
		case operand && licenses.load().ids[w]:
			operand = false
		default:
			return false
		}
	}
	return depth == 0 && !operand && list[len(list)-1] != "WITH"
}

// expression returns the licenses in a field of RPM, apk, Python or Node: as an SPDX
// expression if it can be parsed as one, and otherwise unchanged.
func expression(field string) []string {
	field = strings.TrimSpace(field)
	if field == "" || isSPDX(field) {
		return slices.DeleteFunc([]string{field}, func(s string) bool { return s == "" })
	}
	upper := strings.NewReplacer(" and ", " AND ", " or ", " OR ").Replace(field)
	var b strings.Builder
	for i, w := range words.Get().FindAllString(upper, -1) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(spdxOf(w))
	}
	if text := strings.NewReplacer("( ", "(", " )", ")").Replace(b.String()); isSPDX(text) {
		return []string{text}
	}
	return []string{spdxOf(field)}
}

var shortName = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9.+~-]*$`)

// debianLicenses returns the licenses in a machine-readable copyright file: all of them,
// since each applies to some of the files.
func debianLicenses(text []byte) (list []string) {
	if !strings.HasPrefix(strings.TrimSpace(string(text)), "Format:") {
		return nil
	}
	split := strings.NewReplacer(" and/or ", ",", " and ", ",", " or ", ",", "|", ",")
	for line := range strings.Lines(string(text)) {
		field, ok := strings.CutPrefix(line, "License:")
		if !ok {
			continue
		}
		for one := range strings.SplitSeq(split.Replace(strings.TrimSpace(field)), ",") {
			one, _, _ = strings.Cut(strings.TrimSpace(one), " ") // without "with … exception"
			if shortName.Get().MatchString(one) {
				list = append(list, spdxOf(one))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
