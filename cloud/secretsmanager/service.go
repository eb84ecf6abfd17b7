// Package secretsmanager is the embedded Secrets Manager. Each method of the state with
// the name of an action implements that action. The caller's account and region are in the
// context (see [wire.WithCaller]).
package secretsmanager

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/secretsmanager"
	"bake/cloud/durable"
	"bake/cloud/kms"
	"bake/cloud/wire"
)

// Options configure a service. All are required.
type Options struct {
	Dir   string // for the state
	Now   func() time.Time
	Wrote func() // called after every change of the state on disk, with the state locked
}

// Service is the embedded Secrets Manager of all accounts and regions.
type Service struct{ guarded *durable.Guarded[*state] }

// state is the service's state. Its methods run with the lock held.
type state struct {
	opts    Options
	key     *kms.Key
	secrets *durable.Table[secret]
}

// secret is a secret with its versions, oldest first.
type secret struct {
	Account, Region string
	Name, ARN       string
	Description     *string
	KmsKeyID        *string
	Tags            []secretsmanager.Tag
	Created         time.Time
	Changed         time.Time
	Deleted         *time.Time // when deletion was requested
	Gone            *time.Time // when deletion takes effect
	Versions        []version
}

// version is one value of a secret. A version without stages is kept for some time for
// clients that know its id.
type version struct {
	ID      string
	Stages  []string
	Binary  bool
	Value   string // encrypted
	Created time.Time
}

const (
	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"

	maxVersions = 100
)

// Open returns the service whose state is in opts.Dir.
func Open(opts Options) (*Service, error) {
	s := &state{opts: opts}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("embedded Secrets Manager: state in %s: %w", opts.Dir, err)
	}
	return &Service{durable.Guard(s)}, nil
}

func (s *state) open() (err error) {
	if err = os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return err
	}
	if s.key, err = kms.OpenKey(filepath.Join(s.opts.Dir, "key")); err != nil {
		return err
	}
	s.secrets, err = durable.OpenTable[secret](filepath.Join(s.opts.Dir, "secrets"), s.opts.Wrote)
	return err
}

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("secretsmanager")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}

func newARN(c wire.Caller, name string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	suffix := make([]byte, 6)
	_, _ = rand.Read(suffix) // never fails
	for i, b := range suffix {
		suffix[i] = letters[int(b)%len(letters)]
	}
	return "arn:aws:secretsmanager:" + c.Region + ":" + c.Account + ":secret:" + name + "-" + string(suffix)
}

// find returns the caller's secret with that name or ARN; the ARN's random suffix may be
// missing. A secret that is marked for deletion is an error unless deleted is set.
func (s *state) find(c wire.Caller, id string, deleted bool) (*secret, error) {
	for _, row := range s.secrets.Rows {
		if row.Account != c.Account || row.Region != c.Region || id != row.Name && id != row.ARN && id != row.ARN[:len(row.ARN)-7] {
			continue
		}
		if s.expired(row) {
			break
		}
		if row.Deleted != nil && !deleted {
			return nil, wire.Errorf("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
		}
		return clone(row), nil
	}
	return nil, wire.Errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

// clone returns a copy of row whose versions may be changed; rows of the table must not be
// changed.
func clone(row *secret) *secret {
	next := *row
	next.Versions = slices.Clone(row.Versions)
	for i := range next.Versions {
		next.Versions[i].Stages = slices.Clone(next.Versions[i].Stages)
	}
	return &next
}

// expired reports whether the deletion of a secret has taken effect.
func (s *state) expired(row *secret) bool {
	return row.Gone != nil && !s.opts.Now().Before(*row.Gone)
}

func (s *state) store(row *secret) error {
	return s.secrets.Put(durable.NameID(row.Account, row.Region, row.Name), row)
}

// stage returns the version with a label, or nil.
func (row *secret) stage(label string) *version {
	for i := range row.Versions {
		if slices.Contains(row.Versions[i].Stages, label) {
			return &row.Versions[i]
		}
	}
	return nil
}

// value is a new version as sent by a client.
type value struct {
	token  *string
	text   *string
	binary []byte
}

func (v value) given() bool { return v.text != nil || v.binary != nil }

func (v value) plain() []byte {
	if v.text != nil {
		return []byte(*v.text)
	}
	return v.binary
}

// add adds v as a version of row with the labels, and returns its id. If it becomes the
// current version, the one that was current becomes the previous one. Sending the same
// value with the same token again changes nothing.
func (s *state) add(row *secret, v value, labels []string) (id string, err error) {
	if v.text != nil && v.binary != nil {
		return "", invalid("You can't specify both a binary secret value and a string secret value in the same secret.")
	}
	id = wire.NewRequestID()
	if v.token != nil {
		id = *v.token
	}
	for _, old := range row.Versions {
		if old.ID != id {
			continue
		}
		plain, err := s.key.Unseal(old.Value, row.ARN)
		if err != nil {
			return "", err
		}
		if string(plain) != string(v.plain()) || old.Binary != (v.text == nil) {
			return "", wire.Errorf("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", id, row.ARN)
		}
		return id, nil
	}
	was := row.stage(current)
	if slices.Contains(labels, current) && was != nil {
		row.unlabel(previous)
		was.Stages = append(was.Stages, previous)
	}
	for _, label := range labels {
		row.unlabel(label)
	}
	now := s.opts.Now().UTC()
	row.Versions = append(row.Versions, version{ID: id, Stages: labels, Binary: v.text == nil, Value: s.key.Seal(v.plain(), row.ARN), Created: now})
	for i := 0; len(row.Versions) > maxVersions && i < len(row.Versions); i++ {
		if len(row.Versions[i].Stages) == 0 {
			row.Versions = slices.Delete(row.Versions, i, i+1)
			i--
		}
	}
	if len(row.Versions) > maxVersions {
		return "", wire.Errorf("LimitExceededException", "A secret can have at most %d versions.", maxVersions)
	}
	row.Changed = now
	return id, nil
}

// unlabel removes a label from the version that has it.
func (row *secret) unlabel(label string) {
	if v := row.stage(label); v != nil {
		v.Stages = slices.DeleteFunc(v.Stages, func(s string) bool { return s == label })
	}
}

// stages returns the labels of all versions that have any, by version id.
func (row *secret) stages() map[string][]string {
	out := map[string][]string{}
	for _, v := range row.Versions {
		if len(v.Stages) > 0 {
			out[v.ID] = v.Stages
		}
	}
	return out
}

func invalid(format string, args ...any) error {
	return wire.Errorf("InvalidParameterException", format, args...)
}

// tags returns the secret's tags for answers: a table does not keep empty values.
func (row *secret) tags() (out []secretsmanager.Tag) {
	for _, t := range row.Tags {
		out = append(out, secretsmanager.Tag{Key: t.Key, Value: aws.String(aws.ToString(t.Value))})
	}
	return out
}

// hasTag reports whether the key or value (selected by part) of one of row's tags begins
// with text.
func (row *secret) hasTag(part func(secretsmanager.Tag) string, text string) bool {
	return slices.ContainsFunc(row.Tags, func(t secretsmanager.Tag) bool { return strings.HasPrefix(part(t), text) })
}
