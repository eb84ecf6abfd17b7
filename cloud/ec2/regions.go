package ec2

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// region is one of AWS's regions: its name and the letters of the zones that a new account
// has in it. Regions that an account must opt in to on AWS are enabled here, so that every
// real region can be used. GovCloud and China are partitions of their own: they do not see
// the other regions.
type region struct {
	name  string
	zones string
	optIn bool
}

func regions() []region {
	return []region{
		{"af-south-1", "abc", true}, {"ap-east-1", "abc", true}, {"ap-east-2", "abc", true},
		{"ap-northeast-1", "acd", false}, {"ap-northeast-2", "abcd", false}, {"ap-northeast-3", "abc", false},
		{"ap-south-1", "abc", false}, {"ap-south-2", "abc", true},
		{"ap-southeast-1", "abc", false}, {"ap-southeast-2", "abc", false}, {"ap-southeast-3", "abc", true},
		{"ap-southeast-4", "abc", true}, {"ap-southeast-5", "abc", true}, {"ap-southeast-6", "abc", true}, {"ap-southeast-7", "abc", true},
		{"ca-central-1", "abd", false}, {"ca-west-1", "abc", true},
		{"cn-north-1", "abd", false}, {"cn-northwest-1", "abc", false},
		{"eu-central-1", "abc", false}, {"eu-central-2", "abc", true}, {"eu-north-1", "abc", false},
		{"eu-south-1", "abc", true}, {"eu-south-2", "abc", true},
		{"eu-west-1", "abc", false}, {"eu-west-2", "abc", false}, {"eu-west-3", "abc", false},
		{"il-central-1", "abc", true}, {"me-central-1", "abc", true}, {"me-south-1", "abc", true},
		{"mx-central-1", "abc", true}, {"sa-east-1", "abc", false},
		{"us-east-1", "abcdef", false}, {"us-east-2", "abc", false},
		{"us-gov-east-1", "abc", false}, {"us-gov-west-1", "abc", false},
		{"us-west-1", "ac", false}, {"us-west-2", "abcd", false},
	}
}

func findRegion(name string) (region, bool) {
	all := regions()
	i := slices.IndexFunc(all, func(r region) bool { return r.name == name })
	if i < 0 {
		return region{}, false
	}
	return all[i], true
}

// partition returns the AWS partition of a region, as in ARNs.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	}
	return "aws"
}

// arn returns the ARN of a resource in the caller's account and region.
func arn(c wire.Caller, service, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", partition(c.Region), service, c.Region, c.Account, resource)
}

// zoneID returns the id of the region's nth zone, such as use1-az1. Unlike a zone's name,
// it means the same place in every account.
func (r region) zoneID(n int) string {
	parts := strings.Split(strings.Replace(r.name, "us-gov-", "usg-", 1), "-")
	direction := map[string]string{"southeast": "se", "northeast": "ne"}[parts[1]]
	if direction == "" {
		direction = parts[1][:1]
	}
	return fmt.Sprintf("%s%s%s-az%d", parts[0], direction, parts[2], n+1)
}

// zone returns the index of the region's zone with that name or id, or -1.
func (r region) zone(name, id string) int {
	for i, letter := range r.zones {
		if name == r.name+string(letter) || name == "" && id == r.zoneID(i) {
			return i
		}
	}
	return -1
}

// zoneList returns the names of the region's zones for a message.
func (r region) zoneList() string {
	var names []string
	for i := range r.zones {
		names = append(names, r.zoneName(i))
	}
	return strings.Join(names, ", ")
}

// zoneName returns the name of the region's nth zone.
func (r region) zoneName(n int) string { return r.name + r.zones[n:n+1] }

func (r region) optInStatus() string {
	if r.optIn {
		return "opted-in"
	}
	return "opt-in-not-required"
}

func (s *Service) DescribeRegions(ctx context.Context, in *ec2.DescribeRegionsInput) (*ec2.DescribeRegionsOutput, error) {
	var out []types.Region
	here, domain := partition(wire.CallerFrom(ctx).Region), ".amazonaws.com"
	if here == "aws-cn" {
		domain += ".cn"
	}
	for _, r := range regions() {
		if partition(r.name) != here || len(in.RegionNames) > 0 && !slices.Contains(in.RegionNames, r.name) {
			continue
		}
		out = append(out, types.Region{
			RegionName: aws.String(r.name), Endpoint: aws.String("ec2." + r.name + domain), OptInStatus: aws.String(r.optInStatus()),
		})
	}
	for _, name := range in.RegionNames {
		if _, ok := findRegion(name); !ok || partition(name) != here {
			return nil, invalidValue("Invalid region provided: %s", name)
		}
	}
	out, err := apply(filters{{"endpoint", "Endpoint"}, {"opt-in-status", "OptInStatus"}, {"region-name", "RegionName"}}, in.Filters, out)
	return &ec2.DescribeRegionsOutput{Regions: out}, err
}

var zoneFilters = filters{
	{"group-name", "GroupName"}, {"message", "Messages.Message"}, {"opt-in-status", "OptInStatus"}, {"parent-zone-id", "ParentZoneId"},
	{"parent-zone-name", "ParentZoneName"}, {"region-name", "RegionName"}, {"state", "State"}, {"zone-id", "ZoneId"},
	{"zone-name", "ZoneName"}, {"zone-type", "ZoneType"}, {"group-long-name", "GroupLongName"},
}

func (s *Service) DescribeAvailabilityZones(ctx context.Context, in *ec2.DescribeAvailabilityZonesInput) (*ec2.DescribeAvailabilityZonesOutput, error) {
	r, _ := findRegion(wire.CallerFrom(ctx).Region)
	var out []types.AvailabilityZone
	found := map[string]bool{}
	for i, letter := range r.zones {
		z := types.AvailabilityZone{
			ZoneName: aws.String(r.name + string(letter)), ZoneId: aws.String(r.zoneID(i)), RegionName: aws.String(r.name),
			GroupName: aws.String(r.name + "-zg-1"), NetworkBorderGroup: aws.String(r.name), ZoneType: aws.String("availability-zone"),
			State: types.AvailabilityZoneStateAvailable, OptInStatus: types.AvailabilityZoneOptInStatusOptInNotRequired,
		}
		found[*z.ZoneName], found[*z.ZoneId] = true, true
		if len(in.ZoneNames)+len(in.ZoneIds) > 0 && !slices.Contains(in.ZoneNames, *z.ZoneName) && !slices.Contains(in.ZoneIds, *z.ZoneId) {
			continue
		}
		out = append(out, z)
	}
	for _, name := range slices.Concat(in.ZoneNames, in.ZoneIds) {
		if !found[name] {
			return nil, invalidValue("Invalid availability zone: [%s]", name)
		}
	}
	out, err := apply(zoneFilters, in.Filters, out)
	return &ec2.DescribeAvailabilityZonesOutput{AvailabilityZones: out}, err
}

func (s *state) DescribeAccountAttributes(ctx context.Context, in *ec2.DescribeAccountAttributesInput) (*ec2.DescribeAccountAttributesOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	all := []struct{ name, value string }{{"supported-platforms", "VPC"}, {"default-vpc", cmp.Or(n.defaultVpc(), "none")}}
	out := []types.AccountAttribute{}
	for _, a := range all {
		if len(in.AttributeNames) > 0 && !slices.Contains(in.AttributeNames, types.AccountAttributeName(a.name)) {
			continue
		}
		out = append(out, types.AccountAttribute{AttributeName: aws.String(a.name),
			AttributeValues: []types.AccountAttributeValue{{AttributeValue: aws.String(a.value)}}})
	}
	return &ec2.DescribeAccountAttributesOutput{AccountAttributes: out}, nil
}
