// Package cloud is the embedded cloud: EC2 with real machines, and what EC2's clients need
// of its neighbouring services, on one HTTP endpoint. It keeps its state in one directory,
// which only one process can have open.
//
// The directory contains:
//
//	lock, endpoint.json      the process that uses it, and its URL
//	owners.json              to which of the host's ids the files of machines belong
//	accounts.json            the accounts' access keys
//	aws/credentials          the same for AWS clients: AWS_SHARED_CREDENTIALS_FILE
//	autoscaling/             groups, launch configurations and instance refreshes
//	ec2/KIND/ID.json         one file for each object, with EC2's names of fields
//	ec2/machines/ID/         the disk of an instance
//	ec2/console/ID.log       the console of an instance
//	iam/ACCOUNT.json         roles, instance profiles and OpenID Connect providers of an account
//	s3/BUCKET/               a bucket: see package s3
//	ssm/, secretsmanager/    parameters, commands and secrets, one file each, and the keys that encrypt them
//	kms/                     encrypted signing keys, one file each, and their aliases
package cloud

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	awsssm "bake/cloud/api/ssm"
	"bake/cloud/autoscaling"
	"bake/cloud/ec2"
	"bake/cloud/iam"
	"bake/cloud/instanceconnect"
	"bake/cloud/kms"
	"bake/cloud/machine"
	"bake/cloud/network"
	"bake/cloud/organizations"
	"bake/cloud/s3"
	"bake/cloud/secretsmanager"
	"bake/cloud/ssm"
	"bake/cloud/sts"
	"bake/cloud/wire"
)

// Contents describe the root of an image; see package ec2.
type Contents = ec2.Contents

type (
	// The types of package ec2 that [Options] uses.

	Images       = ec2.Images
	Publication  = ec2.Publication
	ImportedDisk = ec2.ImportedDisk
	Progress     = ec2.Progress
	Clock        = ec2.Clock
	Delays       = ec2.Delays
	Fault        = ec2.Fault
	Faults       = ec2.Faults
)

// Options configure [Open]. Dir, Driver and Images are required.
type Options struct {
	Dir    string // created if it does not exist
	Driver machine.Driver
	Images Images // must be on Dir's file system: see [Layers]

	// Accounts is the minimum number of accounts; 0 means two. Existing accounts are kept.
	Accounts int

	// AccountIDs are the ids of further accounts to create.
	AccountIDs []string

	// RecycleBin is how long deregistered images and deleted snapshots can be restored; 0
	// means they cannot.
	RecycleBin time.Duration

	// Reach says what machines may connect to outside the cloud; nil means every public
	// address and nothing else.
	Reach *network.Reach

	Clock  Clock  // nil means the system clock
	Delays Delays // the zero value means none

	// Validate is how long a parameter that names an image stays unvalidated; 0 means half
	// a second.
	Validate time.Duration

	Faults *Faults

	// Progress is called with the progress of preparing a base, from any goroutine.
	Progress func(Progress)
	// Log is for developers; nil discards it.
	Log *slog.Logger

	// Wrote is called after every change of the state on disk, with the state locked. It
	// is for tests.
	Wrote func()
}

// Cloud is an open embedded cloud.
type Cloud struct {
	dir      string
	lock     *dirLock
	accounts accounts
	sessions *sts.Sessions
	ec2      *ec2.Service
	iam      *iam.Service
	ssm      *ssm.Service
	s3       *s3.Service
	services map[string]*wire.Service // keyed by the service name in a signature's scope

	watchers watchers
	journal  journal
	looks    string // see Looks

	mu     sync.Mutex
	server *http.Server // nil while not serving
	pages  http.Handler // serves paths below pagesPath; nil if there are none
	closed bool
}

// Open opens the cloud in opts.Dir. The error is an [InUseError] if another process has it
// open. Instances that were running when the last process ended are marked as stopped.
func Open(ctx context.Context, opts Options) (*Cloud, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the embedded cloud: %w", err)
	}
	if err := makePrivate(dir, opts.Driver); err != nil {
		return nil, fmt.Errorf("open the embedded cloud: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	c := &Cloud{dir: dir, lock: lock, looks: rand.Text()}
	if err := c.open(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("open the embedded cloud in %s: %w", dir, err), lock.release())
	}
	return c, nil
}

// StateNames returns the names of the files and directories that hold a cloud's state,
// without the layers of its images.
func StateNames() []string {
	return []string{"accounts.json", "autoscaling", "aws", "ec2", "iam", "kms", "s3", "secretsmanager", "ssm"}
}

// makePrivate creates the directory of a cloud and keeps other users of the host out of
// it. Layers contain set-user-id programs, and a file planted in a layer would be in every
// later machine.
func makePrivate(dir string, driver machine.Driver) error {
	known := append(StateNames(), "lock", "users", "endpoint.json", "images", machine.OwnersFile)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dirs := []string{dir, filepath.Join(dir, "ec2")}
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return !slices.Contains(known, e.Name()) }) {
		dirs = dirs[1:] // the directory, such as /srv, is shared with other programs: restrict only the cloud's entries in it
	}
	for _, dir := range dirs {
		if err := driver.Private(dir); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cloud) open(ctx context.Context, opts Options) (err error) {
	if c.accounts, err = openAccounts(c.dir, opts.Accounts, opts.AccountIDs); err != nil {
		return err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	now := time.Now
	if opts.Clock != nil {
		now = opts.Clock.Now
	}
	if c.s3, err = s3.Open(filepath.Join(c.dir, "s3"), now); err != nil {
		return err
	}
	if c.iam, err = iam.Open(filepath.Join(c.dir, "iam"), now); err != nil {
		return err
	}
	wrote := func() {
		c.watchers.tell()
		if opts.Wrote != nil {
			opts.Wrote()
		}
	}
	c.sessions = &sts.Sessions{Key: []byte(c.accounts[0].SecretAccessKey)}
	organization := &organizations.Service{}
	for _, a := range c.accounts {
		organization.Accounts = append(organization.Accounts, organizations.Account{ID: a.Account, Name: a.Profile})
	}
	c.ec2, err = ec2.Open(ctx, ec2.Options{
		Dir: filepath.Join(c.dir, "ec2"), Driver: opts.Driver, Images: opts.Images, Objects: c.s3, Clock: opts.Clock, Delays: opts.Delays,
		Faults: opts.Faults, Progress: opts.Progress, Log: opts.Log, Wrote: wrote,
		Profiles: profiles{c}, Member: organization.Member, Parameter: c.parameter, ImageParameters: c.imageParameters, Reach: opts.Reach, RecycleBin: opts.RecycleBin,
	})
	if err != nil {
		return err
	}
	c.ssm, err = ssm.Open(ssm.Options{Dir: filepath.Join(c.dir, "ssm"), Images: c.ec2, Machines: c.ec2, Objects: c.s3, Now: now, Validate: opts.Validate, Wrote: wrote})
	if err != nil {
		return err
	}
	secrets, err := secretsmanager.Open(secretsmanager.Options{Dir: filepath.Join(c.dir, "secretsmanager"), Now: now, Wrote: wrote})
	if err != nil {
		return err
	}
	groups, err := autoscaling.Open(autoscaling.Options{Dir: filepath.Join(c.dir, "autoscaling"), EC2: c.ec2, Now: now, Refresh: opts.Delays.Launch, Wrote: wrote})
	if err != nil {
		return err
	}
	keys, err := kms.Open(kms.Options{Dir: filepath.Join(c.dir, "kms"), Now: now, Wrote: wrote})
	if err != nil {
		return err
	}
	c.journal.log, c.journal.tell = opts.Log, c.watchers.tell
	tokens := &sts.Service{Sessions: c.sessions, Now: time.Now, Role: c.role, Provider: c.provider}
	return c.makeServices(map[string]func() (*wire.Service, error){
		"autoscaling": groups.Endpoint, "ec2": c.ec2.Endpoint, "ec2-instance-connect": (&instanceconnect.Service{Instances: c.ec2}).Endpoint, "iam": c.iam.Endpoint,
		"kms": keys.Endpoint, "organizations": organization.Endpoint, "secretsmanager": secrets.Endpoint, "ssm": c.ssm.Endpoint, "sts": tokens.Endpoint,
	})
}

// makeServices makes the services, given by the names in a signature's scope.
func (c *Cloud) makeServices(endpoints map[string]func() (*wire.Service, error)) (err error) {
	c.services = map[string]*wire.Service{}
	for name, endpoint := range endpoints {
		if c.services[name], err = endpoint(); err != nil {
			return err
		}
		c.services[name].Before = c.ec2.Before(name)
		c.services[name].After = c.journal.of(name)
	}
	return nil
}

// parameter returns the value and the data type of one of the caller's parameters.
func (c *Cloud) parameter(ctx context.Context, name string) (value, dataType string, err error) {
	out, err := c.ssm.GetParameter(ctx, &awsssm.GetParameterInput{Name: &name})
	if err != nil {
		return "", "", err
	}
	return aws.ToString(out.Parameter.Value), aws.ToString(out.Parameter.DataType), nil
}

// imageParameters returns the image ids in the caller's parameters, keyed by the
// parameters' ARNs.
func (c *Cloud) imageParameters(ctx context.Context) (map[string]string, error) {
	return c.ssm.Images(ctx)
}

// ExpectKey prepares for an RSA key pair that a client will create soon, in the background.
func (c *Cloud) ExpectKey() { c.ec2.ExpectKey() }

// Serve answers requests on l until Close, and records the URL, so that another process's
// [InUseError] can report it. It returns nil after Close.
func (c *Cloud) Serve(l net.Listener) error {
	serve, err := c.Server(l)
	if err != nil {
		return err
	}
	return serve()
}

// Server does what Serve does, in two steps: it records the URL of l, and returns a function that
// answers requests until Close. If it fails, it closes l.
func (c *Cloud) Server(l net.Listener) (serve func() error, err error) {
	server, err := c.serverFor(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if server == nil {
		return l.Close, nil
	}
	return func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, nil
}

// serverFor returns the server for l, or nil if the cloud is already closed.
func (c *Cloud) serverFor(l net.Listener) (*http.Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil
	}
	if err := c.lock.announce("http://" + l.Addr().String()); err != nil {
		return nil, err
	}
	c.server = &http.Server{Handler: c.handler(c.pages), ReadHeaderTimeout: 30 * time.Second}
	return c.server, nil
}

// Close stops serving, shuts the machines down (killing them when ctx ends), and releases
// the directory.
func (c *Cloud) Close(ctx context.Context) error {
	c.mu.Lock()
	server := c.server
	c.closed = true
	c.mu.Unlock()
	var err error
	if server != nil {
		err = server.Close()
	}
	c.ssm.Close()
	return errors.Join(err, c.ec2.Close(ctx), c.lock.release())
}

// pagesPath is the prefix of paths that belong to no service. It cannot be the name of a
// bucket.
const pagesPath = "/-/"

// ServePages makes h answer requests, signed or not, for paths below /-/. It must be
// called before Serve.
func (c *Cloud) ServePages(h http.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages = h
}

// Watch returns a channel that receives a value after each change of the cloud's state and after
// each call that could have changed it, until ctx ends. Changes that happen before the previous
// value was received are merged into one.
func (c *Cloud) Watch(ctx context.Context) <-chan struct{} { return c.watchers.add(ctx) }

// Calls returns the last calls that changed something or failed, oldest first.
func (c *Cloud) Calls() []Call { return c.journal.last() }

// Looks returns the header that marks calls of a client that only displays the cloud's state, such
// as the console, which polls. Fault rules do not apply to what such calls read. The value is a
// secret of this process.
func (c *Cloud) Looks() (header, value string) { return looksHeader, c.looks }

const looksHeader = "X-Bake-Looks"

// Sessions returns the number of Session Manager sessions.
func (c *Cloud) Sessions() int { return c.ssm.Sessions() }
