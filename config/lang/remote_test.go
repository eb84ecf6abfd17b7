package lang_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/config/lang"
)

// server answers like Vault and Consul, if the token is right.
func server(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	allowed := r.Header.Get("X-Vault-Token") == "tok" || r.Header.Get("X-Consul-Token") == "tok" || user == "u" && password == "p"
	if !allowed {
		http.Error(w, "permission denied", http.StatusForbidden)
		return
	}
	answers := map[string]string{
		"/v1/secret/data/app":    `{"data": {"data": {"password": "two", "port": 22}, "metadata": {"version": 3}}}`,
		"/v1/kv1/app":            `{"data": {"password": "one"}}`,
		"/v1/broken":             `<html>`,
		"/v1/kv/config/my image": "ami-1",
		"/v1/kv/empty":           "",
	}
	if r.Header.Get("X-Vault-Namespace") == "team" || r.URL.Query().Get("ns") == "team" {
		answers = map[string]string{"/v1/kv1/app": `{"data": {"password": "of the team"}}`, "/v1/kv/k": "of the team"}
	}
	answer, ok := answers[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, answer)
}

func TestRemoteValues(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(server))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(server))
	defer secure.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	for path, b := range map[string][]byte{
		ca:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}),
		token: []byte("tok\n"),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host := strings.TrimPrefix(plain.URL, "http://")
	secureHost := strings.TrimPrefix(secure.URL, "https://")
	v := "VAULT_ADDR=" + plain.URL
	c := "CONSUL_HTTP_ADDR=" + host
	tests := []struct {
		expr string
		env  []string
		want string
	}{
		{`vault("secret/data/app", "password")`, []string{v, "VAULT_TOKEN=tok"}, `"two"`},
		{`vault("/kv1/app", "password")`, []string{v, "VAULT_TOKEN=tok"}, `"one"`},
		{`vault("kv1/app", "password")`, []string{v, "VAULT_TOKEN=tok", "VAULT_NAMESPACE=team"}, `"of the team"`},
		{`vault("kv1/app", "password")`, []string{"VAULT_ADDR=" + secure.URL, "VAULT_TOKEN=tok", "VAULT_CACERT=" + ca}, `"one"`},
		{`vault("kv1/app", "password")`, []string{"VAULT_ADDR=" + secure.URL, "VAULT_TOKEN=tok", "VAULT_SKIP_VERIFY=true"}, `"one"`},
		{`vault("kv1/app", "password")`, []string{"VAULT_ADDR=" + secure.URL, "VAULT_TOKEN=tok"}, `error: certificate`},
		{`vault("kv1/app", "user")`, []string{v, "VAULT_TOKEN=tok"}, `error: the secret kv1/app has no "user"`},
		{`vault("secret/data/app", "port")`, []string{v, "VAULT_TOKEN=tok"}, `error: is not a string`},
		{`vault("absent", "x")`, []string{v, "VAULT_TOKEN=tok"}, `error: has nothing at /v1/absent`},
		{`vault("broken", "x")`, []string{v, "VAULT_TOKEN=tok"}, `error: is not JSON`},
		{`vault("kv1/app", "password")`, []string{v, "VAULT_TOKEN=wrong"}, `error: 403 Forbidden: permission denied`},
		{`vault("kv1/app", "password")`, []string{v}, `error: VAULT_TOKEN is not set`},

		{`consul_key("config/my image")`, []string{c, "CONSUL_HTTP_TOKEN=tok"}, `"ami-1"`},
		{`consul_key("config/my image")`, []string{c, "CONSUL_HTTP_TOKEN_FILE=" + token}, `"ami-1"`},
		{`consul_key("config/my image")`, []string{"CONSUL_HTTP_ADDR=" + plain.URL, "CONSUL_HTTP_AUTH=u:p"}, `"ami-1"`},
		{`consul_key("k")`, []string{c, "CONSUL_HTTP_TOKEN=tok", "CONSUL_NAMESPACE=team"}, `"of the team"`},
		{`consul_key("config/my image")`, []string{"CONSUL_HTTP_ADDR=" + secureHost, "CONSUL_HTTP_SSL=true", "CONSUL_HTTP_TOKEN=tok", "CONSUL_CACERT=" + ca}, `"ami-1"`},
		{`consul_key("config/my image")`, []string{"CONSUL_HTTP_ADDR=" + secureHost, "CONSUL_HTTP_SSL=true", "CONSUL_HTTP_TOKEN=tok", "CONSUL_HTTP_SSL_VERIFY=false"}, `"ami-1"`},
		{`consul_key("empty")`, []string{c, "CONSUL_HTTP_TOKEN=tok"}, `error: the value of the Consul key "empty" is empty`},
		{`consul_key("absent")`, []string{c, "CONSUL_HTTP_TOKEN=tok"}, `error: has nothing at /v1/kv/absent`},
		{`consul_key("k")`, []string{c}, `error: 403 Forbidden`},
		{`consul_key("k")`, []string{c, "CONSUL_CACERT=" + token}, `error: CONSUL_CACERT: ` + token + ` holds no certificate in PEM`},
		{`vault("kv1/app", "password")`, []string{v, "VAULT_TOKEN=tok", "VAULT_CACERT=" + dir + "/absent"}, `error: VAULT_CACERT: open ` + dir + "/absent"},
	}
	for _, test := range tests {
		w := lang.World{Getenv: func(name string) string {
			for _, e := range test.env {
				if value, ok := strings.CutPrefix(e, name+"="); ok {
					return value
				}
			}
			return ""
		}}
		got := evaluate(t, w, test.expr, nil)
		fails := strings.HasPrefix(test.want, "error: ")
		if got != test.want && (!fails || !strings.HasPrefix(got, "error: ") || !strings.Contains(got, strings.TrimPrefix(test.want, "error: "))) {
			t.Errorf("%s with %q = %s, want %s", test.expr, test.env, got, test.want)
		}
	}
}
