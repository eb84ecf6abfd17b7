package provenance_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/component"
	"bake/golden/attest"
	"bake/postprocessor"
	"bake/postprocessor/postprocessortest"
	"bake/postprocessor/provenance"
	"bake/step"
)

// factory makes the post-processor, for which awskms:///there is key.
func factory(key crypto.Signer) component.Factory[postprocessor.PostProcessor] {
	return provenance.Factory(func() time.Time { return time.Unix(1700000060, 7) }, func(_ context.Context, _ []string, uri string) (crypto.Signer, error) {
		if uri != "awskms:///there" {
			return nil, errors.New("no such key")
		}
		return key, nil
	})
}

// pair writes a pair of keys into dir.
func pair(t *testing.T, dir string) ed25519.PrivateKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	write(t, filepath.Join(dir, "key.pub"), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})))
	return private
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func scope(env ...string) step.Scope {
	return step.Scope{
		Run: step.Invocation{
			ID: "run-1", Start: time.Unix(1700000000, 0), Env: append(env, "PATH="+os.Getenv("PATH")),
			Redact: func(s string) string { return strings.ReplaceAll(s, "hush", "<sensitive>") },
		},
		Build: "b.null.web", SourceType: "null", SourceName: "web",
	}
}

func TestSuite(t *testing.T) {
	postprocessortest.Suite{Factory: factory(nil), Body: `output_dir = "DIR/out"`, Unwritable: `output_dir = "DIR/one"`, Names: "one"}.Run(t)
}

// TestImage: the provenance of images, unsigned.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/t.pkr.hcl", "x")
	in := &builder.Artifact{
		ID: "eu-west-1:ami-1,us-east-1:ami-2", Images: map[string]string{"us-east-1": "ami-2", "eu-west-1": "ami-1"},
		Data: builder.Data{"SourceAMI": builder.Text("ami-0"), "BuildRegion": builder.Text("eu-west-1")},
	}
	body := `output_dir = "` + dir + `/out"
template = "` + dir + `/t.pkr.hcl"
user_variables = { a = "1", b = "it is hush", c = "x", packer_sensitive_variables = "c" }
`
	s := scope("GITHUB_SERVER_URL=https://user:secret@git.example", "GITHUB_REPOSITORY=o/r", "GITHUB_SHA=abc")
	out, keep, err := postprocessortest.ProcessIn(t, factory(nil), body, s, in)
	if err != nil || out != in || keep != postprocessor.MustKeep {
		t.Fatalf("out = %v, keep = %v, err = %v, want the input, and that it must be kept", out, keep, err)
	}
	text, err := os.ReadFile(dir + "/out/ami-1.provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	err = errors.Join(json.Unmarshal(text, &got), json.Unmarshal([]byte(strings.ReplaceAll(`{
		"_type": "https://in-toto.io/Statement/v1",
		"subject": [
			{"name": "eu-west-1:ami-1", "uri": "arn:aws:ec2:eu-west-1::image/ami-1", "digest": {"sha256": "x"}},
			{"name": "us-east-1:ami-2", "uri": "arn:aws:ec2:us-east-1::image/ami-2", "digest": {"sha256": "x"}}
		],
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": {
			"buildDefinition": {
				"buildType": "https://packer.io/buildtypes/hcl2/v1",
				"externalParameters": {
					"source": "null.web", "only_builds": ["b.null.web"], "template": "DIR/t.pkr.hcl",
					"user_variables": {"a": "1", "b": "<sensitive>", "c": "<sensitive>", "packer_sensitive_variables": "c"}
				},
				"resolvedDependencies": [
					{"uri": "git+https://git.example/o/r", "digest": {"gitCommit": "abc"}},
					{"name": "DIR/t.pkr.hcl", "digest": {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}},
					{"name": "eu-west-1:ami-0", "uri": "arn:aws:ec2:eu-west-1::image/ami-0", "digest": {"sha256": "x"}}
				]
			},
			"runDetails": {
				"builder": {"id": "urn:bake:builder:v1", "version": {"bake": "0.1.0"}},
				"metadata": {"invocationId": "run-1", "startedOn": "2023-11-14T22:13:20Z", "finishedOn": "2023-11-14T22:14:20Z"}
			}
		}
	}`, "DIR", dir)), &want))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{got, want} { // digests of ARNs have a test of their own
		m := v.(map[string]any)
		p := m["predicate"].(map[string]any)["buildDefinition"].(map[string]any)["resolvedDependencies"].([]any)
		for _, r := range append(m["subject"].([]any), p[2]) {
			r.(map[string]any)["digest"] = "of the ARN"
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFiles: signed attestations of files and their SBOM, beside the first file.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	key := pair(t, dir)
	write(t, dir+"/a/disk.img", "disk")
	write(t, dir+"/a/disk.sum", "sum")
	write(t, dir+"/root/etc/os-release", "ID=debian\nVERSION_ID=12\n")
	write(t, dir+"/root/var/lib/dpkg/status", "Package: bash\nStatus: install ok installed\nVersion: 5\nArchitecture: amd64\n")
	write(t, dir+"/root/opt/x.dist-info/METADATA", "Name: x\nVersion: 1\n")
	write(t, dir+"/sbom.json", `{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT"}`)
	in := &builder.Artifact{Files: []string{dir + "/a/disk.img", dir + "/a/disk.sum"}}
	for name, c := range map[string]struct {
		body, kind, sbom, has, hasNot string
	}{
		"a PEM key": {`signing_mode = "key"
			signer = "DIR/key.pem"
			verifier = "DIR/key.pub"
			sbom = true
			sbom_exclude = ["/opt/**"]
			sbom_scan_path = "DIR/root"`, attest.CycloneDX, ".cdx.json", "bash@5", "pypi"},
		"a key of KMS": {`signing_mode = "kms"
			key = "awskms:///there"
			sbom = true
			sbom_format = "spdx"
			sbom_scan_path = "DIR/root"`, attest.SPDX, ".spdx.json", "pypi/x@1", "DIR"},
		"an SBOM that is there": {`signing_mode = "kms"
			key = "awskms:///there"
			sbom = true
			sbom_format = "spdx"
			sbom_scan_path = "DIR/sbom.json"`, attest.SPDX, ".spdx.json", "SPDXRef-DOCUMENT", "bash"},
	} {
		body := strings.ReplaceAll(c.body, "DIR", dir) + "\n"
		if _, _, err := postprocessortest.ProcessIn(t, factory(key), body, scope(), in); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, f := range []struct{ end, kind string }{{".provenance.json", attest.SLSA}, {".sbom.att.json", c.kind}} {
			text, err := os.ReadFile(dir + "/a/disk.img" + f.end)
			if err != nil {
				t.Fatal(err)
			}
			st, err := attest.Open(text, key.Public())
			if err != nil {
				t.Errorf("%s%s: %v", name, f.end, err)
				continue
			}
			var subjects []attest.Resource
			for _, path := range in.Files {
				r, err := attest.File(filepath.Base(path), path)
				if err != nil {
					t.Fatal(err)
				}
				subjects = append(subjects, r)
			}
			if diff := cmp.Diff(subjects, st.Subject); diff != "" {
				t.Errorf("%s%s: subjects (-want +got):\n%s", name, f.end, diff)
			}
			if err := st.Meet(attest.Expected{PredicateType: f.kind}); err != nil {
				t.Errorf("%s%s: %v", name, f.end, err)
			}
			if has := string(st.Predicate); f.kind != attest.SLSA && (!strings.Contains(has, c.has) || strings.Contains(has, c.hasNot)) {
				t.Errorf("%s%s: %s", name, f.end, has)
			}
		}
		if text, err := os.ReadFile(dir + "/a/disk.img.sbom" + c.sbom); err != nil || !strings.Contains(string(text), c.has) {
			t.Errorf("%s: the SBOM is %s, %v", name, text, err)
		}
	}
}

// TestErrors: what cannot be done is an error that names the option.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir)
	other := t.TempDir()
	key := pair(t, other)
	write(t, dir+"/disk.img", "disk")
	in := &builder.Artifact{Files: []string{dir + "/disk.img"}}
	for body, want := range map[string]string{
		`signing_mode = "key"
		signer = "DIR/missing.pem"`: "Cannot sign",
		`signing_mode = "key"
		signer = "DIR/key.pem"
		verifier = "OTHER/key.pub"`: "is not the public key of",
		`signing_mode = "kms"
		signer = "awskms:///missing"`: "no such key",
		`sbom = true`: "No SBOM",
		`sbom = true
		sbom_scan_path = "DIR/disk.img"`: "it is not JSON",
		`signing_mode = "keyless"`: "Fulcio and Rekor",
		`fulcio_url = "https://x"`: "fulcio_url needs keyless",
		`upload_tlog = true`:       "upload_tlog needs keyless",
		`signing_mode = "x"`:       `must be "none", "key" or "kms"`,
		`signing_mode = "key"`:     "needs signer",
		`signer = "x"`:             "needs signing_mode",
		"signer = \"x\"\nkey = \"y\"\nsigning_mode = \"key\"": "another name for signer",
		"signing_mode = \"kms\"\nkey = \"gcpkms://x\"":        "which begins with awskms://",
		"signing_mode = \"key\"\nkey = \"awskms:///x\"":       "is not the path of a PEM file",
		`sbom_format = "x"`:    "cyclonedx",
		`sbom_scope = "x"`:     "squashed",
		`build_type = "x"`:     "must be a URI",
		`sbom_exclude = ["["]`: "not a pattern",
	} {
		body = strings.NewReplacer("DIR", dir, "OTHER", other).Replace(body) + "\n"
		_, _, err := postprocessortest.ProcessIn(t, factory(key), body, scope(), in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	if list, _ := filepath.Glob(dir + "/*.json"); len(list) > 0 {
		t.Errorf("there is %v", list)
	}
	if _, _, err := postprocessortest.ProcessIn(t, factory(key), "provenance = false\n", scope(), in); err != nil {
		t.Error(err)
	}
	if list, _ := filepath.Glob(dir + "/*.json"); len(list) > 0 {
		t.Errorf("there is %v", list)
	}
}

// TestRepository: the location of the source, without credentials.
func TestRepository(t *testing.T) {
	for from, want := range map[string]string{
		"https://user:token@git.example/o/r.git?token=x": "git+https://git.example/o/r.git",
		"git@git.example:o/r.git":                        "git+ssh://git.example/o/r.git",
		"ssh://git@git.example/o/r":                      "git+ssh://git.example/o/r",
		"/srv/git/r":                                     "",
		"file:///srv/git/r":                              "",
		"../r":                                           "",
		"":                                               "",
	} {
		if got := provenance.Repository(from); got != want {
			t.Errorf("%s: got %s, want %s", from, got, want)
		}
	}
	for from, want := range map[string]string{
		"git+https://user:p@ss@git.example/o@1?ref=main#x": "git+https://git.example/o@1?ref=main#x",
		"https://token@git.example":                        "https://git.example",
		"https://git.example/%7Eo/r":                       "https://git.example/%7Eo/r",
		"urn:x:me@y":                                       "urn:x:me@y",
	} {
		if got := provenance.WithoutUser(from); got != want {
			t.Errorf("%s: got %s, want %s", from, got, want)
		}
	}
}
