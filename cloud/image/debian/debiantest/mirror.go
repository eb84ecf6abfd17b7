// Package debiantest provides a small Debian mirror, signed with its own key, for tests.
package debiantest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Package describes a binary package to build.
type Package struct {
	Name, Version string
	Fields        string            // additional lines of the control file
	Files         []tar.Header      // content of the package; Name and Linkname as in a real package
	Content       map[string]string // content of the regular files in Files
	Control       map[string]string // additional control files, such as postinst
	Compression   string            // of the control and data archives: "", "gz", "xz" or "zst"
	Component     string            // component of the archive; empty means main
}

// Deb builds the package file.
func (p Package) Deb(t testing.TB) []byte {
	t.Helper()
	control := map[string]string{"control": p.controlFile()}
	var entries []tar.Header
	for name, content := range p.Control {
		control[name] = content
	}
	for name := range control {
		mode := int64(0o755)
		if name == "control" || name == "conffiles" || name == "md5sums" || name == "triggers" {
			mode = 0o644
		}
		entries = append(entries, tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Mode: mode})
	}
	data := append([]tar.Header{{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}}, p.Files...)
	suffix := ""
	if p.Compression != "" {
		suffix = "." + p.Compression
	}
	return Ar(
		Member{"debian-binary", []byte("2.0\n")},
		Member{"control.tar" + suffix, Compress(t, p.Compression, Tar(t, entries, func(n string) string { return control[strings.TrimPrefix(n, "./")] }))},
		Member{"data.tar" + suffix, Compress(t, p.Compression, Tar(t, data, func(n string) string { return p.Content[n] }))},
	)
}

func (p Package) controlFile() string {
	fields := p.Fields
	if !strings.Contains(fields, "Architecture:") {
		fields = "Architecture: amd64\n" + fields
	}
	return fmt.Sprintf("Package: %s\nVersion: %s\n%sDescription: a package\n of a test\n", p.Name, p.Version, fields)
}

// Tar returns an archive of entries. content returns the content of each regular file.
func Tar(t testing.TB, entries []tar.Header, content func(name string) string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		var body string
		if h.Typeflag == tar.TypeReg {
			body = content(h.Name)
			h.Size = int64(len(body))
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Member is a file in an ar archive.
type Member struct {
	Name    string
	Content []byte
}

// Ar builds an ar archive.
func Ar(members ...Member) []byte {
	b := []byte("!<arch>\n")
	for _, m := range members {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.Name, 1700000000, 0, 0, "100644", len(m.Content))
		b = append(b, m.Content...)
		if len(m.Content)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

// Compress compresses b with gz, xz or zst; "" returns b unchanged.
func Compress(t testing.TB, kind string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	var err error
	switch kind {
	case "":
		return b
	case "gz":
		w = gzip.NewWriter(&out)
	case "xz":
		w, err = xz.NewWriter(&out)
	case "zst":
		w, err = zstd.NewWriter(&out)
	default:
		t.Fatalf("no compression %q", kind)
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Mirror serves packages over HTTP.
type Mirror struct {
	URL     string
	Arch    string          // of its indexes; amd64 if not set before Publish
	Keyring string          // file with the public key that signs it
	Key     *openpgp.Entity // the key pair

	mu       sync.Mutex
	files    map[string][]byte
	requests map[string]int
	fail     func(path string, n int) int
}

// Release is the metadata of a suite.
type Release struct {
	Suite      string // both Suite and Codename
	Date       time.Time
	ValidUntil time.Time // zero for none
	ByHash     bool
	Components []string        // nil for main
	Signer     *openpgp.Entity // nil for the mirror's key
}

// NewMirror starts an empty mirror, which is closed when the test ends.
func NewMirror(t testing.TB) *Mirror {
	t.Helper()
	m := &Mirror{Arch: "amd64", files: map[string][]byte{}, requests: map[string]int{}, Key: NewKey(t)}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	m.URL = server.URL + "/debian"
	m.Keyring = filepath.Join(t.TempDir(), "keyring.gpg")
	f, err := os.Create(m.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.Key.Serialize(f); err != nil {
		t.Fatal(err)
	}
	return m
}

// NewKey generates a key pair whose validity starts in the past.
func NewKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	key, err := openpgp.NewEntity("Test Archive", "", "archive@mirror.example", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA,
		Time:      func() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ServeHTTP serves the mirror's files.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.requests[r.URL.Path]++
	content, ok := m.files[r.URL.Path]
	status := 0
	if m.fail != nil {
		status = m.fail(r.URL.Path, m.requests[r.URL.Path])
	}
	m.mu.Unlock()
	switch {
	case status != 0:
		w.WriteHeader(status)
	case !ok:
		http.NotFound(w, r)
	default:
		w.Write(content) //nolint:errcheck // fails only if the client has closed the connection
	}
}

// Fail makes requests fail. f gets the path and the number of requests for it so far, and returns
// an HTTP status, or 0 to answer normally.
func (m *Mirror) Fail(f func(path string, n int) int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// Requests counts the requests for paths that contain part.
func (m *Mirror) Requests(part string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for path, count := range m.requests {
		if strings.Contains(path, part) {
			n += count
		}
	}
	return n
}

// Edit replaces the contents of each file whose path contains part with the result of
// change.
func (m *Mirror) Edit(t testing.TB, part string, change func([]byte) []byte) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for path, content := range m.files {
		if strings.Contains(path, part) {
			m.files[path] = change(bytes.Clone(content))
			n++
		}
	}
	if n == 0 {
		t.Fatalf("the mirror has no file %s", part)
	}
}

// Publish adds a suite with these packages to the mirror.
func (m *Mirror) Publish(t testing.TB, r Release, packages ...Package) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	root := "/debian"
	components := r.Components
	if components == nil {
		components = []string{"main"}
	}
	indexes := map[string]string{}
	for _, p := range packages {
		deb := p.Deb(t)
		file := fmt.Sprintf("pool/%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"))
		m.files[root+"/"+strings.ReplaceAll(file, "%3a", ":")] = deb
		component := p.Component
		if component == "" {
			component = "main"
		}
		indexes[component] += fmt.Sprintf("%sFilename: %s\nSize: %d\nSHA256: %x\n\n", p.controlFile(), file, len(deb), sha256.Sum256(deb))
	}
	dist := root + "/dists/" + r.Suite
	text := fmt.Sprintf("Origin: Test\nSuite: %s\nCodename: %s\nVersion: 12.0\nDate: %s\n", r.Suite, r.Suite, r.Date.UTC().Format(time.RFC1123))
	if !r.ValidUntil.IsZero() {
		text += "Valid-Until: " + r.ValidUntil.UTC().Format(time.RFC1123) + "\n"
	}
	if r.ByHash {
		text += "Acquire-By-Hash: yes\n"
	}
	text += "Components: " + strings.Join(components, " ") + "\nSHA256:\n"
	for _, component := range components {
		name, plain := component+"/binary-"+m.Arch+"/Packages", []byte(indexes[component])
		for suffix, content := range map[string][]byte{"": plain, ".gz": Compress(t, "gz", plain), ".xz": Compress(t, "xz", plain)} {
			sum := fmt.Sprintf("%x", sha256.Sum256(content))
			text += fmt.Sprintf(" %s %d %s\n", sum, len(content), name+suffix)
			if r.ByHash {
				m.files[dist+"/"+component+"/binary-"+m.Arch+"/by-hash/SHA256/"+sum] = content
			} else {
				m.files[dist+"/"+name+suffix] = content
			}
		}
	}
	signer := r.Signer
	if signer == nil {
		signer = m.Key
	}
	m.files[dist+"/InRelease"] = Sign(t, signer, r.Date, text)
}

// Sign returns text as a clear-signed message.
func Sign(t testing.TB, key *openpgp.Entity, at time.Time, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, &packet.Config{Time: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}
