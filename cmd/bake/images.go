package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder/amazon/images"
	"bake/golden/channels"
	"bake/internal/prose"
	"bake/run"
	"bake/run/localcloud"
	"bake/step"
)

// imagesExitCodes are those of the commands that only read images.
const imagesExitCodes = `0    done
1    failed: there is no such image, the command line is wrong, or any other reason
5    the cloud refused to answer, or could not be reached
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: only 0 and 1.`

func (p *program) imagesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "images",
		Short: "Manage existing images, in AWS or on the local cloud",
		Long: `Manage existing images, whether bake made them or not: in AWS, with the usual
credentials and region, or with -local on the local cloud. Refer to an image by its ID
or, if the account owns it, by its name.

'bake cloud images' lists everything that can be launched on the local cloud, including
base images that have not been built yet; 'bake images list -local' lists the images
that were made there.`,
		Args: cobra.ArbitraryArgs,
		RunE: p.noCommand,
	}
	cmd.AddCommand(p.imagesListCommand(), p.imagesShowCommand(), p.imagesDiffCommand(), p.imagesCopyCommand(), p.imagesShareCommand(), p.imagesUnshareCommand(),
		p.imagesRmCommand(), p.imagesPruneCommand(), p.imagesOrphansCommand(), p.imagesEnableCommand(), p.imagesCheckCommand(), p.imagesPolicyCommand(),
		p.imagesPromoteCommand(), p.imagesApproveCommand(), p.imagesRollbackCommand(), p.imagesRevokeCommand(), p.imagesChannelCommand())
	return cmd
}

// placeFlags select the place of images.
type placeFlags struct {
	region, profile string
	regions         []string
	local           bool
	exitCodes       choice
}

func (f *placeFlags) register(p *program, flags *pflag.FlagSet) {
	flags.StringVar(&f.region, "region", "", "`region` to use; default: the usual AWS settings")
	flags.StringSliceVar(&f.regions, "regions", nil, "`regions` to use, separated by commas; all: those enabled for the account")
	flags.StringVar(&f.profile, "profile", "", "AWS `profile` to take credentials from; default: the usual AWS settings")
	flags.BoolVar(&f.local, "local", false, "use the local cloud instead of AWS")
	p.exitCodesFlag(flags, &f.exitCodes)
}

// check complains about flags that do not go together.
func (f *placeFlags) check(command string) error {
	var text string
	switch {
	case f.region != "" && f.regions != nil:
		text = "-region and -regions cannot be combined"
	case slices.Contains(f.regions, "all") && len(f.regions) > 1:
		text = "-regions takes either all or names of regions"
	case slices.Contains(f.regions, "") || f.regions != nil && len(f.regions) == 0:
		text = "-regions contains an empty name"
	case f.local && f.profile != "":
		text = "-profile is for AWS, and cannot be combined with -local"
	default:
		return nil
	}
	return usageError{text, command}
}

// place returns the place in AWS that the flags select.
func (f *placeFlags) place(env environ) images.Place {
	// Machines are launched and logged in to there, too.
	place := images.Place{Regions: f.regions, Profile: f.profile, Env: env, Cloud: localcloud.FromEnvironment(env)}
	if f.region != "" {
		place.Regions = []string{f.region}
	}
	if slices.Equal(f.regions, []string{"all"}) {
		place.Regions, place.All = nil, true
	}
	return place
}

// withImages runs do with the account that the flags lead to, until a signal ends ctx. A
// second one ends stop.
func (p *program) withImages(cmd *cobra.Command, f *placeFlags, do func(ctx, stop context.Context, a *images.Account) error) error {
	err := p.onImages(cmd, f, do)
	return p.ended(err, err, f.exitCodes)
}

func (p *program) onImages(cmd *cobra.Command, f *placeFlags, do func(ctx, stop context.Context, a *images.Account) error) error {
	var emit func(step.Event)
	if f.local {
		var done func()
		emit, done = p.progressDisplay()
		defer done()
	}
	return p.onAccount(cmd, f, emit, do)
}

// onAccount is onImages with emit to show progress.
func (p *program) onAccount(cmd *cobra.Command, f *placeFlags, emit func(step.Event), do func(ctx, stop context.Context, a *images.Account) error) (err error) {
	if err := errors.Join(p.env.checkExitCodes(), f.check(cmd.CommandPath())); err != nil {
		return err
	}
	ctx, stop, release := p.interrupts(cmd.Context(), ignoreSignals)
	defer release()
	place := f.place(p.env)
	if f.local {
		c, failed := p.openLocal(ctx, "", "", emit)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, c.Close(stop)) }()
		var unwatch func()
		ctx, unwatch = c.Watch(ctx)
		defer unwatch()
		place.Cloud = c.Cloud
	}
	place.Warn = p.warn
	place.Say = func(_ context.Context, format string, args ...any) {
		fmt.Fprintln(p.stderr, prose.Printable(fmt.Sprintf(format, args...)))
	}
	account, err := images.Open(ctx, place)
	if err == nil {
		err = do(ctx, stop, account)
	}
	if gone, ok := errors.AsType[*localcloud.GoneError](context.Cause(ctx)); ok {
		return gone // other errors follow from this one
	}
	return err
}

// imagesTask runs a removal of images, so that a sweep finishes it if bake is killed.
func (p *program) imagesTask(ctx, stop context.Context, do func(context.Context, *step.Scope) error) error {
	state, err := p.env.state()
	if err != nil {
		return err
	}
	task := run.TaskOptions{State: state, Command: p.commandLine(), Name: "images", Now: p.now, Stop: stop, Emit: func(e step.Event) {
		if e.Kind == step.Warning {
			fmt.Fprintln(p.stderr, "Warning: "+prose.Printable(e.Text))
		}
	}}
	id, err := run.Task(ctx, task, do)
	if failed, ok := errors.AsType[*run.FailedError](err); ok && failed.Outcome == run.OutcomeLeft {
		p.say(leftText(id, failed.Left))
		return err // even if a guard has kept images
	}
	return ofGuard(err)
}

// imagesListOptions are the flags of bake images list.
type imagesListOptions struct {
	placeFlags
	guardFlags
	unused, instances     bool
	name, channel         string
	owners, tags, filters []string
	shared, public        bool
	states                []string
	olderThan             age
}

func (p *program) imagesListCommand() *cobra.Command {
	var o imagesListOptions
	cmd := &cobra.Command{
		Use:   "list [NAME-PATTERN]",
		Short: "List images",
		Long: `List the images of the account in one or more regions, including disabled and
deprecated ones, sorted by name and age. NAME-PATTERN may contain the wildcards * and ?;
quote it for the shell.

With -instances, list the account's instances instead, each with the image that it was
launched from, even if that image is now disabled, no longer shared with the account, or
deleted.

With -channel, list the current and earlier images of a channel: IMAGE/CHANNEL, or the
name of its parameter.

Sizes are those of the volumes, not of the data that AWS stores for the snapshots. Only
the owner of an image can see when it was last launched, up to a day late.`,
		Example: `  bake images list
  bake images list 'web-*' -regions us-east-1,eu-west-1
  bake images list -regions all -older-than 90d -tag env=prod
  bake images list -unused -older-than 90d
  bake images list -instances -regions all
  bake images list -channel web/stable -regions us-east-1,eu-west-1
  bake images list -shared
  bake images list -public -owner 136693071363 'debian-12-amd64-*'`,
		Args:        atMost("the pattern of names"),
		RunE:        func(cmd *cobra.Command, args []string) error { return p.imagesList(cmd, &o, args) },
		Annotations: map[string]string{exitCodes: imagesExitCodes},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "", "list images whose name matches this `pattern`; the same as NAME-PATTERN")
	flags.StringSliceVar(&o.owners, "owner", nil, "list the images of these `owners`: account IDs, self, amazon, aws-marketplace or aws-backup-vault")
	flags.BoolVar(&o.shared, "shared", false, "list images that other accounts share with this one")
	flags.BoolVar(&o.public, "public", false, "list public images; needs a name pattern or -owner")
	flags.StringArrayVar(&o.tags, "tag", nil, "list images with this `tag`: KEY=VALUE, or KEY for any value; wildcards are * and ?; repeatable")
	flags.StringSliceVar(&o.states, "state", nil, "list images in these `states`, such as available or disabled")
	flags.Var(&o.olderThan, "older-than", "list images of at least this `age`, such as 24h, 7d or 1d12h")
	flags.StringArrayVar(&o.filters, "filter", nil, "list images that match this EC2 `filter`: Name=NAME,Values=VALUE,...; repeatable")
	flags.BoolVar(&o.unused, "unused", false, "list unused images, according to the guards of 'bake images rm'; shared images count as used, and so do images for which a guard cannot decide, for example for lack of a permission")
	flags.StringVar(&o.channel, "channel", "", "list the current and earlier images of this `channel`: IMAGE/CHANNEL, or a parameter such as /golden/web/stable")
	flags.BoolVar(&o.instances, "instances", false, "list the account's instances and their images instead; only with -region or -regions")
	o.placeFlags.register(p, flags)
	o.guardFlags.register(flags)
	p.jsonFlag(cmd)
	return cmd
}

// warnUnknown names the guards that could not tell, which count as use.
func (p *program) warnUnknown(uses images.Uses) {
	said := map[string]bool{}
	for _, all := range uses {
		for _, u := range all {
			if u.Unknown {
				said[u.String()] = true
			}
		}
	}
	for _, text := range slices.Sorted(maps.Keys(said)) {
		fmt.Fprintf(p.stderr, "Warning: unused images may be missing from the list: %s\n", prose.Printable(text))
	}
}

// conflict returns a message about incompatible flags, or "". q is the query that they
// define.
func (o *imagesListOptions) conflict(q images.Query) string {
	elsewhere := o.shared || o.public || o.owners != nil
	switch {
	case !o.unused && (o.ignore != nil || o.recent != 0 || o.allVersions || o.role.ARN != ""):
		return "-ignore-guard, -launched-within, -all-template-versions and -role need -unused"
	case o.unused && elsewhere:
		return "-unused is for the images of the account: it cannot be combined with -shared, -public and -owner"
	case o.channel != "" && elsewhere:
		return "-channel is for the images of the account: it cannot be combined with -shared, -public and -owner"
	case o.channel != "" && parameterOf(o.channel) == "":
		return fmt.Sprintf("-channel=%s: it must have the form IMAGE/CHANNEL, or be a parameter such as /golden/web/stable", o.channel)
	case o.instances && (o.unused || o.channel != "" || q.Narrow()):
		return "-instances lists instances: it cannot be combined with what selects images"
	}
	return ""
}

func (p *program) imagesList(cmd *cobra.Command, o *imagesListOptions, args []string) error {
	q, err := o.query(cmd.CommandPath(), args, p.now())
	if err != nil {
		return err
	}
	g, err := o.guards(p, cmd.CommandPath())
	if err != nil {
		return err
	}
	if wrong := o.conflict(q); wrong != "" {
		return usageError{wrong, cmd.CommandPath()}
	}
	return p.withImages(cmd, &o.placeFlags, func(ctx, _ context.Context, a *images.Account) error {
		if o.instances {
			found, err := a.Instances(ctx)
			p.showInstances(a.ID, found, err)
			return err
		}
		found, err := a.List(ctx, q)
		var of *channelOf
		if o.channel != "" {
			var failed error
			of = &channelOf{Parameter: parameterOf(o.channel)}
			found, of.Names, failed = a.NamedBy(ctx, of.Parameter, found)
			if err = cmp.Or(err, failed); len(of.Names) == 0 {
				return err
			}
		}
		if o.unused && context.Cause(ctx) == nil {
			var uses images.Uses
			found, uses = a.Unused(ctx, found, g)
			if err = cmp.Or(context.Cause(ctx), err); context.Cause(ctx) == nil {
				p.warnUnknown(uses)
			}
		}
		p.showImages(a.ID, found, of, err)
		return err
	})
}

// parameterOf returns the parameter that a channel is, or empty if the text names none.
func parameterOf(channel string) string {
	image, name, ok := strings.Cut(channel, "/")
	switch {
	case ok && image == "" && name != "":
		return channel
	case !ok || name == "" || strings.Contains(name, "/"):
		return ""
	}
	return channels.Parameter(image, name)
}

// query returns the query that the flags and arguments define.
func (o *imagesListOptions) query(command string, args []string, now time.Time) (images.Query, error) {
	q := images.Query{Name: o.name, Owners: o.owners, Shared: o.shared, Public: o.public, OlderThan: time.Duration(o.olderThan), Now: now}
	wrong := func(format string, args ...any) (images.Query, error) {
		return q, usageError{fmt.Sprintf(format, args...), command}
	}
	if len(args) > 0 {
		if o.name != "" {
			return wrong("-name and NAME-PATTERN cannot be combined")
		}
		q.Name = args[0]
	}
	for _, tag := range o.tags {
		f, err := tagFilter(tag)
		if err != nil {
			return wrong("%v", err)
		}
		q.Filters = append(q.Filters, f)
	}
	for _, s := range o.states {
		if !slices.Contains(images.States(), s) {
			return wrong("-state=%s: it must be one of %s", s, strings.Join(images.States(), ", "))
		}
	}
	if len(o.states) > 0 {
		q.Filters = append(q.Filters, images.Filter{Name: "state", Values: o.states})
	}
	for _, text := range o.filters {
		f, ok := filterOf(text)
		if !ok {
			return wrong("-filter=%s: it must have the form Name=NAME,Values=VALUE,...", text)
		}
		q.Filters = append(q.Filters, f)
	}
	if err := q.Check(); err != nil {
		return wrong("%v", err)
	}
	return q, nil
}

// tagFilter returns the filter for KEY or KEY=VALUE.
func tagFilter(text string) (images.Filter, error) {
	key, value, given := strings.Cut(text, "=")
	switch {
	case key == "":
		return images.Filter{}, fmt.Errorf("-tag=%s: it must be KEY or KEY=VALUE", text)
	case given:
		return images.Filter{Name: "tag:" + key, Values: []string{value}}, nil
	}
	return images.Filter{Name: "tag-key", Values: []string{key}}, nil
}

// filterOf reads a filter as the AWS CLI does.
func filterOf(text string) (images.Filter, bool) {
	rest, ok := strings.CutPrefix(text, "Name=")
	name, values, found := strings.Cut(rest, ",Values=")
	if !ok || !found || name == "" || strings.Contains(name, ",") {
		return images.Filter{}, false
	}
	return images.Filter{Name: name, Values: strings.Split(values, ",")}, true
}

// imagesResult is the last object of bake images list -json.
type imagesResult struct {
	Account string         `json:"account"`
	Images  []images.Image `json:"images"`
	Channel *channelOf     `json:"channel,omitempty"`
}

// channelOf is the channel that listed images were in.
type channelOf struct {
	Parameter string   `json:"parameter"`
	Names     []string `json:"names"` // IDs of those that it names now, one of each region
}

// showImages shows a list of images to the account, of a channel if that is not nil. With an
// error it is not the whole one.
func (p *program) showImages(account string, all []images.Image, of *channelOf, err error) {
	p.json.result = imagesResult{account, list(all), of}
	switch {
	case len(all) > 0:
		p.say(images.Text(account, all, p.now(), p.stdout.columns()))
	case err == nil:
		p.say("No images.")
	}
	if of != nil {
		p.say(fmt.Sprintf("%s now names %s", of.Parameter, strings.Join(of.Names, ", ")))
	}
}

// instancesResult is the last object of bake images list -instances -json.
type instancesResult struct {
	Account   string            `json:"account"`
	Instances []images.Instance `json:"instances"`
}

// showInstances shows instances and their images to the account. With an error they are
// not all.
func (p *program) showInstances(account string, all []images.Instance, err error) {
	p.json.result = instancesResult{account, list(all)}
	switch {
	case len(all) > 0:
		p.say(images.InstancesText(all, p.now(), p.stdout.columns()))
	case err == nil:
		p.say("No instances.")
	}
}
