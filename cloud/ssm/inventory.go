package ssm

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/api/ssm"
	"bake/cloud/wire"
)

// agentVersion is the version of the agent that instances report.
const agentVersion = "3.2.0.0"

// DescribeInstanceInformation lists the instances known to Systems Manager. They do not
// report their distribution.
func (s *Service) DescribeInstanceInformation(ctx context.Context, in *ssm.DescribeInstanceInformationInput) (*ssm.DescribeInstanceInformationOutput, error) {
	if len(in.Filters) > 0 && len(in.InstanceInformationFilterList) > 0 {
		return nil, wire.Errorf("ValidationException", "Filters and InstanceInformationFilterList cannot both be specified.")
	}
	filters := in.Filters
	for _, f := range in.InstanceInformationFilterList {
		filters = append(filters, ssm.InstanceInformationStringFilter{Key: aws.String(string(f.Key)), Values: f.ValueSet})
	}
	managed, err := s.managedInstances(ctx)
	if err != nil {
		return nil, err
	}
	rows := []ssm.InstanceInformation{}
	for _, i := range managed {
		row := s.information(ctx, i)
		wanted := true
		for _, f := range filters {
			matches, err := matchesInformation(f, i, row)
			if err != nil {
				return nil, err
			}
			wanted = wanted && matches
		}
		if wanted {
			rows = append(rows, row)
		}
	}
	page, next, ok := wire.Page("instance information", rows, func(i ssm.InstanceInformation) string { return *i.InstanceId }, strings.Compare, int(cmp.Or(aws.ToInt32(in.MaxResults), 50)), in.NextToken)
	if !ok {
		return nil, wire.Errorf("InvalidNextToken", "The specified token is not valid.")
	}
	return &ssm.DescribeInstanceInformationOutput{InstanceInformationList: page, NextToken: next}, nil
}

func (s *Service) information(ctx context.Context, i ec2types.Instance) ssm.InstanceInformation {
	now := s.opts.Now().UTC()
	row := ssm.InstanceInformation{
		InstanceId: i.InstanceId, PingStatus: ssm.PingStatusConnectionLost, LastPingDateTime: i.LaunchTime, AgentVersion: aws.String(agentVersion), IsLatestVersion: aws.Bool(true),
		PlatformType: ssm.PlatformTypeLinux, ResourceType: ssm.ResourceTypeEc2Instance, IPAddress: i.PrivateIpAddress, ComputerName: i.PrivateDnsName,
		SourceId: i.InstanceId, SourceType: ssm.SourceTypeAwsEc2Instance,
	}
	if s.opts.Machines.Managed(wire.CallerFrom(ctx), *i.InstanceId) {
		row.PingStatus, row.LastPingDateTime = ssm.PingStatusOnline, &now
	}
	return row
}

func matchesInformation(f ssm.InstanceInformationStringFilter, i ec2types.Instance, row ssm.InstanceInformation) (bool, error) {
	switch key := aws.ToString(f.Key); key {
	case "InstanceIds":
		return slices.Contains(f.Values, *row.InstanceId), nil
	case "PingStatus":
		return slices.Contains(f.Values, string(row.PingStatus)), nil
	case "PlatformTypes":
		return slices.Contains(f.Values, string(row.PlatformType)), nil
	case "ResourceType":
		return slices.Contains(f.Values, string(row.ResourceType)), nil
	case "AgentVersion":
		return slices.Contains(f.Values, *row.AgentVersion), nil
	case "SourceIds":
		return slices.Contains(f.Values, *row.SourceId), nil
	case "SourceTypes":
		return slices.Contains(f.Values, string(row.SourceType)), nil
	case "ActivationIds", "AssociationStatus", "IamRole": // apply only to other machines than EC2 instances, or to associations
		return false, nil
	case "tag-key":
		return slices.ContainsFunc(f.Values, func(key string) bool { return hasTag(i, key, nil) }), nil
	default:
		if tag, ok := strings.CutPrefix(key, "tag:"); ok {
			return hasTag(i, tag, f.Values), nil
		}
		return false, wire.Errorf("InvalidFilterKey", "The filter key %s is not valid.", key)
	}
}

// GetConnectionStatus returns whether sessions can connect to an instance.
func (s *Service) GetConnectionStatus(ctx context.Context, in *ssm.GetConnectionStatusInput) (*ssm.GetConnectionStatusOutput, error) {
	out := &ssm.GetConnectionStatusOutput{Target: in.Target, Status: ssm.ConnectionStatusNotConnected}
	if s.opts.Machines.Managed(wire.CallerFrom(ctx), *in.Target) {
		out.Status = ssm.ConnectionStatusConnected
	}
	return out, nil
}
