package ec2

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func TestEarnsCredits(t *testing.T) {
	for kind, want := range map[string]bool{"t1.micro": false, "t2.micro": true, "t3a.small": true, "t4g.nano": true, "trn1.2xlarge": false, "m5.large": false} {
		if earnsCredits(types.InstanceType(kind)) != want {
			t.Errorf("%s: %t", kind, !want)
		}
	}
}
