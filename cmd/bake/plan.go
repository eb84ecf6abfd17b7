package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

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
		Short: "Show which images would be built, and why",
		Long: `Show for each image block beside a template whether bake build would build the image or
reuse an existing one, and which inputs have changed. Nothing is created or changed. Data
sources are read, and AWS is queried for source images and for existing images. An image
whose parent image would be built would be built too.`,
		Example: `  bake plan .
  bake plan -detailed-exitcode -var-file=prod.pkrvars.hcl .`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.plan(ctx, o) })
		},
		Annotations: map[string]string{exitCodes: "0    done\n1    failed\n3    nothing would be built (only with -detailed-exitcode)"},
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
	failed, some := errors.AsType[*run.FailedError](err)
	if err != nil && !some {
		return err
	}
	p.diagnostics(result.Files, result.Diags)
	all := result.Plan()
	builds := 0
	var text strings.Builder
	for _, b := range all {
		if b.Action == run.Builds {
			builds++
		}
		fmt.Fprintln(&text, b)
	}
	p.say(fmt.Sprintf("%s%d to build, %d to reuse", &text, builds, len(all)-builds))
	p.json.result = struct {
		Builds []run.PlannedBuild `json:"builds"`
	}{list(all)}
	if some { // the plan of the others has been shown
		return notShown(failed)
	}
	if builds == 0 && len(all) > 0 && o.detailed {
		p.json.outcome = run.OutcomeReused.String()
		return outcomeError{errReported, int(run.OutcomeReused)}
	}
	return nil
}

// notShown returns the errors other than those of the template, which have been shown.
func notShown(failed *run.FailedError) error {
	rest := *failed
	rest.Errs = slices.DeleteFunc(slices.Clone(failed.Errs), func(err error) bool {
		_, shown := errors.AsType[hcl.Diagnostics](err)
		return shown
	})
	if len(rest.Errs) == 0 {
		return errReported
	}
	return &rest
}
