package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/communicator"
	"bake/golden/asroot"
	"bake/golden/contents"
	"bake/internal/prose"
	"bake/run/host"
	"bake/step"
)

// sbomOptions are the flags of bake sbom.
type sbomOptions struct {
	host    hostFlags
	guest   guestFlags
	format  choice
	exclude []string
}

func (p *program) sbomCommand() *cobra.Command {
	var o sbomOptions
	cmd := &cobra.Command{
		Use:   "sbom [IMAGE]",
		Short: "Write the SBOM of an image or a machine",
		Long: `Write a software bill of materials (SBOM) to standard output: of an image, given by its ID
or name, or with -host of an existing machine, over SSH. To read an image, bake launches a
machine from it, with its own key and security group, and always deletes it again; if bake
is killed, 'bake sweep' deletes it. Nothing is installed on the machine. Anything that
could not be read is reported on standard error and noted in the document.`,
		Example: `  bake sbom ami-0123456789abcdef0 -region eu-west-1 >web.cdx.json
  bake sbom -local web-20261128 -format spdx
  bake sbom -host ssh://admin@198.51.100.7`,
		Annotations: map[string]string{exitCodes: `0    done
1    the machine could not be read, or the command line is wrong
4    something of the machine of an image was left behind
5    the cloud refused to launch a machine of the image
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: only 0 and 1.`},
		Args: atMost("an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd, args); err != nil {
				return err
			}
			if len(args) == 1 {
				return p.imageSBOM(cmd, &o, args[0])
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.hostSBOM(ctx, &o) })
		},
	}
	flags := cmd.Flags()
	o.host.register(flags, "read")
	o.guest.register(p, flags)
	o.format = choice{values: []string{string(contents.CycloneDX), string(contents.SPDX)}, value: string(contents.CycloneDX)}
	flags.Var(&o.format, "format", "`format` of the SBOM: cyclonedx (1.6) or spdx (2.3)")
	flags.StringArrayVar(&o.exclude, "exclude", nil, "exclude packages that were found only at paths matching this `pattern`, such as /opt/**; repeatable")
	return cmd
}

// check complains about flags that do not go together.
func (o *sbomOptions) check(cmd *cobra.Command, args []string) error {
	usage := func(format string, args ...any) error {
		return usageError{fmt.Sprintf(format, args...), cmd.CommandPath()}
	}
	others, what := hostNames(), "an image"
	switch {
	case len(args) == 1 && o.host.Host != "":
		return usage("name either an image or a machine with -host, not both")
	case len(args) == 0 && o.host.Host == "":
		return usage("name an image, or a machine with -host, such as ssh://admin@198.51.100.7")
	case len(args) == 0:
		others, what = guestNames(), "-host"
	}
	for _, other := range others {
		if cmd.Flags().Changed(other) {
			return usage("-%s cannot be combined with %s", other, what)
		}
	}
	if wrong := contents.CheckPatterns(o.exclude); wrong != "" {
		return usage("-exclude: %s", wrong)
	}
	if len(args) == 1 {
		return nil
	}
	if err := o.host.check(); err != nil {
		return usage("%s", err)
	}
	return nil
}

// hostFlags define an existing machine to log in to.
type hostFlags struct {
	host.Options
	keys choice
}

// register registers the flags of a command that does what with the machine.
func (f *hostFlags) register(flags *pflag.FlagSet, what string) {
	flags.StringVar(&f.Host, "host", "", "machine to "+what+": ssh://[USER@]HOST[:PORT]")
	flags.StringVarP(&f.KeyFile, "identity", "i", "", "private key `file` to log in with; default: the SSH agent's keys, or one of ~/.ssh")
	flags.StringVar(&f.Bastion, "bastion", "", "bastion `host` to connect through, in the format of -host")
	flags.StringVar(&f.KnownHosts, "known-hosts", "", "`file` of known host keys; default: ~/.ssh/known_hosts")
	f.keys = choice{values: host.KeyChecks(), value: host.KeyChecks()[0]}
	flags.Var(&f.keys, "host-key-check", "host key `policy`: strict (known keys only), pin (any key, if none is known), or off")
}

// hostNames returns the names of the flags.
func hostNames() []string {
	return []string{"host", "identity", "bastion", "known-hosts", "host-key-check"}
}

func (f *hostFlags) check() error {
	f.HostKeyCheck = f.keys.value
	return f.Check()
}

func (p *program) hostSBOM(ctx context.Context, o *sbomOptions) (err error) {
	emit, done := p.progressDisplay()
	o.host.Env, o.host.Emit = p.env, emit
	m, err := host.Connect(ctx, o.host.Options)
	done()
	if err != nil {
		return fmt.Errorf("%s: %w", o.host.Host, err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	all, err := read(ctx, m)
	if err != nil {
		return fmt.Errorf("%s: %w", o.host.Host, err)
	}
	return p.writeSBOM(o, all, "")
}

func (p *program) imageSBOM(cmd *cobra.Command, o *sbomOptions, image string) error {
	var all *contents.Contents
	name := ""
	err := p.withGuest(cmd, &o.guest, image, func(ctx context.Context, s *step.Scope, i images.Image, m builder.Machine) error {
		name = i.ID
		return step.Run(ctx, s, "read what is installed", func(ctx context.Context) (err error) {
			all, err = read(ctx, m)
			return err
		})
	})
	if all != nil {
		err = errors.Join(err, p.writeSBOM(o, all, name))
	}
	return p.ended(err, err, o.guest.exitCodes)
}

// read reads the list of the software on a machine.
func read(ctx context.Context, m communicator.Communicator) (*contents.Contents, error) {
	return contents.FromMachine(ctx, func(ctx context.Context, script string, out io.Writer) error {
		return asroot.Attempt(ctx, m, script, out)
	}, "/")
}

// writeSBOM writes the document to standard output.
func (p *program) writeSBOM(o *sbomOptions, all *contents.Contents, name string) error {
	for _, problem := range all.Problems {
		fmt.Fprintf(p.stderr, "Warning: missing in the SBOM: %s\n", prose.Printable(problem))
	}
	all.Exclude(o.exclude)
	var b bytes.Buffer
	if err := all.Write(&b, contents.Format(o.format.value), contents.Document{Name: name, Time: p.now(), Version: version}); err != nil {
		return err
	}
	_, err := p.stdout.Write(b.Bytes())
	return err
}
