package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bake/builder/amazon"
	"bake/cloud"
	"bake/cloud/image"
	"bake/cloud/machine/sandbox"
	"bake/step"
	"bake/ui"
)

// localName is how ledgers name the local cloud.
const localName = "local"

// defaultRegion is the region of the local cloud when nothing names one.
const defaultRegion = cloud.DefaultRegion

// comesUp is how long a process that has the local cloud open may take to serve
// it, or to let go of it again.
const comesUp = 3 * time.Second

// shutdown is how long the machines of the local cloud may take to shut down.
const shutdown = 30 * time.Second

// localCloud is the local cloud, served by this process or by another one.
type localCloud struct {
	amazon.Cloud
	credentialsFile string

	own     *cloud.Cloud // nil if another process serves it
	served  chan error   // how serving ended
	waiting func()       // is called if others use it when it is to be closed

	servedBy int       // the process that serves it; 0 if that is this one
	use      io.Closer // tells the other process that serves it; nil if that is this one
}

// localOptions say how the local cloud behaves when this process opens it.
type localOptions struct {
	listen string // address; empty for a free port of 127.0.0.1
	mirror string // URL of a Debian archive; empty for the host's own
	egress string // what -allow-egress says; empty for what the environment says
	delays cloud.Delays
	faults *cloud.Faults
}

// openLocal returns the local cloud. If another process serves it, that one is
// used, and does not end before close; otherwise this process serves it until
// close. emit is told how the preparation of bases goes.
func (p *program) openLocal(ctx context.Context, o localOptions, emit func(step.Event)) (*localCloud, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := p.now().Add(comesUp); ; {
		c, err := p.serveLocal(ctx, o, emit)
		var inUse *cloud.InUseError
		if !errors.As(err, &inUse) {
			return c, err
		}
		closing := false
		if inUse.URL != "" {
			if o.egress != "" {
				return nil, fmt.Errorf("-allow-egress: process %d serves the local cloud already, and decides what machines reach: give it the option there, or end it first", inUse.PID)
			}
			c, err := attach(ctx, inUse)
			if closing = errors.Is(err, cloud.ErrClosing); !closing {
				return c, err
			}
		}
		if !closing && p.now().After(deadline) { // closing ends by itself
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// driver makes the driver of the local cloud's machines, and returns it with the
// cloud's directory.
func (p *program) driver() (dir string, _ *sandbox.Driver, err error) {
	if dir, err = p.env.cloudDir(); err != nil {
		return "", nil, err
	}
	d, err := sandbox.New(sandbox.Options{Dir: dir, Log: p.log.Logger})
	return dir, d, err
}

// serveLocal opens the local cloud in this process. The error is a
// *cloud.InUseError if another one has it open.
func (p *program) serveLocal(ctx context.Context, o localOptions, emit func(step.Event)) (_ *localCloud, err error) {
	dir, driver, err := p.driver()
	if err != nil {
		return nil, err
	}
	store, err := image.Open(imagesDir(dir), driver)
	if err != nil {
		return nil, err
	}
	reach, err := p.reach(cmp.Or(o.egress, p.env.get("BAKE_ALLOW_EGRESS")), o, store)
	if err != nil {
		return nil, fmt.Errorf("-allow-egress or BAKE_ALLOW_EGRESS: %w", err)
	}
	c, err := cloud.Open(ctx, cloud.Options{
		Dir: dir, Driver: driver, Images: cloud.Layers(store, image.EnsureOptions{Mirror: o.mirror}), Reach: reach,
		Delays: o.delays, Faults: o.faults, Progress: p.baseProgress(emit), Log: p.log.Logger,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close(ctx))
		}
	}()
	if err := fatal(driver.Check(ctx)); err != nil {
		return nil, err
	}
	if o.listen == "" {
		o.listen = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the local cloud: %w; name another address with -listen", err)
	}
	key := c.Credentials()[0]
	local := &localCloud{
		Cloud:           standIn("http://"+l.Addr().String(), key.AccessKeyID, key.SecretAccessKey),
		credentialsFile: c.CredentialsFile(), own: c, served: make(chan error, 1),
		waiting: func() {
			fmt.Fprintln(p.stderr, "Another bake uses the local cloud, which this one serves: waiting for it to end. Ctrl-C twice ends this at once.")
		},
	}
	go func() { local.served <- c.Serve(l) }()
	return local, nil
}

// attach returns the local cloud that another process serves, and keeps it from
// ending. The error is [cloud.ErrClosing] if that process is on its way out.
func attach(ctx context.Context, other *cloud.InUseError) (_ *localCloud, err error) {
	use, err := cloud.Use(other.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, use.Close())
		}
	}()
	if now, err := servedEndpoint(other.Dir); err != nil || now != other.URL {
		return nil, cloud.ErrClosing // it has ended in the meantime
	}
	file := filepath.Join(other.Dir, "aws", "credentials")
	profile, err := config.LoadSharedConfigProfile(ctx, "default", func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{file}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the local cloud that process %d serves: %w", other.PID, err)
	}
	key := profile.Credentials
	return &localCloud{Cloud: standIn(other.URL, key.AccessKeyID, key.SecretAccessKey), credentialsFile: file, use: use, servedBy: other.PID}, nil
}

func standIn(endpoint, accessKey, secretKey string) amazon.Cloud {
	return amazon.Cloud{
		Name: localName, Endpoint: endpoint, AccessKey: accessKey, SecretKey: secretKey, Region: defaultRegion,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, addr)
			if errors.Is(err, syscall.ECONNREFUSED) {
				// An ordinary user cannot listen on low ports of the machine's address.
				return connectThrough(ctx, endpoint, addr)
			}
			return conn, err
		},
		DialInstance: func(ctx context.Context, id string, port int) (net.Conn, error) {
			return connectThrough(ctx, endpoint, net.JoinHostPort(id, strconv.Itoa(port)))
		},
	}
}

// close lets go of the cloud. If this process serves it, it waits until no other
// one uses it and shuts the machines down; they are killed when stop ends.
func (c *localCloud) close(stop context.Context) error {
	if c.own == nil {
		return c.use.Close()
	}
	if err := c.own.Drain(stop, c.waiting); err != nil && stop.Err() == nil {
		return errors.Join(err, c.own.Close(stop), <-c.served)
	}
	ctx, cancel := context.WithTimeout(stop, shutdown)
	defer cancel()
	err := c.own.Close(ctx)
	return errors.Join(err, <-c.served)
}

// environment points AWS clients in other processes at the cloud.
func (c *localCloud) environment() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + c.Endpoint,
		"AWS_SHARED_CREDENTIALS_FILE=" + c.credentialsFile,
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

// servedEndpoint returns the URL at which a process serves the local cloud in dir.
// If that process was killed nobody may answer there.
func servedEndpoint(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "endpoint.json"))
	if err != nil {
		return "", err
	}
	var served struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(text, &served); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Join(dir, "endpoint.json"), err)
	}
	if served.URL == "" {
		return "", errors.New("the process that has it open does not serve it")
	}
	return served.URL, nil
}

// imagesDir is where the local cloud in dir keeps layers and bases.
func imagesDir(dir string) string { return filepath.Join(dir, "images") }

// withLocal runs fn with the local cloud, until a signal ends its context. What
// goes on meanwhile is shown on standard error.
func (p *program) withLocal(ctx context.Context, o localOptions, fn func(context.Context, *localCloud) error) (err error) {
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	emit, done := p.progressDisplay()
	defer done()
	c, err := p.openLocal(ctx, o, emit)
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
	options := ui.PlainOptions{Color: p.stderr.isTerminal() && p.env.colors()}
	if p.stderr.isTerminal() && p.env.get("TERM") != "dumb" {
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
func (p *program) baseProgress(emit func(step.Event)) func(cloud.Progress) {
	var mu sync.Mutex
	bases := map[string]func(string, int64, int64){}
	return func(r cloud.Progress) {
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
