// Package iam implements the part of Identity and Access Management that provides roles to
// instances and to holders of a token of an OpenID Connect provider: roles with inline
// policies, instance profiles, and OpenID Connect providers. Policies are stored and
// returned, but not enforced.
//
// The file ACCOUNT.json in its directory holds everything of one account. The service is
// global: it ignores the region of a request.
package iam

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/iam"
	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// Service implements the actions as methods; the caller's account is in their context.
type Service struct {
	now      func() time.Time
	accounts *durable.Guarded[*durable.Table[account]] // by account id
}

// account is everything of one account, by name.
type account struct {
	Roles     map[string]*role
	Profiles  map[string]*profile
	Providers map[string]*provider // nil until there is one
}

type role struct {
	iam.Role
	Policies map[string]string // inline policies: documents by name
}

type profile struct {
	iam.InstanceProfile // its Roles field stays empty
	RoleName            string
}

// Open returns the service whose state is in dir, which it creates if necessary.
func Open(dir string, now func() time.Time) (*Service, error) {
	accounts, err := durable.OpenTable[account](dir, func() {})
	if err != nil {
		return nil, fmt.Errorf("embedded IAM: %w", err)
	}
	return &Service{now, durable.Guard(accounts)}, nil
}

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("iam")
	if err != nil {
		return nil, err
	}
	model.Sent = map[string][]string{"Tag": {"Value"}}
	return wire.New(model, s.actions())
}

// change calls f to change an account, and stores the result. If f or storing fails,
// nothing has changed.
func (s *Service) change(id string, f func(*account) error) error {
	return s.accounts.Update(func(t *durable.Table[account]) error {
		return t.Change(id, func(a *account) error {
			if a.Roles == nil { // the account's first change
				a.Roles, a.Profiles = map[string]*role{}, map[string]*profile{}
			}
			return f(a)
		})
	})
}

// read calls f with an account, which f must not change.
func (s *Service) read(id string, f func(*account) error) error {
	a := durable.View(s.accounts, func(t *durable.Table[account]) *account { return t.Rows[id] })
	if a == nil {
		a = &account{}
	}
	return f(a) // rows never change, see [durable.Table]
}

var (
	entityName = lazyregexp.New(`^[\w+=,.@-]{1,128}$`)
	entityPath = lazyregexp.New(`^(/|/[!-~]+/)$`)
)

// longestRole is the maximum length of a role's name; other names are limited only by
// [entityName].
const longestRole = 64

func checkName(parameter string, name *string) error {
	if n := aws.ToString(name); parameter == "roleName" && len(n) > longestRole {
		return wire.Errorf("ValidationError", "1 validation error detected: Value '%s' at 'roleName' failed to satisfy constraint: Member must have length less than or equal to %d", n, longestRole)
	}
	if !entityName.Get().MatchString(aws.ToString(name)) {
		return wire.Errorf("ValidationError", "The specified value for %s is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-", parameter)
	}
	return nil
}

func checkPath(path *string) (string, error) {
	if path == nil {
		return "/", nil
	}
	if !entityPath.Get().MatchString(*path) {
		return "", wire.Errorf("ValidationError", "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	}
	return *path, nil
}

// checkDocument reports an invalid policy: its statements must have an effect and, except
// in a trust policy, resources.
func checkDocument(text *string, trust bool) error {
	var document struct {
		Version   string
		Statement json.RawMessage
	}
	malformed := func(why string) error {
		return wire.Errorf("MalformedPolicyDocument", "%s", why)
	}
	if err := json.Unmarshal([]byte(aws.ToString(text)), &document); err != nil {
		return malformed("This policy contains invalid Json")
	}
	if document.Version != "" && document.Version != "2012-10-17" && document.Version != "2008-10-17" {
		return malformed("The policy must contain a valid version string")
	}
	statements, err := list[map[string]json.RawMessage](document.Statement)
	if err != nil || len(statements) == 0 {
		return malformed("Syntax errors in policy.")
	}
	for _, s := range statements {
		var effect string
		_ = json.Unmarshal(s["Effect"], &effect) // an invalid one stays empty
		_, acts := s["Action"]
		_, not := s["NotAction"]
		_, on := s["Resource"]
		_, notOn := s["NotResource"]
		_, who := s["Principal"]
		switch {
		case effect != "Allow" && effect != "Deny", !acts && !not:
			return malformed("Syntax errors in policy.")
		case trust && !who:
			return malformed("Missing required field Principal")
		case !trust && !on && !notOn:
			return malformed("Policy statement must contain resources.")
		}
	}
	return nil
}

// list parses a value of a policy that may be single or a list.
func list[T any](data json.RawMessage) ([]T, error) {
	var many []T
	if json.Unmarshal(data, &many) == nil {
		return many, nil
	}
	var one T
	err := json.Unmarshal(data, &one)
	return []T{one}, err
}

func noSuch(kind, name string) error {
	return &wire.Error{Code: "NoSuchEntity", Message: fmt.Sprintf("The %s with name %s cannot be found.", kind, name), Status: http.StatusNotFound}
}

func noInstanceProfile(name string) error {
	return &wire.Error{Code: "NoSuchEntity", Message: fmt.Sprintf("Instance Profile %s cannot be found.", name), Status: http.StatusNotFound}
}

func exists(format string, args ...any) error {
	return &wire.Error{Code: "EntityAlreadyExists", Message: fmt.Sprintf(format, args...), Status: http.StatusConflict}
}

func conflict(format string, args ...any) error {
	return &wire.Error{Code: "DeleteConflict", Message: fmt.Sprintf(format, args...), Status: http.StatusConflict}
}

func (a *account) role(name *string) (*role, error) {
	r := a.Roles[aws.ToString(name)]
	if r == nil {
		return nil, noSuch("role", aws.ToString(name))
	}
	return r, nil
}

func (a *account) profile(name *string) (*profile, error) {
	p := a.Profiles[aws.ToString(name)]
	if p == nil {
		return nil, noInstanceProfile(aws.ToString(name))
	}
	return p, nil
}

// newID returns a unique id in IAM's form.
func newID(prefix string) *string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return aws.String(prefix + base32.StdEncoding.EncodeToString(b[:]) + "A")
}
