package ec2

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// TestFilterPaths checks that every filter's path names an existing field, and that every
// kind of row has tags for the filter tag:.
func TestFilterPaths(t *testing.T) {
	for _, table := range []struct {
		name string
		f    filters
		row  reflect.Type
	}{
		{"instances", instanceFilters, reflect.TypeFor[*instance]()},
		{"images", imageFilters, reflect.TypeFor[*image]()},
		{"snapshots", snapshotFilters, reflect.TypeFor[types.Snapshot]()},
		{"volumes", volumeFilters, reflect.TypeFor[types.Volume]()},
		{"key pairs", keyFilters, reflect.TypeFor[types.KeyPairInfo]()},
		{"groups", groupFilters, reflect.TypeFor[types.SecurityGroup]()},
		{"rules", ruleFilters, reflect.TypeFor[types.SecurityGroupRule]()},
		{"vpcs", vpcFilters, reflect.TypeFor[types.Vpc]()},
		{"subnets", subnetFilters, reflect.TypeFor[types.Subnet]()},
		{"zones", zoneFilters, reflect.TypeFor[types.AvailabilityZone]()},
		{"interfaces", interfaceFilters, reflect.TypeFor[types.NetworkInterface]()},
		{"instance types", typeFilters, reflect.TypeFor[types.InstanceTypeInfo]()},
		{"NAT gateways", natFilters, reflect.TypeFor[types.NatGateway]()},
		{"VPC endpoints", endpointFilters, reflect.TypeFor[types.VpcEndpoint]()},
		{"prefix lists", prefixListFilters, reflect.TypeFor[types.PrefixList]()},
		{"modifications", modificationFilters, reflect.TypeFor[types.VolumeModification]()},
		{"credits", creditFilters, reflect.TypeFor[types.InstanceCreditSpecification]()},
		{"spot requests", spotFilters, reflect.TypeFor[types.SpotInstanceRequest]()},
		{"versions of launch templates", versionFilters, reflect.TypeFor[types.LaunchTemplateVersion]()},
		{"store tasks", storeFilters, reflect.TypeFor[types.StoreImageTaskResult]()},
		{"export tasks", exportFilters, reflect.TypeFor[types.ExportImageTask]()},
		{"tiers", tierFilters, reflect.TypeFor[types.SnapshotTierStatus]()},
		{"spot prices", priceFilters, reflect.TypeFor[types.SpotPrice]()},
		{"tags", tagFilters, reflect.TypeFor[types.TagDescription]()},
	} {
		for i, f := range table.f {
			path := f.path
			if slices.ContainsFunc(table.f[:i], func(other filter) bool { return other.name == f.name }) {
				t.Errorf("%s: two filters are named %s", table.name, f.name)
			}
			typ := table.row
			for step := range strings.SplitSeq(path, ".") {
				for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
					typ = typ.Elem()
				}
				if path == "" {
					break
				}
				field, ok := typ.FieldByName(step)
				if !ok {
					t.Errorf("%s: filter %s looks at %s: %s has no %s", table.name, f.name, path, typ, step)
					break
				}
				typ = field.Type
			}
		}
	}
}

// TestMatch checks that a backslash in a filter makes the next character literal.
func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"debian-12-*", "debian-12-amd64", true}, {"debian-12-*", "debian-1", false}, {"debian/*", "debian/a/b", true}, {"a?c", "abc", true},
		{`a\*c`, "a*c", true}, {`a\*c`, "abc", false}, {"[a]", "a", false},
	} {
		if got := match(test.pattern, test.text); got != test.want {
			t.Errorf("match(%q, %q) = %v", test.pattern, test.text, got)
		}
	}
}

func TestApply(t *testing.T) {
	tag := func(k, v string) types.Tag { return types.Tag{Key: &k, Value: &v} }
	rows := []types.Volume{
		{VolumeId: aws.String("vol-1"), Size: aws.Int32(8), State: types.VolumeStateInUse, Tags: []types.Tag{tag("Name", "web"), tag("Env", "")},
			Attachments: []types.VolumeAttachment{{InstanceId: aws.String("i-1"), DeleteOnTermination: aws.Bool(true)}}},
		{VolumeId: aws.String("vol-2"), Size: aws.Int32(20), State: types.VolumeStateAvailable, Tags: []types.Tag{tag("Name", "db")}},
		{VolumeId: aws.String("vol-3"), Size: aws.Int32(8), State: types.VolumeStateAvailable},
	}
	filter := func(name string, values ...string) types.Filter { return types.Filter{Name: &name, Values: values} }
	for _, test := range []struct {
		filters []types.Filter
		want    string
	}{
		{nil, "vol-1 vol-2 vol-3"},
		{[]types.Filter{filter("size", "8")}, "vol-1 vol-3"},
		{[]types.Filter{filter("size", "8", "20")}, "vol-1 vol-2 vol-3"},
		{[]types.Filter{filter("size", "8"), filter("status", "available")}, "vol-3"},
		{[]types.Filter{filter("attachment.instance-id", "i-*")}, "vol-1"},
		{[]types.Filter{filter("attachment.delete-on-termination", "true")}, "vol-1"},
		{[]types.Filter{filter("tag:Name", "web", "db")}, "vol-1 vol-2"},
		{[]types.Filter{filter("tag:Name", "WEB")}, ""},
		{[]types.Filter{filter("tag:Env", "")}, "vol-1"},
		{[]types.Filter{filter("tag-key", "Env")}, "vol-1"},
		{[]types.Filter{filter("tag-value", "db")}, "vol-2"},
		{[]types.Filter{filter("operator.managed", "true")}, ""},
		{[]types.Filter{filter("status")}, ""},
	} {
		got, err := apply(volumeFilters, test.filters, rows)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, v := range got {
			ids = append(ids, *v.VolumeId)
		}
		if s := strings.Join(ids, " "); s != test.want {
			t.Errorf("%v: %q, want %q", test.filters, s, test.want)
		}
	}
	if _, err := apply(volumeFilters, []types.Filter{filter("colour", "red")}, rows); err == nil || err.Error() != "InvalidParameterValue: The filter 'colour' is invalid" {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestPage(t *testing.T) {
	rows := []string{"a", "b", "c", "d", "e"}
	key := func(s string) string { return s }
	var got []string
	var token *string
	for range 10 {
		part, next, err := page(rows, key, aws.Int32(2), token)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part...)
		if token = next; token == nil {
			break
		}
		rows = slices.DeleteFunc(slices.Clone(rows), func(s string) bool { return s == "b" }) // pages survive changes
	}
	if !slices.Equal(got, []string{"a", "b", "c", "d", "e"}) {
		t.Errorf("all pages: %v", got)
	}
	if _, _, err := page(rows, key, nil, aws.String("?")); err == nil {
		t.Error("a token that is none was taken")
	}
}

// TestKinds checks EC2's errors for ids that are malformed or do not exist.
func TestKinds(t *testing.T) {
	for _, test := range []struct {
		k                   *kind
		malformed, one, two string
	}{
		{kindImage, "InvalidAMIID.Malformed", "InvalidAMIID.NotFound: The image id '[a]' does not exist", "InvalidAMIID.NotFound: The image ids '[a, b]' do not exist"},
		{kindInstance, "InvalidInstanceID.Malformed", "InvalidInstanceID.NotFound: The instance ID 'a' does not exist", "InvalidInstanceID.NotFound: The instance IDs 'a, b' do not exist"},
		{kindSnapshot, "InvalidSnapshotID.Malformed", "InvalidSnapshot.NotFound: The snapshot 'a' does not exist.", "InvalidSnapshot.NotFound: The snapshot 'a' does not exist."},
		{kindVolume, "InvalidVolumeID.Malformed", "InvalidVolume.NotFound: The volume 'a' does not exist.", "InvalidVolume.NotFound: The volumes 'a, b' do not exist"},
		{kindGroup, "InvalidGroupId.Malformed", "InvalidGroup.NotFound: The security group 'a' does not exist", "InvalidGroup.NotFound: The security groups 'a, b' do not exist"},
		{kindKey, "InvalidKeyPair.Malformed", "InvalidKeyPair.NotFound: The key pair 'a' does not exist", "InvalidKeyPair.NotFound: The key pairs 'a, b' do not exist"},
		{kindSubnet, "InvalidSubnetID.Malformed", "InvalidSubnetID.NotFound: The subnet ID 'a' does not exist", "InvalidSubnetID.NotFound: The subnet IDs 'a, b' do not exist"},
	} {
		if err := test.k.check("x"); !strings.HasPrefix(err.Error(), test.malformed+": ") {
			t.Errorf("malformed: %v, want %s", err, test.malformed)
		}
		if err := test.k.notFound("a"); err.Error() != test.one {
			t.Errorf("%v, want %s", err, test.one)
		}
		if err := test.k.notFound("a", "b"); err.Error() != test.two {
			t.Errorf("%v, want %s", err, test.two)
		}
	}
	prefixes := map[string]bool{}
	for _, k := range taggableKinds() {
		if prefixes[k.prefix] || k.resource == "" || k.filters == nil {
			t.Errorf("the kind %+v is not whole, or there twice", k)
		}
		prefixes[k.prefix] = true
	}
}
