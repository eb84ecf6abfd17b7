package launch

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"

	"bake/builder/amazon/internal/access"
)

// noCapacity reports whether err means that a launch may succeed in another zone, or with
// another instance type.
func noCapacity(err error) bool {
	return access.Is(err, "InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity", "InsufficientFreeAddressesInSubnet") ||
		access.Is(err, "Unsupported") && strings.Contains(strings.ToLower(err.Error()), "availability zone")
}

// launchSomewhere makes the launch in for place, and tries the other places that the
// template allows while there is no capacity.
func (l *Launcher) launchSomewhere(ctx context.Context, in *ec2.RunInstancesInput, place Place) (*ec2.RunInstancesOutput, error) {
	out, err := l.runInstances(ctx, in)
	if !noCapacity(err) {
		return out, err
	}
	others, found := l.elsewhere(ctx, place)
	if found != nil {
		return nil, err // the error of the launch is more important
	}
	tried := cmp.Or(place.zone, "the zone that EC2 chose")
	for _, p := range others {
		l.Scope.Say(ctx, "There is no capacity for %s in %s; trying %s", l.InstanceType, tried, p.zone)
		next := *in
		next.ClientToken = aws.String(uuid.NewString()) // the previous token belongs to other parameters
		l.move(&next, p)
		if out, err = l.runInstances(ctx, &next); !noCapacity(err) {
			return out, err
		}
		tried = p.zone
	}
	return nil, err
}

// move changes the place of a launch.
func (l *Launcher) move(in *ec2.RunInstancesInput, p Place) {
	in.Placement = l.placement(p.zone)
	switch {
	case p.subnet == "":
	case len(in.NetworkInterfaces) > 0:
		in.NetworkInterfaces = slices.Clone(in.NetworkInterfaces)
		in.NetworkInterfaces[0].SubnetId = &p.subnet
	default:
		in.SubnetId = &p.subnet
	}
}

// elsewhere lists the other zones that the template allows, those with the most free
// addresses first. It lists none if the template names a subnet or a zone.
func (l *Launcher) elsewhere(ctx context.Context, place Place) ([]Place, error) {
	if l.SubnetID != "" || l.AvailabilityZone != "" {
		return nil, nil
	}
	var filters []types.Filter
	if l.SubnetFilter != nil {
		filters = l.SubnetFilter.EC2()
	} else {
		filters = append(filters, types.Filter{Name: new("default-for-az"), Values: []string{"true"}})
	}
	subnets, err := l.subnets(ctx, Place{vpc: place.vpc}, filters)
	if err != nil {
		return nil, err
	}
	sort.SliceStable(subnets, func(i, j int) bool {
		return aws.ToInt32(subnets[i].AvailableIpAddressCount) > aws.ToInt32(subnets[j].AvailableIpAddressCount)
	})
	var out []Place
	for _, s := range subnets {
		p := Place{vpc: place.vpc}.in(s)
		if place.subnet == "" {
			p.subnet = "" // EC2 chooses the default subnet of each zone
		}
		if p.zone != place.zone && !slices.ContainsFunc(out, func(o Place) bool { return o.zone == p.zone }) {
			out = append(out, p)
		}
	}
	return out, nil
}
