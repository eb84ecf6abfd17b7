package launch

import (
	"slices"

	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/policy"
	"bake/communicator/ssh"
	"bake/config/schema"
)

// Permissions returns the needs for launching a machine with volumes, connecting to it and
// deleting it.
func (o *Options) Permissions(src *schema.Source, here policy.Place, volumes []*device.Mapping) []policy.Need {
	p := &permissions{Options: o, src: src, here: here}
	p.add(here.Look("DescribeImages", "DescribeInstances", "DescribeVolumes", "DescribeSecurityGroups"))
	p.network()
	p.keyPair()
	p.groups()
	p.profile()
	p.launch(volumes)
	p.add(here.Own("TerminateInstances", "instance"), here.Own("DeleteVolume", "volume"))
	spot := policy.MayBe(src, &o.SpotPrice, o.Spot())
	if spot {
		p.spot()
	}
	if policy.MayBe(src, &o.SpotPrice, !o.Spot()) && policy.MayBe(src, &o.DisableStopInstance, !o.DisableStopInstance) {
		p.add(here.Own("StopInstances", "instance"))
	}
	p.connect()
	p.add(device.Permissions(src, here, volumes)...)
	if len(Kept(src, volumes)) > 0 || slices.ContainsFunc(volumes, func(m *device.Mapping) bool { return !src.Known(&m.DeleteOnTermination) }) {
		p.add(here.Release("volume"))
	}
	return p.needs
}

// permissions collects needs.
type permissions struct {
	*Options
	src   *schema.Source
	here  policy.Place
	needs []policy.Need
	used  []string // EC2 resources that a launch uses, apart from those that it makes
	owned []string // likewise, owned by the build
}

func (p *permissions) add(needs ...policy.Need) { p.needs = append(p.needs, needs...) }

// set reports whether an option may have a value.
func (p *permissions) set(option *string) bool { return policy.MayBe(p.src, option, *option != "") }

// use adds a resource that an option may name to the resources of the launch: the named
// one, or all of its kind if the value is not known yet.
func (p *permissions) use(kind string, option *string) {
	switch {
	case !p.src.Known(option):
		p.used = append(p.used, kind)
	case *option != "":
		p.used = append(p.used, kind+"/"+*option)
	}
}

func (p *permissions) network() {
	public := policy.MayBe(p.src, &p.AssociatePublicIPAddress, p.AssociatePublicIPAddress != nil)
	if p.set(&p.VPCID) || p.VPCFilter != nil || public {
		p.add(p.here.Look("DescribeVpcs"))
	}
	// Without a subnet and a zone, the launch tries others if there is no capacity.
	elsewhere := policy.MayBe(p.src, &p.SubnetID, p.SubnetID == "") && policy.MayBe(p.src, &p.AvailabilityZone, p.AvailabilityZone == "")
	if elsewhere || p.set(&p.SubnetID) || p.SubnetFilter != nil || public {
		p.add(p.here.Look("DescribeSubnets"))
	}
	if public && policy.MayBe(p.src, &p.SubnetID, p.SubnetID == "") && p.SubnetFilter == nil {
		p.add(p.here.Look("DescribeInstanceTypeOfferings"))
	}
	if p.SubnetID == "" || !p.src.Known(&p.SubnetID) {
		p.used = append(p.used, "subnet")
	} else {
		p.use("subnet", &p.SubnetID)
	}
}

func (p *permissions) keyPair() {
	p.use("key-pair", &p.SSHKeyPairName)
	named := p.src.Known(&p.SSHKeyPairName) && p.SSHKeyPairName != ""
	given := named || p.src.Known(&p.PrivateKeyFile) && p.PrivateKeyFile != "" ||
		p.src.Known(&p.Password) && p.Password != "" || p.src.Known(&p.AgentAuth) && p.AgentAuth
	switch {
	case !p.src.Known(&p.Communicator):
		given = false
	case p.Communicator == ssh.None:
		given = true
	case p.Communicator == ssh.WinRM:
		given = named || p.src.Known(&p.WinRMPassword) && p.WinRMPassword != ""
	}
	if given {
		return
	}
	p.owned = append(p.owned, "key-pair")
	p.add(p.here.Look("DescribeKeyPairs"))
	p.add(p.here.Make("CreateKeyPair", "key-pair")...)
	p.add(p.here.Own("DeleteKeyPair", "key-pair"))
}

func (p *permissions) groups() {
	p.use("security-group", &p.SecurityGroupID)
	if !p.src.Known(&p.SecurityGroupIDs) {
		p.used = append(p.used, "security-group")
	}
	for _, id := range p.SecurityGroupIDs {
		p.used = append(p.used, "security-group/"+id)
	}
	if p.SecurityGroupFilter != nil {
		p.used = append(p.used, "security-group")
	}
	named := p.src.Known(&p.SecurityGroupID) && p.SecurityGroupID != "" || p.src.Known(&p.SecurityGroupIDs) && len(p.SecurityGroupIDs) > 0
	if named || p.SecurityGroupFilter != nil {
		return
	}
	p.owned = append(p.owned, "security-group")
	vpc := "vpc"
	if p.src.Known(&p.VPCID) && p.VPCID != "" {
		vpc = "vpc/" + p.VPCID
	}
	p.add(p.here.Make("CreateSecurityGroup", "security-group")...)
	p.add(p.here.Use("CreateSecurityGroup", vpc), p.here.Own("DeleteSecurityGroup", "security-group"))
	if policy.MayBe(p.src, &p.Communicator, p.Communicator != ssh.None) {
		p.add(p.here.Own("AuthorizeSecurityGroupIngress", "security-group"))
	}
}

// profile adds the needs for an instance profile. Its role is known only after a query to
// IAM, and bake's temporary roles can be identified only by name, since new tags take a
// while to reach IAM.
func (p *permissions) profile() {
	if p.set(&p.IAMInstanceProfile) {
		name := p.IAMInstanceProfile
		if !p.src.Known(&p.IAMInstanceProfile) {
			name = "*"
		}
		if policy.MayBe(p.src, &p.SkipProfileValidation, !p.SkipProfileValidation) {
			p.add(policy.Need{Actions: []string{"iam:GetInstanceProfile"}, Resources: p.here.IAM("instance-profile/"+name, "instance-profile/*/"+name)})
		}
		p.add(p.here.Pass("ec2", "role/*"))
	}
	if p.TemporaryIAMInstanceProfilePolicyDocument == nil || p.src.Known(&p.IAMInstanceProfile) && p.IAMInstanceProfile != "" {
		return
	}
	p.add(
		policy.Need{
			Actions: []string{
				"iam:CreateInstanceProfile", "iam:TagInstanceProfile", "iam:GetInstanceProfile", "iam:DeleteInstanceProfile",
				"iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile",
			},
			Resources: p.here.IAM("instance-profile/" + temporaryPrefix + "*"),
		},
		policy.Need{
			Actions:   []string{"iam:CreateRole", "iam:TagRole", "iam:GetRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:DeleteRole"},
			Resources: p.here.IAM("role/" + temporaryPrefix + "*"),
		},
		p.here.Pass("ec2", "role/"+temporaryPrefix+"*"),
	)
}

func (p *permissions) launch(volumes []*device.Mapping) {
	source := "image"
	if p.src.Known(&p.SourceAMI) && p.SourceAMI != "" {
		source = "image/" + p.SourceAMI
	}
	p.used = append(p.used, source)
	p.used = append(p.used, device.Snapshots(p.src, volumes)...)
	p.use("capacity-reservation", &p.CapacityReservationID)
	if p.CapacityReservationGroupARN != "" || p.CapacityReservationPreference == "open" ||
		!p.src.Known(&p.CapacityReservationGroupARN) || !p.src.Known(&p.CapacityReservationPreference) {
		p.used = append(p.used, "capacity-reservation")
	}
	if p.CapacityReservationGroupARN != "" {
		p.used = append(p.used, p.CapacityReservationGroupARN)
	}
	if h := p.Placement; h != nil {
		p.use("dedicated-host", &h.HostID)
		if h.HostResourceGroupARN != "" {
			p.used = append(p.used, "dedicated-host", h.HostResourceGroupARN)
		}
	}
	for i := range p.LicenseSpecifications {
		if arn := p.LicenseSpecifications[i].LicenseConfigurationRequest.LicenseConfigurationARN; arn != "" {
			p.used = append(p.used, arn)
		}
	}
	p.add(p.here.Make("RunInstances", "instance", "volume", "network-interface")...)
	p.add(p.here.Use("RunInstances", p.used...))
	if len(p.owned) > 0 {
		p.add(p.here.Own("RunInstances", p.owned...))
	}
}

// spot adds the needs for a spot instance: the fleet launches it with the caller's
// permissions.
func (p *permissions) spot() {
	p.add(p.here.Make("CreateLaunchTemplate", "launch-template")...)
	p.add(p.here.Own("DeleteLaunchTemplate", "launch-template"), p.here.Own("RunInstances", "launch-template"))
	p.add(p.here.Make("RunInstances", "spot-instances-request")...)
	all := append([]string{"fleet", "launch-template", "instance", "volume", "network-interface"}, p.used...)
	p.add(p.here.Use("CreateFleet", append(all, p.owned...)...))
	if len(p.FleetTags)+len(p.FleetTag) > 0 || !p.src.Known(&p.FleetTags) {
		p.add(p.here.TagNew("CreateFleet", "fleet"))
	}
	// The user's tags are added when the instance runs.
	p.add(p.here.Own("CreateTags", "instance", "volume", "spot-instances-request"))
	p.add(p.here.ServiceRole("spot", "AWSServiceRoleForEC2Spot"), p.here.ServiceRole("ec2fleet", "AWSServiceRoleForEC2Fleet"))
}

func (p *permissions) connect() {
	reached := policy.MayBe(p.src, &p.Communicator, p.Communicator != ssh.None && p.Communicator != ssh.WinRM)
	if reached {
		p.add(p.here.Own("GetConsoleOutput", "instance")) // which contains the host keys
	}
	if reached && (p.SSHInterface == SessionManager || !p.src.Known(&p.SSHInterface)) {
		p.add(
			policy.Need{
				Actions: []string{"ssm:StartSession"}, Resources: p.here.EC2("instance"),
				When: policy.Condition{"StringLike": {"ssm:resourceTag/bake:run": {"*"}}},
			},
			policy.Need{Actions: []string{"ssm:StartSession"}, Resources: p.here.ARNs("ssm", "document/AWS-StartPortForwardingSession")},
			policy.Need{
				Actions:   []string{"ssm:ResumeSession", "ssm:TerminateSession"},
				Resources: p.here.ARNs("ssm", "session/${aws:username}-*", "session/${aws:userid}-*"),
			},
		)
		if p.set(&p.PrivateKeyFile) && policy.MayBe(p.src, &p.SSHKeyPairName, p.SSHKeyPairName == "") {
			p.add(policy.Need{
				Actions: []string{"ec2-instance-connect:SendSSHPublicKey"}, Resources: p.here.EC2("instance"),
				When: policy.Condition{"StringLike": {"aws:ResourceTag/bake:run": {"*"}}},
			})
		}
	}
	if policy.MayBe(p.src, &p.Communicator, p.Communicator == ssh.WinRM) && policy.MayBe(p.src, &p.WinRMPassword, p.WinRMPassword == "") {
		p.add(p.here.Own("GetPasswordData", "instance"))
	}
}
