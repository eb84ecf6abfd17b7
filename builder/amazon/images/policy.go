package images

import (
	"maps"
	"slices"
	"strings"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/internal/policy"
)

// PolicyFor returns the least-privilege IAM policy for a command of bake images in these
// regions; no regions means all. With a role, which the command assumes in other accounts,
// the policy allows assuming it. The second result is false if there is no such command.
func PolicyFor(command string, regions []string, role string) (amazon.Policy, bool) {
	make, ok := allNeeds()[command]
	if !ok {
		return amazon.Policy{}, false
	}
	needs := make(policy.In(regions...))
	if role != "" {
		needs = append(needs, amazon.Roles{strings.ReplaceAll(role, "{account}", "*")}.Permissions()...)
	}
	return policy.Make(needs), true
}

// TakesRole reports whether a command of bake images assumes a role in other accounts: that
// of -role, or that of the image block.
func TakesRole(command string) bool {
	return slices.Contains([]string{"channel", "list", "promote", "prune", "revoke", "rm", "rollback", "unshare"}, command)
}

// Commands returns the commands that have a policy.
func Commands() []string {
	var names []string
	for name := range allNeeds() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// allNeeds returns the needs of all commands, by command name.
func allNeeds() map[string]func(policy.Place) []policy.Need {
	of := channelNeeds()
	maps.Copy(of, needs())
	return of
}

// channelNeeds returns the needs of the commands that read channels and move them, in
// their own account; roles in other accounts have the same needs there.
func channelNeeds() map[string]func(policy.Place) []policy.Need {
	parameters := func(p policy.Place, actions ...string) policy.Need {
		return policy.Need{Actions: actions, Resources: p.ARNs("ssm", "parameter/*")}
	}
	read := func(p policy.Place) []policy.Need {
		return []policy.Need{policy.Place{}.Look("DescribeRegions"), parameters(p, "ssm:GetParameterHistory")}
	}
	move := func(p policy.Place) []policy.Need {
		return append(read(p), p.Look("DescribeImages", "DescribeSnapshots"), parameters(p, "ssm:DeleteParameter", "ssm:GetParameter", "ssm:PutParameter"))
	}
	return map[string]func(policy.Place) []policy.Need{
		"channel": read, "promote": move, "rollback": move,
		"approve": func(p policy.Place) []policy.Need {
			return []policy.Need{policy.Place{}.Look("DescribeRegions"), p.Look("DescribeImages"), p.Use("CreateTags", "image")}
		},
		"revoke": func(p policy.Place) []policy.Need {
			return append(move(p), p.Look("DescribeImageAttribute"), p.Use("CreateTags", "image"), p.Use("DeleteTags", "image"), p.Use("DisableImage", "image"),
				policy.Need{Actions: []string{"ssm:DescribeParameters"}}, parameters(p, "ssm:GetParameters"))
		},
	}
}

// needs returns the needs of the commands that work on images, by command. Read-only
// actions have no resources in AWS.
func needs() map[string]func(policy.Place) []policy.Need {
	everywhere := policy.Place{} // the list of regions is requested in the home region
	look := func(p policy.Place) []policy.Need {
		return []policy.Need{p.Look("DescribeImages"), everywhere.Look("DescribeRegions")}
	}
	details := func(p policy.Place) []policy.Need {
		return append(look(p), p.Look("DescribeImageAttribute", "DescribeSnapshotAttribute", "DescribeSnapshots"))
	}
	change := func(p policy.Place) []policy.Need {
		return append(details(p), p.Use("ModifyImageAttribute", "image"), p.Use("ModifySnapshotAttribute", "snapshot"))
	}
	remove := func(p policy.Place) []policy.Need {
		return append(guardNeeds(p), append(look(p), p.Use("DeregisterImage", "image"), p.Use("DeleteSnapshot", "snapshot"), p.Look("DescribeSnapshots"))...)
	}
	return map[string]func(policy.Place) []policy.Need{
		"list": func(p policy.Place) []policy.Need {
			return append(append(look(p), p.Look("DescribeImageAttribute", "DescribeInstanceImageMetadata")), userNeeds(p)...)
		},
		"show": details,
		"diff": details,
		"copy": func(p policy.Place) []policy.Need {
			return append(append(look(p), p.Look("GetEbsDefaultKmsKeyId")), copyNeeds(p)...)
		},
		"share": func(p policy.Place) []policy.Need {
			return append(change(p), p.Look("GetImageBlockPublicAccessState"), policy.Need{Actions: []string{"kms:DescribeKey"}, Resources: p.ARNs("kms", "key/*")})
		},
		"unshare": func(p policy.Place) []policy.Need { return append(change(p), receiverNeeds(p)...) },
		"rm":      remove,
		"prune": func(p policy.Place) []policy.Need {
			return append(remove(p), p.Use("CreateTags", "image"), p.Use("DeleteTags", "image"), p.Use("DisableImage", "image"), p.Use("EnableImageDeprecation", "image"))
		},
		"enable": func(p policy.Place) []policy.Need {
			return append(look(p), p.Use("DeleteTags", "image"), p.Use("EnableImage", "image"), p.Use("ModifyImageAttribute", "image"))
		},
		"check": func(p policy.Place) []policy.Need { return append(look(p), p.Naming()...) },
		"orphans": func(p policy.Place) []policy.Need {
			return append(append(look(p), p.Launching()...), p.Use("DeleteSnapshot", "snapshot"), p.Look("DescribeFastLaunchImages", "DescribeFastSnapshotRestores",
				"DescribeLockedSnapshots", "DescribeSnapshotAttribute", "DescribeSnapshots", "DescribeVolumes", "ListImagesInRecycleBin"))
		},
	}
}

// copyNeeds returns the needs for making copies, and for deleting them if they fail. The
// keys that encrypt them are not known.
func copyNeeds(p policy.Place) []policy.Need {
	return slices.Concat([]policy.Need{
		p.Look("DescribeSnapshots"), p.Use("CopyImage", "image", "snapshot"), p.TagNew("CopyImage", "image", "snapshot"),
		p.Own("EnableImageDeprecation", "image"), p.Release("image", "snapshot"),
		p.Own("DeregisterImage", "image"), p.Own("DeleteSnapshot", "snapshot"),
	}, p.Keys("*"))
}

// guardNeeds returns the needs for finding out whether images are in use, including by
// other accounts.
func guardNeeds(p policy.Place) []policy.Need { return append(receiverNeeds(p), userNeeds(p)...) }

// userNeeds returns the needs for finding out what uses images in the account.
func userNeeds(p policy.Place) []policy.Need {
	return append(p.Users(),
		p.Look("DescribeImageReferences"),
		policy.Need{Actions: []string{"imagebuilder:GetContainerRecipe", "imagebuilder:GetImageRecipe", "imagebuilder:ListContainerRecipes", "imagebuilder:ListImageRecipes"}})
}

// receiverNeeds returns the needs for finding out who uses a shared image.
func receiverNeeds(p policy.Place) []policy.Need {
	return []policy.Need{
		p.Look("DescribeImageAttribute"),
		p.Look("CreateImageUsageReport", "DeleteImageUsageReport", "DescribeImageUsageReportEntries", "DescribeImageUsageReports"),
	}
}

// DistributionNeeds returns the needs for distributing images, which were made in some
// regions, in their own account, and for moving channels; the roles in other accounts have
// the same needs there.
func DistributionNeeds(made []string, d builder.Distribution, parameters []string) (needs []policy.Need) {
	here := policy.In(slices.Concat(d.Regions, made)...)
	needs = append(needs, policy.Need{Actions: []string{"sts:GetCallerIdentity"}}, policy.Place{}.Look("DescribeRegions"), here.Look("DescribeImages", "DescribeSnapshots"))
	if len(d.Regions) > 0 {
		needs = append(needs, copyNeeds(here)...)
		needs = append(needs, here.Use("CreateTags", "image"))
	}
	for region, key := range d.Keys {
		needs = append(needs, policy.In(region).Keys(key)...)
		needs = append(needs, policy.Need{Actions: []string{"kms:DescribeKey"}, Resources: policy.In(region).ARNs("kms", "key/*")})
	}
	if len(d.Accounts) > 0 {
		needs = append(needs, here.Look("DescribeImageAttribute", "DescribeSnapshotAttribute"), here.Use("ModifyImageAttribute", "image"), here.Use("ModifySnapshotAttribute", "snapshot"),
			here.Use("CreateTags", "image"), policy.Need{Actions: []string{"kms:DescribeKey"}, Resources: here.ARNs("kms", "key/*")},
			here.Look("GetEbsDefaultKmsKeyId", "GetEbsEncryptionByDefault"))
	}
	for _, account := range d.Accounts {
		if d.Role != "" {
			needs = append(needs, amazon.Roles{strings.ReplaceAll(d.Role, "{account}", account)}.Permissions()...)
		}
	}
	for _, name := range parameters {
		name = strings.TrimPrefix(name, "/")
		needs = append(needs, policy.Need{
			Actions:   []string{"ssm:DeleteParameter", "ssm:GetParameter", "ssm:GetParameterHistory", "ssm:PutParameter"},
			Resources: here.ARNs("ssm", "parameter/"+name, "parameter/"+name+".lock"),
		})
	}
	return needs
}
