package ec2

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// earnsCredits reports whether instances of a type earn CPU credits.
func earnsCredits(kind types.InstanceType) bool {
	family, _, _ := strings.Cut(string(kind), ".")
	return len(family) > 1 && family[0] == 't' && family[1] >= '2' && family[1] <= '9' // t1 does not earn credits, and trn1 is not a T family
}

// creditOption returns how an instance spends CPU credits: as requested, or the default of
// its type. Machines are limited to their CPUs either way.
func (in *instance) creditOption() string {
	switch {
	case in.Credits != "":
		return in.Credits
	case strings.HasPrefix(string(in.InstanceType), "t2."):
		return "standard"
	}
	return "unlimited"
}

// checkCredits reports an unknown credit option.
func checkCredits(option string) error {
	if option != "standard" && option != "unlimited" {
		return invalidValue("Value (%s) for parameter CpuCredits is invalid. Valid values: standard, unlimited.", option)
	}
	return nil
}

var creditFilters = filters{{"instance-id", "InstanceId"}}

// DescribeInstanceCreditSpecifications returns how instances spend CPU credits.
func (s *state) DescribeInstanceCreditSpecifications(ctx context.Context, in *ec2.DescribeInstanceCreditSpecificationsInput) (*ec2.DescribeInstanceCreditSpecificationsOutput, error) {
	rows, err := s.describedInstances(wire.CallerFrom(ctx), query{ids: in.InstanceIds})
	if err != nil {
		return nil, err
	}
	all := []types.InstanceCreditSpecification{}
	for _, row := range rows {
		switch {
		case earnsCredits(row.InstanceType) && row.Ended == nil:
			all = append(all, types.InstanceCreditSpecification{InstanceId: row.InstanceId, CpuCredits: aws.String(row.creditOption())})
		case len(in.InstanceIds) > 0 && row.Ended == nil:
			return nil, errNoCredits(row)
		}
	}
	k := kindInstance.with(creditFilters)
	k.set = ""
	all, next, err := listed(k, query{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, all)
	return &ec2.DescribeInstanceCreditSpecificationsOutput{InstanceCreditSpecifications: all, NextToken: next}, err
}

func errNoCredits(row *instance) error {
	return wire.Errorf("UnsupportedOperation", "The instance type %s of the instance '%s' has no CPU credits.", row.InstanceType, *row.InstanceId)
}

// ModifyInstanceCreditSpecification changes how instances spend CPU credits.
func (s *state) ModifyInstanceCreditSpecification(ctx context.Context, in *ec2.ModifyInstanceCreditSpecificationInput) (*ec2.ModifyInstanceCreditSpecificationOutput, error) {
	out := &ec2.ModifyInstanceCreditSpecificationOutput{SuccessfulInstanceCreditSpecifications: []types.SuccessfulInstanceCreditSpecificationItem{},
		UnsuccessfulInstanceCreditSpecifications: []types.UnsuccessfulInstanceCreditSpecificationItem{}}
	for _, want := range in.InstanceCreditSpecifications {
		option := aws.ToString(want.CpuCredits)
		if err := checkCredits(option); err != nil {
			return nil, err
		}
		row, err := s.findInstance(wire.CallerFrom(ctx), want.InstanceId)
		if err == nil && !earnsCredits(row.InstanceType) {
			err = wire.Errorf("InstanceCreditSpecification.NotSupported", "The instance type %s has no CPU credits.", row.InstanceType)
		}
		if err != nil {
			e := wire.AsError(err)
			out.UnsuccessfulInstanceCreditSpecifications = append(out.UnsuccessfulInstanceCreditSpecifications, types.UnsuccessfulInstanceCreditSpecificationItem{
				InstanceId: want.InstanceId, Error: &types.UnsuccessfulInstanceCreditSpecificationItemError{Code: types.UnsuccessfulInstanceCreditSpecificationErrorCode(e.Code), Message: &e.Message}})
			continue
		}
		if err := s.instances.Edit(*row.InstanceId, func(row *instance) { row.Credits = option }); err != nil {
			return nil, err
		}
		out.SuccessfulInstanceCreditSpecifications = append(out.SuccessfulInstanceCreditSpecifications, types.SuccessfulInstanceCreditSpecificationItem{InstanceId: row.InstanceId})
	}
	return out, nil
}

// setMonitoring records whether instances have detailed monitoring.
func (s *state) setMonitoring(ctx context.Context, ids []string, on bool) ([]types.InstanceMonitoring, error) {
	out := []types.InstanceMonitoring{}
	stored, changing := types.MonitoringStateDisabled, types.MonitoringState("disabling")
	if on {
		stored, changing = types.MonitoringStateEnabled, types.MonitoringStatePending
	}
	if len(ids) == 0 {
		return nil, missing("InstanceId")
	}
	for _, id := range ids {
		row, err := s.findInstance(wire.CallerFrom(ctx), &id)
		if err != nil {
			return nil, err
		}
		answered := changing
		if row.Monitoring.State == stored {
			answered = stored
		}
		out = append(out, types.InstanceMonitoring{InstanceId: row.InstanceId, Monitoring: &types.Monitoring{State: answered}})
	}
	for _, id := range ids {
		err := s.instances.Edit(id, func(row *instance) { row.Monitoring = &types.Monitoring{State: stored} })
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// MonitorInstances records that instances have detailed monitoring.
func (s *state) MonitorInstances(ctx context.Context, in *ec2.MonitorInstancesInput) (*ec2.MonitorInstancesOutput, error) {
	all, err := s.setMonitoring(ctx, in.InstanceIds, true)
	return &ec2.MonitorInstancesOutput{InstanceMonitorings: all}, err
}

// UnmonitorInstances undoes MonitorInstances.
func (s *state) UnmonitorInstances(ctx context.Context, in *ec2.UnmonitorInstancesInput) (*ec2.UnmonitorInstancesOutput, error) {
	all, err := s.setMonitoring(ctx, in.InstanceIds, false)
	return &ec2.UnmonitorInstancesOutput{InstanceMonitorings: all}, err
}
