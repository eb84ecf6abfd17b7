package amazonbuild

import (
	"context"
	"errors"

	"bake/builder/amazon/internal/access"
	"bake/step"
)

// OpenSession opens the way to the account that the builder's images are made in.
func (q *sequence) OpenSession(ctx context.Context, s *step.Scope) (*access.Session, error) {
	if q.Image == nil {
		return nil, errors.New("the builder makes no image")
	}
	session, err := access.Open(ctx, q.Access, q.src, q.cloud, s.Run.Env)
	if err != nil {
		return nil, err
	}
	if session.Account == "" {
		return nil, errors.New("AWS was not asked for the account of the credentials: remove skip_credential_validation, or the distribute and channel blocks")
	}
	session.Warn = s.Warn
	return session, nil
}

// HomeRegion is the region that images are made in; empty if it is not known yet.
func (q *sequence) HomeRegion() string { return q.Access.KnownRegion(q.src) }

// Share says that the image in the build region is to be shared with other accounts once it
// is made. It is called before Build.
func (q *sequence) Share() { q.shared = true }
