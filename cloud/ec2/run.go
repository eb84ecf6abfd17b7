package ec2

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// maxUserData is EC2's limit, in bytes before base64.
const maxUserData = 16 << 10

// placement is where and with which network interface an instance is launched.
type placement struct {
	network     *networking
	subnet      types.Subnet
	groups      []types.GroupIdentifier
	public      bool
	private     string                  // requested address
	description string                  // of the interface
	deletes     bool                    // the interface is deleted with the instance
	existing    *types.NetworkInterface // the interface to use; nil means a new one
}

// RunInstances launches instances. They are pending when it returns.
func (s *Service) RunInstances(ctx context.Context, in *ec2.RunInstancesInput) (*ec2.RunInstancesOutput, error) {
	var system []types.Tag
	if in.LaunchTemplate != nil {
		err := s.update(func(st *state) (err error) {
			in, system, err = st.templated(wire.CallerFrom(ctx), in.LaunchTemplate, in)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return s.run(ctx, "RunInstances", in, system)
}

// run implements RunInstances and the launches of fleets. action is the action that was called,
// system the tags that EC2 itself adds.
func (s *Service) run(ctx context.Context, action string, in *ec2.RunInstancesInput, system []types.Tag) (*ec2.RunInstancesOutput, error) {
	launch, request := *in, fingerprint(in)
	if strings.HasPrefix(aws.ToString(in.ImageId), aliasPrefix) {
		out, err := try(s, func(st *state) (*ec2.RunInstancesOutput, error) {
			return st.repeatedRun(wire.CallerFrom(ctx), aws.ToString(in.ClientToken), request)
		})
		if out != nil || err != nil {
			return out, err // even if the parameter has changed since
		}
		if launch.ImageId, err = s.resolved(ctx, in.ImageId); err != nil {
			return nil, err
		}
	}
	return try(s, func(st *state) (*ec2.RunInstancesOutput, error) { return st.run(ctx, action, &launch, request, system) })
}

// run launches instances of an image given by id. request is the fingerprint of the
// request.
func (s *state) run(ctx context.Context, action string, in *ec2.RunInstancesInput, request string, system []types.Tag) (*ec2.RunInstancesOutput, error) {
	c := wire.CallerFrom(ctx)
	if s.closed {
		return nil, errClosed
	}
	if out, err := s.repeatedRun(c, aws.ToString(in.ClientToken), request); out != nil || err != nil {
		return out, err
	}
	img, err := s.usableImage(c, in.ImageId)
	if err != nil {
		return nil, err
	}
	if err := checkRun(in, img); err != nil {
		return nil, err
	}
	if err := s.opts.Driver.Runs(processorOf(img.Architecture)); err != nil {
		return nil, wire.Errorf("Unsupported", "The image %s is for %s: %s", *img.ImageId, img.Architecture, wire.Message(err))
	}
	publicKey, err := s.publicKey(c, aws.ToString(in.KeyName))
	if err != nil {
		return nil, err
	}
	profile, err := s.profile(c, in.IamInstanceProfile)
	if err != nil {
		return nil, err
	}
	place, err := s.placeWithRoom(c, action, in)
	if err != nil {
		return nil, err
	}
	devices, err := s.devices(c, img, in.BlockDeviceMappings)
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor(in.TagSpecifications, kindInstance.resource, kindVolume.resource, kindInterface.resource, kindSpot.resource)
	if err != nil {
		return nil, err
	}
	if aws.ToBool(in.DryRun) {
		return nil, errDryRun()
	}

	template := s.newInstance(c, in, img, place)
	template.Request, template.PublicKey, template.IamInstanceProfile = request, publicKey, profile
	template.Tags, template.InterfaceTags = merged(tags[kindInstance.resource], system), tags[kindInterface.resource]
	if i := place.existing; i != nil {
		template.InterfaceTags, template.SourceDestCheck = i.TagSet, i.SourceDestCheck
	}
	if err := s.launched(*img.ImageId); err != nil {
		return nil, err
	}
	out := &ec2.RunInstancesOutput{ReservationId: &template.ReservationId, OwnerId: &c.Account, Groups: []types.GroupIdentifier{}}
	for i := range aws.ToInt32(in.MaxCount) {
		row := *template
		id, err := s.create(&row, i, place, devices, tags[kindVolume.resource])
		if err != nil {
			return nil, err
		}
		if m := in.InstanceMarketOptions; m != nil && m.MarketType == types.MarketTypeSpot {
			if err := s.requestSpot(id, m.SpotOptions, tags[kindSpot.resource]); err != nil {
				return nil, err
			}
		}
		s.launch(ctx, id)
		s.hide(ctx, id)
		stored, _ := s.instances.Get(id)
		out.Instances = append(out.Instances, stored.Instance)
	}
	return out, nil
}

// publicKey returns the public key of the caller's key pair with that name; it is empty if
// name is empty.
func (s *state) publicKey(c wire.Caller, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	key := s.keys.named(c, name)
	if key == nil {
		return "", kindKey.notFound(name)
	}
	return aws.ToString(key.PublicKey), nil
}

// fingerprint returns a text that differs between different requests.
func fingerprint(in any) string {
	data, err := json.Marshal(in)
	if err != nil {
		return err.Error() // cannot happen: the SDK's structs are plain data
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// repeatedRun returns the answer to a launch whose client token was used before.
func (s *state) repeatedRun(c wire.Caller, token, request string) (*ec2.RunInstancesOutput, error) {
	if token == "" {
		return nil, nil
	}
	rows, err := s.instancesOf(c)
	if err != nil {
		return nil, err
	}
	var out *ec2.RunInstancesOutput
	for _, in := range rows {
		if aws.ToString(in.ClientToken) != token {
			continue
		}
		if in.Request != request {
			return nil, errTokenMisused()
		}
		if out == nil {
			out = &ec2.RunInstancesOutput{ReservationId: &in.ReservationId, OwnerId: &in.OwnerId, Groups: []types.GroupIdentifier{}}
		}
		out.Instances = append(out.Instances, in.Instance)
	}
	if out != nil {
		sort.Slice(out.Instances, func(i, j int) bool { return *out.Instances[i].AmiLaunchIndex < *out.Instances[j].AmiLaunchIndex })
	}
	return out, nil
}

func errTokenMisused() error {
	return wire.Errorf("IdempotentParameterMismatch", "The client token you have provided was already used with different parameters.")
}

var profileName = lazyregexp.New(`^[\w+=,.@-]{1,128}$`)

// checkRun checks the parameters that do not depend on the state.
func checkRun(in *ec2.RunInstancesInput, img *image) error {
	least, most := aws.ToInt32(in.MinCount), aws.ToInt32(in.MaxCount)
	switch {
	case least < 1 || most < 1:
		return invalidValue("Value (%d) for parameter minCount is invalid. The minimum count and the maximum count must be at least 1.", min(least, most))
	case least > most:
		return wire.Errorf("InvalidParameterCombination", "The minimum count (%d) cannot be more than the maximum count (%d).", least, most)
	case most > 100:
		return wire.Errorf("InstanceLimitExceeded", "You have requested more instances (%d) than your current instance limit of 100 allows.", most)
	}
	if err := checkType(in.InstanceType); err != nil {
		return err
	}
	if arch := architectureOf(in.InstanceType); arch != img.Architecture {
		return invalidValue("The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.", arch, img.Architecture)
	}
	if data, err := base64.StdEncoding.DecodeString(aws.ToString(in.UserData)); err != nil {
		return wire.Errorf("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
	} else if len(data) > maxUserData {
		return invalidValue("User data is limited to 16384 bytes")
	}
	if o := in.MetadataOptions; o != nil && o.HttpPutResponseHopLimit != nil && (*o.HttpPutResponseHopLimit < 1 || *o.HttpPutResponseHopLimit > 64) {
		return invalidValue("The HttpPutResponseHopLimit must be between 1 and 64.")
	}
	if o := in.CreditSpecification; o != nil {
		if err := checkCredits(aws.ToString(o.CpuCredits)); err != nil {
			return err
		}
		if !earnsCredits(in.InstanceType) {
			return wire.Errorf("InvalidParameterCombination", "The CPU credit specification is not supported for the instance type %s.", in.InstanceType)
		}
	}
	return checkInterface(in)
}

// checkInterface reports an error in the network interface of a request to run instances,
// if it names one.
func checkInterface(in *ec2.RunInstancesInput) error {
	if len(in.NetworkInterfaces) > 1 {
		return wire.Errorf("Unsupported", "An instance of the embedded cloud can be launched with only one network interface.")
	}
	if len(in.NetworkInterfaces) == 1 && (aws.ToString(in.SubnetId) != "" || len(in.SecurityGroupIds)+len(in.SecurityGroups) > 0) {
		return wire.Errorf("InvalidParameterCombination", "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request")
	}
	if len(in.NetworkInterfaces) == 1 && aws.ToString(in.NetworkInterfaces[0].NetworkInterfaceId) != "" {
		i := in.NetworkInterfaces[0]
		switch {
		case aws.ToString(i.SubnetId) != "" || len(i.Groups) > 0 || aws.ToString(i.PrivateIpAddress) != "" || aws.ToString(in.PrivateIpAddress) != "" || aws.ToString(i.Description) != "":
			return wire.Errorf("InvalidParameterCombination", "A subnet, security groups, a private address and a description may not be specified together with a network interface ID")
		case aws.ToBool(i.AssociatePublicIpAddress):
			return wire.Errorf("InvalidParameterCombination", "A public address can only be given to a new network interface, not to an existing one")
		case aws.ToBool(i.DeleteOnTermination):
			return wire.Errorf("InvalidParameterCombination", "A network interface may not specify both a network interface ID and delete on termination as true")
		case aws.ToInt32(in.MaxCount) > 1:
			return wire.Errorf("InvalidParameterCombination", "A network interface ID may not be specified when launching more than one instance")
		}
	}
	return nil
}

// placeWithRoom is place, but if the launch names no zone, it chooses the first zone with
// capacity for the instance type.
func (s *state) placeWithRoom(c wire.Caller, action string, in *ec2.RunInstancesInput) (*placement, error) {
	refusal := func(p *placement) error {
		if aws.ToBool(in.DryRun) {
			return nil
		}
		return s.opts.Faults.full(call{service: "ec2", action: action, region: c.Region, account: c.Account}, *p.subnet.AvailabilityZone, string(in.InstanceType))
	}
	first, err := s.place(c, in)
	if err != nil {
		return nil, err
	}
	refused := refusal(first)
	pinned := first.existing != nil || aws.ToString(in.SubnetId) != "" || len(in.NetworkInterfaces) == 1 && aws.ToString(in.NetworkInterfaces[0].SubnetId) != "" ||
		in.Placement != nil && aws.ToString(in.Placement.AvailabilityZone) != ""
	if refused == nil || pinned {
		return first, refused
	}
	for _, subnet := range first.network.defaultSubnets() {
		other := *first
		other.subnet = subnet
		if *subnet.SubnetId != *first.subnet.SubnetId && refusal(&other) == nil {
			return &other, nil
		}
	}
	return nil, refused
}

// place determines the subnet, groups and addresses of a launch.
func (s *state) place(c wire.Caller, in *ec2.RunInstancesInput) (*placement, error) {
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	p := &placement{network: n, deletes: true}
	subnetID, groupIDs := aws.ToString(in.SubnetId), in.SecurityGroupIds
	p.private = aws.ToString(in.PrivateIpAddress)
	var wantsPublic *bool
	if len(in.NetworkInterfaces) == 1 {
		ni := in.NetworkInterfaces[0]
		if i := aws.ToInt32(ni.DeviceIndex); i != 0 {
			return nil, invalidValue("The first network interface must have the device index 0, not %d", i)
		}
		if id := aws.ToString(ni.NetworkInterfaceId); id != "" {
			if p.existing, err = s.freeInterface(c, id); err != nil {
				return nil, err
			}
		}
		subnetID, groupIDs, wantsPublic = aws.ToString(ni.SubnetId), ni.Groups, ni.AssociatePublicIpAddress
		p.private = cmp.Or(aws.ToString(ni.PrivateIpAddress), p.private)
		p.description = aws.ToString(ni.Description)
		p.deletes = p.existing == nil && ni.DeleteOnTermination == nil || aws.ToBool(ni.DeleteOnTermination)
		if p.existing != nil {
			subnetID, wantsPublic = *p.existing.SubnetId, aws.Bool(false)
		}
	}
	zone := ""
	if in.Placement != nil {
		zone = aws.ToString(in.Placement.AvailabilityZone)
	}
	if subnetID != "" {
		if err := kindSubnet.check(subnetID); err != nil {
			return nil, err
		}
	}
	if p.subnet, err = n.subnetIn(subnetID, zone); err != nil {
		return nil, err
	}
	p.public = aws.ToBool(p.subnet.MapPublicIpOnLaunch)
	if wantsPublic != nil {
		p.public = *wantsPublic
	}
	if p.existing != nil {
		p.groups = p.existing.Groups
		return p, nil
	}
	p.groups, err = s.groupsFor(c, *p.subnet.VpcId, groupIDs, in.SecurityGroups)
	return p, err
}

// subnetIn returns the subnet with that id or, if id is empty, the first default subnet of
// a zone. An empty zone means any.
func (n *networking) subnetIn(id, zone string) (v types.Subnet, err error) {
	candidates := n.Subnets
	if id == "" {
		switch candidates = n.defaultSubnets(); {
		case n.defaultVpc() == "":
			return v, errNoDefaultVpc()
		case len(candidates) == 0:
			return v, wire.Errorf("MissingInput", "No subnets found for the default VPC '%s'. Please specify a subnet.", n.defaultVpc())
		}
	}
	i := slices.IndexFunc(candidates, func(v types.Subnet) bool {
		return (id == "" || *v.SubnetId == id) && (zone == "" || *v.AvailabilityZone == zone)
	})
	switch {
	case i >= 0:
		return candidates[i], nil
	case id == "":
		return v, invalidValue("Invalid availability zone: [%s]", zone)
	case !slices.ContainsFunc(n.Subnets, func(v types.Subnet) bool { return *v.SubnetId == id }):
		return v, kindSubnet.notFound(id)
	}
	return v, wire.Errorf("InvalidParameterCombination", "The subnet '%s' is not in the availability zone '%s'", id, zone)
}

// newInstance returns an instance with the fields that all instances of a launch share.
func (s *state) newInstance(c wire.Caller, in *ec2.RunInstancesInput, img *image, p *placement) *instance {
	row := &instance{
		Region: c.Region, OwnerId: c.Account, ReservationId: newID("r"), Created: s.now(),
		UserData: aws.ToString(in.UserData), ShutdownBehavior: in.InstanceInitiatedShutdownBehavior, WantsPublic: p.public,
		NoTermination: aws.ToBool(in.DisableApiTermination), NoStop: aws.ToBool(in.DisableApiStop),
		LoginUser: img.LoginUser, ImdsSupport: img.ImdsSupport,
	}
	row.Layers, row.Base = s.content(img)
	if o := in.CreditSpecification; o != nil {
		row.Credits = aws.ToString(o.CpuCredits)
	}
	if row.ShutdownBehavior == "" {
		row.ShutdownBehavior = types.ShutdownBehaviorStop
	}
	row.Instance = types.Instance{
		Architecture: img.Architecture, BootMode: img.BootMode, CurrentInstanceBootMode: bootMode(img),
		ClientToken: in.ClientToken, EbsOptimized: aws.Bool(aws.ToBool(in.EbsOptimized)), EnaSupport: img.EnaSupport, SriovNetSupport: img.SriovNetSupport,
		Hypervisor: types.HypervisorTypeXen, ImageId: in.ImageId, InstanceType: cmp.Or(in.InstanceType, types.InstanceTypeM1Small),
		KeyName: notEmpty(in.KeyName), LaunchTime: aws.Time(s.now()), RootDeviceName: img.RootDeviceName, RootDeviceType: types.DeviceTypeEbs,
		Monitoring: &types.Monitoring{State: monitoring(in.Monitoring)},
		TpmSupport: notEmpty(aws.String(string(img.TpmSupport))), PlatformDetails: img.PlatformDetails, UsageOperation: img.UsageOperation, UsageOperationUpdateTime: aws.Time(s.now()),
		VirtualizationType: types.VirtualizationTypeHvm, SourceDestCheck: aws.Bool(true),
		SubnetId: p.subnet.SubnetId, VpcId: p.subnet.VpcId, SecurityGroups: p.groups,
		Placement:       &types.Placement{AvailabilityZone: p.subnet.AvailabilityZone, AvailabilityZoneId: p.subnet.AvailabilityZoneId, Tenancy: types.TenancyDefault},
		MetadataOptions: metadataOptions(in.MetadataOptions, img),
		EnclaveOptions:  &types.EnclaveOptions{Enabled: aws.Bool(false)}, HibernationOptions: &types.HibernationOptions{Configured: aws.Bool(false)},
		CapacityReservationSpecification: &types.CapacityReservationSpecificationResponse{CapacityReservationPreference: types.CapacityReservationPreferenceOpen},
		PrivateDnsNameOptions: &types.PrivateDnsNameOptionsResponse{HostnameType: types.HostnameTypeIpName,
			EnableResourceNameDnsARecord: aws.Bool(false), EnableResourceNameDnsAAAARecord: aws.Bool(false)},
	}
	if m := in.Monitoring; m != nil && aws.ToBool(m.Enabled) {
		row.Monitoring.State = types.MonitoringStateEnabled
	}
	if r := in.CapacityReservationSpecification; r != nil && r.CapacityReservationPreference != "" {
		row.CapacityReservationSpecification.CapacityReservationPreference = r.CapacityReservationPreference
	}
	if in.Placement != nil && in.Placement.Tenancy != "" {
		row.Placement.Tenancy = in.Placement.Tenancy
	}
	row.setPending()
	cores, threads := cpuOptions(row.InstanceType)
	row.CpuOptions = &types.CpuOptions{CoreCount: &cores, ThreadsPerCore: &threads}
	row.MaintenanceOptions = &types.InstanceMaintenanceOptions{AutoRecovery: types.InstanceAutoRecoveryStateDefault, RebootMigration: types.InstanceRebootMigrationStateDefault}
	return row
}

// bootMode returns how an instance of the image boots on EC2: by UEFI if the image
// requires or prefers it, and on Arm.
func bootMode(img *image) types.InstanceBootModeValues {
	switch {
	case img.BootMode == types.BootModeValuesUefi, img.BootMode == types.BootModeValuesUefiPreferred, img.Architecture == types.ArchitectureValuesArm64:
		return types.InstanceBootModeValuesUefi
	}
	return types.InstanceBootModeValuesLegacyBios
}

// notEmpty returns nil for an empty text, which clients send to mean none.
func notEmpty(text *string) *string {
	if aws.ToString(text) == "" {
		return nil
	}
	return text
}

func metadataOptions(want *types.InstanceMetadataOptionsRequest, img *image) *types.InstanceMetadataOptionsResponse {
	o := &types.InstanceMetadataOptionsResponse{
		State: types.InstanceMetadataOptionsStateApplied, HttpEndpoint: types.InstanceMetadataEndpointStateEnabled,
		HttpTokens: types.HttpTokensStateOptional, HttpPutResponseHopLimit: aws.Int32(1),
		InstanceMetadataTags: types.InstanceMetadataTagsStateDisabled, HttpProtocolIpv6: types.InstanceMetadataProtocolStateDisabled,
	}
	if img.ImdsSupport == types.ImdsSupportValuesV20 {
		o.HttpTokens, o.HttpPutResponseHopLimit = types.HttpTokensStateRequired, aws.Int32(2)
	}
	if want == nil {
		return o
	}
	o.HttpEndpoint = cmp.Or(want.HttpEndpoint, o.HttpEndpoint)
	o.HttpTokens = cmp.Or(want.HttpTokens, o.HttpTokens)
	o.InstanceMetadataTags = cmp.Or(want.InstanceMetadataTags, o.InstanceMetadataTags)
	o.HttpProtocolIpv6 = cmp.Or(want.HttpProtocolIpv6, o.HttpProtocolIpv6)
	if want.HttpPutResponseHopLimit != nil {
		o.HttpPutResponseHopLimit = want.HttpPutResponseHopLimit
	}
	return o
}

// monitoring returns the monitoring state that a launch asks for.
func monitoring(want *types.RunInstancesMonitoringEnabled) types.MonitoringState {
	if want != nil && aws.ToBool(want.Enabled) {
		return types.MonitoringStateEnabled
	}
	return types.MonitoringStateDisabled
}

// create stores an instance, the index'th of its launch, with its volumes, and returns its
// id. It stores the volumes first: if a crash prevents the instance from being stored,
// repair deletes them.
func (s *state) create(row *instance, index int32, p *placement, devices []device, volumeTags []types.Tag) (string, error) {
	id := newID("i")
	row.InstanceId, row.AmiLaunchIndex = &id, &index
	c := wire.Caller{Account: row.OwnerId, Region: row.Region}
	var nic types.NetworkInterface
	if p.existing != nil {
		nic = *p.existing
	} else {
		var err error
		if nic, err = s.newInterface(c, p.subnet, p.groups, p.private); err != nil {
			return "", err
		}
		nic.Description = &p.description
	}
	nic.Status = types.NetworkInterfaceStatusInUse
	nic.Attachment = &types.NetworkInterfaceAttachment{AttachmentId: aws.String(newID("eni-attach")), AttachTime: row.LaunchTime,
		DeleteOnTermination: aws.Bool(p.deletes), DeviceIndex: aws.Int32(0), NetworkCardIndex: aws.Int32(0), Status: types.AttachmentStatusAttached}
	row.PrivateIpAddress, row.PrivateDnsName = nic.PrivateIpAddress, nic.PrivateDnsName
	row.NetworkInterfaces = []types.InstanceNetworkInterface{instanceInterface(nic)}
	s.setAddress(row, true)
	row.BlockDeviceMappings = nil
	for _, d := range devices {
		v := d.volume(row, volumeTags, s.now())
		if err := s.volumes.Put(*v.VolumeId, v); err != nil {
			return "", err
		}
		row.BlockDeviceMappings = append(row.BlockDeviceMappings, types.InstanceBlockDeviceMapping{
			DeviceName: &d.name,
			Ebs: &types.EbsInstanceBlockDevice{AttachTime: row.LaunchTime, DeleteOnTermination: aws.Bool(d.deletes),
				Status: types.AttachmentStatusAttached, VolumeId: v.VolumeId},
		})
	}
	if err := s.instances.Put(id, row); err != nil || p.existing == nil {
		return id, err
	}
	return id, s.editNetwork(c, func(n *networking) { n.dropInterface(*nic.NetworkInterfaceId) })
}

// probe calls try with numbers derived from seed until try returns true.
func probe(seed string, try func(uint32) bool) {
	sum := sha256.Sum256([]byte(seed))
	for n := binary.BigEndian.Uint32(sum[:]); !try(n); n++ {
	}
}

// publicAddress chooses an address for an instance or an allocation, in 127.16.0.0 to
// 127.250.255.255: hosts use other addresses of 127.0.0.0/8 themselves.
func (s *state) publicAddress(id string) string {
	taken := map[string]bool{}
	for _, in := range s.instances.Rows {
		taken[aws.ToString(in.PublicIpAddress)] = true
	}
	for _, n := range s.networks.Rows {
		for _, a := range n.Addresses {
			taken[*a.PublicIp] = true
		}
	}
	var addr string
	probe(id, func(n uint32) bool {
		addr = fmt.Sprintf("127.%d.%d.%d", 16+n>>16%235, n>>8%256, 1+n%254)
		return !taken[addr]
	})
	return addr
}

// privateAddress chooses a free address of the subnet, or checks the requested one.
func (s *state) privateAddress(p *placement, id string) (netip.Addr, error) {
	taken := s.taken(*p.subnet.SubnetId)
	prefix := netip.MustParsePrefix(*p.subnet.CidrBlock)
	if p.private != "" {
		addr, err := netip.ParseAddr(p.private)
		if err != nil || !prefix.Contains(addr) {
			return addr, invalidValue("Address %s does not fall within the subnet's address range", p.private)
		}
		if taken[p.private] {
			return addr, wire.Errorf("InvalidIPAddress.InUse", "Address %s is in use.", p.private)
		}
		return addr, nil
	}
	size := uint32(1) << (32 - prefix.Bits())
	if len(taken) >= int(size)-5 {
		return netip.Addr{}, wire.Errorf("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", *p.subnet.SubnetId)
	}
	base := binary.BigEndian.Uint32(prefix.Masked().Addr().AsSlice())
	var addr netip.Addr
	probe(id, func(n uint32) bool {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], base+4+n%(size-5)) // EC2 reserves the first four and the last
		addr = netip.AddrFrom4(b)
		return !taken[addr.String()]
	})
	return addr, nil
}

// privateName returns the private DNS name of an address.
func privateName(addr netip.Addr, region string) string {
	host := "ip-" + strings.ReplaceAll(addr.String(), ".", "-")
	if region == "us-east-1" {
		return host + ".ec2.internal"
	}
	return host + "." + region + ".compute.internal"
}

// macAddress returns a locally administered address for an instance's interface.
func macAddress(id string) string {
	sum := sha256.Sum256([]byte("mac " + id))
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}
