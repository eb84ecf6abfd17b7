package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bake/golden/plan"
	"bake/run"
	"bake/run/localcloud"
	"bake/step"
	"bake/ui/prompt"
)

// planOptions are the flags of bake plan.
type planOptions struct {
	templateFlags
	path            string
	local, detailed bool
	force           bool
	egress          string
}

func (p *program) planCommand() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan TEMPLATE",
		Short: "Say which images would be built, and why",
		Long: `Say of each image of the image blocks beside a template whether bake build would build
it or reuse one that there is, and which inputs have changed since. Nothing is created
or changed. Data sources are read, and AWS is asked for the source images and for the
images with the same name. Of an image that refers to one which would be built it is
not known yet what it would be made of, so that it would be built too.`,
		Example: `  bake plan .
  bake plan -detailed-exitcode -var-file=prod.pkrvars.hcl .`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.plan(ctx, o) })
		},
		Annotations: map[string]string{exitCodes: "0    done\n1    failed\n3    nothing would be built (with -detailed-exitcode alone)"},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.BoolVar(&o.local, "local", false, "use the local cloud instead of AWS; no account needed")
	flags.BoolVar(&o.force, "force", false, "plan a bake build -force, which builds every image")
	flags.BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 3 if nothing would be built")
	o.registerReleases(flags)
	p.jsonFlag(cmd)
	return cmd
}

// planned is what bake plan -json says of a build.
type planned struct {
	Image   string            `json:"image"` // empty: no image block names the build
	Build   string            `json:"build"`
	Action  string            `json:"action"` // build or reuse
	Reason  string            `json:"reason,omitempty"`
	Since   string            `json:"since,omitempty"` // the image that the changes are since
	Changes []plan.Change     `json:"changes"`
	Images  map[string]string `json:"images,omitempty"` // that would be reused, by region
	Copied  []string          `json:"copied,omitempty"` // regions that those would be copied to
	Inputs  string            `json:"inputs,omitempty"` // the digest; empty if it is not known yet
}

func (p *program) plan(ctx context.Context, o planOptions) (err error) {
	template, err := o.template(p, "bake plan", o.path)
	if err != nil {
		return err
	}
	options := run.Options{
		Template: template, Force: o.force, Components: p.components(template.Options, o.releases), Now: p.now, Version: version, Unattended: prompt.ErrNoTerminal,
	}
	if o.local {
		var cloud *localcloud.Cloud
		options.Cloud = func(ctx context.Context, emit func(step.Event)) (_ *localcloud.Cloud, err error) {
			cloud, err = p.openLocal(ctx, o.egress, "", emit)
			return cloud, err
		}
		defer func() {
			if cloud != nil {
				err = errors.Join(err, cloud.Close(ctx))
			}
		}()
	}
	result, err := run.Plan(ctx, options)
	if err != nil {
		return err
	}
	p.diagnostics(result.Files, result.Diags)
	all := plannedAll(result)
	builds := p.showPlanned(all)
	if builds == 0 && len(all) > 0 && o.detailed {
		p.json.outcome = run.OutcomeReused.String()
		return outcomeError{errReported, int(run.OutcomeReused)}
	}
	return nil
}

func plannedAll(result run.Result) (all []planned) {
	named := map[string]bool{}
	for _, one := range result.Planned {
		named[one.Build] = true
		row := planned{Image: one.Image, Build: one.Build, Action: "build", Reason: one.Answer.Reason, Since: one.Answer.Since, Changes: list(one.Answer.Changes), Inputs: one.Digest}
		if one.Unknown != "" {
			row.Reason = one.Unknown
		}
		if len(one.Answer.Reuse) > 0 {
			row.Action, row.Images, row.Copied = "reuse", one.Images, one.Copied
		}
		all = append(all, row)
	}
	for _, b := range result.Builds {
		if !named[b.Name] {
			all = append(all, planned{Build: b.Name, Action: "build", Reason: "no image block names it", Changes: []plan.Change{}})
		}
	}
	return all
}

// showPlanned shows a plan, and says how many builds it has.
func (p *program) showPlanned(all []planned) (builds int) {
	var text strings.Builder
	for _, row := range all {
		name := row.Image
		if name == "" {
			name = row.Build
		}
		if row.Action == "reuse" {
			var ids []string
			for _, region := range slices.Sorted(maps.Keys(row.Images)) {
				ids = append(ids, row.Images[region]+" in "+region)
			}
			fmt.Fprintf(&text, "%s: reuse %s", name, strings.Join(ids, ", "))
			if len(row.Copied) > 0 {
				fmt.Fprintf(&text, "; copy it to %s", strings.Join(row.Copied, ", "))
			}
			text.WriteString("\n")
			continue
		}
		builds++
		fmt.Fprintf(&text, "%s: build, because %s\n", name, row.Reason)
		for _, c := range row.Changes {
			fmt.Fprintf(&text, "  %s\n", c)
		}
	}
	fmt.Fprintf(&text, "%d to build, %d to reuse", builds, len(all)-builds)
	if p.json.on {
		p.json.result = struct {
			Builds []planned `json:"builds"`
		}{list(all)}
		return builds
	}
	p.say(text.String())
	return builds
}
