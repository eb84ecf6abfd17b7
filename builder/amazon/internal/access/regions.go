package access

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// Regions lists the regions that are enabled for the account or, with all, also those that
// it could enable.
func (s *Session) Regions(ctx context.Context, all bool) ([]string, error) {
	in := &ec2.DescribeRegionsInput{}
	if all {
		in.AllRegions = &all
	}
	out, err := Call(ctx, s.EC2(s.Region).DescribeRegions, in)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range out.Regions {
		names = append(names, aws.ToString(r.RegionName))
	}
	slices.Sort(names)
	return names, nil
}
