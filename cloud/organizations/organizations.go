// Package organizations is the embedded AWS Organizations: a single organization of all the cloud's
// accounts. The first account is the management account and is at the root; the others are in one
// organizational unit. The organization cannot be changed.
package organizations

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sort"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/organizations"
	"bake/cloud/wire"
)

// Account is an account of the organization.
type Account struct{ ID, Name string }

// Service is the organization of the given accounts. There must be at least one.
type Service struct{ Accounts []Account }

// unitName is the name of the organizational unit.
const unitName = "workloads"

// maxPage is the maximum page size and the default.
const maxPage = 20

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("organizations")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}

// digits returns the random-looking part of the organization's ids. It is always the same for the
// same management account.
func (s *Service) digits() string {
	sum := sha256.Sum256([]byte("organization of " + s.manager()))
	return hex.EncodeToString(sum[:])
}

func (s *Service) manager() string { return s.Accounts[0].ID }
func (s *Service) id() string      { return "o-" + s.digits()[:10] }
func (s *Service) root() string    { return "r-" + s.digits()[10:14] }
func (s *Service) unit() string    { return "ou-" + s.digits()[10:14] + "-" + s.digits()[14:22] }

func (s *Service) arn(resource string) string {
	return "arn:aws:organizations::" + s.manager() + ":" + resource
}

func (s *Service) organizationARN() string { return s.arn("organization/" + s.id()) }
func (s *Service) unitARN() string         { return s.arn("ou/" + s.id() + "/" + s.unit()) }

// Member reports whether an account is in the organization or the unit with that ARN.
func (s *Service) Member(account, arn string) bool {
	for i, a := range s.Accounts {
		if a.ID == account {
			return arn == s.organizationARN() || arn == s.unitARN() && i > 0
		}
	}
	return false
}

// DescribeOrganization describes the organization to its members.
func (s *Service) DescribeOrganization(context.Context, *organizations.DescribeOrganizationInput) (*organizations.DescribeOrganizationOutput, error) {
	return &organizations.DescribeOrganizationOutput{Organization: &organizations.Organization{
		Id: aws.String(s.id()), Arn: aws.String(s.organizationARN()), FeatureSet: organizations.OrganizationFeatureSetAll,
		MasterAccountId: aws.String(s.manager()), MasterAccountArn: aws.String(s.arn("account/" + s.id() + "/" + s.manager())),
		MasterAccountEmail: aws.String(email(s.Accounts[0])), AvailablePolicyTypes: []organizations.PolicyTypeSummary{},
	}}, nil
}

func sorted(accounts []organizations.Account) []organizations.Account {
	sort.Slice(accounts, func(i, j int) bool { return *accounts[i].Id < *accounts[j].Id })
	return accounts
}

func email(a Account) string { return a.Name + "@example.com" }

// manages returns an error if the caller is not the management account. Only that account may list
// the members.
func (s *Service) manages(ctx context.Context) error {
	if wire.CallerFrom(ctx).Account != s.manager() {
		return wire.Errorf("AccessDeniedException", "You don't have permissions to access this resource.")
	}
	return nil
}

// shown returns accounts in the form of lists.
func (s *Service) shown(accounts []Account) (out []organizations.Account) {
	for _, a := range accounts {
		out = append(out, organizations.Account{Id: &a.ID, Name: &a.Name, Email: aws.String(email(a)), Arn: aws.String(s.arn("account/" + s.id() + "/" + a.ID)),
			Status: organizations.AccountStatusActive, State: organizations.AccountStateActive, JoinedMethod: organizations.AccountJoinedMethodCreated})
	}
	return out
}

// page returns the requested page of accounts and the token of the next page.
func page(accounts []organizations.Account, size *int32, token *string) ([]organizations.Account, *string, error) {
	rows, next, ok := wire.Page("accounts", accounts, func(a organizations.Account) string { return *a.Id }, cmp.Compare[string], int(cmp.Or(aws.ToInt32(size), maxPage)), token)
	if !ok {
		return nil, nil, &wire.Error{Code: "InvalidInputException", Message: "You specified an invalid value: INVALID_NEXT_TOKEN."}
	}
	return rows, next, nil
}

// ListAccounts lists the accounts of the organization.
func (s *Service) ListAccounts(ctx context.Context, in *organizations.ListAccountsInput) (*organizations.ListAccountsOutput, error) {
	if err := s.manages(ctx); err != nil {
		return nil, err
	}
	rows, next, err := page(sorted(s.shown(s.Accounts)), in.MaxResults, in.NextToken)
	return &organizations.ListAccountsOutput{Accounts: rows, NextToken: next}, err
}

// ListAccountsForParent lists the accounts directly in the root or in the unit.
func (s *Service) ListAccountsForParent(ctx context.Context, in *organizations.ListAccountsForParentInput) (*organizations.ListAccountsForParentOutput, error) {
	if err := s.manages(ctx); err != nil {
		return nil, err
	}
	var accounts []Account
	switch aws.ToString(in.ParentId) {
	case s.root():
		accounts = s.Accounts[:1]
	case s.unit():
		accounts = s.Accounts[1:]
	default:
		return nil, errNoParent()
	}
	rows, next, err := page(sorted(s.shown(accounts)), in.MaxResults, in.NextToken)
	return &organizations.ListAccountsForParentOutput{Accounts: rows, NextToken: next}, err
}

func errNoParent() error {
	return wire.Errorf("ParentNotFoundException", "You specified parent that doesn't exist.")
}

// ListOrganizationalUnitsForParent lists the unit, whose parent is the root.
func (s *Service) ListOrganizationalUnitsForParent(ctx context.Context, in *organizations.ListOrganizationalUnitsForParentInput) (*organizations.ListOrganizationalUnitsForParentOutput, error) {
	if err := s.manages(ctx); err != nil {
		return nil, err
	}
	out := &organizations.ListOrganizationalUnitsForParentOutput{OrganizationalUnits: []organizations.OrganizationalUnit{}}
	switch aws.ToString(in.ParentId) {
	case s.root():
		out.OrganizationalUnits = append(out.OrganizationalUnits, organizations.OrganizationalUnit{Id: aws.String(s.unit()), Arn: aws.String(s.unitARN()), Name: aws.String(unitName)})
	case s.unit():
	default:
		return nil, errNoParent()
	}
	return out, nil
}

// ListRoots lists the root of the organization.
func (s *Service) ListRoots(ctx context.Context, _ *organizations.ListRootsInput) (*organizations.ListRootsOutput, error) {
	if err := s.manages(ctx); err != nil {
		return nil, err
	}
	return &organizations.ListRootsOutput{Roots: []organizations.Root{{Id: aws.String(s.root()), Arn: aws.String(s.arn("root/" + s.id() + "/" + s.root())),
		Name: aws.String("Root"), PolicyTypes: []organizations.PolicyTypeSummary{}}}}, nil
}
