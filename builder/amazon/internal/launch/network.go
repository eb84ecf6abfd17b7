package launch

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/step"
)

// Place is the location in the network where a machine is launched. EC2 chooses the fields
// that are empty.
type Place struct {
	vpc, subnet, zone string
}

// Place finds the place that the options describe.
func (l *Launcher) Place(ctx context.Context) (Place, error) {
	p := Place{vpc: l.VPCID, subnet: l.SubnetID, zone: l.AvailabilityZone}
	if p == (Place{zone: p.zone}) && l.VPCFilter == nil && l.SubnetFilter == nil && l.AssociatePublicIPAddress == nil {
		return p, nil
	}
	return step.Do(ctx, l.Scope, "find the network", func(ctx context.Context) (Place, error) {
		var err error
		if p.vpc == "" && l.VPCFilter != nil {
			if p.vpc, err = l.filterVPC(ctx); err != nil {
				return p, err
			}
		}
		switch {
		case p.subnet != "":
			return l.describeSubnet(ctx, p)
		case l.SubnetFilter != nil:
			return l.filterSubnet(ctx, p)
		}
		if p.vpc != "" {
			if err := l.demandDefault(ctx, p.vpc); err != nil {
				return p, err
			}
		}
		if l.AssociatePublicIPAddress == nil {
			return p, nil
		}
		guess, err := l.guessSubnet(ctx, p)
		if err != nil {
			if ctx.Err() != nil {
				return p, context.Cause(ctx)
			}
			l.Scope.Warn(ctx, "No subnet could be chosen for associate_public_ip_address (%s); EC2 chooses one. To choose it yourself, set subnet_id or subnet_filter.", err)
			return p, nil
		}
		return guess, nil
	})
}

func (l *Launcher) filterVPC(ctx context.Context) (string, error) {
	out, err := access.Call(ctx, l.client().DescribeVpcs, &ec2.DescribeVpcsInput{Filters: l.VPCFilter.EC2()})
	if err != nil {
		return "", l.VPCFilter.Blame(l.Src, err)
	}
	if n := len(out.Vpcs); n != 1 {
		return "", l.Src.Errorf(&l.VPCFilter, "Not exactly one VPC", "%d VPCs in %s match these filters; exactly one must.", n, l.Session.Region)
	}
	return aws.ToString(out.Vpcs[0].VpcId), nil
}

// demandDefault checks that a VPC without a subnet is the default one: only in that VPC
// does EC2 choose a subnet.
func (l *Launcher) demandDefault(ctx context.Context, vpc string) error {
	blame := any(&l.VPCID)
	if l.VPCID == "" {
		blame = &l.VPCFilter
	}
	out, err := access.Call(ctx, l.client().DescribeVpcs, &ec2.DescribeVpcsInput{VpcIds: []string{vpc}})
	if access.NotFound(err) || access.Is(err, "InvalidVpcID.Malformed", "InvalidVpcId.Malformed") {
		return l.Src.Errorf(blame, "No such VPC", "There is no VPC %q in %s.", vpc, l.Session.Region)
	} else if err != nil {
		return err
	}
	if len(out.Vpcs) == 0 || !aws.ToBool(out.Vpcs[0].IsDefault) {
		return l.Src.Errorf(blame, "VPC without a subnet", "%s is not the default VPC of %s, so EC2 cannot choose a subnet in it; set subnet_id or subnet_filter.", vpc, l.Session.Region)
	}
	return nil
}

func (l *Launcher) describeSubnet(ctx context.Context, p Place) (Place, error) {
	out, err := access.Call(ctx, l.client().DescribeSubnets, &ec2.DescribeSubnetsInput{SubnetIds: []string{p.subnet}})
	if access.NotFound(err) || access.Is(err, "InvalidSubnetID.Malformed", "InvalidSubnetId.Malformed") || err == nil && len(out.Subnets) == 0 {
		return p, l.Src.Errorf(&l.SubnetID, "No such subnet", "There is no subnet %q in %s.", p.subnet, l.Session.Region)
	} else if err != nil {
		return p, err
	}
	return p.in(out.Subnets[0]), nil
}

func (p Place) in(s types.Subnet) Place {
	p.subnet = aws.ToString(s.SubnetId)
	p.vpc = cmp.Or(p.vpc, aws.ToString(s.VpcId))
	p.zone = cmp.Or(p.zone, aws.ToString(s.AvailabilityZone))
	return p
}

func (l *Launcher) filterSubnet(ctx context.Context, p Place) (Place, error) {
	f := l.SubnetFilter
	subnets, err := l.subnets(ctx, p, f.EC2())
	if err != nil {
		return p, f.Blame(l.Src, err)
	}
	switch {
	case len(subnets) == 0:
		return p, l.Src.Errorf(&l.SubnetFilter, "No such subnet", "No available subnet in %s matches these filters.", l.Session.Region)
	case len(subnets) == 1 || f.MostFree:
		return p.in(mostFree(subnets)), nil
	case f.Random:
		return p.in(subnets[rand.N(len(subnets))]), nil // any of them is suitable
	}
	return p, l.Src.Errorf(&l.SubnetFilter, "Several subnets match", "%d subnets in %s match these filters; narrow them down, or set most_free or random.", len(subnets), l.Session.Region)
}

// subnets lists the available subnets that match the filters, the VPC and the zone.
func (l *Launcher) subnets(ctx context.Context, p Place, filters []types.Filter) ([]types.Subnet, error) {
	add := func(name, value string) {
		if value != "" {
			filters = append(filters, types.Filter{Name: &name, Values: []string{value}})
		}
	}
	add("state", "available")
	add("vpc-id", p.vpc)
	add("availability-zone", p.zone)
	out, err := access.Call(ctx, l.client().DescribeSubnets, &ec2.DescribeSubnetsInput{Filters: filters})
	if err != nil {
		return nil, err
	}
	return out.Subnets, nil
}

func mostFree(subnets []types.Subnet) types.Subnet {
	return slices.MaxFunc(subnets, func(a, b types.Subnet) int {
		return cmp.Compare(aws.ToInt32(a.AvailableIpAddressCount), aws.ToInt32(b.AvailableIpAddressCount))
	})
}

// guessSubnet chooses the subnet with the most free addresses in the default VPC (or
// the one given), among zones that have the instance type.
func (l *Launcher) guessSubnet(ctx context.Context, p Place) (Place, error) {
	if p.vpc == "" {
		out, err := access.Call(ctx, l.client().DescribeVpcs, &ec2.DescribeVpcsInput{
			Filters: []types.Filter{{Name: new("is-default"), Values: []string{"true"}}},
		})
		if err != nil {
			return p, err
		}
		if len(out.Vpcs) == 0 {
			return p, errNoDefaultVPC
		}
		p.vpc = aws.ToString(out.Vpcs[0].VpcId)
	}
	subnets, err := l.subnets(ctx, p, nil)
	if err != nil {
		return p, err
	}
	out, err := access.Call(ctx, l.client().DescribeInstanceTypeOfferings, &ec2.DescribeInstanceTypeOfferingsInput{
		LocationType: types.LocationTypeAvailabilityZone,
		Filters:      []types.Filter{{Name: new("instance-type"), Values: l.types()}},
	})
	if err != nil {
		return p, err
	}
	zones := map[string]bool{}
	for _, o := range out.InstanceTypeOfferings {
		zones[aws.ToString(o.Location)] = true
	}
	subnets = slices.DeleteFunc(subnets, func(s types.Subnet) bool { return !zones[aws.ToString(s.AvailabilityZone)] })
	if len(subnets) == 0 {
		return p, errNoSubnet
	}
	return p.in(mostFree(subnets)), nil
}

type textError string

func (e textError) Error() string { return string(e) }

const (
	errNoDefaultVPC = textError("the region has no default VPC")
	errNoSubnet     = textError("no subnet is in a zone that has the instance type")
)
