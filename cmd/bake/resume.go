package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bake/config"
	"bake/engine"
	"bake/run"
)

// resumeOptions are the flags of bake resume.
type resumeOptions struct {
	displayOptions
	templateFlags // of which it has -var and -ignore-prerelease-plugins
	from          string
	egress        string
	onError       choice
	timeout       time.Duration
	force         bool

	exitCodes choice
}

func (p *program) resumeCommand() *cobra.Command {
	o := resumeOptions{onError: choice{"", []string{string(engine.Cleanup), string(engine.Abort), string(engine.Keep)}}}
	cmd := &cobra.Command{
		Use:   "resume [RUN]",
		Short: "Resume a run that was killed or kept",
		Long: `Resume a run of bake build that was killed, lost power, failed with -on-error=keep or
abort, or failed in its post-processors. It continues after the last finished step:
provisioners are not run again, existing images and copies are used, and those still in
progress are waited for.

RUN is the ID of a run, or its beginning, as bake runs lists it; the default is the newest
run that can be resumed. The template and the variables must not have changed. Sensitive
values that were set with -var are not stored and must be given again.

If the provisioners of a build had not finished, it can only be resumed with -from, which
runs them again on its machine, starting with the given one; with -force, it uses the
current template. A build whose machine no longer exists cannot be resumed. For builds of
amazon-chroot, null, file and plugins, only the post-processors can be resumed, once they
have started. 'bake sweep -run RUN' deletes the resources of a run that cannot be resumed.`,
		Example: `  bake resume
  bake resume 5e0d7c1e
  bake resume 5e0d7c1e -from install -force
  bake resume 5e0d7c1e -var password=secret`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{"bake resume takes at most one run", cmd.CommandPath()}
			}
			asked(cmd, "timeout", &o.timeout)
			failure, err := p.resume(cmd.Context(), strings.Join(args, ""), o)
			return p.ended(failure, err, o.exitCodes)
		},
		Annotations: map[string]string{exitCodes: runExitCodes},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&o.vars, "var", nil, "set a sensitive variable of the template again: `name=value`; repeatable")
	flags.StringVar(&o.from, "from", "", "run the provisioners again, starting with this `provisioner`: its name, type or number")
	o.registerReleases(flags)
	egressFlag(flags, &o.egress)
	flags.Var(&o.onError, "on-error", "`action` to take when a step fails: cleanup, abort or keep; default: that of the run")
	flags.DurationVar(&o.timeout, "timeout", 0, "cancel the run after this `duration`, such as 45m; 0 for no limit")
	flags.BoolVar(&o.force, "force", false, "resume even if the template or the version of bake has changed")
	p.exitCodesFlag(flags, &o.exitCodes)
	flags.BoolVar(&o.color, "color", true, "disable colored output")
	flags.BoolVar(&o.timestamps, "timestamp-ui", false, "prefix each line of a build's output with a timestamp")
	p.jsonFlag(cmd)
	return cmd
}

// resume returns how the run ended, and an error that still has to be reported.
func (p *program) resume(ctx context.Context, prefix string, o resumeOptions) (failure, err error) {
	if err := p.env.checkExitCodes(); err != nil {
		return err, err
	}
	if o.timeout < 0 && o.timeout != run.NoTimeout {
		err := usageError{"-timeout cannot be negative", "bake resume"}
		return err, err
	}
	state, err := p.env.state()
	if err != nil {
		return err, err
	}
	memory, err := state.Resumable(prefix, o.from != "")
	if err != nil {
		return err, err
	}
	if o.egress != "" && !memory.Local {
		err := usageError{fmt.Sprintf("-allow-egress applies to the local cloud only, and run %s is not on it", memory.Run), "bake resume"}
		return err, err
	}
	template := run.Template{Options: config.Options{Vars: o.vars, Env: p.env, Path: memory.Path, Cwd: memory.Cwd, Secrets: p.log.secrets}}
	options := run.Options{Template: template, State: state, ID: memory.Run, OnError: engine.OnError(o.onError.value), Timeout: o.timeout}
	shown := buildOptions{displayOptions: o.displayOptions, templateFlags: o.templateFlags, egress: o.egress, local: memory.Local}
	return p.bake(ctx, shown, options, func(ctx context.Context, b run.Options) (run.Result, error) {
		return run.Resume(ctx, run.ResumeOptions{Options: b, Run: memory.Run, From: o.from, Changed: o.force})
	})
}
