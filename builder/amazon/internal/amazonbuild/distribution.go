package amazonbuild

import (
	"context"
	"errors"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/step"
)

// OpenSession opens a session in the account in which the builder's images are made.
func (q *sequence) OpenSession(ctx context.Context, s *step.Scope) (*access.Session, error) {
	if q.Image == nil {
		return nil, errors.New("the builder makes no image")
	}
	cloud := q.cloud
	cloud.Warn = s.Warn
	session, err := access.Open(ctx, q.Access, q.src, cloud, s.Run.Env)
	if err != nil {
		return nil, err
	}
	if session.Account == "" {
		return nil, errors.New("AWS was not asked for the account of the credentials: remove skip_credential_validation, or the distribute and channel blocks")
	}
	return session, nil
}

// Regions returns the regions of the images. A region that is not known yet is "".
func (q *sequence) Regions() []string {
	region := q.Access.KnownRegion(q.src)
	if q.Image == nil {
		return []string{region}
	}
	return q.Image.Where(q.src, region)
}

// SetDistribution sets the distribution of the images. It must be called before Build.
func (q *sequence) SetDistribution(to builder.Distribution) { q.distribution = to }
