// Package autoscaling is the embedded EC2 Auto Scaling. It stores and lists groups, launch
// configurations and instance refreshes, but launches nothing. They exist so that images and launch
// templates can be referenced from them.
package autoscaling

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/google/uuid"

	"bake/cloud/api/autoscaling"
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// EC2 is the service's interface to EC2.
type EC2 interface {
	DescribeImages(context.Context, *ec2.DescribeImagesInput) (*ec2.DescribeImagesOutput, error)
	DescribeLaunchTemplateVersions(context.Context, *ec2.DescribeLaunchTemplateVersionsInput) (*ec2.DescribeLaunchTemplateVersionsOutput, error)
}

// Options configure a service. All but Refresh are required.
type Options struct {
	Dir     string // directory of the state
	EC2     EC2
	Now     func() time.Time
	Refresh time.Duration // how long an instance refresh is in progress
	Wrote   func()        // called after every change of the state on disk, with the state locked
}

// Service is the embedded Auto Scaling of all accounts and regions.
type Service struct {
	opts    Options
	guarded *durable.Guarded[*state]
}

// state is the service's state. Its methods are called with the lock held.
type state struct {
	opts           Options
	groups         *durable.Table[group]
	configurations *durable.Table[configuration]
	refreshes      *durable.Table[refresh]
}

// group is an Auto Scaling group. It has no instances.
type group struct {
	Account, Region string
	autoscaling.AutoScalingGroup
}

// configuration is a launch configuration.
type configuration struct {
	Account, Region string
	autoscaling.LaunchConfiguration
}

// refresh is an instance refresh as it was started. Its progress is derived from the time since
// then.
type refresh struct {
	Account, Region string
	autoscaling.InstanceRefresh
	Applied bool // the group already has the desired configuration
}

// Open returns the service with the state in opts.Dir.
func Open(opts Options) (*Service, error) {
	s := &state{opts: opts}
	var err [3]error
	s.groups, err[0] = durable.OpenTable[group](filepath.Join(opts.Dir, "groups"), opts.Wrote)
	s.configurations, err[1] = durable.OpenTable[configuration](filepath.Join(opts.Dir, "launch-configurations"), opts.Wrote)
	s.refreshes, err[2] = durable.OpenTable[refresh](filepath.Join(opts.Dir, "instance-refreshes"), opts.Wrote)
	if err := errors.Join(err[:]...); err != nil {
		return nil, fmt.Errorf("embedded Auto Scaling: state in %s: %w", opts.Dir, err)
	}
	return &Service{opts, durable.Guard(s)}, nil
}

// Endpoint returns the handler of the service's requests.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("autoscaling")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}

func invalid(format string, args ...any) error {
	return wire.Errorf("ValidationError", format, args...)
}

// arn returns the ARN for a new resource.
func arn(c wire.Caller, kind, name string) *string {
	return aws.String("arn:aws:autoscaling:" + c.Region + ":" + c.Account + ":" + kind + ":" + uuid.NewString() + ":" + kind + "Name/" + name)
}

// checkName reports an invalid name.
func checkName(field, name string) error {
	if name == "" || len(name) > 255 || strings.ContainsAny(name, ":\n\r") {
		return invalid("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: it must have between 1 and 255 characters, and no colon", name, field)
	}
	return nil
}

// recast sets the fields of to, an SDK struct, from the fields of from that are set and have the
// same names.
func recast(from, to any) error {
	data, err := durable.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// maxRecords is the largest page size, usualRecords the default.
const (
	maxRecords   = 100
	usualRecords = 50
)

// pageOf returns the requested page of the rows with those names, or of all rows if names is empty,
// and the token of the next page.
func pageOf[T any](rows []T, key func(T) string, names []string, size *int32, token *string) ([]T, *string, error) {
	if size != nil && (*size < 1 || *size > maxRecords) {
		return nil, nil, invalid("1 validation error detected: Value '%d' at 'maxRecords' failed to satisfy constraint: it must be between 1 and %d", *size, maxRecords)
	}
	rows = slices.DeleteFunc(rows, func(row T) bool { return len(names) > 0 && !slices.Contains(names, key(row)) })
	sort.Slice(rows, func(i, j int) bool { return key(rows[i]) < key(rows[j]) })
	page, next, ok := wire.Page(fmt.Sprintf("%T", rows), rows, key, cmp.Compare[string], int(cmp.Or(aws.ToInt32(size), usualRecords)), token)
	if !ok {
		return nil, nil, wire.Errorf("InvalidNextToken", "The token '%s' is invalid.", *token)
	}
	return page, next, nil
}
