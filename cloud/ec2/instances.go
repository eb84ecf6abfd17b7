package ec2

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// instanceFilters are the filters of DescribeInstances.
var instanceFilters = filters{
	{"affinity", "Placement.Affinity"}, {"architecture", "Architecture"}, {"availability-zone", "Placement.AvailabilityZone"},
	{"availability-zone-id", "Placement.AvailabilityZoneId"},
	{"block-device-mapping.attach-time", "BlockDeviceMappings.Ebs.AttachTime"}, {"block-device-mapping.delete-on-termination", "BlockDeviceMappings.Ebs.DeleteOnTermination"},
	{"block-device-mapping.device-name", "BlockDeviceMappings.DeviceName"}, {"block-device-mapping.status", "BlockDeviceMappings.Ebs.Status"},
	{"block-device-mapping.volume-id", "BlockDeviceMappings.Ebs.VolumeId"}, {"boot-mode", "BootMode"}, {"capacity-reservation-id", ""},
	{"capacity-reservation-specification.capacity-reservation-preference", "CapacityReservationSpecification.CapacityReservationPreference"},
	{"capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id", ""},
	{"capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn", ""},
	{"client-token", "ClientToken"}, {"current-instance-boot-mode", "CurrentInstanceBootMode"}, {"dns-name", "PublicDnsName"},
	{"ebs-optimized", "EbsOptimized"}, {"ena-support", "EnaSupport"}, {"enclave-options.enabled", "EnclaveOptions.Enabled"},
	{"hibernation-options.configured", "HibernationOptions.Configured"}, {"host-id", ""}, {"hypervisor", "Hypervisor"},
	{"iam-instance-profile.arn", "IamInstanceProfile.Arn"}, {"iam-instance-profile.id", "IamInstanceProfile.Id"},
	{"image-id", "ImageId"}, {"instance-id", "InstanceId"}, {"instance-lifecycle", "InstanceLifecycle"},
	{"instance-state-code", "State.Code"}, {"instance-state-name", "State.Name"}, {"instance-type", "InstanceType"},
	{"instance.group-id", "SecurityGroups.GroupId"}, {"instance.group-name", "SecurityGroups.GroupName"},
	{"ip-address", "PublicIpAddress"}, {"ipv6-address", ""}, {"kernel-id", ""}, {"key-name", "KeyName"}, {"launch-index", "AmiLaunchIndex"},
	{"launch-time", "LaunchTime"}, {"license-pool", ""}, {"maintenance-options.auto-recovery", ""},
	{"metadata-options.http-endpoint", "MetadataOptions.HttpEndpoint"}, {"metadata-options.http-protocol-ipv4", ""},
	{"metadata-options.http-protocol-ipv6", "MetadataOptions.HttpProtocolIpv6"},
	{"metadata-options.http-put-response-hop-limit", "MetadataOptions.HttpPutResponseHopLimit"}, {"metadata-options.http-tokens", "MetadataOptions.HttpTokens"},
	{"metadata-options.instance-metadata-tags", "MetadataOptions.InstanceMetadataTags"}, {"monitoring-state", "Monitoring.State"},
	{"network-interface.addresses.association.allocation-id", ""}, {"network-interface.addresses.association.association-id", ""},
	{"network-interface.addresses.association.carrier-ip", ""}, {"network-interface.addresses.association.customer-owned-ip", ""},
	{"network-interface.addresses.association.ip-owner-id", "NetworkInterfaces.PrivateIpAddresses.Association.IpOwnerId"},
	{"network-interface.addresses.association.public-ip", "NetworkInterfaces.PrivateIpAddresses.Association.PublicIp"},
	{"network-interface.addresses.primary", "NetworkInterfaces.PrivateIpAddresses.Primary"},
	{"network-interface.addresses.private-ip-address", "NetworkInterfaces.PrivateIpAddresses.PrivateIpAddress"},
	{"network-interface.association.allocation-id", ""}, {"network-interface.association.association-id", ""},
	{"network-interface.association.carrier-ip", ""}, {"network-interface.association.customer-owned-ip", ""},
	{"network-interface.association.ip-owner-id", "NetworkInterfaces.Association.IpOwnerId"},
	{"network-interface.association.public-dns-name", "NetworkInterfaces.Association.PublicDnsName"},
	{"network-interface.association.public-ip", "NetworkInterfaces.Association.PublicIp"},
	{"network-interface.attachment.attach-time", "NetworkInterfaces.Attachment.AttachTime"},
	{"network-interface.attachment.attachment-id", "NetworkInterfaces.Attachment.AttachmentId"},
	{"network-interface.attachment.delete-on-termination", "NetworkInterfaces.Attachment.DeleteOnTermination"},
	{"network-interface.attachment.device-index", "NetworkInterfaces.Attachment.DeviceIndex"},
	{"network-interface.attachment.instance-id", "InstanceId"},
	{"network-interface.attachment.instance-owner-id", "OwnerId"},
	{"network-interface.attachment.status", "NetworkInterfaces.Attachment.Status"},
	{"network-interface.availability-zone", "Placement.AvailabilityZone"},
	{"network-interface.deny-all-igw-traffic", ""}, {"network-interface.description", "NetworkInterfaces.Description"},
	{"network-interface.group-id", "NetworkInterfaces.Groups.GroupId"}, {"network-interface.group-name", "NetworkInterfaces.Groups.GroupName"},
	{"network-interface.ipv4-prefixes.ipv4-prefix", ""}, {"network-interface.ipv6-address", ""},
	{"network-interface.ipv6-addresses.ipv6-address", ""}, {"network-interface.ipv6-addresses.is-primary-ipv6", ""},
	{"network-interface.ipv6-native", ""}, {"network-interface.ipv6-prefixes.ipv6-prefix", ""},
	{"network-interface.mac-address", "NetworkInterfaces.MacAddress"},
	{"network-interface.network-interface-id", "NetworkInterfaces.NetworkInterfaceId"}, {"network-interface.operator.managed", ""},
	{"network-interface.operator.principal", ""}, {"network-interface.outpost-arn", ""}, {"network-interface.owner-id", "NetworkInterfaces.OwnerId"},
	{"network-interface.private-dns-name", "NetworkInterfaces.PrivateDnsName"},
	{"network-interface.private-ip-address", "NetworkInterfaces.PrivateIpAddress"}, {"network-interface.public-dns-name", "NetworkInterfaces.Association.PublicDnsName"},
	{"network-interface.requester-id", ""}, {"network-interface.requester-managed", ""},
	{"network-interface.status", "NetworkInterfaces.Status"}, {"network-interface.source-dest-check", "NetworkInterfaces.SourceDestCheck"},
	{"network-interface.subnet-id", "NetworkInterfaces.SubnetId"}, {"network-interface.tag-key", "InterfaceTags.Key"}, {"network-interface.tag-value", "InterfaceTags.Value"},
	{"network-interface.vpc-id", "NetworkInterfaces.VpcId"},
	{"network-performance-options.bandwidth-weighting", ""}, {"operator.managed", ""}, {"operator.principal", ""}, {"outpost-arn", ""},
	{"owner-id", "OwnerId"}, {"placement-group-name", "Placement.GroupName"}, {"placement-partition-number", ""}, {"platform", "Platform"},
	{"platform-details", "PlatformDetails"}, {"private-dns-name", "PrivateDnsName"},
	{"private-dns-name-options.enable-resource-name-dns-a-record", "PrivateDnsNameOptions.EnableResourceNameDnsARecord"},
	{"private-dns-name-options.enable-resource-name-dns-aaaa-record", "PrivateDnsNameOptions.EnableResourceNameDnsAAAARecord"},
	{"private-dns-name-options.hostname-type", "PrivateDnsNameOptions.HostnameType"},
	{"private-ip-address", "PrivateIpAddress"}, {"product-code", ""}, {"product-code.type", ""}, {"ramdisk-id", ""},
	{"reason", "StateTransitionReason"}, {"requester-id", ""}, {"reservation-id", "ReservationId"}, {"root-device-name", "RootDeviceName"},
	{"root-device-type", "RootDeviceType"}, {"source-dest-check", "SourceDestCheck"}, {"spot-instance-request-id", "SpotInstanceRequestId"},
	{"state-reason-code", "StateReason.Code"}, {"state-reason-message", "StateReason.Message"}, {"subnet-id", "SubnetId"},
	{"tenancy", "Placement.Tenancy"}, {"tpm-support", "TpmSupport"}, {"usage-operation", "UsageOperation"},
	{"usage-operation-update-time", "UsageOperationUpdateTime"}, {"virtualization-type", "VirtualizationType"}, {"vpc-id", "VpcId"},
}

// describedInstances returns the caller's instances that a query selects.
func (s *state) describedInstances(c wire.Caller, q query) ([]*instance, error) {
	if err := kindInstance.checkPage(q); err != nil {
		return nil, err
	}
	rows, err := s.instancesOf(c)
	if err != nil {
		return nil, err
	}
	rows, err = pick(s, kindInstance, q.ids, rows)
	for i := range rows {
		rows[i] = s.withInterfaces(rows[i])
	}
	return rows, err
}

func (s *state) DescribeInstances(ctx context.Context, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	rows, err := s.describedInstances(wire.CallerFrom(ctx), query{ids: in.InstanceIds, max: in.MaxResults})
	if err != nil {
		return nil, err
	}
	if rows, err = apply(instanceFilters, in.Filters, rows); err != nil {
		return nil, err
	}
	key := func(in *instance) string { // newest first, instances of a launch together
		return fmt.Sprintf("%s %s %05d %s", newestFirst(in.Created.UTC().Format(timeForm)), in.ReservationId, aws.ToInt32(in.AmiLaunchIndex), *in.InstanceId)
	}
	sort.Slice(rows, func(i, j int) bool { return key(rows[i]) < key(rows[j]) })
	rows, next, err := page(rows, key, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeInstancesOutput{NextToken: next, Reservations: []types.Reservation{}}
	for _, row := range rows {
		n := len(out.Reservations)
		if n == 0 || *out.Reservations[n-1].ReservationId != row.ReservationId {
			out.Reservations = append(out.Reservations, types.Reservation{ReservationId: &row.ReservationId, OwnerId: &row.OwnerId, Groups: []types.GroupIdentifier{}})
			n++
		}
		out.Reservations[n-1].Instances = append(out.Reservations[n-1].Instances, row.Instance)
	}
	return out, nil
}

var statusFilters = filters{
	{"availability-zone", "Placement.AvailabilityZone"}, {"availability-zone-id", "Placement.AvailabilityZoneId"},
	{"event.code", ""}, {"event.description", ""}, {"event.instance-event-id", ""}, {"event.not-after", ""}, {"event.not-before", ""}, {"event.not-before-deadline", ""},
	{"instance-state-code", "State.Code"}, {"instance-state-name", "State.Name"},
	{"instance-status.reachability", "Reachability"}, {"instance-status.status", "Health"}, {"system-status.reachability", "Reachability"}, {"system-status.status", "Health"},
	{"attached-ebs-status.status", ""}, {"operator.managed", ""}, {"operator.principal", ""},
}

func (s *state) DescribeInstanceStatus(ctx context.Context, in *ec2.DescribeInstanceStatusInput) (*ec2.DescribeInstanceStatusOutput, error) {
	q := query{in.InstanceIds, in.Filters, in.MaxResults, in.NextToken}
	all, err := s.describedInstances(wire.CallerFrom(ctx), q)
	if err != nil {
		return nil, err
	}
	type status struct {
		*instance
		Health, Reachability string
	}
	var rows []status
	for _, row := range all {
		switch {
		case row.state() == types.InstanceStateNameRunning:
			rows = append(rows, status{row, "ok", "passed"})
		case aws.ToBool(in.IncludeAllInstances):
			rows = append(rows, status{row, "not-applicable", ""})
		}
	}
	rows, next, err := listed(kindInstance.with(statusFilters), q, rows)
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeInstanceStatusOutput{NextToken: next, InstanceStatuses: []types.InstanceStatus{}}
	for _, r := range rows {
		summary := &types.InstanceStatusSummary{Status: types.SummaryStatus(r.Health)}
		if r.Reachability != "" {
			summary.Details = []types.InstanceStatusDetails{{Name: types.StatusNameReachability, Status: types.StatusType(r.Reachability)}}
		}
		out.InstanceStatuses = append(out.InstanceStatuses, types.InstanceStatus{
			InstanceId: r.InstanceId, AvailabilityZone: r.Placement.AvailabilityZone, AvailabilityZoneId: r.Placement.AvailabilityZoneId,
			InstanceState: r.State, InstanceStatus: summary, SystemStatus: summary,
		})
	}
	return out, nil
}

// transit changes the state of the caller's instances. check reports whether an instance
// may change; move starts the change and sets the instance's new state. If one check
// fails, no instance is moved.
func (s *state) transit(ctx context.Context, ids []string, check func(*instance) error, move func(*instance) error) ([]types.InstanceStateChange, error) {
	if len(ids) == 0 {
		return nil, missing("InstanceId")
	}
	if s.closed {
		return nil, errClosed
	}
	rows, err := s.findInstances(wire.CallerFrom(ctx), ids)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if err := check(row); err != nil {
			return nil, err
		}
	}
	var changes []types.InstanceStateChange
	for _, row := range rows {
		if err := move(row); err != nil {
			return nil, err
		}
		now, _ := s.instances.Get(*row.InstanceId)
		changes = append(changes, types.InstanceStateChange{InstanceId: row.InstanceId, PreviousState: row.State, CurrentState: now.State})
	}
	return changes, nil
}

func wrongState(in *instance, verb string) error {
	return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be %s.", *in.InstanceId, verb)
}

func (s *state) StartInstances(ctx context.Context, in *ec2.StartInstancesInput) (*ec2.StartInstancesOutput, error) {
	changes, err := s.transit(ctx, in.InstanceIds, func(row *instance) error {
		switch row.state() {
		case types.InstanceStateNameStopped, types.InstanceStateNameRunning, types.InstanceStateNamePending:
			if row.root() == nil {
				return noRoot(row)
			}
			return nil
		}
		return wrongState(row, "started")
	}, func(row *instance) error {
		if row.state() != types.InstanceStateNameStopped {
			return nil
		}
		err := s.instances.Edit(*row.InstanceId, func(in *instance) {
			in.setPending()
			in.LaunchTime = aws.Time(s.now())
			s.setAddress(in, true)
		})
		if err == nil {
			s.launch(ctx, *row.InstanceId)
		}
		return err
	})
	return &ec2.StartInstancesOutput{StartingInstances: changes}, err
}

func (s *state) StopInstances(ctx context.Context, in *ec2.StopInstancesInput) (*ec2.StopInstancesOutput, error) {
	if aws.ToBool(in.Hibernate) {
		return nil, wire.Errorf("UnsupportedHibernationConfiguration", "The instances of the embedded cloud cannot hibernate.")
	}
	changes, err := s.transit(ctx, in.InstanceIds, func(row *instance) error {
		switch row.state() {
		case types.InstanceStateNameRunning, types.InstanceStateNameStopping, types.InstanceStateNameStopped:
			if row.NoStop {
				return notPermitted(row, "stopped", "disableApiStop")
			}
			if row.SpotInstanceRequestId != nil {
				return wire.Errorf("UnsupportedOperation", "You can't stop the Spot Instance '%s' because it is associated with a one-time Spot Instance request. You can only stop Spot Instances associated with persistent Spot Instance requests.", *row.InstanceId)
			}
			return nil
		}
		return wrongState(row, "stopped")
	}, func(row *instance) error {
		if row.state() != types.InstanceStateNameRunning {
			return nil
		}
		return s.end(ctx, row, goalStop, types.InstanceStateNameStopping)
	})
	return &ec2.StopInstancesOutput{StoppingInstances: changes}, err
}

func notPermitted(in *instance, verb, attribute string) error {
	return wire.Errorf("OperationNotPermitted", "The instance '%s' may not be %s. Modify its '%s' instance attribute and try again.", *in.InstanceId, verb, attribute)
}

func (s *state) TerminateInstances(ctx context.Context, in *ec2.TerminateInstancesInput) (*ec2.TerminateInstancesOutput, error) {
	changes, err := s.transit(ctx, in.InstanceIds, func(row *instance) error {
		if row.NoTermination {
			return notPermitted(row, "terminated", "disableApiTermination")
		}
		return nil
	}, func(row *instance) error {
		switch row.state() {
		case types.InstanceStateNameTerminated, types.InstanceStateNameShuttingDown:
			return nil
		}
		return s.end(ctx, row, goalTerminate, types.InstanceStateNameShuttingDown)
	})
	return &ec2.TerminateInstancesOutput{TerminatingInstances: changes}, err
}

// end starts to stop or terminate an instance, by goal g.
func (s *state) end(ctx context.Context, row *instance, g goal, state types.InstanceStateName) error {
	id := *row.InstanceId
	err := s.instances.Edit(id, func(in *instance) {
		in.setState(state)
		in.setReason(reasonUser, s.now())
	})
	if err != nil {
		return err
	}
	r := s.runners[id]
	if r == nil { // already stopped
		r = &runner{cancel: func(error) {}}
		s.runners[id] = r
		r.aim(g, reasonUser)
		stays := stuck(ctx)
		s.start(func(s *Service) {
			_ = s.opts.Clock.Sleep(s.ctx, stays) // if interrupted, end it now
			s.terminated(id)
		})
		return nil
	}
	r.aim(g, reasonUser)
	r.stuck = stuck(ctx)
	s.halt(ctx, id, r)
	return nil
}

func (s *state) RebootInstances(ctx context.Context, in *ec2.RebootInstancesInput) (*ec2.RebootInstancesOutput, error) {
	_, err := s.transit(ctx, in.InstanceIds, func(row *instance) error {
		switch row.state() {
		case types.InstanceStateNameRunning, types.InstanceStateNamePending:
			return nil
		}
		return wrongState(row, "rebooted")
	}, func(row *instance) error {
		if r := s.runners[*row.InstanceId]; r != nil && r.machine != nil {
			r.aim(goalReboot, reasonUser)
			s.halt(ctx, *row.InstanceId, r)
		}
		return nil
	})
	return &ec2.RebootInstancesOutput{}, err
}

// consoleLimit is the number of bytes of console output that EC2 returns.
const consoleLimit = 64 << 10

func (s *Service) GetConsoleOutput(ctx context.Context, in *ec2.GetConsoleOutputInput) (*ec2.GetConsoleOutputOutput, error) {
	row, err := try(s, func(st *state) (*instance, error) { return st.findInstance(wire.CallerFrom(ctx), in.InstanceId) })
	if err != nil {
		return nil, err
	}
	text, written, err := tail(s.consoleFile(*row.InstanceId), consoleLimit)
	if err != nil {
		return nil, err
	}
	out := &ec2.GetConsoleOutputOutput{InstanceId: row.InstanceId, Timestamp: &written}
	if len(text) > 0 {
		out.Output = aws.String(base64.StdEncoding.EncodeToString(text))
	}
	return out, nil
}

// GetPasswordData returns an empty password, as EC2 does for instances that do not run
// Windows.
func (s *state) GetPasswordData(ctx context.Context, in *ec2.GetPasswordDataInput) (*ec2.GetPasswordDataOutput, error) {
	row, err := s.findInstance(wire.CallerFrom(ctx), in.InstanceId)
	if err != nil {
		return nil, err
	}
	return &ec2.GetPasswordDataOutput{InstanceId: row.InstanceId, PasswordData: aws.String(""), Timestamp: aws.Time(s.now())}, nil
}

// tail returns the last limit bytes of a file, which need not exist, and its modification
// time.
func tail(name string, limit int64) ([]byte, time.Time, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit), limit))
	return text, info.ModTime(), err
}

// forget deletes everything that belongs to terminated instances, the rows last: what a
// crash leaves is forgotten by the next call.
func (s *state) forget(ids ...string) error {
	for _, id := range ids {
		if err := os.Remove(s.consoleFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(s.disks, id)
	}
	return s.instances.Drop(ids...)
}

func (s *state) DescribeInstanceAttribute(ctx context.Context, in *ec2.DescribeInstanceAttributeInput) (*ec2.DescribeInstanceAttributeOutput, error) {
	row, err := s.findInstance(wire.CallerFrom(ctx), in.InstanceId)
	if err != nil {
		return nil, err
	}
	flag := func(v bool) *types.AttributeBooleanValue { return &types.AttributeBooleanValue{Value: &v} }
	out := &ec2.DescribeInstanceAttributeOutput{InstanceId: row.InstanceId}
	switch in.Attribute {
	case types.InstanceAttributeNameInstanceType:
		out.InstanceType = &types.AttributeValue{Value: aws.String(string(row.InstanceType))}
	case types.InstanceAttributeNameUserData:
		out.UserData = &types.AttributeValue{Value: notEmpty(&row.UserData)}
	case types.InstanceAttributeNameDisableApiTermination:
		out.DisableApiTermination = flag(row.NoTermination)
	case types.InstanceAttributeNameDisableApiStop:
		out.DisableApiStop = flag(row.NoStop)
	case types.InstanceAttributeNameInstanceInitiatedShutdownBehavior:
		out.InstanceInitiatedShutdownBehavior = &types.AttributeValue{Value: aws.String(string(row.ShutdownBehavior))}
	case types.InstanceAttributeNameRootDeviceName:
		out.RootDeviceName = &types.AttributeValue{Value: row.RootDeviceName}
	case types.InstanceAttributeNameBlockDeviceMapping:
		out.BlockDeviceMappings = row.BlockDeviceMappings
	case types.InstanceAttributeNameGroupSet:
		out.Groups = row.SecurityGroups
	case types.InstanceAttributeNameSourceDestCheck:
		out.SourceDestCheck = flag(aws.ToBool(row.SourceDestCheck))
	case types.InstanceAttributeNameEbsOptimized:
		out.EbsOptimized = flag(aws.ToBool(row.EbsOptimized))
	case types.InstanceAttributeNameEnaSupport:
		out.EnaSupport = flag(aws.ToBool(row.EnaSupport))
	case types.InstanceAttributeNameSriovNetSupport:
		out.SriovNetSupport = &types.AttributeValue{Value: row.SriovNetSupport}
	case types.InstanceAttributeNameEnclaveOptions:
		out.EnclaveOptions = row.EnclaveOptions
	case types.InstanceAttributeNameKernel:
		out.KernelId = &types.AttributeValue{}
	case types.InstanceAttributeNameRamdisk:
		out.RamdiskId = &types.AttributeValue{}
	case types.InstanceAttributeNameProductCodes:
		out.ProductCodes = []types.ProductCode{}
	default:
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

func (s *state) ModifyInstanceAttribute(ctx context.Context, in *ec2.ModifyInstanceAttributeInput) (*ec2.ModifyInstanceAttributeOutput, error) {
	c := wire.CallerFrom(ctx)
	row, err := s.findInstance(c, in.InstanceId)
	if err != nil {
		return nil, err
	}
	if err := setNamedAttribute(in); err != nil {
		return nil, err
	}
	if len(in.Groups) > 0 || in.SourceDestCheck != nil { // attributes of its interface
		n, err := s.networkOf(c)
		if err == nil {
			err = n.oneInterface(row)
		}
		if err != nil {
			return nil, err
		}
	}
	var groups []types.GroupIdentifier
	if len(in.Groups) > 0 {
		if groups, err = s.groupsFor(c, aws.ToString(row.VpcId), in.Groups, nil); err != nil {
			return nil, err
		}
	}
	if err := row.checkChange(in); err != nil {
		return nil, err
	}
	err = s.instances.Edit(*row.InstanceId, func(row *instance) { row.change(in, groups) })
	s.refreshPolicies()
	return &ec2.ModifyInstanceAttributeOutput{}, err
}

// checkChange reports the attributes in a request that the instance cannot have.
func (row *instance) checkChange(in *ec2.ModifyInstanceAttributeInput) error {
	atRest := row.state() == types.InstanceStateNameStopped
	if !atRest && (in.InstanceType != nil || in.UserData != nil || in.EnaSupport != nil || in.SriovNetSupport != nil || in.EbsOptimized != nil) {
		return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in the 'stopped' state.", *row.InstanceId)
	}
	if in.InstanceType != nil {
		if aws.ToString(in.InstanceType.Value) == "" {
			return missing("InstanceType.Value")
		}
		if err := checkType(types.InstanceType(aws.ToString(in.InstanceType.Value))); err != nil {
			return err
		}
		if arch := architectureOf(types.InstanceType(aws.ToString(in.InstanceType.Value))); arch != row.Architecture {
			return invalidValue("The architecture '%s' of the instance type does not match the architecture '%s' of the instance.", arch, row.Architecture)
		}
	}
	if in.InstanceInitiatedShutdownBehavior != nil {
		switch v := aws.ToString(in.InstanceInitiatedShutdownBehavior.Value); v {
		case "stop", "terminate":
		default:
			return invalidValue("Value (%s) for parameter instanceInitiatedShutdownBehavior is invalid. Expecting stop or terminate.", v)
		}
	}
	for _, b := range in.BlockDeviceMappings {
		if !slices.ContainsFunc(row.BlockDeviceMappings, func(have types.InstanceBlockDeviceMapping) bool {
			return aws.ToString(have.DeviceName) == aws.ToString(b.DeviceName)
		}) {
			return wire.Errorf("InvalidInstanceAttributeValue", "No device is currently mapped at %s", aws.ToString(b.DeviceName))
		}
	}
	return nil
}

// change applies a request; groups, if not nil, are the new security groups.
func (row *instance) change(in *ec2.ModifyInstanceAttributeInput, groups []types.GroupIdentifier) {
	flag := func(v *types.AttributeBooleanValue, field *bool) {
		if v != nil {
			*field = aws.ToBool(v.Value)
		}
	}
	flag(in.DisableApiTermination, &row.NoTermination)
	flag(in.DisableApiStop, &row.NoStop)
	flags := map[**bool]*types.AttributeBooleanValue{&row.SourceDestCheck: in.SourceDestCheck, &row.EnaSupport: in.EnaSupport, &row.EbsOptimized: in.EbsOptimized}
	for field, v := range flags {
		if v != nil {
			*field = v.Value
		}
	}
	if in.InstanceType != nil {
		row.InstanceType = types.InstanceType(aws.ToString(in.InstanceType.Value))
	}
	if in.UserData != nil {
		row.UserData = base64.StdEncoding.EncodeToString(in.UserData.Value)
	}
	if in.SriovNetSupport != nil {
		row.SriovNetSupport = in.SriovNetSupport.Value
	}
	if in.InstanceInitiatedShutdownBehavior != nil {
		row.ShutdownBehavior = types.ShutdownBehavior(*in.InstanceInitiatedShutdownBehavior.Value)
	}
	for i := range row.NetworkInterfaces {
		row.NetworkInterfaces[i].SourceDestCheck = row.SourceDestCheck
	}
	if groups != nil {
		row.SecurityGroups = groups
		for i := range row.NetworkInterfaces {
			row.NetworkInterfaces[i].Groups = groups
		}
	}
	for _, b := range in.BlockDeviceMappings {
		for i := range row.BlockDeviceMappings {
			have := &row.BlockDeviceMappings[i]
			if aws.ToString(have.DeviceName) == aws.ToString(b.DeviceName) && b.Ebs != nil && b.Ebs.DeleteOnTermination != nil {
				have.Ebs.DeleteOnTermination = b.Ebs.DeleteOnTermination
			}
		}
	}
}

// setNamedAttribute converts the form Attribute=… Value=… to the attribute's own field.
func setNamedAttribute(in *ec2.ModifyInstanceAttributeInput) error {
	if in.Attribute == "" {
		return nil
	}
	value := aws.ToString(in.Value)
	text := &types.AttributeValue{Value: &value}
	flag := &types.AttributeBooleanValue{Value: aws.Bool(strings.EqualFold(value, "true"))}
	switch in.Attribute {
	case types.InstanceAttributeNameInstanceType:
		in.InstanceType = text
	case types.InstanceAttributeNameInstanceInitiatedShutdownBehavior:
		in.InstanceInitiatedShutdownBehavior = text
	case types.InstanceAttributeNameSriovNetSupport:
		in.SriovNetSupport = text
	case types.InstanceAttributeNameUserData:
		data, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return wire.Errorf("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
		}
		in.UserData = &types.SecureBlobAttributeValue{Value: data}
	case types.InstanceAttributeNameDisableApiTermination:
		in.DisableApiTermination = flag
	case types.InstanceAttributeNameDisableApiStop:
		in.DisableApiStop = flag
	case types.InstanceAttributeNameSourceDestCheck:
		in.SourceDestCheck = flag
	case types.InstanceAttributeNameEbsOptimized:
		in.EbsOptimized = flag
	case types.InstanceAttributeNameEnaSupport:
		in.EnaSupport = flag
	case types.InstanceAttributeNameBlockDeviceMapping: // the mappings are in a parameter of their own
	default:
		return invalidValue("Value (%s) for parameter attribute is invalid. It cannot be modified.", in.Attribute)
	}
	return nil
}

func (s *state) ModifyInstanceMetadataOptions(ctx context.Context, in *ec2.ModifyInstanceMetadataOptionsInput) (*ec2.ModifyInstanceMetadataOptionsOutput, error) {
	row, err := s.findInstance(wire.CallerFrom(ctx), in.InstanceId)
	if err != nil {
		return nil, err
	}
	o := *row.MetadataOptions
	if in.HttpEndpoint != "" {
		o.HttpEndpoint = in.HttpEndpoint
	}
	if in.HttpTokens != "" {
		o.HttpTokens = in.HttpTokens
	}
	if in.InstanceMetadataTags != "" {
		o.InstanceMetadataTags = in.InstanceMetadataTags
	}
	if in.HttpProtocolIpv6 != "" {
		o.HttpProtocolIpv6 = in.HttpProtocolIpv6
	}
	if limit := in.HttpPutResponseHopLimit; limit != nil {
		if *limit < 1 || *limit > 64 {
			return nil, invalidValue("The HttpPutResponseHopLimit must be between 1 and 64.")
		}
		o.HttpPutResponseHopLimit = limit
	}
	err = s.instances.Edit(*row.InstanceId, func(in *instance) { in.MetadataOptions = &o })
	return &ec2.ModifyInstanceMetadataOptionsOutput{InstanceId: row.InstanceId, InstanceMetadataOptions: &o}, err
}

var interfaceFilters = filters{
	{"addresses.association.owner-id", "PrivateIpAddresses.Association.IpOwnerId"}, {"addresses.association.public-ip", "PrivateIpAddresses.Association.PublicIp"},
	{"addresses.primary", "PrivateIpAddresses.Primary"}, {"addresses.private-ip-address", "PrivateIpAddresses.PrivateIpAddress"},
	{"association.association-id", "Association.AssociationId"}, {"association.allocation-id", "Association.AllocationId"}, {"association.ip-owner-id", "Association.IpOwnerId"},
	{"association.public-dns-name", "Association.PublicDnsName"}, {"association.public-ip", "Association.PublicIp"},
	{"attachment.attach-time", "Attachment.AttachTime"}, {"attachment.attachment-id", "Attachment.AttachmentId"},
	{"attachment.delete-on-termination", "Attachment.DeleteOnTermination"}, {"attachment.device-index", "Attachment.DeviceIndex"},
	{"attachment.instance-id", "Attachment.InstanceId"}, {"attachment.instance-owner-id", "Attachment.InstanceOwnerId"}, {"attachment.status", "Attachment.Status"},
	{"availability-zone", "AvailabilityZone"}, {"description", "Description"}, {"group-id", "Groups.GroupId"}, {"group-name", "Groups.GroupName"},
	{"interface-type", "InterfaceType"}, {"ipv6-addresses.ipv6-address", ""}, {"mac-address", "MacAddress"}, {"network-interface-id", "NetworkInterfaceId"},
	{"operator.managed", ""}, {"operator.principal", ""}, {"owner-id", "OwnerId"}, {"private-dns-name", "PrivateDnsName"}, {"private-ip-address", "PrivateIpAddress"},
	{"requester-id", ""}, {"requester-managed", ""}, {"source-dest-check", "SourceDestCheck"}, {"status", "Status"}, {"subnet-id", "SubnetId"}, {"vpc-id", "VpcId"},
}
