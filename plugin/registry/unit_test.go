package registry

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
)

func TestParseSource(t *testing.T) {
	for text, want := range map[string]Source{
		"github.com/hashicorp/docker":      {"github.com", "hashicorp", "docker"},
		"github.com/YaleUniversity/goss":   {"github.com", "YaleUniversity", "goss"},
		"example.com:8443/a/b.c/d_e/thing": {"example.com:8443", "a/b.c/d_e", "thing"},
	} {
		got, err := ParseSource(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "docker", "hashicorp/docker", "https://github.com/hashicorp/docker", "github.com//docker", "github.com/hashicorp/docker/", "/github.com/a/b",
		"github.com/../docker", "github.com/a/..", "../a/b", "github.com/./b", "github.com/a/b\\c", "github.com/a/b c", "github.com/a/b?x", "github.com/a/b#x", "github.com/a/C:",
		"github.com/a/b\x00", "github.com/a/%2e%2e", "github.com/hashicorp/packer-plugin-docker", ".git/a/b", "a:b/c/d", "a/b" + strings.Repeat("/c", 15),
	} {
		if got, err := ParseSource(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestParseName(t *testing.T) {
	s := Source{"github.com", "a", "thing"}
	for name, want := range map[string]string{
		"packer-plugin-thing_v1.2.3_x5.0_linux_amd64.zip":         "1.2.3 5.0 linux_amd64",
		"packer-plugin-thing_v1.2.3-dev_x5.1_windows_arm64.zip":   "1.2.3-dev 5.1 windows_arm64",
		"packer-plugin-thing_v1.2.3_x5.0_linux_amd64":             "",
		"packer-plugin-thingy_v1.2.3_x5.0_linux_amd64.zip":        "",
		"packer-plugin-thing_v1.2.3_x5.0_linux_amd64/../x.zip":    "",
		"../packer-plugin-thing_v1.2.3_x5.0_linux_amd64.zip":      "",
		"packer-plugin-thing_v1.2_x5.0_linux_amd64.zip":           "",
		"packer-plugin-thing_v1.2.3_x5.0_linux_amd64_SHA256.zip":  "",
		"packer-plugin-thing_v1.2.3_x5.0_linux_amd64.zip.exe.zip": "",
	} {
		got := ""
		if version, api, p, ok := s.parseName(name, ".zip"); ok {
			got = version + " " + api + " " + p.String()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestHashiCorpKey compares the built-in key with its published fingerprint.
func TestHashiCorpKey(t *testing.T) {
	ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(hashicorpKey))
	if err != nil || len(ring) != 1 {
		t.Fatalf("%d keys, %v", len(ring), err)
	}
	got := strings.ToUpper(strings.Join(strings.Fields(hexOf(ring[0].PrimaryKey.Fingerprint)), ""))
	if want := "C874011F0AB405110D02105534365D9472D7468F"; got != want {
		t.Errorf("fingerprint %s, want %s", got, want)
	}
	if _, ok := ring[0].SigningKey(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)); !ok {
		t.Error("it cannot sign")
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestVerifySums(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	k := newKey(t, now, 3600)
	text := []byte("sums")
	during := k.sign(t, text, now.Add(time.Minute))
	for name, tt := range map[string]struct {
		text, signature []byte
		now             time.Time
		good            bool
	}{
		"good":                        {text, during, now.Add(2 * time.Minute), true},
		"the key has expired since":   {text, during, now.Add(48 * time.Hour), true},
		"another text":                {[]byte("sum"), during, now.Add(time.Minute), false},
		"no signature":                {text, nil, now, false},
		"signature of something else": {text, k.sign(t, []byte("x"), now.Add(time.Minute)), now.Add(2 * time.Minute), false},
		"garbage":                     {text, []byte("<html>"), now, false},
	} {
		if err := verifySums(k.public, tt.text, tt.signature, tt.now); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A renewed key keeps its old subkeys, whose signatures stay valid.
func TestRenewedKey(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *packet.Config {
		return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 3600, Time: func() time.Time { return now.Add(d) }}
	}
	k := newKey(t, now, 7200)
	if err := k.AddSigningSubkey(at(0)); err != nil {
		t.Fatal(err)
	}
	signature := k.sign(t, []byte("sums"), now.Add(time.Minute))
	for _, id := range k.Identities {
		forever := uint32(0)
		id.SelfSignature.CreationTime, id.SelfSignature.KeyLifetimeSecs = now.Add(time.Hour), &forever
		if err := id.SelfSignature.SignUserId(id.UserId.Id, k.PrimaryKey, k.PrivateKey, at(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	renewed := k.armored(t)
	for _, when := range []time.Duration{2 * time.Hour, 1000 * time.Hour} {
		if err := verifySums(renewed, []byte("sums"), signature, now.Add(when)); err != nil {
			t.Errorf("after %s: %v", when, err)
		}
	}
	if err := verifySums(renewed, []byte("sum"), signature, now.Add(1000*time.Hour)); err == nil {
		t.Error("another text is signed")
	}
}

func TestParseSums(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	got, err := parseSums([]byte(hex + "  a.zip\n\n" + strings.ToUpper(hex) + " *b.zip\r\n"))
	if diff := cmp.Diff(map[string]string{"a.zip": hex, "b.zip": hex}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"", "<html>", hex, hex + " a b", hex[1:] + " a", hex + " a\n" + strings.Repeat("cd", 32) + " a"} {
		if got, err := parseSums([]byte(bad)); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

func TestUnpack(t *testing.T) {
	const name = "packer-plugin-x_v1.0.0_x5.0_linux_amd64"
	right := entry{name, "program"}
	for _, tt := range []struct {
		title string
		zip   []byte
		want  string // part of the error
	}{
		{"right", zipped(t, right), ""},
		{"with a licence", zipped(t, entry{"LICENSE.txt", ""}, right, entry{"README.md", ""}), ""},
		{"empty", zipped(t), "does not contain"},
		{"another version", zipped(t, entry{"packer-plugin-x_v1.0.1_x5.0_linux_amd64", ""}), "contains"},
		{"twice", zipped(t, right, right), "more than once"},
		{"a directory of that name", zipped(t, entry{name + "/", ""}), "contains"},
		{"in a directory", zipped(t, entry{"bin/" + name, ""}), "contains"},
		{"more than that", zipped(t, right, entry{"other", ""}), `it contains "other"`},
		{"traversal", zipped(t, right, entry{"../../x", ""}), `it contains "../../x"`},
		{"traversal as a licence", zipped(t, right, entry{"../LICENSE", ""}), "contains"},
		{"no zip", []byte("<html>"), "not a zip archive"},
		{"cut", zipped(t, right)[:40], "not a zip archive"},
		{"many files", manyFiles(t), "list of files is too long"},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "zip"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(tt.zip); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = unpack(f, name, &out, 1000)
		f.Close()
		if tt.want == "" && (err != nil || out.String() != "program") || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %q, %v", tt.title, out.String(), err)
		}
		if tt.want != "" && out.Len() > 0 {
			t.Errorf("%s: %q was unpacked", tt.title, out.String())
		}
	}
}

func manyFiles(t *testing.T) []byte {
	var all []entry
	for range 1100 {
		all = append(all, entry{strings.Repeat("x", 1000), ""})
	}
	return zipped(t, all...)
}

// A small archive can contain a large file, which is cut at the limit.
func TestBomb(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(zipped(t, entry{"bomb", strings.Repeat("0", 1_000_001)})); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := unpack(f, "bomb", &out, 1_000_000); err == nil || !strings.Contains(err.Error(), "larger than 1000000 bytes") || out.Len() > 1_000_001 {
		t.Errorf("got %v after %d bytes", err, out.Len())
	}
	if err := unpack(f, "bomb", io.Discard, 1_000_001); err != nil {
		t.Error(err)
	}
}

const lockText = lockHeader + `
plugin "github.com/hashicorp/qemu" {
  version     = "1.1.4"
  constraints = "~> 1, \"x\""
  api         = "5.0"
  hashes = [
    "darwin_arm64:zip:sha256:3333333333333333333333333333333333333333333333333333333333333333",
    "linux_amd64:bin:sha256:2222222222222222222222222222222222222222222222222222222222222222",
    "linux_amd64:zip:sha256:1111111111111111111111111111111111111111111111111111111111111111",
  ]
}

plugin "github.com/org/dev" {
  version     = "0.1.0-dev"
  constraints = ">= 0.1"
  api         = "5.0"
  hashes = [
    "linux_amd64:bin:sha256:4444444444444444444444444444444444444444444444444444444444444444",
  ]
}
`

func digits(d string) string { return strings.Repeat(d, 64) }

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), LockFile)
	l, diags := ReadLock(path)
	if diags.HasErrors() || l.Save() != nil {
		t.Fatal(diags)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a lock file was written that locks nothing")
	}
	dev := NewLocked("github.com/org/dev", "0.1.0-dev", ">= 0.1")
	dev.Add(nil, linux, digits("4"))
	l.Put(dev)
	l.Put(Locked{Source: "GitHub.com/hashicorp/qemu", Version: "1.0.0"})
	qemu := NewLocked("github.com/hashicorp/qemu", "1.1.4", `~> 1, "x"`)
	qemu.Add(&Release{Archives: []Archive{{linux, digits("9"), ""}}}, linux, digits("9"))
	qemu.Add(&Release{Archives: []Archive{{linux, digits("1"), ""}, {darwin, digits("3"), ""}}}, linux, digits("2"))
	l.Put(qemu)
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != lockText {
		t.Errorf("wrote (-want +got):\n%s", cmp.Diff(lockText, string(b)))
	}
	if l, diags = ReadLock(path); diags.HasErrors() {
		t.Fatal(diags)
	}
	before, _ := os.Stat(path)
	if err := os.Chtimes(path, time.Time{}, before.ModTime().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	before, _ = os.Stat(path)
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !after.ModTime().Equal(before.ModTime()) {
		t.Error("it was written although nothing has changed")
	}
	p, ok := l.Find("github.com/HashiCorp/qemu")
	if !ok || p.Hash(darwin, "zip") != digits("3") || p.Hash(darwin, "bin") != "" || p.Constraints != `~> 1, "x"` {
		t.Errorf("read %+v", p)
	}
	if at, ok := p.Differs(&Release{Archives: []Archive{{windows, digits("9"), ""}, {darwin, digits("9"), ""}}}); !ok || at != darwin {
		t.Errorf("differs at %v, %v", at, ok)
	}
	if _, ok := p.Differs(&Release{Archives: []Archive{{windows, digits("9"), ""}, {darwin, digits("3"), ""}}}); ok {
		t.Error("a new platform is a difference")
	}

	required := hcl.Range{Filename: "t.pkr.hcl"}
	if v, diags := l.Version("github.com/hashicorp/qemu", "~> 1", anyVersion, required); v != "1.1.4" || diags != nil {
		t.Errorf("locked is %q, %v", v, diags)
	}
	if v, diags := l.Version("github.com/org/dev", ">= 0.1", func(v string) bool { return v == "0.1.0" }, required); v != "0.1.0-dev" || diags != nil {
		t.Errorf("locked is %q, %v", v, diags)
	}
	if _, diags := l.Version("github.com/hashicorp/qemu", "~> 2", func(string) bool { return false }, required); !diags.HasErrors() || diags[0].Subject.Filename != "t.pkr.hcl" || !strings.Contains(diags[0].Detail, "bake init -upgrade") {
		t.Errorf("got %v", diags)
	}
	for _, tt := range []struct {
		source, version, sum string
		p                    Platform
		want                 string
		line                 int
	}{
		{"github.com/hashicorp/qemu", "1.1.4", digits("2"), linux, "", 0},
		{"github.com/other/qemu", "1.1.4", digits("9"), linux, "Plugin not locked", 0},
		{"github.com/hashicorp/qemu", "1.1.4", digits("9"), linux, "Plugin changed", 11},
		{"github.com/hashicorp/qemu", "1.1.3", digits("2"), linux, "Plugin version not locked", 5},
		{"github.com/hashicorp/qemu", "1.1.4", digits("2"), darwin, "Plugin not locked for this platform", 9},
	} {
		diags := l.Verify(tt.source, tt.version, tt.sum, tt.p)
		switch {
		case tt.want == "" && diags != nil:
			t.Errorf("%+v: %v", tt, diags)
		case tt.want != "" && (len(diags) != 1 || diags[0].Summary != tt.want || (diags[0].Subject != nil) != (tt.line > 0)):
			t.Errorf("%+v: got %v", tt, diags)
		case tt.line > 0 && (diags[0].Subject.Filename != path || diags[0].Subject.Start.Line != tt.line):
			t.Errorf("%+v: got %v", tt, diags)
		}
	}
}

func TestBrokenLocks(t *testing.T) {
	for text, want := range map[string]string{
		"<<<<<<< HEAD\n":             "bake init",
		`plugin {}`:                  "source",
		`plugin "github.com/a/b" {}`: `"version"`,
		`plugin "../../x" { version = "1.0.0", hashes = [] }`:                                   "argument",
		"plugin \"github.com/../b\" {\nversion = \"1.0.0\"\nhashes = []\n}":                     "is not the source of a plugin",
		"plugin \"github.com/a/b\" {\nversion = \"one\"\nhashes = []\n}":                        `"one" is not a version`,
		"plugin \"github.com/a/b\" {\nversion = \"1.0.0\"\nhashes = [\"linux:zip:md5:00\"]\n}":  "is not a hash",
		"plugin \"github.com/a/b\" {\nversion = \"1.0.0\"\nhashes = []\nother = 1\n}":           `"other"`,
		"plugin \"github.com/a/b\" {\nversion = file(\"/etc/passwd\")\nhashes = []\n}":          "Function",
		strings.Repeat("plugin \"github.com/a/b\" {\nversion = \"1.0.0\"\nhashes = []\n}\n", 2): "locked already",
		"a = " + strings.Repeat("[", 2000):                                                      "nested more than",
	} {
		path := filepath.Join(t.TempDir(), LockFile)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		l, diags := ReadLock(path)
		if !diags.HasErrors() || !strings.Contains(diags.Error(), want) {
			t.Errorf("%.60s: got %v, want %s", text, diags, want)
		}
		if l == nil {
			t.Errorf("%.60s: no lock", text)
		}
	}
}
