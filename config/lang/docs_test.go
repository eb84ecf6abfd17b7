package lang_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/config/lang"
)

// documentedWorld has the files and the servers that docs/functions.md mentions.
func documentedWorld(t *testing.T) lang.World {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, &key.PublicKey, []byte("secret")) //nolint:staticcheck // what the function is defined as
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"motd": "Welcome.\n", "motd.tmpl": "This is ${name}.\n", "scripts/install.sh": "", "scripts/harden.sh": "",
		"key.pem":      string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"password.rsa": base64.StdEncoding.EncodeToString(sealed),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/secret/data/deploy":
			fmt.Fprint(w, `{"data": {"data": {"token": "hunter2"}, "metadata": {"version": 1}}}`)
		case "/v1/kv/images/base":
			fmt.Fprint(w, "debian-12")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	env := map[string]string{"HOME": dir, "NAME": "web", "VAULT_ADDR": srv.URL, "VAULT_TOKEN": "t", "CONSUL_HTTP_ADDR": srv.URL}
	return lang.World{
		BaseDir: ".", Cwd: dir, Getenv: func(name string) string { return env[name] },
		Start: start, Now: func() time.Time { return start.Add(time.Hour) },
		SecretsManager: func(string) (string, error) { return `{"token": "hunter2"}`, nil },
	}
}

// TestFunctionsAreDocumented: docs/functions.md describes every function with the right number of
// arguments, and a correct example.
func TestFunctionsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "functions.md"))
	if err != nil {
		t.Fatal(err)
	}
	w := documentedWorld(t)
	all := lang.Functions(w)
	maps.Copy(all, lang.DefaultFunctions(w.Getenv))
	entry := regexp.MustCompile("(?m)^\\*\\*`([a-z0-9_]+)\\((.*)\\) -> (string|number|bool|list|map|any)`\\*\\* .+\\. `(.+)` is `(.+)`\\.$")
	for _, m := range entry.FindAllStringSubmatch(string(text), -1) {
		name, params, result, example, want := m[1], strings.Split(m[2], ", "), m[3], m[4], m[5]
		f, ok := all[name]
		if !ok {
			t.Errorf("there is no function %s, or it is documented twice", name)
			continue
		}
		delete(all, name)
		fixed := slices.DeleteFunc(params, func(p string) bool { return p == "" || strings.HasPrefix(p, "[") || strings.HasSuffix(p, "...") })
		variadic := strings.Contains(m[2], "[") || strings.Contains(m[2], "...")
		if variadic != (f.VarParam() != nil) || len(fixed) != len(f.Params()) && name != "range" {
			t.Errorf("%s: the arguments %q are not those that it takes", name, m[2])
		}
		if !strings.Contains(example, name+"(") {
			t.Errorf("%s: the example %s does not call it", name, example)
		}
		got := evaluate(t, w, example, nil)
		if name == "env" {
			got = `"` + w.Getenv("NAME") + `"`
		}
		if want := evaluate(t, w, want, nil); got != want {
			t.Errorf("%s = %s, want %s", example, got, want)
		}
		// The example may show a part of the result.
		kind := map[byte]string{'"': "string", '[': "list", '{': "map", 't': "bool", 'f': "bool"}[got[0]]
		if kind == "" {
			kind = "number"
		}
		if strings.HasPrefix(example, name+"(") && strings.HasSuffix(example, ")") && result != "any" && kind != result {
			t.Errorf("%s returns a %s, and is documented to return a %s", name, kind, result)
		}
	}
	for name := range all {
		t.Errorf("docs/functions.md has no entry for %s as the test reads them", name)
	}
}
