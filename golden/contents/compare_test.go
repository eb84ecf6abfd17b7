package contents_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"bake/golden/contents"
)

// TestCompare: added, removed and changed packages are distinguished, even if there are
// only documents of both machines, in either format.
func TestCompare(t *testing.T) {
	os := contents.OS{ID: "debian", VersionID: "12", Name: "Debian 12"}
	before := &contents.Contents{OS: os, Packages: []contents.Package{
		{Kind: contents.Deb, Name: "bash", Version: "5.2-1", Arch: "amd64"},
		{Kind: contents.Deb, Name: "libc6", Version: "2.36", Arch: "amd64"},
		{Kind: contents.Deb, Name: "libc6", Version: "2.36", Arch: "i386"},
		{Kind: contents.Deb, Name: "telnet", Version: "0.17+nmu1", Arch: "all"},
		{Kind: contents.RPM, Name: "kernel", Version: "6.1-1", Epoch: "1", Arch: "x86_64"},
		{Kind: contents.RPM, Name: "kernel", Version: "6.1-2", Epoch: "1", Arch: "x86_64"},
		{Kind: contents.Node, Name: "@scope/tool", Version: "1.0.0"},
		{Kind: contents.Python, Name: "Made_Here", Version: "1.0"},
	}}
	after := &contents.Contents{OS: os, Packages: []contents.Package{
		{Kind: contents.Deb, Name: "bash", Version: "5.2-2", Arch: "amd64"},
		{Kind: contents.Deb, Name: "libc6", Version: "2.36", Arch: "amd64"},
		{Kind: contents.RPM, Name: "kernel", Version: "6.1-2", Epoch: "1", Arch: "x86_64"},
		{Kind: contents.RPM, Name: "kernel", Version: "6.1-3", Epoch: "1", Arch: "x86_64"},
		{Kind: contents.Node, Name: "@scope/tool", Version: "1.0.1"},
		{Kind: contents.Python, Name: "made-here", Version: "1.0"},
		{Kind: contents.Go, Name: "example.com/tool"},
	}}
	want := `deb bash:amd64 5.2-1 is now 5.2-2
deb libc6:i386 2.36 was removed
deb telnet:all 0.17+nmu1 was removed
golang example.com/tool ? was added
npm @scope/tool 1.0.0 is now 1.0.1
rpm kernel:x86_64 1:6.1-1 is now 1:6.1-3`
	check := func(a, b *contents.Contents) {
		t.Helper()
		var got []string
		for _, c := range contents.Compare(a, b) {
			got = append(got, c.String())
		}
		if text := strings.Join(got, "\n"); text != want {
			t.Errorf("got\n%s\nwant\n%s", text, want)
		}
	}
	check(before, after)
	for _, format := range []contents.Format{contents.CycloneDX, contents.SPDX} {
		var parsed []*contents.Contents
		for _, c := range []*contents.Contents{before, after} {
			var b bytes.Buffer
			if err := c.Write(&b, format, contents.Document{Time: time.Unix(0, 0)}); err != nil {
				t.Fatal(err)
			}
			p, err := contents.Parse(b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, p)
		}
		check(parsed[0], parsed[1])
	}
	for _, text := range []string{"", "{}", `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"purl":"nonsense"}]}`} {
		if _, err := contents.Parse([]byte(text)); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}
