package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/internal/local"
	"bake/internal/shellquote"
	"bake/run"
	"bake/run/localcloud"
	"bake/web"
)

func (p *program) cloudCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cloud",
		Short: "Run the local cloud and manage its base images",
		Long: `The local cloud is an embedded EC2 whose instances are real Linux machines on this
host. 'bake build -local' uses it; 'bake cloud up' serves it to any AWS client.`,
		Args: cobra.ArbitraryArgs,
		RunE: p.noCommand,
	}
	const down = "Ctrl-C in the terminal of \"bake cloud up\" stops the local cloud; bake cloud reset deletes what it holds"
	cmd.Annotations = map[string]string{
		insteadOf + "down": down, insteadOf + "stop": down,
		insteadOf + "export": "to export an image as a disk, run bake cloud up, and in another terminal, with the variables that it prints: aws ec2 export-image",
	}
	cmd.AddCommand(p.cloudUpCommand(), p.cloudImagesCommand(), p.cloudBasesCommand(), p.cloudBaseCommand(), p.cloudImportCommand(), p.cloudAliasCommand(), p.cloudRunCommand(), p.cloudCacheCommand(), p.cloudFaultsCommand(), p.cloudResetCommand())
	return cmd
}

// cloudUpOptions are the flags of bake cloud up.
type cloudUpOptions struct {
	listen, delays, faults, mirror, egress string
	open                                   bool
	accounts                               int
	recycleBin                             time.Duration
}

func (p *program) cloudUpCommand() *cobra.Command {
	var o cloudUpOptions
	cmd := &cobra.Command{
		Use: "up", SuggestFor: []string{"start", "serve"},
		Short: "Serve the local cloud to AWS clients until Ctrl-C",
		Long: `Serve the local cloud until Ctrl-C, and print the two environment variables that
point AWS clients at it. Ctrl-C stops running instances; images, snapshots, keys and
stopped instances are kept for the next time.

Clients reach an instance at its public address, which is in 127.0.0.0/8. Private
addresses (172.31.x.y) work between instances only: do not use them from the host,
where they belong to the host's own network. Instances can reach each other and
public addresses, but neither the host nor private networks: see -allow-egress.

The credentials file has a profile for each account of the cloud, so that sharing
between accounts can be tried: default, other and, with -accounts, account3 and so on.
Accounts stay once they have been created.

Requests must be signed, except CONNECT, which 'bake nc' uses to reach the ports that
security groups open. Anyone who can reach the endpoint can reach those ports too, so
choose the -listen address with care.`,
		Example: `  bake cloud up
  bake cloud up -accounts 4
  bake cloud up -delays aws -faults rehearsal.json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.cloudUp(cmd.Context(), o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", "", "serve on this `address`; default: a free port of 127.0.0.1")
	flags.IntVar(&o.accounts, "accounts", 2, "minimum `number` of accounts, each with a profile in the credentials file")
	flags.StringVar(&o.delays, "delays", "", "how long operations take: the `profile` instant (the default) or aws, or JSON such as {\"copy\":\"30s\"}")
	faultsFlag(flags, &o.faults)
	flags.DurationVar(&o.recycleBin, "recycle-bin", 0, "keep deregistered images and deleted snapshots in the recycle bin for this `duration`, such as 168h; 0: do not keep them")
	flags.StringVar(&o.mirror, "mirror", "", "build bases from the archives at these `URLs`: a comma-separated list of [debian=|ubuntu=]URL; default: $BAKE_MIRROR, then the mirror in the host's apt sources")
	egressFlag(flags, &o.egress)
	flags.BoolVar(&o.open, "open", false, "open the console in the browser")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudUp(ctx context.Context, o cloudUpOptions) (err error) {
	if o.accounts < 1 || o.accounts > local.MaxAccounts {
		return usageError{fmt.Sprintf("-accounts %d: the number must be from 1 to %d", o.accounts, local.MaxAccounts), "bake cloud up"}
	}
	if o.recycleBin < 0 {
		return usageError{fmt.Sprintf("-recycle-bin %s: the time cannot be negative", o.recycleBin), "bake cloud up"}
	}
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	emit, done := p.progressDisplay()
	defer done()
	options, err := p.localOptions(emit)
	if err != nil {
		return err
	}
	options.Accounts, options.RecycleBin, options.Listen, options.Delays, options.Faults = o.accounts, o.recycleBin, o.listen, o.delays, o.faults
	options.Launches = true
	options.Egress, options.Mirror = cmp.Or(o.egress, options.Egress), cmp.Or(o.mirror, options.Mirror)
	state, err := p.env.state()
	if err != nil {
		return err
	}
	var console *web.Console
	options.Pages = func(s local.Served) http.Handler {
		if !loopback(s.Endpoint) {
			return nil // without TLS, the console's cookie and keys are for this host alone
		}
		console = newConsole(s, state)
		return console
	}
	c, err := local.Serve(ctx, options)
	if wrong, ok := errors.AsType[*local.DelaysError](err); ok {
		return usageError{"-" + wrong.Error(), "bake cloud up"}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(stop)) }()
	if err := p.showCloud(c, console); err != nil {
		return err
	}
	c.ExpectKey()
	if o.open && console != nil {
		go func() { // the browser may stay in the foreground
			if err := browse(ctx, console.Ticket()); err != nil && ctx.Err() == nil {
				fmt.Fprintf(p.stderr, "Warning: %v; open the console's address yourself.\n", err)
			}
		}()
	}
	fmt.Fprintln(p.stderr, "The local cloud is up. Connect to instances at their public addresses (127.x.y.z): private\nones (172.31.x.y) work between instances only. Ctrl-C stops it.")
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.Served:
		c.Served <- nil
		return err
	}
}

// showCloud prints how clients reach a running cloud: settings for a shell or a program on
// standard output, and the rest for people. console is nil if no console is served.
func (p *program) showCloud(c *local.Cloud, console *web.Console) error {
	address := ""
	if console != nil {
		address = console.URL()
	}
	if p.json.on {
		p.writeJSON(p.header("ready"), struct {
			Endpoint    string            `json:"endpoint"`
			Environment map[string]string `json:"environment"` // for clients
			Accounts    []local.Account   `json:"accounts"`
			Console     string            `json:"console,omitempty"` // an address that lets its reader in
		}{c.Endpoint, map[string]string{"AWS_ENDPOINT_URL": c.Endpoint, "AWS_SHARED_CREDENTIALS_FILE": c.CredentialsFile}, c.Accounts, address})
	} else if _, err := fmt.Fprintf(p.stdout, "export AWS_ENDPOINT_URL=%s\nexport AWS_SHARED_CREDENTIALS_FILE=%s\n", c.Endpoint, shellquote.Join(c.CredentialsFile)); err != nil {
		return err
	}
	fmt.Fprint(p.stderr, movedPorts())
	var profiles []string
	for _, a := range c.Accounts {
		profiles = append(profiles, fmt.Sprintf("%s (%s)", a.Profile, a.ID))
	}
	fmt.Fprintf(p.stderr, "Profiles of the credentials file, each of an account of its own: %s.\n", strings.Join(profiles, ", "))
	fmt.Fprintln(p.stderr, "AWS CLI before 2.13 and older SDKs do not read AWS_ENDPOINT_URL: name the endpoint with --endpoint-url.")
	switch {
	case console == nil:
		fmt.Fprintln(p.stderr, "The console is served on loopback addresses only: leave -listen out, or forward a port of this host.")
	case !p.json.on:
		fmt.Fprintln(p.stderr, "The console (anyone with this URL can use it):", address)
	}
	return nil
}

// movedPorts returns a line about the ports at which machines are reached, if they differ
// from the machines' own.
func movedPorts() string {
	ssh, http := localcloud.ServedPort(22), localcloud.ServedPort(80)
	if ssh == 22 && http == 80 {
		return ""
	}
	return fmt.Sprintf("This user cannot listen on ports below 1024, so those of machines are served %d higher: SSH on %d, HTTP on %d.\n", local.MovedBy, ssh, http)
}

// loopback reports whether only this host reaches an endpoint.
func loopback(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback()
}

// newConsole returns the console of a cloud that this process serves.
func newConsole(s local.Served, state run.State) *web.Console {
	accounts := make([]web.Account, 0, len(s.Keys))
	for _, k := range s.Keys {
		accounts = append(accounts, web.Account{ID: k.ID, Profile: k.Profile, AccessKey: k.AccessKey, SecretKey: k.SecretKey})
	}
	uses := func(ctx context.Context, account web.Account, region, image string) ([]string, error) {
		cloud := amazon.Cloud{Name: localcloud.Name, Endpoint: s.Endpoint, AccessKey: account.AccessKey, SecretKey: account.SecretKey, Header: s.Looks}
		a, err := images.Open(ctx, images.Place{Regions: []string{region}, Cloud: cloud})
		if err != nil {
			return nil, err
		}
		found, err := a.Find(ctx, image)
		if err != nil {
			return nil, err
		}
		var texts []string
		for _, u := range a.Uses(ctx, found, images.Guards{Ignore: []string{images.GuardRecent}})[image] {
			texts = append(texts, u.User)
		}
		return texts, nil
	}
	ports := map[int]int{22: localcloud.ServedPort(22), 80: localcloud.ServedPort(80)}
	return web.New(web.Options{Ports: ports, Endpoint: s.Endpoint, Accounts: accounts, Region: local.DefaultRegion, Changes: s.Changes, Calls: s.Calls, Uses: uses, Looks: s.Looks, Runs: &run.Follower{State: state}, Version: version})
}
