// Package s3uri parses addresses of locations in S3 buckets.
package s3uri

import (
	"fmt"
	"strings"

	"bake/internal/lazyregexp"
)

// Scheme is the beginning of an address.
const Scheme = "s3://"

// bucket matches bucket names, including older ones in us-east-1 from before 2018,
// which may be longer and contain capitals and underscores.
var bucket = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$`)

// CheckBucket returns an error if a name is not that of a general purpose bucket.
func CheckBucket(name string) error {
	switch {
	case !bucket.Get().MatchString(name):
		return fmt.Errorf("%q is not the name of a bucket", name)
	case strings.HasSuffix(name, "--x-s3"):
		return fmt.Errorf("%q is a directory bucket; give a general purpose bucket", name)
	}
	return nil
}

// longest is the maximum length of a prefix: keys have at most 1,024 bytes.
const longest = 512

// Parse returns the bucket and the prefix of s3://BUCKET/PREFIX, where the prefix may be
// missing. It has no slash at either end.
func Parse(uri string) (name, prefix string, err error) {
	rest, ok := strings.CutPrefix(uri, Scheme)
	name, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.TrimSuffix(prefix, "/")
	if !ok || len(prefix) > longest {
		return "", "", fmt.Errorf("%q is not s3://BUCKET or s3://BUCKET/PREFIX", uri)
	}
	if err := CheckBucket(name); err != nil {
		return "", "", fmt.Errorf("%q is not s3://BUCKET or s3://BUCKET/PREFIX: %w", uri, err)
	}
	if prefix == "" {
		return name, "", nil
	}
	for _, part := range strings.Split(prefix, "/") {
		if part == "" || part == "." || part == ".." {
			return "", "", fmt.Errorf("%q is not s3://BUCKET or s3://BUCKET/PREFIX: the prefix has an empty part, or one of dots", uri)
		}
	}
	return name, prefix, nil
}
