package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bake/builder/amazon"
	"bake/internal/local"
	"bake/step"
	"bake/ui"
)

// localName is how ledgers name the local cloud.
const localName = "local"

// localCloud is the local cloud as the components see it.
type localCloud struct {
	amazon.Cloud
	open *local.Cloud
}

// localOptions say how the local cloud behaves when this process opens it.
func (p *program) localOptions(emit func(step.Event)) (local.Options, error) {
	dir, err := p.env.cloudDir()
	return local.Options{
		Dir: dir, Getenv: p.env.get, Log: p.log.Logger, Egress: p.env.get("BAKE_ALLOW_EGRESS"), Progress: p.baseProgress(emit),
		Waiting: func() {
			fmt.Fprintln(p.stderr, "Another bake uses the local cloud, which this one serves: waiting for it to end. Ctrl-C twice ends this at once.")
		},
	}, err
}

// openLocal returns the local cloud. If another process serves it, that one is
// used, and does not end before close; otherwise this process serves it until
// close. egress is what -allow-egress says. emit is told how the preparation of
// bases goes.
func (p *program) openLocal(ctx context.Context, egress string, emit func(step.Event)) (*localCloud, error) {
	o, err := p.localOptions(emit)
	if err != nil {
		return nil, err
	}
	o.EgressAsked, o.Egress = egress != "", cmp.Or(egress, o.Egress)
	c, err := local.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &localCloud{standIn(c), c}, nil
}

// standIn is the local cloud in the place of AWS.
func standIn(c *local.Cloud) amazon.Cloud {
	return amazon.Cloud{
		Name: localName, Endpoint: c.Endpoint, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Region: local.DefaultRegion,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, addr)
			if errors.Is(err, syscall.ECONNREFUSED) {
				// An ordinary user cannot listen on low ports of the machine's address.
				return connectThrough(ctx, c.Endpoint, addr)
			}
			return conn, err
		},
		DialInstance: func(ctx context.Context, id string, port int) (net.Conn, error) {
			return connectThrough(ctx, c.Endpoint, net.JoinHostPort(id, strconv.Itoa(port)))
		},
	}
}

// close is [local.Cloud.Close].
func (c *localCloud) close(stop context.Context) error { return c.open.Close(stop) }

// environment points AWS clients in other processes at the cloud.
func (c *localCloud) environment() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + c.Endpoint,
		"AWS_SHARED_CREDENTIALS_FILE=" + c.open.CredentialsFile,
		"AWS_ACCESS_KEY_ID=" + c.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + c.SecretKey,
		"AWS_SESSION_TOKEN=",
		"AWS_DEFAULT_REGION=" + c.Region,
	}
}

func (c *localCloud) config(region string) aws.Config {
	return aws.Config{
		Region: region, BaseEndpoint: aws.String(c.Endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, ""),
	}
}

func (c *localCloud) ec2(region string) *ec2.Client { return ec2.NewFromConfig(c.config(region)) }

// account is the number of the account whose credentials are used.
func (c *localCloud) account(ctx context.Context) (string, error) {
	out, err := sts.NewFromConfig(c.config(c.Region)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.Account), nil
}

// withLocal runs fn with the local cloud, until a signal ends its context. What
// goes on meanwhile is shown on standard error.
func (p *program) withLocal(ctx context.Context, egress string, fn func(context.Context, *localCloud) error) (err error) {
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	emit, done := p.progressDisplay()
	defer done()
	c, err := p.openLocal(ctx, egress, emit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close(stop)) }()
	ctx, unwatch := c.watch(ctx)
	defer unwatch()
	err = fn(ctx, c)
	if gone, ok := errors.AsType[*goneError](context.Cause(ctx)); ok {
		return gone // whatever else there is follows from that
	}
	return err
}

// progressDisplay shows events on standard error, for commands whose standard
// output is their result.
func (p *program) progressDisplay() (emit func(step.Event), done func()) {
	options := ui.PlainOptions{Color: p.stderr.draws() && p.env.colors()}
	if p.stderr.draws() && p.env.get("TERM") != "dumb" {
		s := ui.NewScreen(ui.NewLive(p.stderr, options), p.stderr.size)
		return s.Handle, s.Close
	}
	var mu sync.Mutex
	plain := ui.NewPlain(p.stderr, options)
	return func(e step.Event) {
		mu.Lock()
		defer mu.Unlock()
		plain.Handle(e)
	}, func() {}
}

// baseProgress makes events of reports on how the preparation of a base goes:
// each phase of it is a step of the run itself.
func (p *program) baseProgress(emit func(step.Event)) func(local.Progress) {
	var mu sync.Mutex
	bases := map[string]func(string, int64, int64){}
	return func(r local.Progress) {
		mu.Lock()
		defer mu.Unlock()
		phase := bases[r.Base]
		if phase == nil {
			phase = p.phases(emit)
			bases[r.Base] = phase
		}
		if r.Note != "" {
			emit(step.Event{Time: p.now(), Kind: step.Say, Text: r.Note})
		}
		if r.Phase == "" {
			phase("", 0, 0)
		} else {
			phase("prepare "+r.Base+": "+r.Phase, r.Done, r.Total)
		}
	}
}

// phases returns a function that reports how far the phase of that name is. A
// phase begins with the first report that names it, and ends when all of it is
// done or another one begins; the empty name begins none. Reports must not overlap.
func (p *program) phases(emit func(step.Event)) func(name string, done, total int64) {
	var current string
	var started time.Time
	return func(name string, done, total int64) {
		now := p.now()
		end := func() {
			if current != "" {
				emit(step.Event{Time: now, Kind: step.StepFinished, Step: current, Elapsed: now.Sub(started)})
				current = ""
			}
		}
		if name != current {
			end()
			if name == "" || total > 0 && done >= total {
				return
			}
			current, started = name, now
			emit(step.Event{Time: now, Kind: step.StepStarted, Step: name})
		}
		emit(step.Event{Time: now, Kind: step.Progressed, Step: name, Progress: &step.Progress{Done: done, Total: total, Unit: "B"}})
		if total > 0 && done >= total {
			end()
		}
	}
}
