package pipeline

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/config"
	"bake/engine"
	"bake/golden/findings"
	"bake/golden/plan"
	"bake/internal/prose"
	"bake/step"
)

// Planned is the decision about a build.
type Planned struct {
	Image   string // its name
	Build   string
	Answer  plan.Answer
	Digest  string            // of the inputs
	Name    string            // of the reused image, in the region of the build
	Images  map[string]string // of the reused images, by region
	Copied  []string          // regions that the images would be copied to
	Unknown string            // why the inputs are not known; empty if they are
}

// static is what is known about the inputs of a build before anything is queried.
type static struct {
	inputs []plan.Input
	again  func() ([]plan.Input, error) // the inputs that are files, with their current content
	files  string                       // the digest of these inputs
}

// inputs determines the inputs of the build, as far as they can be read on this host.
func (p *pipeline) inputs(ctx context.Context, of engine.Materials) (diags hcl.Diagnostics) {
	t := p.Template
	uses, diags := t.Uses(ctx, p.image.Build, of.Incidental, map[string]hcl.Body{"image": p.image.Body})
	if diags.HasErrors() {
		return diags
	}
	files, more := p.files(of.Files)
	if diags = append(diags, more...); diags.HasErrors() {
		return diags
	}
	all := append([]plan.Input(nil), files...)
	all = append(all, p.used(uses)...)
	all = append(all, plan.Text(plan.BuildInput, p.image.Build.Name), plan.Text("bake", p.Version))
	for what, version := range of.Components {
		in := plan.Text("plugin "+what, version)
		in.Shown, _, _ = strings.Cut(version, " ")
		all = append(all, in)
	}
	if rules := p.expired(); len(rules) > 0 {
		all = append(all, plan.Text("expired waivers", strings.Join(rules, " ")))
	}
	for name, parent := range p.Parents {
		all = append(all, plan.Input{Name: "parent " + name, Digest: parent})
	}
	p.static = &static{inputs: all, files: plan.Digest(files), again: func() ([]plan.Input, error) {
		now, wrong := p.files(of.Files)
		if wrong.HasErrors() {
			return nil, wrong
		}
		return now, nil
	}}
	return diags
}

// files returns the inputs that are files which components, the image block and its inputs
// name.
func (p *pipeline) files(read []string) ([]plan.Input, hcl.Diagnostics) {
	h := &hasher{name: p.Template.Relative, cwd: p.Template.Cwd(), done: map[string]plan.Input{}}
	at := p.image.Block.DefRange
	for _, path := range slices.Concat(read, p.image.Reads, p.included(), p.scripts()) {
		if err := h.path(path); err != nil {
			return nil, unreadable(&at, err)
		}
	}
	if o := p.image.Image.Inputs; o != nil {
		at := p.image.Src.Range(&o.Files)
		for _, pattern := range o.Files {
			switch n, err := h.glob(pattern); {
			case err != nil:
				return nil, unreadable(at, err)
			case n == 0:
				return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Subject: at, Summary: "No such files", Detail: fmt.Sprintf("%q matches no file.", pattern)}}
			}
		}
	}
	return h.inputs(), nil
}

// included returns the files that check files include.
func (p *pipeline) included() (all []string) {
	for _, one := range slices.Concat(p.before, p.after) {
		if one.checks != nil {
			all = append(all, one.checks.Files()...)
		}
	}
	return all
}

// expired returns the rules whose waivers have expired: an image that passed because of such a
// waiver must not be reused.
func (p *pipeline) expired() (rules []string) {
	gates := make([]findings.Gate, 0, len(p.before)+len(p.after)+len(p.scanners))
	for _, one := range slices.Concat(p.before, p.after) {
		gates = append(gates, one.gate)
	}
	for _, one := range p.scanners {
		gates = append(gates, one.gate)
	}
	for _, g := range gates {
		for _, w := range g.Waivers {
			if !p.Now().Before(w.Expires) {
				rules = append(rules, w.Rule)
			}
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

func unreadable(at *hcl.Range, err error) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Subject: at, Summary: "Inputs cannot be read", Detail: prose.Sprintf("The inputs of the image cannot be determined: %s.", err)}}
}

// used returns the inputs that the template defines.
func (p *pipeline) used(uses []config.Use) (all []plan.Input) {
	for _, u := range uses {
		switch {
		case u.Secret, u.Value && p.Template.Secrets().Redact(u.Text) != u.Text:
			all = append(all, plan.Input{Name: u.Name, Digest: p.sealed(u.Name, u.Text)})
		case u.Value:
			all = append(all, plan.Text(u.Name, u.Text))
		case strings.HasPrefix(u.Name, plan.FilePrefix):
			all = append(all, plan.Input{Name: u.Name, Digest: u.Text})
		default:
			all = append(all, plan.Of(u.Name, []byte(u.Text)))
		}
	}
	return all
}

// InputsKey is the environment variable with the key for digests of secrets. Without the
// key, the tags of an image reveal nothing about the secrets.
const InputsKey = "BAKE_INPUTS_KEY"

// stretch is the number of hash rounds for each guess of a secret, if the user provides
// no key.
const stretch = 200_000

// sealed returns a digest of a secret that does not reveal it: made with the user's key
// or, without one, with a hash so slow that only a weak secret can be guessed.
func (p *pipeline) sealed(name, secret string) string {
	salt := "bake inputs " + p.image.Name + " " + name
	if p.Key != "" {
		mac := hmac.New(sha256.New, []byte(p.Key))
		mac.Write([]byte(salt + "=" + secret))
		return hex.EncodeToString(mac.Sum(nil))
	}
	sum, err := pbkdf2.Key(sha256.New, secret, []byte(salt), stretch, sha256.Size)
	if err != nil {
		panic(err) // the parameters are those above
	}
	return hex.EncodeToString(sum)
}

// The key under which the inputs of a resumable build are recorded.
const inputsAre = "inputs"

// recorded holds the inputs of a build at its start.
type recorded struct {
	Static string       `json:"static"` // the digest of what was read on this host
	All    []plan.Input `json:"all"`
	Parent string       `json:"parent"`
}

// reuse decides whether the build is needed, and returns the artifact if it is not.
func (p *pipeline) reuse(ctx context.Context, s *step.Scope, b builder.Builder) (*builder.Artifact, error) {
	finder, ok := b.(builder.Reusable)
	if !ok || p.static == nil {
		return nil, p.built(ctx, s, plan.Answer{Reason: "its builder cannot tell which images it has made"}, nil)
	}
	return step.Do(ctx, s, "see whether there is such an image", func(ctx context.Context) (*builder.Artifact, error) {
		before, err := finder.Lookup(ctx, s, plan.ImageTag, p.image.Name, p.shownRegions())
		if err != nil {
			return nil, err
		}
		all := p.static.inputs
		if before.Source != "" {
			in := plan.Text("source image", before.Source)
			all = append(append([]plan.Input(nil), all...), in)
		}
		q := plan.Question{Inputs: all, Targets: before.Regions, Now: p.Now(), Force: s.Run.Force}
		if o := p.image.Image.Inputs; o != nil {
			q.MaxAge = time.Duration(o.MaxAge)
		}
		found := map[string]builder.ExistingImage{}
		for _, i := range before.Images {
			found[i.ID] = i
			q.Images = append(q.Images, plan.Image{ID: i.ID, Region: i.Region, Created: i.Created, Tags: i.Tags})
		}
		answer, err := sound(ctx, q, found, before.Flaw)
		if err != nil {
			return nil, err
		}
		if len(answer.Reuse) == 0 {
			step.Record(s, inputsAre, recorded{plan.Digest(p.static.inputs), all, before.Source})
			return nil, p.built(ctx, s, answer, all)
		}
		var images []builder.ExistingImage
		ids := map[string]string{}
		name := ""
		for _, i := range answer.Reuse {
			images, ids[i.Region] = append(images, found[i.ID]), i.ID
			if name == "" || i.Region == before.Region {
				name = found[i.ID].Name
			}
			s.Say(ctx, "Reusing image %s in %s (%s), which has the same inputs and is %s old", i.ID, i.Region, found[i.ID].Name, plan.Span(p.Now().Sub(i.Created)))
		}
		one := Planned{Answer: answer, Digest: plan.Digest(all), Images: ids, Name: name}
		one.copies(before.Copies, p.shownRegions())
		p.tell(one, s)
		p.announceEarlier(ctx, s, images[0].Tags)
		return before.Artifact(images), nil
	})
}

// shownRegions returns the regions that a plan reports in addition to the builder's. In
// a run, the distribution examines them itself.
func (p *pipeline) shownRegions() []string {
	if d := p.image.Image.Distribute; d != nil && p.PlanOnly {
		return d.Regions
	}
	return nil
}

// copies adds what is known about the regions that the image is distributed to.
func (one *Planned) copies(found []builder.ExistingImage, regions []string) {
	for _, region := range regions {
		n := slices.IndexFunc(found, func(i builder.ExistingImage) bool {
			return i.Region == region && i.Name == one.Name && i.Tags[plan.InputsTag] == one.Digest
		})
		switch {
		case one.Images[region] != "":
		case n >= 0:
			one.Images[region] = found[n].ID
		default:
			one.Copied = append(one.Copied, region)
		}
	}
}

// sound decides whether to build, after examining the images that would be reused.
func sound(ctx context.Context, q plan.Question, found map[string]builder.ExistingImage, look func(context.Context, builder.ExistingImage) (string, error)) (plan.Answer, error) {
	answer := plan.Decide(q)
	for _, i := range answer.Reuse {
		flaw, err := look(ctx, found[i.ID])
		if err != nil {
			return answer, fmt.Errorf("looking at image %s in %s: %w", i.ID, i.Region, err)
		}
		n := slices.IndexFunc(q.Images, func(one plan.Image) bool { return one.ID == i.ID && one.Region == i.Region })
		if q.Images[n].Flaw = flaw; flaw != "" {
			return plan.Decide(q), nil // no older image is reused either
		}
	}
	return answer, nil
}

// built reports why the build is needed. With ReuseOnly, that is an error.
func (p *pipeline) built(ctx context.Context, s *step.Scope, answer plan.Answer, inputs []plan.Input) error {
	if p.ReuseOnly {
		return fmt.Errorf("the image %s is needed and not built, because of -only or -except, but none can be reused: %s", p.image.Name, answer.Reason)
	}
	s.Say(ctx, "Building %s: %s", p.image.Name, answer.Reason)
	for _, c := range answer.Changes {
		s.Say(ctx, "  %s", c)
	}
	one := Planned{Answer: answer}
	if inputs != nil {
		one.Digest = plan.Digest(inputs)
	}
	p.tell(one, s)
	return nil
}

func (p *pipeline) tell(one Planned, s *step.Scope) {
	one.Image, one.Build = p.image.Name, s.Build
	if p.Planned != nil {
		p.Planned(one)
	}
}

// settled tags the image with its inputs if these are still the same: files may have
// changed since they were read.
func (p *pipeline) settled(ctx context.Context, s *step.Scope) error {
	was, ok := step.Recall[recorded](s, inputsAre)
	if !ok || p.static == nil {
		return nil
	}
	now, err := p.static.again()
	if diags, ok := errors.AsType[hcl.Diagnostics](err); ok {
		err = diags.Errs()[0]
	}
	changed := err == nil && (plan.Digest(now) != p.static.files || plan.Digest(p.static.inputs) != was.Static)
	if err != nil || changed {
		why := "files that it depends on have changed since the build began"
		if err != nil {
			why = err.Error()
		}
		s.Warn(ctx, "The image will not be reused by later runs: %s. If a step of the build makes them, set generated = true where they are uploaded.", why)
		return nil
	}
	for key, value := range plan.Tags(p.image.Name, was.All) {
		p.addTag(s, key, value)
	}
	if was.Parent != "" {
		p.addTag(s, plan.ParentTag, was.Parent)
	}
	return nil
}
