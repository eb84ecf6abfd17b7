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

// PolicyFor is the scope of a policy; its zero value is the whole template, in the account
// and region that the template sets.
type PolicyFor struct {
	// Regions are the regions that the cells of a fleet are restricted to. If they are
	// set, the policy is for the cells' roles, which do not write the reports.
	Regions []string
	Images  []config.Instance // of the fleet

	// Besides are further permissions that a worker of a fleet needs. Without Images, the
	// policy consists of these alone.
	Besides []amazon.Permitted
}

// Policy returns the smallest IAM policy with which the builds of a template can be run in
// AWS, as far as that is known without reading data sources. Template errors are returned
// as a *[TemplateError]. It is an error if no selected build has a builder or a
// post-processor that needs permissions.
func Policy(ctx context.Context, t Template, all engine.Components, of PolicyFor) (amazon.Policy, Diagnosis, error) {
	c := callers{regions: of.Regions}
	all.DataSources = component.Observe(all.DataSources, c.observe(&c.read))
	all.Builders, all.PostProcessors = component.Observe(all.Builders, c.observe(&c.run)), component.Observe(all.PostProcessors, c.observe(&c.run))
	t.SecretsManager = func(_ context.Context, name string) (string, error) {
		c.read = append(c.read, amazon.Secret(name))
		return "", lang.ErrNotLookedUp
	}
	doubts := Diagnosis{Files: map[string]*hcl.File{}}
	look := func() error {
		found, err := check(ctx, t, all, step.Invocation{Env: t.Env, Start: t.Now, Version: config.LanguageVersion}, c.pipeline)
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
	if len(c.run)+len(of.Besides) == 0 {
		return amazon.Policy{}, doubts, fmt.Errorf("%s has no build that uses AWS: none of the selected builds has an amazon builder or post-processor", t.Path)
	}
	policy := amazon.PolicyFor(slices.Concat(c.read, c.run, of.Besides))
	if len(of.Regions) > 1 {
		policy = policy.Across(of.Regions[0], of.Regions)
	}
	return policy, doubts, nil
}

// callers are the components of a template that call AWS, in the order of discovery.
type callers struct {
	regions   []string // the regions of the policy; empty: as in the options
	read, run []amazon.Permitted
}

// hold sets the region of a component to the first region of the policy, if any is given.
func (c *callers) hold(part any) {
	if h, ok := part.(amazon.Regional); ok && len(c.regions) > 0 {
		h.SetRegion(c.regions[0])
	}
}

// observe returns a function that adds a component to found if it calls AWS.
func (c *callers) observe(found *[]amazon.Permitted) func(any) {
	return func(part any) {
		c.hold(part)
		switch part := part.(type) {
		case amazon.Permitted:
			*found = append(*found, part)
		case amazon.Signing:
			if uri := part.SigningKey(); uri != "" {
				*found = append(*found, amazon.SigningKey(uri))
			}
		}
	}
}

// pipeline adds the permissions that the pipeline of a build's image needs.
func (c *callers) pipeline(b builder.Builder, p *engine.Pipeline) {
	c.hold(b)
	if v, ok := b.(amazon.Verifying); ok {
		c.run = append(c.run, amazon.Verification{Of: v, Boots: p.Boots, Quarantines: p.Quarantines})
	}
	if strings.HasPrefix(p.Reports, s3uri.Scheme) && len(c.regions) == 0 {
		c.run = append(c.run, amazon.Documents(p.Reports))
	}
	if strings.HasPrefix(p.Key, kmskey.Scheme) {
		c.run = append(c.run, amazon.SigningKey(p.Key))
	}
	if p.Done != nil && images.Distributes(b) {
		c.run = append(c.run, images.RetentionPermissions{})
	}
	if p.Distribute != nil && images.Distributes(b) {
		c.run = append(c.run, images.DistributionPermissions{Of: b, To: p.To, Parameters: p.Parameters})
	}
}
