package run

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/builder/amazon/kmskey"
	"bake/component"
	"bake/config"
	"bake/config/lang"
	"bake/engine"
	"bake/internal/s3uri"
	"bake/step"
)

// PolicyFor says of what of a template a policy is; its zero value is all of it, in AWS as it
// says itself.
type PolicyFor struct {
	// Regions are those that the cells of a fleet hold everything to. Then the policy is that
	// of their roles, which do not write the reports.
	Regions []string
	Images  []config.Instance // of the fleet

	// Besides is what a worker of a fleet needs as well. Then, without Images, that is all.
	Besides []amazon.Permitted
}

// Policy returns the smallest IAM policy with which the builds of a template can be run
// in AWS, as far as that is known without reading data sources. What is wrong is a
// *[TemplateError]. It is an error if no selected build has a builder or a
// post-processor that needs something there.
func Policy(ctx context.Context, t Template, all engine.Components, of PolicyFor) (amazon.Policy, Diagnosis, error) {
	hold := func(component any) {
		if c, ok := component.(amazon.Held); ok && len(of.Regions) > 0 {
			c.HoldTo(of.Regions[0])
		}
	}
	var read, run []amazon.Permitted
	observe := func(found *[]amazon.Permitted) func(any) {
		return func(component any) {
			hold(component)
			switch c := component.(type) {
			case amazon.Permitted:
				*found = append(*found, c)
			case amazon.Signing:
				if uri := c.SigningKey(); uri != "" {
					*found = append(*found, amazon.SigningKey(uri))
				}
			}
		}
	}
	all.DataSources = component.Observe(all.DataSources, observe(&read))
	all.Builders, all.PostProcessors = component.Observe(all.Builders, observe(&run)), component.Observe(all.PostProcessors, observe(&run))
	t.SecretsManager = func(_ context.Context, name string) (string, error) {
		read = append(read, amazon.Secret(name))
		return "", lang.ErrNotLookedUp
	}
	verified := func(b builder.Builder, p *engine.Pipeline) {
		hold(b)
		if v, ok := b.(amazon.Verifying); ok {
			run = append(run, amazon.Verification{Of: v, Boots: p.Boots, Quarantines: p.Quarantines})
		}
		if strings.HasPrefix(p.Reports, s3uri.Scheme) && len(of.Regions) == 0 {
			run = append(run, amazon.Documents(p.Reports))
		}
		if strings.HasPrefix(p.Key, kmskey.Scheme) {
			run = append(run, amazon.SigningKey(p.Key))
		}
		if p.Done != nil && images.Distributes(b) {
			run = append(run, images.Retiring{})
		}
		if p.Distribute != nil && images.Distributes(b) {
			run = append(run, images.HandingOut{Of: b, To: p.To, Parameters: p.Parameters})
		}
	}
	doubts := Diagnosis{Files: map[string]*hcl.File{}}
	look := func() error {
		found, err := check(ctx, t, all, step.Invocation{Env: t.Env, Start: t.Now, Version: config.LanguageVersion}, verified)
		doubts.Diags = config.Merge(doubts.Diags, found.Diags)
		maps.Copy(doubts.Files, found.Files)
		return err
	}
	var err error
	if len(of.Images)+len(of.Besides) == 0 {
		err = look()
	}
	for i := 0; i < len(of.Images) && err == nil; i++ {
		t.Instance = &of.Images[i]
		err = look()
	}
	if err != nil {
		return amazon.Policy{}, Diagnosis{}, err
	}
	if len(run)+len(of.Besides) == 0 {
		return amazon.Policy{}, doubts, fmt.Errorf("%s has no build that uses AWS: none of the selected builds has an amazon builder or post-processor", t.Path)
	}
	policy := amazon.PolicyFor(slices.Concat(read, run, of.Besides))
	if len(of.Regions) > 1 {
		policy = policy.Across(of.Regions[0], of.Regions)
	}
	return policy, doubts, nil
}
