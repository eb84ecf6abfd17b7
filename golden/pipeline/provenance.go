package pipeline

import (
	"context"
	"crypto"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/golden/attest"
	"bake/golden/reports"
	"bake/internal/prose"
	"bake/step"
)

// openKey opens the key to sign the attestation with, and tests it before anything is
// launched.
func (p *pipeline) openKey() hcl.Diagnostics {
	o := p.image.Image.Provenance
	if o == nil || p.Signer == nil || p.ReuseOnly {
		return nil
	}
	key, err := p.Signer(o.Key)
	if err == nil {
		err = try(key)
	}
	if err != nil {
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot sign", Detail: prose.Sprintf("The attestation of the image could not be signed: %s.", err), Subject: p.image.Src.Range(&o.Key)}}
	}
	p.key = key
	return nil
}

// try signs something, and checks the signature.
func try(key crypto.Signer) error {
	statement, err := attest.New([]attest.Resource{{Name: "trial", Digest: map[string]string{"sha256": reports.Digest(nil)}}}, "urn:bake:trial", struct{}{})
	if err != nil {
		return err
	}
	signed, err := attest.Sign(statement, key)
	if err == nil {
		_, err = attest.Open(signed, key.Public())
	}
	return err
}

// sourceIs is the key under which the source image is recorded.
const sourceIs = "source image"

// remember records the source of the image.
func (p *pipeline) remember(s *step.Scope, m builder.Machine) {
	if id := m.Data["SourceAMI"]; id.Text != "" && !id.Absent && !id.Secret {
		step.Record(s, sourceIs, attest.Image(m.Data["BuildRegion"].Text, id.Text))
	}
}

// The name of the signed attestation in the log, and the extension of its file, which is its
// kind in the log.
const (
	attestation = "attestation"
	attested    = ".provenance.json"
)

// attest writes the signed attestation of the image.
func (p *pipeline) attest(ctx context.Context, s *step.Scope, image builder.Image) error {
	if p.image.Image.Provenance == nil {
		return nil
	}
	return step.Run(ctx, s, "attest the image", func(ctx context.Context) error {
		tags, err := p.imageTags(ctx, s)
		if err != nil {
			return err
		}
		delete(tags, reports.Attestation) // by an earlier process of the run
		id := attest.Identity{Image: p.image.Name, ID: image.ID, Region: image.Region, Account: image.Account, Name: image.Name, Tags: tags}
		provenance, err := p.provenance(s)
		if err != nil {
			return err
		}
		statement, err := attest.Attested(id, tags[reports.Manifest], provenance)
		if err != nil {
			return err
		}
		signed, err := attest.Sign(statement, p.key)
		if err == nil {
			_, err = attest.Open(signed, p.key.Public())
		}
		if err != nil {
			return fmt.Errorf("signing the attestation: %w", err)
		}
		digest, err := p.keep(ctx, s, p.title(s), attested, append(signed, '\n'))
		if err != nil {
			return fmt.Errorf("writing the attestation: %w", err)
		}
		if err := p.announce(ctx, s, attestation, attested, digest); err != nil {
			return err
		}
		p.addTag(s, reports.Attestation, digest)
		s.Say(ctx, "Signed %s", p.Reports.At(fileName(p.title(s))+attested))
		return nil
	})
}

// provenance describes how the image was built.
func (p *pipeline) provenance(s *step.Scope) (attest.Provenance, error) {
	var materials []attest.Resource
	if source, ok := step.Recall[attest.Resource](s, sourceIs); ok {
		materials = append(materials, source)
	}
	var names []string
	for name := range p.Template.Files() { // without the values of variables, which may be secrets
		if strings.HasSuffix(name, ".pkr.hcl") || strings.HasSuffix(name, ".pkr.json") {
			names = append(names, name)
		}
	}
	for _, f := range p.Template.BakeFiles {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		file, err := attest.File(filepath.ToSlash(name), name)
		if err != nil {
			return attest.Provenance{}, fmt.Errorf("a file of the template: %w", err)
		}
		materials = append(materials, file)
	}
	var byproducts []attest.Resource
	kept := p.documents(s)
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		byproducts = append(byproducts, attest.Resource{Name: name, Digest: map[string]string{"sha256": kept[name]}})
	}
	return attest.Provenance{
		BuildDefinition: attest.BuildDefinition{
			BuildType:            attest.BuildType,
			ExternalParameters:   map[string]any{"image": p.image.Name, "build": s.Build, "source": p.image.Build.Type},
			ResolvedDependencies: materials,
		},
		RunDetails: attest.RunDetails{
			Builder:    attest.Builder{ID: attest.BuilderID, Version: map[string]string{"bake": p.Version}},
			Metadata:   attest.Metadata{InvocationID: s.Run.ID, StartedOn: stamp(s.Run.Start), FinishedOn: stamp(p.Now())},
			Byproducts: byproducts,
		},
	}, nil
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
