package ec2

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// instance is an instance: the fields that EC2 shows, and others.
type instance struct {
	Region        string
	OwnerId       string
	ReservationId string
	Created       time.Time // the first launch; LaunchTime is the last start
	types.Instance

	Request          string // the launch's parameters, to tell a repeated client token from a misused one
	UserData         string // base64
	ShutdownBehavior types.ShutdownBehavior
	NoTermination    bool // DisableApiTermination
	NoStop           bool // DisableApiStop
	WantsPublic      bool // wants a public address at every start
	InterfaceTags    []types.Tag
	Credits          string                  // CPU credit option, if one was requested
	ImdsSupport      types.ImdsSupportValues // of the image; images made from the instance inherit it

	LoginUser string
	PublicKey string     // in authorized_keys form
	Base      string     // base that the layers will be made from; set until the first boot
	Layers    []string   // read-only layers, topmost first
	Freezing  string     // id of the layer that the writable layer is being turned into
	Boots     int        // how often the machine was started
	Ended     *time.Time // when the instance was terminated
}

// terminatedFor is how long a terminated instance is still described.
const terminatedFor = time.Hour

func (in *instance) booted() bool { return in.Boots > 0 }

// holdsAddress reports whether the instance still occupies its private address.
func (in *instance) holdsAddress() bool { return in.PrivateIpAddress != nil && in.Ended == nil }

func (in *instance) setState(name types.InstanceStateName) {
	code := map[types.InstanceStateName]int32{
		types.InstanceStateNamePending: 0, types.InstanceStateNameRunning: 16, types.InstanceStateNameShuttingDown: 32,
		types.InstanceStateNameTerminated: 48, types.InstanceStateNameStopping: 64, types.InstanceStateNameStopped: 80,
	}[name]
	in.State = &types.InstanceState{Name: name, Code: &code}
}

// setPending sets the instance to pending, ready to start.
func (in *instance) setPending() {
	in.setState(types.InstanceStateNamePending)
	in.StateReason, in.StateTransitionReason = &types.StateReason{Code: aws.String("pending"), Message: aws.String("pending")}, nil
}

func (in *instance) setReason(why reason, at time.Time) {
	in.StateReason = &types.StateReason{Code: aws.String(why.code), Message: aws.String(why.code + ": " + why.text)}
	in.StateTransitionReason = nil
	if why.transition != "" {
		in.StateTransitionReason = aws.String(fmt.Sprintf("%s (%s GMT)", why.transition, at.Format(time.DateTime)))
	}
}

// setPublic sets the instance's public address, owned by owner, or removes it if addr is
// empty. The public DNS name is the address itself: a name by EC2's pattern could not be
// resolved.
func (in *instance) setPublic(addr, owner string) {
	in.PublicIpAddress, in.PublicDnsName = nil, nil
	var association *types.InstanceNetworkInterfaceAssociation
	if addr != "" {
		in.PublicIpAddress, in.PublicDnsName = &addr, &addr
		association = &types.InstanceNetworkInterfaceAssociation{IpOwnerId: &owner, PublicIp: &addr, PublicDnsName: &addr}
	}
	for i := range in.NetworkInterfaces {
		n := &in.NetworkInterfaces[i]
		n.Association = association
		for j := range n.PrivateIpAddresses {
			n.PrivateIpAddresses[j].Association = association
		}
	}
}

func (in *instance) hasVolume(id string) bool {
	return slices.ContainsFunc(in.BlockDeviceMappings, func(b types.InstanceBlockDeviceMapping) bool { return *b.Ebs.VolumeId == id })
}

// root returns the mapping of the root device; nil after termination.
func (in *instance) root() *types.InstanceBlockDeviceMapping {
	for i := range in.BlockDeviceMappings {
		if aws.ToString(in.BlockDeviceMappings[i].DeviceName) == aws.ToString(in.RootDeviceName) {
			return &in.BlockDeviceMappings[i]
		}
	}
	return nil
}

func (in *instance) deletesRoot() bool {
	root := in.root()
	return root == nil || aws.ToBool(root.Ebs.DeleteOnTermination)
}

func (in *instance) state() types.InstanceStateName { return in.State.Name }

// netipAddr parses an address; it returns the zero Addr for nil.
func netipAddr(text *string) netip.Addr {
	addr, _ := netip.ParseAddr(aws.ToString(text))
	return addr
}

// subnetPrefix returns the address range of the instance's subnet.
func (s *state) subnetPrefix(in *instance) netip.Prefix {
	if n, ok := s.networks.Get(in.OwnerId + "." + in.Region); ok {
		for _, v := range n.Subnets {
			if *v.SubnetId == aws.ToString(in.SubnetId) {
				return netip.MustParsePrefix(*v.CidrBlock)
			}
		}
	}
	return netip.Prefix{}
}

// vpcRange returns the address range of the instance's VPC.
func (s *state) vpcRange(in *instance) string {
	if n, ok := s.networks.Get(in.OwnerId + "." + in.Region); ok {
		if v := n.vpc(aws.ToString(in.VpcId)); v != nil {
			return *v.CidrBlock
		}
	}
	return ""
}

// instancesOf returns the caller's instances that are still described.
func (s *state) instancesOf(c wire.Caller) ([]*instance, error) {
	if err := s.forgetEnded(); err != nil {
		return nil, err
	}
	return s.instances.of(c), nil
}

// forgetEnded deletes the instances that were terminated more than terminatedFor ago.
func (s *state) forgetEnded() error {
	var ended []string
	for id, in := range s.instances.Rows {
		if in.Ended != nil && s.now().Sub(*in.Ended) >= terminatedFor {
			ended = append(ended, id)
		}
	}
	return s.forget(ended...)
}

// findInstances returns the caller's instances with those ids, in that order, without
// duplicates.
func (s *state) findInstances(c wire.Caller, ids []string) ([]*instance, error) {
	rows, err := s.instancesOf(c)
	if err != nil {
		return nil, err
	}
	if _, err := pick(s, kindInstance, ids, rows); err != nil {
		return nil, err
	}
	var out []*instance
	for _, id := range ids {
		if in, _ := s.instances.Get(id); !slices.Contains(out, in) {
			out = append(out, in)
		}
	}
	return out, nil
}

func (s *state) findInstance(c wire.Caller, id *string) (*instance, error) {
	if err := s.forgetEnded(); err != nil {
		return nil, err
	}
	return s.instances.find(c, id)
}
