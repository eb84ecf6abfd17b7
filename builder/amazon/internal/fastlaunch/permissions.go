package fastlaunch

import "bake/builder/amazon/internal/policy"

// Permissions returns the needs for enabling fast launch of images in a place. EC2 launches
// the instances itself.
func (o *Options) Permissions(all policy.Place) []policy.Need {
	return []policy.Need{
		all.Look("DescribeFastLaunchImages", "DescribeLaunchTemplates"),
		all.Own("EnableFastLaunch", "image"),
		all.Use("EnableFastLaunch", "launch-template"),
		all.ServiceRole("ec2fastlaunch", "AWSServiceRoleForEC2FastLaunch"),
	}
}
