package attest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/youmark/pkcs8"
	"golang.org/x/crypto/ssh"

	"bake/golden/attest"
)

// keys makes a key of each kind.
func keys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]crypto.Signer{"Ed25519": ed}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		if out[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if out["RSA"], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	return out
}

// statement is a statement about one image, with provenance.
func statement(t *testing.T) []byte {
	t.Helper()
	text, err := attest.New([]attest.Resource{attest.Image("eu-west-1", "ami-1")}, attest.SLSA, attest.Provenance{
		BuildDefinition: attest.BuildDefinition{
			BuildType: "https://packer.io/buildtypes/hcl2/v1", ExternalParameters: map[string]any{"source": "null.web"},
			ResolvedDependencies: []attest.Resource{{URI: "git+https://git.example/x"}},
		},
		RunDetails: attest.RunDetails{Builder: attest.Builder{ID: attest.BuilderID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func sign(t *testing.T, text []byte, key crypto.Signer) []byte {
	t.Helper()
	e, err := attest.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestSign: each kind of key verifies its own signatures, and no other key does.
func TestSign(t *testing.T) {
	all := keys(t)
	for name, key := range all {
		e := sign(t, statement(t), key)
		st, err := attest.Open(e, key.Public())
		if err != nil || st.Subject[0].URI != "arn:aws:ec2:eu-west-1::image/ami-1" {
			t.Errorf("%s: %v, %v", name, st, err)
		}
		for other, key := range all {
			if _, err := attest.Open(e, key.Public()); (err == nil) != (other == name) {
				t.Errorf("signed with %s, checked with %s: %v", name, other, err)
			}
		}
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err == nil {
		_, err = attest.Sign(statement(t), small)
	}
	if err == nil {
		t.Error("a small key signs")
	}
}

// TestTampering: an envelope with any change cannot be verified.
func TestTampering(t *testing.T) {
	all := keys(t)
	key, other := all["P-256"], all["P-384"]
	good := sign(t, statement(t), key)
	payload := func(change func(st map[string]any)) func(e map[string]any) {
		return func(e map[string]any) {
			text, err := base64.StdEncoding.DecodeString(e["payload"].(string))
			if err != nil {
				t.Fatal(err)
			}
			var st map[string]any
			if err := json.Unmarshal(text, &st); err != nil {
				t.Fatal(err)
			}
			change(st)
			if text, err = json.Marshal(st); err != nil {
				t.Fatal(err)
			}
			e["payload"] = base64.StdEncoding.EncodeToString(text)
		}
	}
	signatures := func(e map[string]any) []any { return e["signatures"].([]any) }
	first := func(e map[string]any) map[string]any { return signatures(e)[0].(map[string]any) }
	var foreign map[string]any
	if err := json.Unmarshal(sign(t, statement(t), other), &foreign); err != nil {
		t.Fatal(err)
	}
	within := func(st map[string]any, path ...string) map[string]any {
		for _, p := range path {
			st = st[p].(map[string]any)
		}
		return st
	}
	for name, change := range map[string]func(e map[string]any){
		"payload type":          func(e map[string]any) { e["payloadType"] = "application/json" },
		"no payload type":       func(e map[string]any) { delete(e, "payloadType") },
		"payload with blanks":   func(e map[string]any) { e["payload"] = e["payload"].(string) + "\n" },
		"another field":         func(e map[string]any) { e["more"] = 1 },
		"signature":             func(e map[string]any) { first(e)["sig"] = "A" + first(e)["sig"].(string)[1:] + "A" },
		"signature of another":  func(e map[string]any) { first(e)["sig"] = foreign["signatures"].([]any)[0].(map[string]any)["sig"] },
		"no signature":          func(e map[string]any) { e["signatures"] = []any{} },
		"empty signature":       func(e map[string]any) { first(e)["sig"] = "" },
		"key id":                func(e map[string]any) { first(e)["keyid"] = "00" },
		"another signature too": func(e map[string]any) { e["signatures"] = append(signatures(e), foreign["signatures"].([]any)[0]) },
		"rubbish signature too": func(e map[string]any) { e["signatures"] = append(signatures(e), map[string]any{"sig": "AAAA"}) },
		"the signature twice":   func(e map[string]any) { e["signatures"] = append(signatures(e), signatures(e)[0]) },
		"nothing of the statement, in another form": payload(func(map[string]any) {}),
		"statement type":   payload(func(st map[string]any) { st["_type"] = "https://in-toto.io/Statement/v0.1" }),
		"predicate type":   payload(func(st map[string]any) { st["predicateType"] = "https://slsa.dev/provenance/v0.2" }),
		"subject's digest": payload(func(st map[string]any) { within(st["subject"].([]any)[0].(map[string]any), "digest")["sha256"] = "00" }),
		"subject's name":   payload(func(st map[string]any) { st["subject"].([]any)[0].(map[string]any)["name"] = "x" }),
		"another subject": payload(func(st map[string]any) {
			st["subject"] = append(st["subject"].([]any), map[string]any{"name": "x", "digest": map[string]any{"sha256": "00"}})
		}),
		"builder":    payload(func(st map[string]any) { within(st, "predicate", "runDetails", "builder")["id"] = "x" }),
		"build type": payload(func(st map[string]any) { within(st, "predicate", "buildDefinition")["buildType"] = "x" }),
		"parameter": payload(func(st map[string]any) {
			within(st, "predicate", "buildDefinition", "externalParameters")["source"] = "x"
		}),
		"dependency": payload(func(st map[string]any) { delete(within(st, "predicate", "buildDefinition"), "resolvedDependencies") }),
		"invocation": payload(func(st map[string]any) { within(st, "predicate", "runDetails", "metadata")["invocationId"] = "x" }),
	} {
		var e map[string]any
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		change(e)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attest.Open(text, key.Public()); err == nil {
			t.Errorf("%s: it still verifies", name)
		}
	}
	for name, text := range map[string][]byte{
		"something follows": append(good, "{}"...), "the statement alone": statement(t), "nothing": nil, "cut off": good[:len(good)-9],
	} {
		if _, err := attest.Open(text, key.Public()); err == nil {
			t.Errorf("%s: it still verifies", name)
		}
	}
	var e map[string]any // other blanks in the envelope are as good
	if err := json.Unmarshal(good, &e); err != nil {
		t.Fatal(err)
	}
	delete(first(e), "keyid")
	text, _ := json.Marshal(e)
	if _, err := attest.Open(text, key.Public()); err != nil {
		t.Errorf("without the key's id: %v", err)
	}
}

// TestSignedNonsense: a signed document must also be a statement.
func TestSignedNonsense(t *testing.T) {
	key := keys(t)["Ed25519"]
	for _, text := range []string{
		"", "{}", `{"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "predicate": {}, "subject": []}`,
		`{"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "predicate": {}, "subject": [{"name": "x"}]}`,
		`{"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "predicate": null, "subject": [{"digest": {"sha256": "00"}}]}`,
		`{"_type": "https://in-toto.io/Statement/v1", "predicateType": "", "predicate": {}, "subject": [{"digest": {"sha256": "00"}}]}`,
	} {
		if _, err := attest.Open(sign(t, []byte(text), key), key.Public()); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

// TestUnknownFields: additional fields of other programs are ignored.
func TestUnknownFields(t *testing.T) {
	key := keys(t)["Ed25519"]
	text := `{"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "predicate": {"more": 1}, "more": {"x": []},
		"subject": [{"name": "x", "digest": {"sha256": "00"}, "annotations": {"x": 1}, "more": 1}]}`
	st, err := attest.Open(sign(t, []byte(text), key), key.Public())
	if err != nil || st.PredicateType != "x" || st.Subject[0].Digest["sha256"] != "00" {
		t.Errorf("got %+v, %v", st, err)
	}
}

// TestOtherPayload: a document signed with another type is not a statement, even if it
// looks like one.
func TestOtherPayload(t *testing.T) {
	key := keys(t)["Ed25519"]
	for kind, ok := range map[string]bool{attest.PayloadType: true, "text/plain": false} {
		text := statement(t)
		sig, err := key.Sign(nil, fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(text), text), crypto.Hash(0))
		if err != nil {
			t.Fatal(err)
		}
		e, err := json.Marshal(map[string]any{"payloadType": kind, "payload": text, "signatures": []any{map[string]any{"sig": sig}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attest.Open(e, key.Public()); (err == nil) != ok {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestMeet(t *testing.T) {
	key := keys(t)["Ed25519"]
	open := func(text []byte) *attest.Statement {
		st, err := attest.Open(sign(t, text, key), key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	provenance := open(statement(t))
	text, err := attest.New(provenance.Subject, attest.CycloneDX, map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	sbom := open(text)
	text, err = attest.New(provenance.Subject, attest.SLSA, map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	empty := open(text)
	for i, c := range []struct {
		st   *attest.Statement
		want attest.Expected
		err  string
	}{
		{provenance, attest.Expected{}, ""},
		{provenance, attest.Expected{PredicateType: attest.SLSA, BuilderID: attest.BuilderID, SourceURI: "git+https://git.example/x", Subjects: provenance.Subject}, ""},
		{provenance, attest.Expected{PredicateType: attest.SPDX}, "its predicate is of type"},
		{provenance, attest.Expected{BuilderID: "x"}, "the builder is"},
		{provenance, attest.Expected{SourceURI: "x"}, "not among the sources"},
		{provenance, attest.Expected{Subjects: []attest.Resource{attest.Image("eu-west-1", "ami-2")}}, "not among the subjects"},
		{provenance, attest.Expected{Subjects: []attest.Resource{attest.Image("eu-west-2", "ami-1")}}, "not among the subjects"},
		{provenance, attest.Expected{Subjects: []attest.Resource{{Name: "without a digest"}}}, "not among the subjects"},
		{sbom, attest.Expected{PredicateType: attest.CycloneDX}, ""},
		{sbom, attest.Expected{BuilderID: attest.BuilderID}, "only provenance"},
		{empty, attest.Expected{}, "lacks"},
	} {
		if err := c.st.Meet(c.want); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%d: %v, want %q", i, err, c.err)
		}
	}
}

// TestKeyFiles: every form of key file, with its passphrase.
func TestKeyFiles(t *testing.T) {
	all := keys(t)
	file := func(kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	openssh := func(key crypto.Signer, pass string) string {
		block, err := ssh.MarshalPrivateKey(key, "")
		if pass != "" {
			block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(pass))
		}
		if err != nil {
			t.Fatal(err)
		}
		return file(block.Type, block.Bytes)
	}
	quick := &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 1000, HMACHash: crypto.SHA256}}
	sealed := openssh(all["Ed25519"], "secret")
	for name, key := range all {
		plain := file("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
		encrypted := file("ENCRYPTED PRIVATE KEY", must(pkcs8.MarshalPrivateKey(key, []byte("secret"), quick)))
		public := file("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key.Public())))
		for what, c := range map[string]struct{ path, pass, err string }{
			"PKCS #8":                {plain, "", ""},
			"encrypted":              {encrypted, "secret", ""},
			"no passphrase":          {encrypted, "", attest.PassphraseVar},
			"wrong passphrase":       {encrypted, "x", "wrong"},
			"OpenSSH":                {openssh(key, ""), "", ""},
			"OpenSSH, no passphrase": {sealed, "", attest.PassphraseVar},
			"public":                 {public, "", "cannot"},
			"missing":                {public + "x", "", "no such file"},
		} {
			got, err := attest.PrivateKey(c.path, c.pass)
			switch {
			case c.err == "" && err != nil, c.err != "" && err == nil:
				t.Errorf("%s, %s: %v", name, what, err)
			case err == nil && !attest.SameKey(got.Public(), key.Public()):
				t.Errorf("%s, %s: it is another key", name, what)
			case err != nil && c.err != "cannot" && !strings.Contains(err.Error(), c.err):
				t.Errorf("%s, %s: %v, want %s", name, what, err, c.err)
			}
		}
		if k, ok := key.(*ecdsa.PrivateKey); ok {
			both := file("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(k)))
			text := append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), must(os.ReadFile(both))...)
			if err := os.WriteFile(both, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := attest.PrivateKey(both, ""); err != nil || !attest.SameKey(got.Public(), key.Public()) {
				t.Errorf("%s, with parameters: %v", name, err)
			}
		}
		if name == "Ed25519" {
			if got, err := attest.PrivateKey(sealed, "secret"); err != nil || !attest.SameKey(got.Public(), key.Public()) {
				t.Errorf("encrypted OpenSSH: %v", err)
			}
			if _, err := attest.PrivateKey(sealed, "x"); err == nil || !strings.Contains(err.Error(), "wrong") {
				t.Errorf("OpenSSH, wrong passphrase: %v", err)
			}
		}
		for _, path := range []string{plain, public} {
			if got, err := attest.PublicKey(path, ""); err != nil || !attest.SameKey(got, key.Public()) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestVerificationKey: several places may name the key, and must name the same one.
func TestVerificationKey(t *testing.T) {
	all := keys(t)
	file := func(key crypto.Signer) string {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, other := all["Ed25519"], file(all["P-256"])
	one := file(key)
	remote := func(source string) (crypto.Signer, error) {
		switch source {
		case "far://key":
			return key, nil
		case "far://lost":
			return nil, errors.New("it is lost")
		}
		return nil, nil
	}
	for _, c := range []struct {
		sources []string
		wrong   string
	}{
		{[]string{one, ""}, ""},
		{[]string{"", one}, ""},
		{[]string{"far://key", one}, ""},
		{[]string{"far://key", other}, "far://key and " + other + " are different keys"},
		{[]string{other, one}, other + " and " + one + " are different keys"},
		{[]string{one, "far://lost"}, "far://lost: it is lost"},
		{[]string{one, one + "x"}, "no such file"},
		{[]string{"", ""}, "no key"},
	} {
		got, err := attest.VerificationKey(c.sources, "", remote)
		switch {
		case c.wrong != "":
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%q: %v, want %s", c.sources, err, c.wrong)
			}
		case err != nil || !attest.SameKey(got, key.Public()):
			t.Errorf("%q: %v", c.sources, err)
		}
	}
}
