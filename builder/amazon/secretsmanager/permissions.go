package secretsmanager

import (
	"strings"

	"bake/builder/amazon/internal/policy"
)

// Permissions implements [bake/builder/amazon.Permitted]. With which key the secret
// is encrypted is not known before it is read. ARNs of secrets end in six letters
// that their names do not have.
func (d *data) Permissions() []policy.Need {
	here := policy.In(d.KnownRegion(d.src))
	arns := here.ARNs("secretsmanager", "secret:"+d.Name+"-??????")
	switch {
	case !d.src.Known(&d.Name):
		arns = here.ARNs("secretsmanager", "secret:*")
	case strings.HasPrefix(d.Name, "arn:"):
		arns = []string{d.Name}
	}
	return append(d.Options.Options.Permissions(d.src),
		policy.Need{Actions: []string{"secretsmanager:GetSecretValue"}, Resources: arns}, here.Crypt("secretsmanager", "*", "Decrypt"))
}
