package sts

import (
	"cmp"
	"context"
	"crypto/sha1" // AWS's thumbprints are SHA-1
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4"
)

// Issuers fetches the keys of token issuers, see OpenID Connect Discovery 1.0. It limits the size
// of the responses and follows no redirects.
type Issuers struct{}

const (
	issuerTimeout = 10 * time.Second
	issuerAnswer  = 1 << 20 // bytes
)

// keys returns the current signing keys of an issuer.
func (Issuers) keys(ctx context.Context, issuer string, thumbprints []string) (set jose.JSONWebKeySet, err error) {
	ctx, cancel := context.WithTimeout(ctx, issuerTimeout)
	defer cancel()
	at, err := url.Parse(issuer)
	if err != nil {
		return set, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, // trusted verifies instead
		},
	}
	// Connections to an IP address have no ServerName.
	trust := func(at *url.URL) {
		transport.TLSClientConfig.VerifyConnection = func(c tls.ConnectionState) error {
			return trusted(c.PeerCertificates, cmp.Or(c.ServerName, at.Hostname()), thumbprints)
		}
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("it responded with a redirect") }}
	var document struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	trust(at)
	if err := get(ctx, client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", &document); err != nil {
		return set, err
	}
	if document.Issuer != issuer {
		return set, fmt.Errorf("its discovery document is for the issuer %q", document.Issuer)
	}
	if at, err = url.Parse(document.Keys); err != nil || at.Scheme != "https" || at.Host == "" {
		return set, fmt.Errorf("the URL of its keys, %q, is not an https URL", document.Keys)
	}
	trust(at)
	var keys struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := get(ctx, client, document.Keys, &keys); err != nil {
		return set, err
	}
	for _, text := range keys.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(text) == nil { // ignore unknown kinds of keys, see RFC 7517, section 5
			set.Keys = append(set.Keys, key)
		}
	}
	return set, nil
}

func get(ctx context.Context, client *http.Client, address string, into any) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, issuerAnswer+1))
	if err == nil && len(text) > issuerAnswer {
		err = fmt.Errorf("its response is longer than %d bytes", issuerAnswer)
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}

// shown returns the text of an error, which may quote the issuer's response: shortened, and without
// control characters.
func shown(err error) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, err.Error())
	return fmt.Sprintf("%.500s", text)
}

// trusted returns an error unless a server with these certificates may be the one with
// this name or address: the first certificate must chain to one that the host trusts, or
// to one with a thumbprint.
func trusted(certificates []*x509.Certificate, name string, thumbprints []string) error {
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range certificates {
		sum := sha1.Sum(cert.Raw) // AWS's thumbprints are SHA-1
		if slices.Contains(thumbprints, hex.EncodeToString(sum[:])) {
			roots.AddCert(cert)
		}
		others.AddCert(cert)
	}
	leaf := certificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Intermediates: others, Roots: roots}); err == nil {
		return nil
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Intermediates: others})
	return err
}
