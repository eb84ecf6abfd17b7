package amidata

import "bake/builder/amazon/internal/policy"

// Permissions implements [bake/builder/amazon.Permitted].
func (d *data) Permissions() []policy.Need {
	return append(d.Options.Options.Permissions(d.src), policy.In(d.KnownRegion(d.src)).Look("DescribeImages"))
}
