package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bake/internal/hostpath"
	"bake/internal/local"
	"bake/internal/login"
	"bake/run/localcloud"
)

// cloudRunOptions are the flags of bake cloud run.
type cloudRunOptions struct {
	image                               string
	key, userData, instanceType, region string
	egress, faults                      string
}

func (p *program) cloudRunCommand() *cobra.Command {
	var o cloudRunOptions
	cmd := &cobra.Command{
		Use:   "run IMAGE",
		Short: "Boot an instance of an image until Ctrl-C",
		Long: `Boot an instance of IMAGE, which is an id or a name, print its address and how to
log in, and terminate it on Ctrl-C.`,
		Example: `  bake cloud run ami-0a1b2c3d4e5f60718
  bake cloud run -key ~/.ssh/id_ed25519 'debian-12-amd64-*'`,
		Args: exactly("the image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.image = args[0]
			return p.withLocal(cmd.Context(), o.egress, o.faults, func(ctx context.Context, c *localcloud.Cloud) error { return p.cloudRun(ctx, c, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.key, "key", "", "log in with the private key in this `file`; default: a new key")
	flags.StringVar(&o.userData, "user-data", "", "pass the contents of this `file` to the instance as user data")
	flags.StringVar(&o.instanceType, "type", "t3.micro", "instance `type`: its CPU, memory and process limits apply where the host's control groups allow it (see bake doctor); the size of the root volume is not enforced")
	flags.StringVar(&o.region, "region", local.DefaultRegion, "boot it in this `region`")
	egressFlag(flags, &o.egress)
	faultsFlag(flags, &o.faults)
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudRun(ctx context.Context, c *localcloud.Cloud, o cloudRunOptions) (err error) {
	launch := localcloud.LaunchOptions{Region: o.region, Image: o.image, Type: o.instanceType, KeyFile: o.key}
	if o.userData != "" {
		if launch.UserData, err = hostpath.Read(o.userData, hostpath.Limit); err != nil {
			return fmt.Errorf("-user-data: %w", err)
		}
	}
	instance, err := c.Launch(ctx, launch)
	if err != nil {
		return err
	}
	defer func() {
		p.say("Terminating " + instance.ID)
		err = errors.Join(err, instance.Terminate(context.WithoutCancel(ctx)))
	}()
	err = instance.Running(ctx)
	if context.Cause(ctx) != nil {
		return nil // it was to be ended before it ran
	}
	if err != nil {
		return err
	}
	instance.AwaitSSH(ctx)
	p.runs(instance)
	if text := c.Dependence(); text != "" {
		p.say(text)
	}
	<-ctx.Done()
	return nil
}

// runs prints where an instance can be reached.
func (p *program) runs(i *localcloud.Instance) {
	machine := login.Machine{User: i.User(), Host: i.Address, Port: 22, KeyFile: i.KeyFile}
	if localcloud.ServedPort(22) != 22 {
		machine.Proxy = ncProxy()
	}
	how := machine.Command()
	web := "http://" + i.Address + "/"
	if at := localcloud.ServedPort(80); at != 80 {
		web = fmt.Sprintf("http://%s:%d/", i.Address, at)
	}
	if p.json.on {
		p.writeJSON(p.header("ready"), struct {
			Instance string           `json:"instance"`
			Image    localcloud.Image `json:"image"`
			Address  string           `json:"address"`
			User     string           `json:"user"`
			KeyFile  string           `json:"key_file"`
			Login    string           `json:"login"` // a shell command
			HTTP     string           `json:"http"`  // URL of the machine's port 80
		}{i.ID, i.Image, i.Address, i.User(), i.KeyFile, how, web})
	}
	p.say(fmt.Sprintf("%s, an instance of %s (%s), runs at %s\nLog in:  %s\nHTTP:    %s\n%sCtrl-C terminates it.",
		i.ID, i.Image.ID, i.Image.Name, i.Address, how, web, movedPorts()))
}
