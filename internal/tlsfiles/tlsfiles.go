// Package tlsfiles reads the certificates and keys of a TLS client from PEM files.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"bake/internal/hostpath"
)

// Client returns the configuration of a client that trusts the authorities in the file ca,
// and presents the certificate in the file cert, whose key is in the file key. Without ca,
// it trusts the authorities of the system; without cert and key, it presents no
// certificate.
func Client(ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		var err error
		if c.RootCAs, err = authorities(ca); err != nil {
			return nil, err
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("the certificate %q with the key %q: %w", cert, key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// FromEnvironment returns an HTTP client configured by environment variables like those of
// Vault and Consul. It trusts the authorities in the file that the variable ca names, or
// the system's if that is not set, and any server if insecure is set. It does not keep
// connections, and limits each exchange to timeout.
func FromEnvironment(getenv func(name string) string, ca string, insecure bool, timeout time.Duration) (*http.Client, error) {
	c, err := Client(getenv(ca), "", "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ca, err)
	}
	c.InsecureSkipVerify = insecure // only if the user's environment says so
	return &http.Client{Timeout: timeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: c, DisableKeepAlives: true}}, nil
}

// authorities returns the certificate authorities in a PEM file.
func authorities(file string) (*x509.CertPool, error) {
	text, err := hostpath.Read(file, hostpath.Limit)
	if err != nil {
		return nil, err
	}
	return ParseAuthorities(text, file)
}

// ParseAuthorities returns the authorities in a PEM text, which was read from the named
// file.
func ParseAuthorities(text []byte, file string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}
