package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/bucket"
	"bake/builder/amazon/internal/policy"
	"bake/step"
)

// accountOf returns the account of a session, with the regions that the session was opened in.
func accountOf(s *access.Session) *Account {
	return &Account{ID: s.Account, Regions: []string{s.Region}, session: s, page: pageSize, named: true, reports: &reports{of: map[string][]reportEntry{}}, assumed: &assumedAccounts{of: map[string]*Account{}}}
}

// Bucket opens the place s3://BUCKET/PREFIX with the credentials of the account.
func (a *Account) Bucket(ctx context.Context, uri string) (*amazon.Bucket, error) {
	return bucket.Open(ctx, a.session, uri)
}

// Role is a role to assume in other accounts. The zero value is no role.
type Role struct {
	ARN        string // with "{account}" instead of the account number
	ExternalID string // which its trust policy may require
	Session    string // session name, which appears in logs; empty: bake
}

// Check returns an error if the ARN is invalid. An empty ARN is valid.
func (r Role) Check() error {
	if r.ARN == "" || strings.HasPrefix(r.ARN, "arn:") && strings.Contains(r.ARN, ":role/") {
		return nil
	}
	return errors.New("it must be the ARN of a role, such as arn:aws:iam::{account}:role/bake")
}

// roleOf returns the role of a distribution, for a run of bake.
func roleOf(d builder.Distribution, run string) Role {
	name := "bake"
	if run != "" {
		name += "-" + run
	}
	name = strings.Map(func(r rune) rune {
		if r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_+=,.@-", r)) {
			return r
		}
		return '-'
	}, name)
	return Role{d.Role, d.ExternalID, name[:min(len(name), sessionName)]}
}

// sessionName is the maximum length of a session name.
const sessionName = 64

// assumedAccounts are the other accounts in which roles were assumed.
type assumedAccounts struct {
	mu sync.Mutex
	of map[string]*Account // by the ARN of the role
}

// in returns another account, accessed by a role in it. The role is assumed only once.
func (a *Account) in(ctx context.Context, account string, role Role) (*Account, error) {
	arn := strings.ReplaceAll(role.ARN, "{account}", account)
	a.assumed.mu.Lock()
	defer a.assumed.mu.Unlock()
	if known := a.assumed.of[arn]; known != nil && known.ID == account {
		return known, nil
	}
	other, err := a.as(ctx, account, access.AssumeRole{RoleARN: arn, ExternalID: role.ExternalID, SessionName: cmp.Or(role.Session, "bake")})
	if err == nil {
		a.assumed.of[arn] = other
	}
	return other, err
}

// as returns another account, accessed by a role in it.
func (a *Account) as(ctx context.Context, account string, role access.AssumeRole) (*Account, error) {
	session, err := a.session.As(ctx, role)
	if err != nil {
		return nil, &PlaceError{account: account, err: fmt.Errorf("%w. Its trust policy must allow sts:AssumeRole to account %s", err, a.ID)}
	}
	if session.Account != account {
		return nil, fmt.Errorf("account %s: the role %s is one of account %s; write {account} in its place, or name each account's own role", account, role.RoleARN, session.Account)
	}
	return &Account{ID: account, Regions: a.Regions, session: session, page: a.page, named: a.named, place: a.place}, nil
}

// Keepers returns the accounts that hold images of a distribution, with their regions: the
// account itself and, if images are copied to other accounts, each of those. With an
// error, it returns the accounts that could be opened.
func (a *Account) Keepers(ctx context.Context, to builder.Distribution, run string) ([]*Account, error) {
	all := []*Account{a}
	var errs []error
	o := a.NewDistributor(to, run)
	if !to.Copy || o.role.ARN == "" {
		return all, nil
	}
	for _, id := range o.accounts() {
		other, err := o.in(ctx, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		its, err := other.enabled(ctx)
		if err != nil {
			errs = append(errs, &PlaceError{account: id, err: err})
			continue
		}
		keeper := *other
		keeper.Regions = its
		if !a.place.All {
			keeper.Regions = slices.DeleteFunc(slices.Clone(a.Regions), func(r string) bool { return !slices.Contains(its, r) })
		}
		all = append(all, &keeper)
	}
	return all, errors.Join(errs...)
}

// Distributor distributes images of an account. It implements [builder.Distributor].
type Distributor struct {
	own  *Account
	to   builder.Distribution
	role Role // of to

	refused *refusals // places that are skipped because they refused; nil: each failure is an error
}

// refusals are places, and whole accounts, that refused access or did not answer.
type refusals struct {
	mu   sync.Mutex
	of   map[string]bool // by account and region
	errs []error
}

// take records an error of a place, once for each place, and reports whether the caller may
// ignore it.
func (r *refusals) take(ctx context.Context, account, region string, err error) bool {
	if r == nil || context.Cause(ctx) != nil {
		return false
	}
	if of, ok := errors.AsType[*PlaceError](err); ok {
		err = of.err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if key := account + " " + region; !r.of[key] {
		r.of[key] = true
		r.errs = append(r.errs, &PlaceError{account, region, err})
	}
	return true
}

func (r *refusals) has(account, region string) bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[account+" "+region] || r.of[account+" "]
}

// distributable is a builder whose images can be distributed by a [Distributor].
type distributable interface {
	OpenSession(ctx context.Context, s *step.Scope) (*access.Session, error)
	Regions() []string
	SetDistribution(to builder.Distribution)
}

// Distributes reports whether a [Distributor] can distribute a builder's images.
func Distributes(b builder.Builder) bool {
	_, ok := b.(distributable)
	return ok
}

// DistributorOf returns the distributor of the images of a builder for which [Distributes]
// is true.
func DistributorOf(ctx context.Context, s *step.Scope, b builder.Builder, d builder.Distribution) (builder.Distributor, error) {
	h, ok := b.(distributable)
	if !ok {
		return nil, errors.New("images of this builder cannot be distributed or put into channels")
	}
	session, err := h.OpenSession(ctx, s)
	if err != nil {
		return nil, err
	}
	h.SetDistribution(d)
	return accountOf(session).NewDistributor(d, s.Run.ID), nil
}

// DistributionPermissions are the permissions for distributing the images of a builder and
// for moving channels to them.
type DistributionPermissions struct {
	Of         builder.Builder // that [Distributes]
	To         builder.Distribution
	Parameters []string // of the channels
}

// Permissions implements [amazon.Permitted].
func (h DistributionPermissions) Permissions() []policy.Need {
	of, ok := h.Of.(distributable)
	if !ok {
		return nil
	}
	return DistributionNeeds(of.Regions(), h.To, h.Parameters)
}

// RetentionPermissions are the permissions for retention, which examines all regions.
type RetentionPermissions struct{}

// Permissions implements [amazon.Permitted].
func (RetentionPermissions) Permissions() []policy.Need {
	return append(needs()["prune"](policy.In()), policy.Need{Actions: []string{"sts:GetCallerIdentity"}})
}

// NewDistributor returns a distributor of images of the account, in a run of bake.
func (a *Account) NewDistributor(d builder.Distribution, run string) *Distributor {
	return &Distributor{own: a, to: d, role: roleOf(d, run)}
}

// in returns an account of the distribution; nil if there is no role to assume in it.
func (o *Distributor) in(ctx context.Context, account string) (*Account, error) {
	switch {
	case account == o.own.ID:
		return o.own, nil
	case o.role.ARN == "":
		return nil, nil
	}
	return o.own.in(ctx, account, o.role)
}

// accounts returns the other accounts of the distribution.
func (o *Distributor) accounts() []string {
	all := slices.Compact(slices.Sorted(slices.Values(o.to.Accounts)))
	return slices.DeleteFunc(all, func(id string) bool { return id == o.own.ID })
}

// Check implements [builder.Distributor]. It checks that the roles can be assumed, the
// regions are enabled and the keys exist, and that the accounts may copy the images or the
// images can be shared with them.
func (o *Distributor) Check(ctx context.Context) error {
	if o.to.Copy && o.to.Role == "" && len(o.accounts()) > 0 {
		return errors.New("images can be copied in other accounts only with a role in each of them")
	}
	var each errgroup.Group
	each.SetLimit(regionsAtOnce)
	each.Go(func() error { return o.checkAccount(ctx, o.own, o.to.Regions) })
	for _, id := range o.accounts() {
		each.Go(func() error {
			other, err := o.in(ctx, id)
			if err != nil || other == nil {
				return err
			}
			return o.checkAccount(ctx, other, o.to.Regions)
		})
	}
	err := each.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// checkAccount checks the regions of one account.
func (o *Distributor) checkAccount(ctx context.Context, a *Account, regions []string) error {
	enabled, err := a.enabled(ctx)
	if err != nil {
		return fmt.Errorf("account %s: %w", a.ID, err)
	}
	for _, r := range regions {
		if !slices.Contains(enabled, r) {
			return fmt.Errorf("account %s has no region %s, or has not enabled it; its regions are %s", a.ID, r, strings.Join(enabled, ", "))
		}
		key := o.to.Keys[r]
		if a != o.own && !o.to.Copy {
			continue
		}
		if err := a.checkKey(ctx, r, key); err != nil {
			return err
		}
		if a != o.own || r != a.home() {
			if err := a.checkCopy(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkKey checks that a key exists, if the account may query it.
func (a *Account) checkKey(ctx context.Context, region, key string) error {
	if key == "" {
		return nil
	}
	err := a.session.KMS(region, "").Do(ctx, "DescribeKey", map[string]any{"KeyId": key}, nil)
	switch {
	case !access.Is(err, "NotFoundException"):
	case a.session.Cloud.StandsIn(): // which accepts any key, so that templates work unchanged
		a.warn(ctx, "Account %s has no key %s in %s: %s. On AWS, that would be an error.", a.ID, key, region, err)
	default:
		return fmt.Errorf("account %s has no key %s in %s: %w", a.ID, key, region, err)
	}
	return context.Cause(ctx) // EC2 reports other problems of the key
}

// nobodysImage is the ID of an image that does not exist. AWS checks whether a call is
// permitted before it looks for the image.
const nobodysImage = "ami-00000000000000000"

// checkCopy checks with a dry run whether the account may copy images to a region.
func (a *Account) checkCopy(ctx context.Context, region string) error {
	_, err := access.Call(ctx, a.session.EC2(region).CopyImage, &ec2.CopyImageInput{
		DryRun: aws.Bool(true), Name: aws.String("bake-preflight"), SourceImageId: aws.String(nobodysImage), SourceRegion: &region,
	})
	if access.Is(err, "UnauthorizedOperation", "AccessDenied", "AccessDeniedException") {
		return fmt.Errorf("account %s in %s: %w", a.ID, region, err)
	}
	return context.Cause(ctx)
}

// Tags implements [builder.Distributor].
func (o *Distributor) Tags(ctx context.Context, at builder.Placement) (map[string]string, error) {
	found, err := o.own.byID(ctx, at.Region, at.ID)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return maps.Clone(found[0].Tags), nil
}
