package ebs

import "bake/builder/amazon/internal/policy"

// Permissions implements [bake/builder/amazon.Permitted].
func (b *ebs) Permissions() []policy.Need {
	region := b.Access.KnownRegion(b.src)
	here := policy.In(region)
	needs := b.Access.Permissions(b.src)
	needs = append(needs, b.Launch.Permissions(b.src, here, b.Launch.Devices())...)
	if b.src.Known(&b.SkipCreate) && b.SkipCreate {
		return append(needs, b.Image.Checks(b.src, region)...)
	}
	needs = append(needs, b.InstanceAttributes(b.src, here)...)
	needs = append(needs, b.Image.Permissions(b.src, region, "CreateImage")...)
	if b.FastLaunch != nil {
		needs = append(needs, b.FastLaunch.Permissions(b.Image.Place(b.src, region))...)
	}
	return needs
}
