// Package s3uri reads addresses of places in buckets of S3.
package s3uri

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// Scheme is what an address begins with.
const Scheme = "s3://"

var bucket = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`) })

// longest is how long a prefix may be: keys have at most 1,024 bytes.
const longest = 512

// Parse returns the bucket and the prefix of s3://BUCKET/PREFIX, where the prefix may be
// missing. It has no slash at either end.
func Parse(uri string) (name, prefix string, err error) {
	rest, ok := strings.CutPrefix(uri, Scheme)
	name, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.TrimSuffix(prefix, "/")
	if !ok || !bucket().MatchString(name) || len(prefix) > longest {
		return "", "", fmt.Errorf("%q is not s3://BUCKET or s3://BUCKET/PREFIX", uri)
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
