package contents

import (
	"maps"
	"slices"
	"strings"
)

var Expression = expression

// LicenseIDs are all identifiers that are written as those of SPDX.
func LicenseIDs() []string {
	ids := slices.Collect(maps.Keys(licenses.load().ids))
	for _, id := range licenses.load().aliases {
		ids = append(ids, id)
	}
	return append(ids, strings.Fields(spdxExceptions)...)
}
