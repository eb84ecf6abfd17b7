package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/run"
	"bake/run/cloudinit"
	"bake/step"
)

// guestFlags define the machine that is launched from an existing image to examine it.
type guestFlags struct {
	placeFlags
	boot  images.BootOptions
	iface choice
}

func (f *guestFlags) register(p *program, flags *pflag.FlagSet) {
	flags.StringVar(&f.region, "region", "", "`region` of the image, to launch the machine in; default: the usual AWS settings")
	flags.StringVar(&f.profile, "profile", "", "AWS `profile` to take credentials from; default: the usual AWS settings")
	flags.BoolVar(&f.local, "local", false, "use the local cloud instead of AWS")
	flags.StringVar(&f.boot.InstanceType, "instance-type", "", "instance `type` of the machine; default: t3.micro, or a type that suits the image")
	flags.StringVar(&f.boot.User, "user", "", "login `user` of the machine; default: the known login user of the image")
	flags.StringVar(&f.boot.Subnet, "subnet", "", "`subnet` to launch the machine in; default: one of the default VPC")
	f.iface = choice{values: images.Interfaces()}
	flags.Var(&f.iface, "ssh-interface", "`address` to log in to: "+strings.Join(images.Interfaces(), ", ")+"; default: the public address, or the private one if there is none")
	p.exitCodesFlag(flags, &f.exitCodes)
}

// guestNames returns the names of the flags, except those that other commands also have.
func guestNames() []string {
	return []string{"region", "profile", "local", "instance-type", "user", "subnet", "ssh-interface"}
}

// withGuest launches a machine from an image, calls use once cloud-init has finished
// there, and deletes the machine in every case; if bake is killed, a sweep deletes it.
// Progress is shown on standard error.
func (p *program) withGuest(cmd *cobra.Command, f *guestFlags, image string, use func(context.Context, *step.Scope, images.Image, builder.Machine) error) error {
	state, err := p.env.state()
	if err != nil {
		return err
	}
	patience, err := p.env.cloudInit("", cmd.CommandPath())
	if err != nil {
		return err
	}
	f.boot.Interface = f.iface.value
	emit, done := p.progressDisplay()
	shown := func() {
		if done != nil {
			done()
		}
		done = nil
	}
	defer shown()
	return p.onAccount(cmd, &f.placeFlags, emit, func(ctx, stop context.Context, a *images.Account) error {
		task := run.TaskOptions{State: state, Command: p.commandLine(), Name: "image", Emit: emit, Now: p.now, Stop: stop}
		id, err := run.Task(ctx, task, func(ctx context.Context, s *step.Scope) error {
			return a.Boot(ctx, s, image, f.boot, func(ctx context.Context, i images.Image, m builder.Machine) error {
				if err := cloudinit.Wait(ctx, s, m, cloudinit.Limit{Timeout: patience, SetBy: cloudinit.Variable}); err != nil {
					return err
				}
				return use(ctx, s, i, m)
			})
		})
		shown()
		if left := leftBy(err); len(left) > 0 {
			fmt.Fprintln(p.stderr, leftText(id, left))
		}
		return err
	})
}
