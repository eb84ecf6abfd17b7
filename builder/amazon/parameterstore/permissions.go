package parameterstore

import (
	"strings"

	"bake/builder/amazon/internal/policy"
)

// Permissions implements [bake/builder/amazon.Permitted]. The key that encrypts the
// parameter is not known before it is read.
func (d *data) Permissions() []policy.Need {
	here := policy.In(d.KnownRegion(d.src))
	name, _, _ := strings.Cut(strings.TrimPrefix(d.Name, "/"), ":")
	arns := here.ARNs("ssm", "parameter/"+name)
	switch {
	case !d.src.Known(&d.Name):
		arns = here.ARNs("ssm", "parameter/*")
	case strings.HasPrefix(d.Name, "arn:"):
		arns = []string{d.Name}
	}
	needs := append(d.Options.Options.Permissions(d.src), policy.Need{Actions: []string{"ssm:GetParameter"}, Resources: arns})
	if policy.MayBe(d.src, &d.WithDecryption, d.WithDecryption) {
		needs = append(needs, here.Crypt("ssm", "*", "Decrypt"))
	}
	return needs
}
