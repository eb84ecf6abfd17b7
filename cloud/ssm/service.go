// Package ssm is the embedded Systems Manager: the Parameter Store, including the public
// parameters that name published images, Session Manager, and Run Command. Each method
// with the name of an action implements that action. The caller's account and region are
// in the context (see [wire.WithCaller]).
package ssm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/durable"
	"bake/cloud/kms"
	"bake/cloud/wire"
)

// Images finds images, and returns the public parameters of the caller's region with the
// image that each names.
type Images interface {
	DescribeImages(context.Context, *ec2.DescribeImagesInput) (*ec2.DescribeImagesOutput, error)
	PublicParameters(context.Context) (map[string]ec2types.Image, error)
}

// Options configure a service. All are required.
type Options struct {
	Dir      string // for the state
	Images   Images
	Machines Machines
	Objects  Objects
	Now      func() time.Time
	Validate time.Duration // how long versions that name images stay unvalidated; 0 means half a second
	Wrote    func()        // called after every change of the state on disk, with the state locked
}

// Service is the embedded Systems Manager of all accounts and regions.
type Service struct {
	opts    Options
	guarded *durable.Guarded[*state]
	work    sync.WaitGroup // sessions and commands
}

// state is the service's state. Its methods run with the lock held.
type state struct {
	now         func() time.Time
	key         *kms.Key // for SecureString parameters
	parameters  *durable.Table[parameter]
	unvalidated *durable.Table[unvalidated]
	sessions    map[string]*session // active sessions, by id
	commands    *durable.Table[command]
	running     map[string]*execution // running commands, by id
	closed      bool
}

// Open returns the service whose state is in opts.Dir.
func Open(opts Options) (*Service, error) {
	s := &state{now: opts.Now, sessions: map[string]*session{}, running: map[string]*execution{}}
	if err := s.open(opts); err != nil {
		return nil, fmt.Errorf("embedded Systems Manager: state in %s: %w", opts.Dir, err)
	}
	return &Service{opts: opts, guarded: durable.Guard(s)}, nil
}

func (s *state) open(opts Options) (err error) {
	if err = os.MkdirAll(opts.Dir, 0o700); err != nil {
		return err
	}
	if s.key, err = kms.OpenKey(filepath.Join(opts.Dir, "key")); err != nil {
		return err
	}
	if s.parameters, err = durable.OpenTable[parameter](filepath.Join(opts.Dir, "parameters"), opts.Wrote); err != nil {
		return err
	}
	if s.unvalidated, err = durable.OpenTable[unvalidated](filepath.Join(opts.Dir, "unvalidated"), opts.Wrote); err != nil {
		return err
	}
	if s.commands, err = durable.OpenTable[command](filepath.Join(opts.Dir, "commands"), opts.Wrote); err != nil {
		return err
	}
	return s.recover()
}

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("ssm")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}
