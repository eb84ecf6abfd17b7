package debian

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"bake/cloud/image/debian/debiantest"
)

func smallPackage(compression string) debiantest.Package {
	return debiantest.Package{
		Name: "small", Version: "1-1", Compression: compression,
		Files:   []tar.Header{{Typeflag: tar.TypeReg, Name: "./bin/small", Mode: 0o755}},
		Content: map[string]string{"./bin/small": "#!/bin/sh\n"},
		Control: map[string]string{"postinst": "#!/bin/sh\nexit 0\n"},
	}
}

func TestOpenDeb(t *testing.T) {
	for _, compression := range []string{"", "gz", "xz", "zst"} {
		d, err := openDeb(smallPackage(compression).Deb(t))
		if err != nil {
			t.Errorf("%q: %v", compression, err)
			continue
		}
		if !d.control["postinst"].executable || d.control["control"].executable {
			t.Errorf("%q: control files %v", compression, d.control)
		}
		r := tar.NewReader(bytes.NewReader(d.data))
		var names []string
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); got != "./ ./bin/small" {
			t.Errorf("%q: files %q", compression, got)
		}
	}
}

func TestOpenDebErrors(t *testing.T) {
	control := debiantest.Tar(t, []tar.Header{{Typeflag: tar.TypeReg, Name: "./control"}}, func(string) string { return "" })
	empty := debiantest.Tar(t, nil, nil)
	version := debiantest.Member{Name: "debian-binary", Content: []byte("2.0\n")}
	good := smallPackage("xz").Deb(t)
	for name, test := range map[string]struct {
		file []byte
		err  string
	}{
		"empty":           {nil, "not an ar archive"},
		"not ar":          {[]byte("<html>"), "not an ar archive"},
		"no members":      {debiantest.Ar(), "not a Debian package"},
		"no data":         {debiantest.Ar(version, debiantest.Member{Name: "control.tar", Content: control}), "not a Debian package"},
		"no control":      {debiantest.Ar(version, debiantest.Member{Name: "data.tar", Content: empty}), "not a Debian package"},
		"no control file": {debiantest.Ar(version, debiantest.Member{Name: "control.tar", Content: empty}), "no control file"},
		"other version":   {debiantest.Ar(debiantest.Member{Name: "debian-binary", Content: []byte("3.0\n")}), "is not 2"},
		"compression":     {debiantest.Ar(version, debiantest.Member{Name: "data.tar.lzo", Content: empty}), `unknown compression ".lzo"`},
		"damaged":         {debiantest.Ar(version, debiantest.Member{Name: "data.tar.gz", Content: empty}), "data.tar.gz: gzip"},
		"cut":             {good[:len(good)-5], "is truncated"},
		"cut in a header": {good[:80], "damaged member header"},
	} {
		if _, err := openDeb(test.file); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
}

func TestInflateLimit(t *testing.T) {
	bomb := debiantest.Compress(t, "gz", make([]byte, 1<<20))
	if _, err := inflate(bomb, ".gz", 1<<20); err != nil {
		t.Error(err)
	}
	if _, err := inflate(bomb, ".gz", 1<<20-1); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error %v", err)
	}
}

func FuzzOpenDeb(f *testing.F) {
	for _, compression := range []string{"", "gz"} {
		f.Add(smallPackage(compression).Deb(f))
	}
	f.Add(debiantest.Ar(debiantest.Member{Name: "debian-binary/", Content: []byte("2.0\n")}))
	f.Add([]byte("!<arch>\ndebian-binary                                   18446744073709551615`\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		d, err := openDeb(file)
		if err == nil && (d.control == nil || d.data == nil) {
			t.Error("opened without its parts")
		}
	})
}
