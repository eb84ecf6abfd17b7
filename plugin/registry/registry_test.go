package registry

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
)

var linux, windows, darwin = Platform{"linux", "amd64"}, Platform{"windows", "amd64"}, Platform{"darwin", "arm64"}

// binary is a plugin that is never run: [describe] reads it.
func binary(version, api string) string { return "plugin " + version + " " + api }

func describe(_ context.Context, path string) (version, api string, err error) {
	b, err := os.ReadFile(path)
	f := strings.Fields(string(b))
	if err != nil || len(f) != 3 || f[0] != "plugin" {
		return "", "", errors.New("no plugin")
	}
	return f[1], f[2], nil
}

type entry struct{ name, content string }

func zipped(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		w, err := z.Create(e.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// key is a key of a publisher.
type key struct {
	*openpgp.Entity
	public []byte // armored
}

func newKey(t *testing.T, now time.Time, lifetime uint32) key {
	t.Helper()
	e, err := openpgp.NewEntity("test", "", "test@example.com", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: lifetime, Time: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	k := key{Entity: e}
	k.public = k.armored(t)
	return k
}

// armored is the public key as text.
func (k key) armored(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(k.Serialize(w), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (k key) sign(t *testing.T, text []byte, at time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.DetachSign(&b, k.Entity, bytes.NewReader(text), &packet.Config{Time: func() time.Time { return at }}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// server serves files by path and counts requests.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string][]byte
	asked  []string
	before func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func newServer(t *testing.T, start func(*httptest.Server)) *server {
	s := &server{files: map[string][]byte{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.RequestURI())
		body, ok := s.files[r.URL.Path]
		before := s.before
		s.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"`+sum(body)[:10]+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	start(s.Server)
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests(part string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if strings.Contains(a, part) {
			n++
		}
	}
	return n
}

// tags makes the API list versions of a repository.
func (s *server) tags(repository string, versions ...string) {
	var refs []map[string]string
	for _, v := range versions {
		refs = append(refs, map[string]string{"ref": "refs/tags/" + v})
	}
	b, _ := json.Marshal(refs)
	s.files["/repos/"+repository+"/git/matching-refs/tags"] = b
}

// onGitHub publishes a release of org/packer-plugin-name for platforms.
func (s *server) onGitHub(t *testing.T, org, name, version, api string, platforms ...Platform) {
	src := Source{gitHub, org, name}
	dir := "/" + org + "/packer-plugin-" + name + "/releases/download/v" + version + "/"
	var sums strings.Builder
	for _, p := range platforms {
		file := strings.TrimSuffix(src.binaryName(version, api, p), ".exe") + ".zip"
		z := zipped(t, entry{src.binaryName(version, api, p), binary(version, "x"+api)})
		s.files[dir+file] = z
		fmt.Fprintf(&sums, "%s  %s\n", sum(z), file)
	}
	s.files[dir+"packer-plugin-"+name+"_v"+version+"_SHA256SUMS"] = []byte(sums.String())
}

// inTree publishes a release in the layout of releases.hashicorp.com below prefix.
func (s *server) inTree(t *testing.T, prefix, name, version string, sign *key, platforms ...Platform) {
	src := Source{gitHub, "hashicorp", name}
	product := prefix + "/packer-plugin-" + name
	dir := product + "/" + version + "/packer-plugin-" + name + "_" + version + "_"
	var sums strings.Builder
	for _, p := range platforms {
		z := zipped(t, entry{src.binaryName(version, "5.0", p), binary(version, "x5.0")}, entry{"LICENSE.txt", "MPL"})
		s.files[dir+p.String()+".zip"] = z
		fmt.Fprintf(&sums, "%s  %s\n", sum(z), filepath.Base(dir+p.String()+".zip"))
	}
	manifest := []byte(`{"version":"1","metadata":{"protocol_version":"5.0"}}`)
	fmt.Fprintf(&sums, "%s  %s\n", sum(manifest), filepath.Base(dir+"manifest.json"))
	s.files[dir+"manifest.json"] = manifest
	s.files[dir+"SHA256SUMS"] = []byte(sums.String())
	if sign != nil {
		s.files[dir+"SHA256SUMS.sig"] = sign.sign(t, []byte(sums.String()), time.Now())
	}
	var index struct {
		Versions map[string]any `json:"versions"`
	}
	_ = json.Unmarshal(s.files[product+"/index.json"], &index)
	if index.Versions == nil {
		index.Versions = map[string]any{}
	}
	index.Versions[version] = map[string]string{"version": version}
	s.files[product+"/index.json"], _ = json.Marshal(index)
}

// open returns a registry that sends all requests to s, and does not wait between attempts.
func open(t *testing.T, s *server, o Options) *Registry {
	t.Helper()
	if s != nil {
		o.Releases, o.API, o.Web = s.URL+"/hc", s.URL, s.URL
		if o.HTTP == nil {
			o.HTTP = s.Client().Transport
		}
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.first = time.Millisecond
	return r
}

func source(t *testing.T, text string) Source {
	t.Helper()
	s, err := ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func anyVersion(string) bool { return true }

func TestInstallFromGitHub(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	s.tags("Org/packer-plugin-thing", "v0.9.0", "v1.10.0", "v1.9.0", "v1.11.0", "v2.0.0", "v1.12.0", "v3.0.0-beta1", "nightly", "v1.13")
	for _, v := range []string{"0.9.0", "1.9.0", "1.10.0", "2.0.0"} {
		s.onGitHub(t, "Org", "thing", v, "5.0", linux, windows)
	}
	s.onGitHub(t, "Org", "thing", "1.12.0", "6.0", linux) // 1.11.0 has no files
	var last string
	r := open(t, s, Options{Progress: func(file string, done, total int64) { last = fmt.Sprint(file, " ", done == total) }})
	src := source(t, "github.com/Org/thing")
	rel, err := r.Find(t.Context(), src, linux.Only(), func(v string) bool { return strings.HasPrefix(v, "1.") })
	if err != nil {
		t.Fatal(err)
	}
	if rel.Version != "1.10.0" || rel.API != "5.0" || rel.Site != "github.com" || rel.Signed || len(rel.Archives) != 2 {
		t.Errorf("found %+v", rel)
	}
	root := t.TempDir()
	for range 2 { // the second time nothing changes
		got, err := r.Install(t.Context(), root, rel, linux, "", describe)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, "github.com", "Org", "thing", "packer-plugin-thing_v1.10.0_x5.0_linux_amd64")
		if diff := cmp.Diff(&Installed{path, src, "1.10.0", sum([]byte(binary("1.10.0", "x5.0")))}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if b, err := os.ReadFile(path + "_SHA256SUM"); err != nil || string(b) != got.SHA256 {
			t.Errorf("checksum %q, %v", b, err)
		}
	}
	if last != "packer-plugin-thing_v1.10.0_x5.0_linux_amd64.zip true" {
		t.Errorf("progress ended with %q", last)
	}
	if info, err := os.Stat(filepath.Join(root, "github.com/Org/thing/packer-plugin-thing_v1.10.0_x5.0_linux_amd64")); err != nil || info.Mode().Perm()&0o111 == 0 && runtime.GOOS != "windows" {
		t.Errorf("not a program: %v, %v", info, err)
	}
	if rel, err = r.Exactly(t.Context(), src, windows.Only(), "2.0.0"); err != nil {
		t.Fatal(err)
	}
	got, err := r.Install(t.Context(), root, rel, windows, "", describe)
	if err != nil || filepath.Base(got.Path) != "packer-plugin-thing_v2.0.0_x5.0_windows_amd64.exe" {
		t.Errorf("got %+v, %v", got, err)
	}
	left, _ := os.ReadDir(filepath.Join(root, "github.com/Org/thing"))
	if len(left) != 4 {
		t.Errorf("there are %v", left)
	}

	for _, tt := range []struct {
		p      Platform
		allows func(string) bool
		want   string
	}{
		{linux, func(v string) bool { return v == "1.11.0" }, "version 1.11.0 has no downloadable files"},
		{linux, func(v string) bool { return v == "1.12.0" }, `uses version 6.0 of the plugin protocol; bake supports 5.0`},
		{linux, func(string) bool { return false }, "no release satisfies the constraint; available: 2.0.0, 1.12.0, 1.11.0, 1.10.0, 1.9.0 and 1 more"},
		{darwin, func(v string) bool { return v == "1.9.0" }, "version 1.9.0 has no build for darwin_arm64"},
	} {
		_, err := r.Find(t.Context(), src, tt.p.Only(), tt.allows)
		if _, ok := errors.AsType[*NotFoundError](err); !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	if _, err := r.Find(t.Context(), source(t, "github.com/Org/none"), linux.Only(), anyVersion); err == nil || !strings.Contains(err.Error(), "plugin not found") {
		t.Errorf("got %v", err)
	}
	if _, err := r.Exactly(t.Context(), src, linux.Only(), "1.10.0-dev"); err == nil || !strings.Contains(err.Error(), "plugins install -path") {
		t.Errorf("got %v", err)
	}
}

// Tags are paginated, and only links to the API are followed.
func TestPages(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "matching-refs") {
			return false
		}
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		if page < 3 {
			w.Header().Add("Link", fmt.Sprintf(`<%s%s?per_page=100&page=%d>; rel="next", <%[1]s/last>; rel="last"`, s.URL, r.URL.Path, page+1))
		} else {
			w.Header().Add("Link", `<http://example.invalid/>; rel="next"`)
		}
		fmt.Fprintf(w, `[{"ref":"refs/tags/v1.%d.0"}]`, page)
		return true
	}
	s.onGitHub(t, "org", "thing", "1.3.0", "5.0", linux)
	rel, err := open(t, s, Options{}).Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion)
	if err != nil || rel.Version != "1.3.0" || s.requests("matching-refs") != 4 {
		t.Errorf("found %+v, %v", rel, err)
	}
}

// HashiCorp's plugins are downloaded from its own site, signed, or else from GitHub.
func TestReleaseSite(t *testing.T) {
	hashicorp, stranger := newKey(t, time.Now().Add(-time.Hour), 0), newKey(t, time.Now().Add(-time.Hour), 0)
	s := newServer(t, (*httptest.Server).StartTLS)
	s.inTree(t, "/hc", "docker", "1.1.0", &hashicorp, linux, darwin)
	s.inTree(t, "/hc", "forged", "1.1.0", &stranger, linux)
	s.inTree(t, "/hc", "bare", "1.1.0", nil, linux)
	s.inTree(t, "/hc", "swapped", "1.1.0", &hashicorp, linux)
	manifest := "/hc/packer-plugin-swapped/1.1.0/packer-plugin-swapped_1.1.0_manifest.json"
	s.files[manifest] = append(s.files[manifest], ' ')
	s.inTree(t, "/hc", "vague", "1.1.0", &hashicorp, linux)
	delete(s.files, "/hc/packer-plugin-vague/1.1.0/packer-plugin-vague_1.1.0_manifest.json")
	for _, name := range []string{"docker", "forged", "bare", "swapped", "old", "vague"} {
		s.tags("hashicorp/packer-plugin-"+name, "v1.0.0")
		s.onGitHub(t, "hashicorp", name, "1.0.0", "5.0", linux)
	}
	r := open(t, s, Options{Keys: hashicorp.public})
	for _, tt := range []struct {
		name, constraint, want, site string
		signed                       bool
	}{
		{"docker", "", "1.1.0", "127.0.0.1", true},
		{"docker", "1.0.0", "1.0.0", "github.com", false},
		{"vague", "", "1.0.0", "github.com", false},
		{"old", "", "1.0.0", "github.com", false},
		{"forged", "", "not signed with HashiCorp's key", "", false},
		{"bare", "", "the checksums are not signed", "", false},
		{"swapped", "", "does not have the checksum that is published for it", "", false},
	} {
		rel, err := r.Find(t.Context(), source(t, "github.com/hashicorp/"+tt.name), linux.Only(), func(v string) bool { return tt.constraint == "" || v == tt.constraint })
		if tt.site == "" {
			if _, untrusted := errors.AsType[*UntrustedError](err); !untrusted || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %+v, %v", tt.name, rel, err)
			}
			continue
		}
		if err != nil || rel.Version != tt.want || !strings.HasPrefix(rel.Site, tt.site) || rel.Signed != tt.signed || rel.Failures != nil {
			t.Errorf("%s %s: got %+v, %v", tt.name, tt.constraint, rel, err)
			continue
		}
		if _, err := r.Install(t.Context(), t.TempDir(), rel, linux, "", describe); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// If a signature is temporarily unavailable, the release is not rejected: the site is skipped,
	// with a message.
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "SHA256SUMS.sig") {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	rel, err := r.Find(t.Context(), source(t, "github.com/hashicorp/docker"), linux.Only(), anyVersion)
	if err != nil || rel.Version != "1.0.0" || !strings.Contains(strings.Join(rel.Failures, ""), "the signature of the checksums could not be downloaded") {
		t.Errorf("without a signature: got %+v, %v", rel, err)
	}
	s.before = nil
	// A site that does not answer is skipped, with a message.
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		bad := strings.HasPrefix(r.URL.Path, "/hc/")
		if bad {
			w.WriteHeader(http.StatusBadGateway)
		}
		return bad
	}
	rel, err = r.Find(t.Context(), source(t, "github.com/hashicorp/docker"), linux.Only(), anyVersion)
	if err != nil || rel.Version != "1.0.0" || len(rel.Failures) != 1 || !strings.Contains(rel.Failures[0], "502 Bad Gateway (tried 4 times)") {
		t.Errorf("got %+v, %v", rel, err)
	}
}

// Any other host has the tree below the path of the source.
func TestOtherHost(t *testing.T) {
	s := newServer(t, (*httptest.Server).StartTLS)
	s.inTree(t, "/team/tools", "thing", "0.3.0", nil, linux)
	host := strings.TrimPrefix(s.URL, "https://")
	rel, err := open(t, s, Options{}).Find(t.Context(), source(t, host+"/team/tools/thing"), linux.Only(), anyVersion)
	if err != nil || rel.Version != "0.3.0" || rel.Signed || rel.Site != host {
		t.Errorf("got %+v, %v", rel, err)
	}
	// Releases of GitHub can be copied there, with another name for the checksums.
	git := "/org/packer-plugin-git/releases/download/v0.6.3/packer-plugin-git_v0.6.3_"
	s.onGitHub(t, "org", "git", "0.6.3", "5.0", linux, windows)
	s.files["/team/packer-plugin-git/index.json"] = []byte(`{"versions":{"0.6.3":{}}}`)
	s.files["/team/packer-plugin-git/0.6.3/packer-plugin-git_0.6.3_SHA256SUMS"] = s.files[git+"SHA256SUMS"]
	s.files["/team/packer-plugin-git/0.6.3/packer-plugin-git_v0.6.3_x5.0_linux_amd64.zip"] = s.files[git+"x5.0_linux_amd64.zip"]
	r := open(t, s, Options{})
	rel, err = r.Find(t.Context(), source(t, host+"/team/git"), linux.Only(), anyVersion)
	if err != nil || rel.Version != "0.6.3" || len(rel.Archives) != 2 {
		t.Fatalf("got %+v, %v", rel, err)
	}
	if _, err := r.Install(t.Context(), t.TempDir(), rel, linux, "", describe); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	if names, err := r.Mirror(t.Context(), dir, rel, linux.Only()); err != nil || !slices.Equal(names, []string{"packer-plugin-git_0.6.3_linux_amd64.zip"}) {
		t.Errorf("copied %v, %v", names, err)
	}
	if rel, err := open(t, nil, Options{Mirror: dir}).Find(t.Context(), source(t, host+"/team/git"), linux.Only(), anyVersion); err != nil || rel.Version != "0.6.3" {
		t.Errorf("got %+v, %v", rel, err)
	}
	// An intercepting proxy has an untrusted certificate.
	r = open(t, s, Options{HTTP: &http.Transport{}})
	if _, err := r.Find(t.Context(), source(t, host+"/team/tools/thing"), linux.Only(), anyVersion); err == nil || !strings.Contains(err.Error(), "SSL_CERT_FILE") || strings.Contains(err.Error(), "tried") {
		t.Errorf("got %v", err)
	}
}

// The token is sent only to the API, whatever it redirects to.
func TestToken(t *testing.T) {
	other := newServer(t, (*httptest.Server).Start)
	var sent atomic.Value
	other.before = func(_ http.ResponseWriter, r *http.Request) bool {
		sent.Store(r.Header.Get("Authorization"))
		return false
	}
	other.files["/tags"] = []byte(`[{"ref":"refs/tags/v1.0.0"}]`)
	other.onGitHub(t, "org", "thing", "1.0.0", "5.0", linux)
	s := newServer(t, (*httptest.Server).Start)
	var asked atomic.Value
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		asked.Store(r.Header.Get("Authorization"))
		http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+"/tags", http.StatusFound)
		return true
	}
	r, err := New(Options{API: s.URL, Web: other.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != "Bearer secret" || sent.Load() != "" {
		t.Errorf("the API was sent %q, others %q", asked.Load(), sent.Load())
	}
}

func TestRefusals(t *testing.T) {
	reset := strconv.FormatInt(time.Now().Add(32*time.Minute).Unix(), 10)
	for _, tt := range []struct {
		name, token string
		status      int
		header      map[string]string
		want        []string
		requests    int
	}{
		{"rate limit", "", 403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "60", "X-RateLimit-Reset": reset}, []string{"rate limit of 60 requests per hour", "try again in 3", "PACKER_GITHUB_API_TOKEN"}, 1},
		{"rate limit with a token", "t", 429, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "5000"}, []string{"rate limit of 5000 requests per hour is reached)"}, 1},
		{"secondary rate limit", "t", 403, map[string]string{"Retry-After": "60"}, []string{"rate limit is reached; try again in 1m0s"}, 1},
		{"short rate limit", "", 429, map[string]string{"Retry-After": "0"}, []string{"429 Too Many Requests (tried 4 times)"}, 4},
		{"forbidden", "", 403, nil, []string{"the server responded with 403 Forbidden"}, 1},
		{"wrong token", "t", 401, nil, []string{"does not accept the token in PACKER_GITHUB_API_TOKEN"}, 1},
		{"broken", "", 500, nil, []string{"500 Internal Server Error (tried 4 times)"}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, (*httptest.Server).Start)
			s.before = func(w http.ResponseWriter, _ *http.Request) bool {
				for k, v := range tt.header {
					w.Header().Set(k, v)
				}
				w.WriteHeader(tt.status)
				return true
			}
			told := 0
			_, err := open(t, s, Options{Token: tt.token, Notice: func(string) { told++ }}).Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error()+")", want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
			if n := s.requests(""); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			if told != tt.requests-1 {
				t.Errorf("the user was told %d times", told)
			}
		})
	}
}

// cut makes the server break off transfers of an archive after n bytes each.
func (s *server) cut(n int) {
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		body := s.files[r.URL.Path]
		s.mu.Unlock()
		if !strings.HasSuffix(r.URL.Path, ".zip") {
			return false
		}
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
		}
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		end := min(from+n, len(body))
		_, _ = w.Write(body[from:end])
		w.(http.Flusher).Flush()
		if end < len(body) {
			panic(http.ErrAbortHandler)
		}
		return true
	}
}

func TestBrokenDownloads(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(s *server, zip string)
		want  string // empty: it succeeds
		asked int
	}{
		{"continued", func(s *server, _ string) { s.cut(60) }, "", 4},
		{"continued with another file", func(s *server, zip string) {
			s.cut(150)
			inner, n := s.before, 0
			s.before = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, ".zip") {
					if n++; n == 2 { // in place of the missing data
						w.Header().Set("Content-Range", "bytes 150-210/211")
						w.Header().Set("Content-Length", "61")
						w.WriteHeader(http.StatusPartialContent)
						_, _ = w.Write(make([]byte, 61))
						return true
					}
					if n > 2 {
						return false
					}
				}
				return inner(w, r)
			}
		}, "", 3},
		{"does not begin again", func(s *server, _ string) {
			s.cut(60)
			inner := s.before
			s.before = func(w http.ResponseWriter, r *http.Request) bool {
				r.Header.Del("Range")
				return inner(w, r)
			}
		}, "tried 4 times", 0},
		{"changed", func(s *server, zip string) { s.files[zip] = append([]byte("x"), s.files[zip]...) }, "SHA-256 checksum mismatch: got", 2},
		{"gone", func(s *server, zip string) { delete(s.files, zip) }, "not found, although its checksum is published", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, (*httptest.Server).Start)
			s.onGitHub(t, "org", "thing", "1.0.0", "5.0", linux)
			zip := "/org/packer-plugin-thing/releases/download/v1.0.0/packer-plugin-thing_v1.0.0_x5.0_linux_amd64.zip"
			tt.spoil(s, zip)
			r := open(t, s, Options{})
			rel, err := r.Exactly(t.Context(), source(t, "github.com/org/thing"), linux.Only(), "1.0.0")
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			_, err = r.Install(t.Context(), root, rel, linux, "", describe)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if n := s.requests(".zip"); tt.asked > 0 && n != tt.asked {
				t.Errorf("%d requests, want %d", n, tt.asked)
			}
			left, _ := os.ReadDir(filepath.Join(root, "github.com/org/thing"))
			if tt.want != "" && len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A server that sends a little more in each attempt, but never everything, is given up.
func TestEndlessDownload(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	n := 0
	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		n += 20_000
		w.Header().Set("Content-Length", "200000")
		_, _ = w.Write(make([]byte, n))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = open(t, s, Options{}).download(t.Context(), s.URL+"/x.zip", f, 200_000, func(int64, int64) {})
	if err == nil || !strings.Contains(err.Error(), "in several attempts") || n > 140_000 {
		t.Errorf("%d bytes, then: %v", n, err)
	}
}

// A server that stops sending is given up, and a download ends when the user cancels it.
func TestSilence(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.WriteString(w, "[")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	}
	r := open(t, s, Options{})
	r.stall = 400 * time.Millisecond // in which the answer begins, on a busy host too
	if _, err := r.Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion); err == nil || !strings.Contains(err.Error(), "the download has stalled: less than 16 KiB in 400ms (tried 4 times)") {
		t.Errorf("got %v", err)
	}
	r.stall, r.patience = time.Hour, 20*time.Millisecond
	if _, err := r.Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion); err == nil || !strings.Contains(err.Error(), "tags?per_page=100: no complete response within 20ms") {
		t.Errorf("got %v", err)
	}
	r.patience = time.Hour
	why := errors.New("the user has had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r.stall = time.Hour
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	if _, err := r.Find(ctx, source(t, "github.com/org/thing"), linux.Only(), anyVersion); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// A server that sends a byte now and then is given up like a silent one, and so is one that lists
// more versions than there can be.
func TestTrickle(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "1000000")
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Millisecond)
		}
		return true
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := open(t, s, Options{})
	r.stall = 100 * time.Millisecond
	err = r.download(t.Context(), s.URL+"/x.zip", f, 1<<20, func(int64, int64) {})
	if err == nil || !strings.Contains(err.Error(), "the download has stalled: less than 16 KiB in 100ms (tried 4 times)") {
		t.Errorf("got %v", err)
	}
	s.before = nil
	var many []string
	for i := range maxVersions + 1 {
		many = append(many, fmt.Sprintf("v1.0.%d", i))
	}
	s.tags("org/packer-plugin-thing", many[:90]...)
	_, err = open(t, s, Options{}).Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion)
	if err == nil || strings.Count(err.Error(), "no downloadable files") != maxReasons || !strings.Contains(err.Error(), "80 more releases cannot be used either") {
		t.Errorf("got %v", err)
	}
	s.tags("org/packer-plugin-thing", many...)
	_, err = open(t, s, Options{}).Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion)
	if err == nil || !strings.Contains(err.Error(), "it lists 10001 versions") {
		t.Errorf("got %v", err)
	}
}

// Redirects from TLS to plain text are not followed.
func TestDowngrade(t *testing.T) {
	plain := newServer(t, (*httptest.Server).Start)
	s := newServer(t, (*httptest.Server).StartTLS)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
		return true
	}
	_, err := open(t, s, Options{}).Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion)
	if err == nil || !strings.Contains(err.Error(), "not encrypted") || plain.requests("") != 0 {
		t.Errorf("got %v", err)
	}
}

// Concurrent installs leave a binary with its checksum.
func TestConcurrentInstalls(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	src := source(t, "example.com/a/thing")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			file := filepath.Join(dir, strconv.Itoa(i))
			if err := os.WriteFile(file, []byte("plugin 1.0.0 x5.0"+strings.Repeat(" ", i)), 0o600); err != nil {
				t.Error(err)
				return
			}
			if _, err := InstallFile(t.Context(), root, src, file, linux, describe); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	path := filepath.Join(src.dir(root), "packer-plugin-thing_v1.0.0_x5.0_linux_amd64")
	if _, err := installedSum(path); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(src.dir(root)); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

func TestInstallFile(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	src := source(t, "example.com/a/thing")
	for _, tt := range []struct{ content, want string }{
		{"plugin 1.2.3-dev x5.0", "packer-plugin-thing_v1.2.3-dev_x5.0_linux_amd64"},
		{"plugin v1.2.3 x5.0", "packer-plugin-thing_v1.2.3_x5.0_linux_amd64"},
		{"plugin 1.2.3-beta1 x5.0", `reports version "1.2.3-beta1"`},
		{"plugin 1.2 x5.0", `reports version "1.2"`},
		{"plugin 1.2.3/../../x x5.0", "reports version"},
		{"plugin 1.2.3 x5.1", `version "5.1" of the plugin protocol`},
		{"#!/bin/sh", "is not a plugin for this host: no plugin"},
	} {
		file := filepath.Join(dir, "built")
		if err := os.WriteFile(file, []byte(tt.content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := InstallFile(t.Context(), root, src, file, linux, describe)
		if err != nil && !strings.Contains(err.Error(), tt.want) || err == nil && filepath.Base(got.Path) != tt.want {
			t.Errorf("%s: got %+v, %v", tt.content, got, err)
		}
	}
	if _, err := InstallFile(t.Context(), root, src, dir, linux, describe); err == nil {
		t.Error("a directory was installed")
	}
	removed, err := Remove(t.Context(), []string{root}, src, linux, func(v string) bool { return v == "1.2.3" })
	if err != nil || len(removed) != 1 || filepath.Base(removed[0]) != "packer-plugin-thing_v1.2.3_x5.0_linux_amd64" {
		t.Errorf("removed %v, %v", removed, err)
	}
	dev := filepath.Join(src.dir(root), "packer-plugin-thing_v1.2.3-dev_x5.0_linux_amd64")
	for _, path := range []string{filepath.Join(dir, "built"), filepath.Join(root, "example.com", "a", "thing", "other"), root + "/../x"} {
		if err := RemoveFile(t.Context(), []string{root}, path); err == nil {
			t.Errorf("%s was removed", path)
		}
	}
	if err := RemoveFile(t.Context(), []string{t.TempDir(), root}, dev); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(src.dir(root)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A mirror has everything that the sites have, and plugins are installed from it: from the
// directory, and from a server for its files.
func TestMirror(t *testing.T) {
	hashicorp := newKey(t, time.Now().Add(-time.Hour), 0)
	s := newServer(t, (*httptest.Server).Start)
	s.inTree(t, "/hc", "docker", "1.1.0", &hashicorp, linux, darwin, windows)
	s.tags("org/packer-plugin-thing", "v1.0.0", "v1.1.0")
	s.onGitHub(t, "org", "thing", "1.0.0", "5.0", linux, darwin)
	s.onGitHub(t, "org", "thing", "1.1.0", "5.0", linux, darwin)
	r := open(t, s, Options{Keys: hashicorp.public})
	dir := t.TempDir()
	copied := func(src, version string, wanted Platforms) []string {
		t.Helper()
		rel, err := r.Exactly(t.Context(), source(t, src), linux.Only(), version)
		if err != nil {
			t.Fatal(err)
		}
		names, err := r.Mirror(t.Context(), dir, rel, wanted)
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	all := Platforms{}
	copied("github.com/org/thing", "1.0.0", all)
	if got := copied("github.com/hashicorp/docker", "1.1.0", Platforms{OS: []string{"linux", "darwin"}}); !slices.Equal(got, []string{"packer-plugin-docker_1.1.0_darwin_arm64.zip", "packer-plugin-docker_1.1.0_linux_amd64.zip"}) {
		t.Errorf("copied %v", got)
	}
	copied("github.com/org/thing", "1.1.0", all)
	before := s.requests(".zip")
	copied("github.com/org/thing", "1.1.0", all)
	if s.requests(".zip") != before {
		t.Error("archives that were there were downloaded again")
	}

	// A signature for other checksums is not kept.
	stale := filepath.Join(dir, "github.com/org/packer-plugin-thing/1.1.0/packer-plugin-thing_1.1.0_SHA256SUMS.sig")
	if err := os.WriteFile(stale, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	copied("github.com/org/thing", "1.1.0", all)
	if _, err := os.Stat(stale); err == nil {
		t.Error("an old signature is still there")
	}

	web := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer web.Close()
	for _, where := range []string{dir, web.URL, web.URL + "/"} {
		m := open(t, nil, Options{Mirror: where, Keys: hashicorp.public})
		for _, tt := range []struct {
			src, want string
			signed    bool
		}{{"github.com/org/thing", "1.1.0", false}, {"github.com/hashicorp/docker", "1.1.0", true}} {
			rel, err := m.Find(t.Context(), source(t, tt.src), linux.Only(), anyVersion)
			if err != nil || rel.Version != tt.want || rel.Signed != tt.signed {
				t.Errorf("%s: got %+v, %v", tt.src, rel, err)
				continue
			}
			if _, err := m.Install(t.Context(), t.TempDir(), rel, linux, "", describe); err != nil {
				t.Error(err)
			}
		}
		if rel, err := m.Find(t.Context(), source(t, "github.com/org/thing"), darwin.Only(), func(v string) bool { return v == "1.0.0" }); err != nil || rel.Version != "1.0.0" {
			t.Errorf("an older version: %+v, %v", rel, err)
		}
		if _, err := m.Find(t.Context(), source(t, "github.com/org/none"), linux.Only(), anyVersion); err == nil || !strings.Contains(err.Error(), "plugin not found") {
			t.Errorf("got %v", err)
		}
	}
	// A plain copy of HashiCorp's site works for its plugins.
	m := open(t, nil, Options{Mirror: s.URL + "/hc", Keys: hashicorp.public})
	if rel, err := m.Find(t.Context(), source(t, "github.com/hashicorp/docker"), windows.Only(), anyVersion); err != nil || !rel.Signed {
		t.Errorf("got %+v, %v", rel, err)
	}
	// Modified files in the mirror are rejected.
	sums := filepath.Join(dir, "github.com/hashicorp/packer-plugin-docker/1.1.0/packer-plugin-docker_1.1.0_SHA256SUMS")
	b, err := os.ReadFile(sums)
	if err == nil {
		err = os.WriteFile(sums, bytes.Replace(b, []byte("0"), []byte("1"), 1), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	m = open(t, nil, Options{Mirror: dir, Keys: hashicorp.public})
	if _, err := m.Find(t.Context(), source(t, "github.com/hashicorp/docker"), linux.Only(), anyVersion); err == nil || !strings.Contains(filepath.ToSlash(err.Error()), filepath.ToSlash(sums)+": it is not signed with HashiCorp's key") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{filepath.Join(dir, "none"), sums, "ftp://example.com", "https://", "https://me:hush%@example.com"} {
		if _, err := New(Options{Mirror: bad}); err == nil || !strings.Contains(err.Error(), "BAKE_PLUGIN_MIRROR") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// A plugin with very many releases, none of which can be used.
func TestManyReleases(t *testing.T) {
	s := newServer(t, (*httptest.Server).Start)
	var tags []string
	for n := range 3 * maxReleases {
		tags = append(tags, fmt.Sprintf("v1.0.%d", n))
	}
	s.tags("org/packer-plugin-thing", tags...)
	_, err := open(t, s, Options{}).Find(t.Context(), source(t, "github.com/org/thing"), linux.Only(), anyVersion)
	if err == nil || !strings.Contains(err.Error(), "only the newest 100 of 300 releases were looked at") {
		t.Errorf("got %v", err)
	}
	if n := s.requests("SHA256SUMS"); n != maxReleases {
		t.Errorf("%d requests", n)
	}
}

// The directory of plugins may be relative, and paths of binaries are not.
func TestRemoveFile(t *testing.T) {
	t.Chdir(t.TempDir())
	path, err := filepath.Abs("plugins/github.com/org/thing/packer-plugin-thing_v1.0.0_x5.0_linux_amd64")
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o755), os.WriteFile(path+sumSuffix, nil, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := RemoveFile(t.Context(), []string{"plugins"}, path); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Only one process at a time changes the installed plugins.
func TestLocked(t *testing.T) {
	root := t.TempDir()
	ran := errors.New("ran")
	err := locked(t.Context(), root, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := locked(ctx, root, func() error { return ran }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v while somebody else has the lock", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := locked(t.Context(), root, func() error { return ran }); !errors.Is(err, ran) {
		t.Errorf("got %v", err)
	}
}

// TestReplace: there is always a program, the new or the old one.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "new"), filepath.Join(dir, "plugin.exe")
	for _, text := range []string{"first", "second"} {
		if err := errors.Join(os.WriteFile(from, []byte(text), 0o755), replace(from, to)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(to); err != nil || string(b) != text {
			t.Errorf("it is %q, %v", b, err)
		}
	}
	if err := replace(from, to); !errors.Is(err, fs.ErrNotExist) { // it has been moved
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(to); err != nil || string(b) != "second" {
		t.Errorf("after a failure it is %q, %v", b, err)
	}
}
