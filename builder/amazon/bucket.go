package amazon

import (
	"context"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/bucket"
	"bake/builder/amazon/internal/policy"
	"bake/internal/s3uri"
)

// Bucket is a location for documents in an S3 bucket.
type Bucket = bucket.Bucket

// ErrNoBucket means that there is no such bucket.
var ErrNoBucket = bucket.ErrNone

// OpenBucket opens the place s3://BUCKET/PREFIX with the credentials and the region of
// env. cloud replaces AWS. The error is an [ErrNoBucket] if there is no such bucket.
func OpenBucket(ctx context.Context, cloud Cloud, env []string, uri string) (*Bucket, error) {
	o := access.Defaults()
	session, err := access.Open(ctx, &o, nil, cloud, env)
	if err != nil {
		return nil, err
	}
	return bucket.Open(ctx, session, uri)
}

// Documents is the URI of a location in a bucket that documents are written to and read
// from.
type Documents string

// Permissions implements [Permitted].
func (d Documents) Permissions() []policy.Need {
	name, prefix, err := s3uri.Parse(string(d))
	if err != nil { // not known yet
		name, prefix = "*", ""
	}
	if prefix != "" {
		prefix += "/"
	}
	in := policy.In("")
	return []policy.Need{
		{Actions: []string{"s3:PutObject", "s3:GetObject"}, Resources: in.Bucket(name + "/" + prefix + "*")},
		{Actions: []string{"s3:ListBucket"}, Resources: in.Bucket(name)},
	}
}
