package tlsfiles

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClient: a server that requires a certificate accepts the files, and no connection without
// one of them.
func TestClient(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(at(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	coded, kerr := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err, kerr); err != nil {
		t.Fatal(err)
	}
	write("cert", "CERTIFICATE", der)
	write("key", "PRIVATE KEY", coded)
	write("other", "OTHER", der)

	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(der)))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	defer s.Close()
	for _, c := range []struct {
		ca, cert, key string
		want          string // the answer, or a part of the error; after "read: ", of that of reading the files
	}{
		{"cert", "cert", "key", "hello"},
		{"", "cert", "key", "unknown authority"},
		{"cert", "", "", "certificate required"},
		{"none", "", "", "read: none: no such file"},
		{"other", "", "", "read: other holds no certificate in PEM"},
		{"", "cert", "", `read: with the key ""`},
		{"", "other", "key", "read: other\" with the key"},
	} {
		for _, name := range []*string{&c.ca, &c.cert, &c.key} {
			if *name != "" {
				*name = at(*name)
			}
		}
		config, err := Client(c.ca, c.cert, c.key)
		if what, ok := strings.CutPrefix(c.want, "read: "); ok {
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		var got string
		answer, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config}}).Get(s.URL)
		if err != nil {
			got = err.Error()
		} else {
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			got = string(text)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
