// Package provenance is the post-processor that writes attestations of how an artifact
// was built and what it contains.
package provenance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/golden/attest"
	"bake/golden/contents"
	"bake/internal/envvar"
	"bake/internal/hostpath"
	"bake/internal/release"
	"bake/internal/wholefile"
	"bake/postprocessor"
	"bake/step"
)

// KMS opens the key with a URI "awskms://…"; env is the environment as "NAME=value".
type KMS func(ctx context.Context, env []string, uri string) (crypto.Signer, error)

// Factory returns the factory of the provenance post-processor. now is the clock.
func Factory(now func() time.Time, kms KMS) component.Factory[postprocessor.PostProcessor] {
	return component.Define("provenance", defaults,
		func(o *Options, src *schema.Source) postprocessor.PostProcessor { return &provenance{o, src, now, kms} })
}

type provenance struct {
	*Options
	src *schema.Source
	now func() time.Time
	kms KMS
}

// Process implements [postprocessor.PostProcessor]. It returns the artifact unchanged.
func (p *provenance) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	if p.Provenance {
		if err := p.attest(ctx, s, in); err != nil {
			return nil, postprocessor.MustKeep, err
		}
	}
	return in, postprocessor.MustKeep, nil
}

// run is one call of Process.
type run struct {
	*provenance
	scope    *step.Scope
	subjects []attest.Resource
	base     string // of the paths of the output files
	key      crypto.Signer
	verifier crypto.PublicKey
}

func (p *provenance) attest(ctx context.Context, s *step.Scope, in *builder.Artifact) error {
	r := &run{provenance: p, scope: s}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := r.name(in); err != nil {
		return err
	}
	if err := r.keys(ctx); err != nil {
		return err
	}
	var sbom []byte
	if p.SBOM {
		var err error
		if sbom, err = r.sbom(in); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(r.base), 0o755); err != nil {
		return p.src.Errorf(&p.OutputDir, "Cannot write attestations", "%s.", err)
	}
	if err := r.write(ctx, ".provenance.json", attest.SLSA, r.predicate(ctx, in)); err != nil {
		return err
	}
	if !p.SBOM {
		return nil
	}
	format, kind := contents.Format(p.SBOMFormat), attest.CycloneDX
	if format == contents.SPDX {
		kind = attest.SPDX
	}
	if err := r.file(ctx, ".sbom"+format.Extension(), sbom); err != nil {
		return err
	}
	return r.write(ctx, ".sbom.att.json", kind, json.RawMessage(sbom))
}

// name determines the subjects, and the file name of their attestations: that of the
// first file, the image or the source.
func (r *run) name(in *builder.Artifact) error {
	dir, name := ".", r.scope.SourceName
	for i, path := range in.Files {
		base := filepath.Base(path)
		if slices.ContainsFunc(r.subjects, func(s attest.Resource) bool { return s.Name == base }) {
			base = filepath.ToSlash(path)
		}
		subject, err := attest.File(base, path)
		if err != nil {
			return fmt.Errorf("a file of the artifact: %w", err)
		}
		if r.subjects = append(r.subjects, subject); i == 0 {
			dir, name = filepath.Dir(path), filepath.Base(path)
		}
	}
	for i, region := range slices.Sorted(maps.Keys(in.Images)) {
		if r.subjects = append(r.subjects, attest.Image(region, in.Images[region])); i == 0 && len(in.Files) == 0 {
			name = in.Images[region]
		}
	}
	if len(r.subjects) == 0 {
		if in.ID == "" {
			return errors.New("provenance: the artifact has no files, no images and no ID: there is nothing to attest")
		}
		r.subjects = []attest.Resource{{Name: in.ID, Digest: map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(in.ID)))}}}
	}
	if r.OutputDir != "" {
		dir = r.OutputDir
	}
	r.base = filepath.Join(dir, name)
	return nil
}

// SigningKey returns the URI of the key in a key service that signs the attestations, so
// that its use can be permitted. Unknown parts are "*". It returns "" if there is no
// attestation to sign.
func (p *provenance) SigningKey() string {
	if p.Provenance || !p.src.Known(&p.Provenance) {
		switch field, key := p.signer(); {
		case p.SigningMode != "kms" && p.src.Known(&p.SigningMode):
		case !p.src.Known(&p.Signer), !p.src.Known(field):
			return "awskms:///*"
		default:
			return key
		}
	}
	return ""
}

// keys opens the key to sign with, and the one to check signatures with.
func (r *run) keys(ctx context.Context) (err error) {
	field, from := r.signer()
	pass := envvar.Get(r.scope.Run.Env, attest.PassphraseVar)
	switch r.SigningMode {
	case "key":
		r.key, err = attest.PrivateKey(from, pass)
	case "kms":
		r.key, err = r.kms(ctx, r.scope.Run.Env, from)
	default:
		return nil
	}
	if err != nil {
		return r.src.Errorf(field, "Cannot sign", "%s.", err)
	}
	if r.verifier = r.key.Public(); r.Verifier != "" {
		if r.verifier, err = attest.PublicKey(r.Verifier, pass); err != nil {
			return r.src.Errorf(&r.Verifier, "Cannot verify", "%s.", err)
		}
		if !attest.SameKey(r.verifier, r.key.Public()) {
			return r.src.Errorf(&r.Verifier, "Another key", "%s is not the public key of %s.", r.Verifier, from)
		}
	}
	return nil
}

// predicate returns the provenance.
func (r *run) predicate(ctx context.Context, in *builder.Artifact) attest.Provenance {
	builds := r.OnlyBuilds
	if len(builds) == 0 && r.scope.Build != "" {
		builds = []string{r.scope.Build}
	}
	parameters := map[string]any{"source": r.scope.SourceType + "." + r.scope.SourceName}
	if len(builds) > 0 {
		parameters["only_builds"] = builds
	}
	if vars := r.variables(); len(vars) > 0 {
		parameters["user_variables"] = vars
	}
	var dependencies []attest.Resource
	if source := r.sourceOf(ctx); source.URI != "" {
		dependencies = append(dependencies, source)
	}
	if r.Template != "" {
		parameters["template"] = r.Template
		if info, err := os.Stat(r.Template); err == nil && info.Mode().IsRegular() {
			if file, err := attest.File(filepath.ToSlash(r.Template), r.Template); err == nil {
				dependencies = append(dependencies, file)
			}
		}
	}
	if id := in.Data["SourceAMI"]; id.Text != "" && !id.Absent && !id.Secret {
		dependencies = append(dependencies, attest.Image(in.Data["BuildRegion"].Text, id.Text))
	}
	return attest.Provenance{
		BuildDefinition: attest.BuildDefinition{BuildType: r.BuildType, ExternalParameters: parameters, ResolvedDependencies: dependencies},
		RunDetails: attest.RunDetails{
			Builder:  attest.Builder{ID: attest.BuilderID, Version: map[string]string{"bake": release.Version}},
			Metadata: attest.Metadata{InvocationID: r.scope.Run.ID, StartedOn: stamp(r.scope.Run.Start), FinishedOn: stamp(r.now())},
		},
	}
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

const sensitive = "<sensitive>"

// variables returns user_variables with secrets masked.
func (r *run) variables() map[string]string {
	hidden := strings.FieldsFunc(r.UserVariables["packer_sensitive_variables"], func(c rune) bool { return strings.ContainsRune(", []\"\n", c) })
	out := map[string]string{}
	for name, value := range r.UserVariables {
		if redact := r.scope.Run.Redact; redact != nil && redact(value) != value || slices.Contains(hidden, name) {
			value = sensitive
		}
		out[name] = value
	}
	return out
}

// sbom makes the SBOM, or reads an existing one.
func (r *run) sbom(in *builder.Artifact) ([]byte, error) {
	path := r.SBOMScanPath
	if path == "" {
		dirs := map[string]bool{}
		for _, f := range in.Files {
			dirs[filepath.Dir(f)] = true
			path = filepath.Dir(f)
		}
		if len(dirs) != 1 {
			return nil, r.src.Errorf(&r.SBOM, "Nothing to scan", "The artifact has no files in one directory. Set sbom_scan_path to a directory, or to an SBOM such as one that the provisioner hcp-sbom wrote.")
		}
	}
	fail := func(err error) error {
		return r.src.Errorf(&r.SBOMScanPath, "No SBOM", "%s: %s. Set sbom_scan_path to the root of a system's files, or to an SBOM such as one that the provisioner hcp-sbom wrote.", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fail(err)
	}
	if !info.IsDir() {
		text, err := hostpath.Read(path, hostpath.Limit)
		if err != nil {
			return nil, fail(err)
		}
		format, err := contents.Recognize(text)
		if err == nil && string(format) != r.SBOMFormat {
			err = fmt.Errorf("it is in format %s, and sbom_format is %s", format, r.SBOMFormat)
		}
		if err != nil {
			return nil, fail(err)
		}
		return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), nil
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fail(err)
	}
	defer root.Close()
	c, err := contents.FromFS(root.FS())
	if err != nil {
		return nil, fail(err)
	}
	c.Exclude(r.SBOMExclude)
	var b bytes.Buffer
	err = c.Write(&b, contents.Format(r.SBOMFormat), contents.Document{Name: r.scope.SourceName, Time: r.scope.Run.Start, Version: release.Version})
	return b.Bytes(), err
}

// write writes a statement, signed if there is a key.
func (r *run) write(ctx context.Context, end, kind string, predicate any) error {
	text, err := attest.New(r.subjects, kind, predicate)
	if err != nil {
		return err
	}
	if r.key != nil {
		field, from := r.signer()
		if text, err = attest.Sign(text, r.key); err != nil {
			return r.src.Errorf(field, "Cannot sign", "%s: %s.", from, err)
		}
		if _, err := attest.Open(text, r.verifier); err != nil {
			return r.src.Errorf(field, "Cannot verify", "The signature by %s does not verify: %s.", from, err)
		}
	}
	return r.file(ctx, end, append(text, '\n'))
}

func (r *run) file(ctx context.Context, end string, text []byte) error {
	path := r.base + end
	err := wholefile.WriteData(path, 0o644, text)
	if err != nil {
		return r.src.Errorf(&r.OutputDir, "Cannot write attestations", "%s.", err)
	}
	what := "Wrote"
	if r.key != nil && end != ".sbom.cdx.json" && end != ".sbom.spdx.json" {
		what = "Signed"
	}
	r.scope.Say(ctx, "%s %s", what, path)
	return nil
}
