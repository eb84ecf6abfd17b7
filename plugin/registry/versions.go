package registry

import (
	"fmt"

	goversion "github.com/hashicorp/go-version"
)

// ParseVersions parses a version or a constraint; an empty one allows every version. A
// constraint also allows development versions of the releases that it allows, as in a
// template; a version allows only itself.
func ParseVersions(text string) (allows func(version string) bool, err error) {
	if text == "" {
		return func(string) bool { return true }, nil
	}
	if one, err := goversion.NewVersion(text); err == nil {
		return func(v string) bool {
			parsed, err := goversion.NewVersion(v)
			return err == nil && parsed.Equal(one)
		}, nil
	}
	c, err := goversion.NewConstraint(text)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a version nor a constraint such as '~> 1.1'", text)
	}
	return func(v string) bool {
		parsed, err := goversion.NewVersion(v)
		return err == nil && (c.Check(parsed) || c.Check(parsed.Core()))
	}, nil
}
