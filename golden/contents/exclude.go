package contents

import (
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// CheckPatterns returns a message about invalid patterns for Exclude, or "".
func CheckPatterns(patterns []string) string {
	for _, p := range patterns {
		if !doublestar.ValidatePattern(p) {
			return p + " is not a pattern of paths."
		}
	}
	return ""
}

// Exclude removes packages whose paths all match one of the patterns, such as "/opt/**"
// or "**/node_modules/**". Packages of package managers have no paths, and stay.
func (c *Contents) Exclude(patterns []string) {
	matches := func(path string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			return doublestar.MatchUnvalidated(strings.TrimPrefix(strings.TrimPrefix(p, "./"), "/"), path)
		})
	}
	kept := c.Packages[:0]
	for _, p := range c.Packages {
		found := len(p.Paths) > 0
		p.Paths = slices.DeleteFunc(p.Paths, matches)
		if !found || len(p.Paths) > 0 {
			kept = append(kept, p)
		}
	}
	c.Packages = kept
}
