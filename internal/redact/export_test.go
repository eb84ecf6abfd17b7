package redact

import (
	"maps"
	"slices"
)

// Values lists all texts that are masked.
func (r *Set) Values() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Keys(r.known))
}
