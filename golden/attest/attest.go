// Package attest makes and checks attestations: in-toto statements about artifacts,
// signed in DSSE envelopes.
package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"bake/internal/hostpath"
)

// The types of the documents.
const (
	PayloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	SLSA          = "https://slsa.dev/provenance/v1"
	CycloneDX     = "https://cyclonedx.org/bom"
	SPDX          = "https://spdx.dev/Document/v2.3"
)

// Statement is an in-toto statement about its subjects.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Resource      `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Resource is a resource descriptor: an artifact, or an input of one.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// Provenance is SLSA's predicate about how an artifact was built.
type Provenance struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition describes the input of the build.
type BuildDefinition struct {
	BuildType            string         `json:"buildType"`
	ExternalParameters   map[string]any `json:"externalParameters"`
	InternalParameters   map[string]any `json:"internalParameters,omitempty"`
	ResolvedDependencies []Resource     `json:"resolvedDependencies,omitempty"`
}

// RunDetails describes how the build ran.
type RunDetails struct {
	Builder    Builder    `json:"builder"`
	Metadata   Metadata   `json:"metadata"`
	Byproducts []Resource `json:"byproducts,omitempty"`
}

// Builder identifies the builder.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// Metadata holds the run, and when it built the artifact.
type Metadata struct {
	InvocationID string    `json:"invocationId"`
	StartedOn    time.Time `json:"startedOn"`
	FinishedOn   time.Time `json:"finishedOn"`
}

// BuilderID identifies bake as the builder.
const BuilderID = "urn:bake:builder:v1"

// New returns the text of a statement.
func New(subjects []Resource, predicateType string, predicate any) ([]byte, error) {
	raw, err := encode(predicate, "")
	if err != nil {
		return nil, err
	}
	return encode(Statement{statementType, subjects, predicateType, raw}, "  ")
}

func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// File returns the file at path as a subject with this name.
func File(name, path string) (Resource, error) {
	f, err := hostpath.Open(path)
	if err != nil {
		return Resource{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return Resource{}, err
	}
	return Resource{Name: name, Digest: map[string]string{"sha256": fmt.Sprintf("%x", h.Sum(nil))}}, nil
}

// Image returns an image of EC2 as a subject. AWS has no digest of the content of an
// image, but an image's id is never reused: the digest is that of the URI, the image's
// ARN.
func Image(region, id string) Resource {
	partition := "aws"
	switch {
	case strings.HasPrefix(region, "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		partition = "aws-us-gov"
	}
	uri := "arn:" + partition + ":ec2:" + region + "::image/" + id
	return Resource{Name: region + ":" + id, URI: uri, Digest: map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(uri)))}}
}

// envelope is the DSSE envelope of a statement.
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid,omitempty"`
	Sig   string `json:"sig"`
}

// signed returns the bytes of an envelope that are signed: DSSE's pre-authentication
// encoding.
func signed(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// KeyID names a public key: the SHA-256 of its DER form.
func KeyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return fmt.Sprintf("%x", sha256.Sum256(der)), err
}

// Sign wraps a statement in an envelope. The key is one of Ed25519, ECDSA or RSA.
func Sign(statement []byte, key crypto.Signer) ([]byte, error) {
	message := signed(PayloadType, statement)
	hash, err := hashOf(key.Public())
	if err != nil {
		return nil, err
	}
	sig, err := key.Sign(rand.Reader, digest(hash, message), hash)
	if err != nil {
		return nil, err
	}
	id, err := KeyID(key.Public())
	if err != nil {
		return nil, err
	}
	return encode(envelope{PayloadType, base64.StdEncoding.EncodeToString(statement), []signature{{id, base64.StdEncoding.EncodeToString(sig)}}}, "  ")
}

// hashOf returns the hash function that is applied to a message before it is signed.
func hashOf(key crypto.PublicKey) (crypto.Hash, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return 0, nil // of the message itself
	case *ecdsa.PublicKey:
		switch bits := k.Curve.Params().BitSize; {
		case bits <= 256:
			return crypto.SHA256, nil
		case bits <= 384:
			return crypto.SHA384, nil
		}
		return crypto.SHA512, nil
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return 0, fmt.Errorf("the RSA key has %d bits; use one of at least 2048", k.N.BitLen())
		}
		return crypto.SHA256, nil
	}
	return 0, fmt.Errorf("keys of type %T cannot sign; use Ed25519, ECDSA or RSA", key)
}

func digest(hash crypto.Hash, message []byte) []byte {
	switch hash {
	case crypto.SHA256:
		sum := sha256.Sum256(message)
		return sum[:]
	case crypto.SHA384:
		sum := sha512.Sum384(message)
		return sum[:]
	case crypto.SHA512:
		sum := sha512.Sum512(message)
		return sum[:]
	}
	return message
}

// Open checks that an envelope is signed with a key, and with no other, and returns its
// statement.
func Open(text []byte, key crypto.PublicKey) (*Statement, error) {
	var e envelope
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields() // unknown fields are not signed
	if err := decode(dec, &e); err != nil {
		var bare Statement
		if json.Unmarshal(text, &bare) == nil && bare.Type != "" {
			err = errors.New("it is an unsigned statement")
		}
		return nil, fmt.Errorf("it is not a DSSE envelope: %w", err)
	}
	if e.PayloadType != PayloadType {
		return nil, fmt.Errorf("its payload is of type %q, not %s", e.PayloadType, PayloadType)
	}
	payload, err := decode64(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("its payload is damaged: %w", err)
	}
	if len(e.Signatures) == 0 {
		return nil, errors.New("it is not signed: it has no signatures")
	}
	id, err := KeyID(key)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i, s := range e.Signatures {
		if s.KeyID != "" && s.KeyID != id {
			return nil, fmt.Errorf("signature %d is by another key: %s, not %s", i+1, strings.Trim(fmt.Sprintf("%.100q", s.KeyID), `"`), id)
		}
		sig, err := decode64(s.Sig)
		if err == nil {
			err = verify(key, signed(e.PayloadType, payload), sig)
		}
		if err != nil {
			return nil, fmt.Errorf("signature %d is not by this key, or the payload was changed: %w", i+1, err)
		}
		if seen[s.Sig] {
			return nil, fmt.Errorf("signature %d is a duplicate", i+1)
		}
		seen[s.Sig] = true
	}
	var st Statement
	if err := decode(json.NewDecoder(bytes.NewReader(payload)), &st); err != nil {
		return nil, fmt.Errorf("its payload is not an in-toto statement: %w", err)
	}
	return &st, st.check()
}

// decode64 decodes base64 in its only valid encoding: unlike the standard decoder, it
// does not skip line breaks.
func decode64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("it has line ends")
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// decode decodes one value, and fails if anything follows it. Unknown fields are
// allowed, because other programs may add them to statements.
func decode(dec *json.Decoder, v any) error {
	if err := dec.Decode(v); err != nil {
		if strings.Contains(err.Error(), "unknown field") {
			return errors.New("it has other fields")
		}
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

func verify(key crypto.PublicKey, message, sig []byte) error {
	hash, err := hashOf(key)
	if err != nil {
		return err
	}
	sum := digest(hash, message)
	ok := false
	switch k := key.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, message, sig)
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, sum, sig)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(k, hash, sum, sig) == nil
	}
	if !ok {
		return errors.New("it does not verify")
	}
	return nil
}

// check returns an error if a statement is incomplete.
func (st *Statement) check() error {
	if st.Type != statementType {
		return fmt.Errorf("its statement is of type %q, not %s", st.Type, statementType)
	}
	if st.PredicateType == "" || len(st.Predicate) == 0 || st.Predicate[0] != '{' {
		return errors.New("its statement has no predicate")
	}
	if len(st.Subject) == 0 {
		return errors.New("its statement has no subject")
	}
	for _, s := range st.Subject {
		if len(s.Digest) == 0 {
			return fmt.Errorf("its subject %q has no digest", s.Name)
		}
	}
	return nil
}

// Expected holds the required contents of an attestation. Empty fields are not checked.
type Expected struct {
	PredicateType string
	BuilderID     string
	SourceURI     string     // of a resolved dependency
	Subjects      []Resource // by digest
}

// Meet returns an error if the statement differs from want.
func (st *Statement) Meet(want Expected) error {
	if want.PredicateType != "" && st.PredicateType != want.PredicateType {
		return fmt.Errorf("its predicate is of type %s, not %s", st.PredicateType, want.PredicateType)
	}
	var p Provenance
	if st.PredicateType == SLSA {
		if err := json.Unmarshal(st.Predicate, &p); err != nil {
			return fmt.Errorf("its predicate is not a provenance: %w", err)
		}
		if p.BuildDefinition.BuildType == "" || p.BuildDefinition.ExternalParameters == nil || p.RunDetails.Builder.ID == "" {
			return errors.New("its provenance lacks a buildType, externalParameters or the builder's id")
		}
	} else if want.BuilderID != "" || want.SourceURI != "" {
		return fmt.Errorf("only provenance has a builder and a source, but this is %s", st.PredicateType)
	}
	if want.BuilderID != "" && p.RunDetails.Builder.ID != want.BuilderID {
		return fmt.Errorf("the builder is %q, not %q", p.RunDetails.Builder.ID, want.BuilderID)
	}
	if want.SourceURI != "" {
		found := false
		for _, d := range p.BuildDefinition.ResolvedDependencies {
			found = found || d.URI == want.SourceURI
		}
		if !found {
			return fmt.Errorf("%q is not among the sources", want.SourceURI)
		}
	}
	for _, s := range want.Subjects {
		found := false
		for _, have := range st.Subject {
			found = found || have.Digest["sha256"] != "" && have.Digest["sha256"] == s.Digest["sha256"]
		}
		if !found {
			return fmt.Errorf("%s is not among the subjects: none has the SHA-256 %s", s.Name, s.Digest["sha256"])
		}
	}
	return nil
}
