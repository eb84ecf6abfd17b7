package lang

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"bake/internal/hostpath"
	"bake/internal/tlsfiles"
)

// remoteTimeout is how long a server of values may take to answer.
const remoteTimeout = 30 * time.Second

// vault reads one value of a secret of HashiCorp Vault. The environment variables of
// Vault's own client define the server and the credentials: VAULT_ADDR, VAULT_TOKEN,
// VAULT_NAMESPACE, VAULT_CACERT and VAULT_SKIP_VERIFY. It supports both versions of the
// key-value engine; for version 2 the path contains data/, as in Vault's API.
func vault(getenv func(string) string) func(path, key string) (string, error) {
	return func(path, key string) (string, error) {
		token := getenv("VAULT_TOKEN")
		if token == "" {
			return "", errors.New("VAULT_TOKEN is not set in the environment")
		}
		address := getenv("VAULT_ADDR")
		if address == "" {
			address = "https://127.0.0.1:8200"
		}
		client, err := tlsfiles.FromEnvironment(getenv, "VAULT_CACERT", isTrue(getenv("VAULT_SKIP_VERIFY")), remoteTimeout)
		if err != nil {
			return "", err
		}
		header := http.Header{"X-Vault-Token": {token}, "X-Vault-Request": {"true"}}
		if ns := getenv("VAULT_NAMESPACE"); ns != "" {
			header.Set("X-Vault-Namespace", ns)
		}
		body, err := get(client, address, "/v1/"+strings.TrimPrefix(path, "/"), header)
		if err != nil {
			return "", err
		}
		var secret struct {
			Data map[string]any `json:"data"`
		}
		if err := json.Unmarshal(body, &secret); err != nil {
			return "", fmt.Errorf("the answer from Vault for %s is not JSON", path)
		}
		values := secret.Data
		if versioned, ok := values["data"].(map[string]any); ok {
			values = versioned
		}
		switch v := values[key].(type) {
		case string:
			return v, nil
		case nil:
			return "", fmt.Errorf("the secret %s has no %q", path, key)
		default:
			return "", fmt.Errorf("%q of the secret %s is not a string", key, path)
		}
	}
}

// consulKey reads a value of Consul's key-value store, found by the environment
// variables of Consul's own client: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_AUTH, CONSUL_HTTP_SSL,
// CONSUL_HTTP_SSL_VERIFY, CONSUL_CACERT and CONSUL_NAMESPACE.
func consulKey(getenv func(string) string) func(key string) (string, error) {
	return func(key string) (string, error) {
		address := getenv("CONSUL_HTTP_ADDR")
		if address == "" {
			address = "127.0.0.1:8500"
		}
		if !strings.Contains(address, "://") {
			scheme := "http://"
			if isTrue(getenv("CONSUL_HTTP_SSL")) {
				scheme = "https://"
			}
			address = scheme + address
		}
		verify := getenv("CONSUL_HTTP_SSL_VERIFY")
		client, err := tlsfiles.FromEnvironment(getenv, "CONSUL_CACERT", verify != "" && !isTrue(verify), remoteTimeout)
		if err != nil {
			return "", err
		}
		header := http.Header{}
		token := getenv("CONSUL_HTTP_TOKEN")
		if file := getenv("CONSUL_HTTP_TOKEN_FILE"); token == "" && file != "" {
			b, err := hostpath.Read(file, hostpath.Limit)
			if err != nil {
				return "", fmt.Errorf("CONSUL_HTTP_TOKEN_FILE: %w", err)
			}
			token = strings.TrimSpace(string(b))
		}
		if token != "" {
			header.Set("X-Consul-Token", token)
		}
		if auth := getenv("CONSUL_HTTP_AUTH"); auth != "" {
			user, password, _ := strings.Cut(auth, ":")
			r := http.Request{Header: header}
			r.SetBasicAuth(user, password)
		}
		path := "/v1/kv/" + (&url.URL{Path: strings.TrimPrefix(key, "/")}).EscapedPath() + "?raw"
		if ns := getenv("CONSUL_NAMESPACE"); ns != "" {
			path += "&ns=" + url.QueryEscape(ns)
		}
		body, err := get(client, address, path, header)
		if err != nil {
			return "", err
		}
		if len(body) == 0 {
			return "", fmt.Errorf("the value of the Consul key %q is empty", key)
		}
		return string(body), nil
	}
}

func isTrue(s string) bool {
	s = strings.ToLower(s)
	return s == "1" || s == "t" || s == "true"
}

// get returns the body of the answer to a GET. Any status but 200 is an error.
func get(client *http.Client, address, path string, header http.Header) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(address, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s has nothing at %s", address, req.URL.Path)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %s: %s", req.URL.Redacted(), resp.Status, strings.TrimSpace(string(body[:min(len(body), 200)])))
	}
	return body, nil
}
