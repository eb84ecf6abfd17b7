package rpmdb

import (
	"bytes"
	"encoding/binary"
)

// The tags of a header that are read, and the types of their values.
const (
	tagName           = 1000
	tagVersion        = 1001
	tagRelease        = 1002
	tagEpoch          = 1003
	tagVendor         = 1011
	tagLicense        = 1014
	tagArch           = 1022
	tagOldFilenames   = 1027
	tagSourceRPM      = 1044
	tagDirIndexes     = 1116
	tagBaseNames      = 1117
	tagDirNames       = 1118
	typeInt32         = 4
	typeString        = 6
	typeStringArray   = 8
	typeI18NString    = 9
	headerEntry       = 16 // bytes: tag, type, offset and count, big-endian
	headerIntro       = 8  // bytes: number of entries, size of the values
	maxFilesOfPackage = 1 << 20
	amplification     = 4 // maximum ratio of the length of a package's paths to the size of its header
)

// header decodes the header of a package: a table of entries, and their values. Of
// entries with the same tag the first one counts.
func header(blob []byte) (Package, error) {
	var p Package
	if len(blob) < headerIntro {
		return p, damaged("a package has %d bytes", len(blob))
	}
	entries, ok := section(blob, headerIntro, int64(binary.BigEndian.Uint32(blob))*headerEntry)
	if !ok {
		return p, damaged("a package is cut off")
	}
	values, ok := section(blob, headerIntro+int64(len(entries)), int64(binary.BigEndian.Uint32(blob[4:])))
	if !ok {
		return p, damaged("a package is cut off")
	}
	var bases, dirs []string
	var indexes []int32
	seen := map[uint32]bool{}
	for ; len(entries) > 0; entries = entries[headerEntry:] {
		e := value{
			kind: binary.BigEndian.Uint32(entries[4:]), at: int64(int32(binary.BigEndian.Uint32(entries[8:]))), // signed on purpose: checked by cut
			count: int64(binary.BigEndian.Uint32(entries[12:])), values: values,
		}
		tag := binary.BigEndian.Uint32(entries)
		if seen[tag] {
			continue
		}
		seen[tag] = true
		switch tag {
		case tagName:
			p.Name = e.text()
		case tagVersion:
			p.Version = e.text()
		case tagRelease:
			p.Release = e.text()
		case tagEpoch:
			if n := e.numbers(); len(n) > 0 {
				p.Epoch = &n[0]
			}
		case tagVendor:
			p.Vendor = e.text()
		case tagLicense:
			p.License = e.text()
		case tagArch:
			p.Arch = e.text()
		case tagSourceRPM:
			p.SourceRPM = e.text()
		case tagOldFilenames:
			p.Files = e.texts()
		case tagDirIndexes:
			indexes = e.numbers()
		case tagBaseNames:
			bases = e.texts()
		case tagDirNames:
			dirs = e.texts()
		}
	}
	if p.Name == "" {
		return p, damaged("a package has no name")
	}
	p.Files = append(p.Files, paths(dirs, bases, indexes, amplification*len(blob))...)
	return p, nil
}

// paths joins the names of files and their directories: indexes has the directory of each file. It
// stops after limit bytes.
func paths(dirs, bases []string, indexes []int32, limit int) (files []string) {
	for i, base := range bases[:min(len(bases), len(indexes))] {
		if n := indexes[i]; n >= 0 && int(n) < len(dirs) {
			if limit -= len(dirs[n]) + len(base); limit < 0 {
				break
			}
			files = append(files, dirs[n]+base)
		}
	}
	return files
}

// value returns the bytes of an entry's value; empty if it is truncated.
type value struct {
	kind      uint32
	at, count int64
	values    []byte
}

func (v value) texts() (list []string) {
	if v.kind != typeString && v.kind != typeStringArray && v.kind != typeI18NString || v.count > maxFilesOfPackage {
		return nil
	}
	rest, _ := section(v.values, v.at, int64(len(v.values))-v.at)
	for range v.count {
		one, after, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return list
		}
		list, rest = append(list, string(one)), after
	}
	return list
}

func (v value) text() string {
	v.count = min(v.count, 1)
	if list := v.texts(); len(list) > 0 {
		return list[0]
	}
	return ""
}

func (v value) numbers() (list []int32) {
	part, ok := section(v.values, v.at, v.count*4)
	if v.kind != typeInt32 || !ok {
		return nil
	}
	for ; len(part) > 0; part = part[4:] {
		list = append(list, int32(binary.BigEndian.Uint32(part))) // signed in the format
	}
	return list
}
