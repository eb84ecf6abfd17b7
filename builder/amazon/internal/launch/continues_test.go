package launch

import (
	"fmt"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/ownership"
)

// TestContinues: only the instance, on demand or spot, is tagged as continuing, and only if there
// is room for another tag.
func TestContinues(t *testing.T) {
	for _, tt := range []struct {
		continues bool
		tags      int
		want      bool
	}{{false, 1, false}, {true, 1, true}, {true, 47, true}, {true, 48, false}} {
		l, _ := launcher(t, `spot_price = "auto"`, 0)
		l.InstanceType, l.Owner = "t3.small", &ownership.Owner{Run: "a run", ID: "a build"}
		spec := Spec{Continues: tt.continues, Tags: map[string]string{}}
		for i := range tt.tags {
			spec.Tags[fmt.Sprint("tag", i)] = "x"
		}
		in := l.request(spec, "")
		data, err := l.template(in, spec)
		if err != nil {
			t.Fatal(err)
		}
		tags := map[string]map[types.ResourceType][]types.Tag{"on demand": {}, "spot": {}}
		for _, s := range in.TagSpecifications {
			tags["on demand"][s.ResourceType] = s.Tags
		}
		for _, s := range data.TagSpecifications {
			tags["spot"][s.ResourceType] = s.Tags
		}
		for how, of := range tags {
			for _, kind := range []types.ResourceType{types.ResourceTypeInstance, types.ResourceTypeNetworkInterface, types.ResourceTypeVolume} {
				has := func(key string) bool {
					return slices.ContainsFunc(of[kind], func(t types.Tag) bool { return aws.ToString(t.Key) == key })
				}
				if want := tt.want && kind == types.ResourceTypeInstance; has(ownership.ContinuesTag) != want || !has(ownership.RunTag) {
					t.Errorf("%s, %+v: %s has the tags %v", how, tt, kind, of[kind])
				}
			}
		}
	}
}
