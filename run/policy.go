package run

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// Policy returns the smallest IAM policy with which the builds of a template can be run
// in AWS, as far as that is known without reading data sources. What is wrong is a
// *[TemplateError]. It is an error if no selected build has a builder or a
// post-processor that needs something there.
func Policy(ctx context.Context, t Template, all engine.Components) (amazon.Policy, Diagnosis, error) {
	var read, run []amazon.Permitted
	observe := func(found *[]amazon.Permitted) func(any) {
		return func(component any) {
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
		if v, ok := b.(amazon.Verifying); ok {
			run = append(run, amazon.Verification{Of: v, Boots: p.Boots, Quarantines: p.Quarantines})
		}
		if strings.HasPrefix(p.Reports, s3uri.Scheme) {
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
	doubts, err := check(ctx, t, all, step.Invocation{Env: t.Env, Start: t.Now, Version: config.LanguageVersion}, verified)
	if err != nil {
		return amazon.Policy{}, Diagnosis{}, err
	}
	if len(run) == 0 {
		return amazon.Policy{}, doubts, fmt.Errorf("%s has no build that uses AWS: none of the selected builds has an amazon builder or post-processor", t.Path)
	}
	return amazon.PolicyFor(slices.Concat(read, run)), doubts, nil
}
