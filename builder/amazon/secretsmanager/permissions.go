package secretsmanager

import "bake/builder/amazon/internal/policy"

// Permissions implements [bake/builder/amazon.Permitted].
func (d *data) Permissions() []policy.Need {
	name := d.Name
	if !d.src.Known(&d.Name) {
		name = "*"
	}
	return append(d.Options.Options.Permissions(d.src), policy.In(d.KnownRegion(d.src)).Secret(name)...)
}
