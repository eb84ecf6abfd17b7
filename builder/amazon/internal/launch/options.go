// Package launch launches the machine of a build, with its key pair, security group and
// place in the network.
package launch

import (
	"encoding/base64"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/sourceami"
	"bake/communicator/ssh"
	"bake/communicator/winrm"
	"bake/config/schema"
	"bake/internal/hostpath"
	"bake/internal/lazyregexp"
)

// Options define the machine to launch, its place in the network, and how to connect to
// it.
type Options struct {
	ssh.Options
	winrm.Settings

	// How long to wait for the password that Windows generates at its first start. Only used
	// when `winrm_password` is not set. The password is decrypted with the key pair that the
	// machine is launched with.
	WindowsPasswordTimeout time.Duration `hcl:"windows_password_timeout,optional"`

	sourceami.Selection

	// Instance type to build on, such as t3.micro. Required unless `spot_instance_types` is
	// set. Its architecture must be that of the source image.
	InstanceType string `hcl:"instance_type,optional"`

	// Maximum price of a spot instance in dollars per hour, or `auto` for up to the
	// on-demand price. Not set, or `0`: an on-demand instance. AWS can reclaim a spot
	// instance at any time, which fails the build.
	SpotPrice string `hcl:"spot_price,optional"`

	// Instance types to choose from for a spot instance, instead of `instance_type`. Needs
	// `spot_price`.
	SpotInstanceTypes []string `hcl:"spot_instance_types,optional"`

	// How EC2 chooses among `spot_instance_types`: `price-capacity-optimized`,
	// `capacity-optimized`, `capacity-optimized-prioritized`, `diversified` or
	// `lowest-price`. Not set: EC2's default.
	SpotAllocationStrategy SpotAllocation `hcl:"spot_allocation_strategy,optional"`

	// Tags for the spot request. Needs `spot_price`.
	SpotTags map[string]string `hcl:"spot_tags,optional,deferred"`

	// A single tag, added to `spot_tags`. Repeatable.
	SpotTag []interpolate.Tag `hcl:"spot_tag,block"`

	// Tags for the EC2 fleet that launches the spot instance. Needs `spot_price`.
	FleetTags map[string]string `hcl:"fleet_tags,optional,deferred"`

	// A single tag, added to `fleet_tags`. Repeatable.
	FleetTag []interpolate.Tag `hcl:"fleet_tag,block"`

	// Deprecated and without effect: EC2 no longer needs a product to find a price.
	SpotPriceAutoProduct string `hcl:"spot_price_auto_product,optional"`

	// Deprecated and without effect: EC2 no longer offers spot instances with a fixed
	// duration.
	BlockDurationMinutes int `hcl:"block_duration_minutes,optional"`

	// Whether the machine gets a public IP address. Not set: the subnet's setting decides.
	// When it is set without `subnet_id`, a subnet of the default VPC is chosen.
	AssociatePublicIPAddress *bool `hcl:"associate_public_ip_address,optional"`

	// Availability zone to launch in, such as us-east-1a. Not set: EC2 chooses, and if that
	// zone has no capacity, bake tries others, unless `subnet_id` is set.
	AvailabilityZone string `hcl:"availability_zone,optional"`

	// Subnet to launch in, such as subnet-0123456789abcdef0. Required if the account has no
	// default VPC. bake must be able to reach addresses in it; see `ssh_interface`.
	SubnetID string `hcl:"subnet_id,optional"`

	// VPC for the temporary security group. Not set: the VPC of the subnet, or the default
	// VPC. Without a subnet it must be the default VPC.
	VPCID string `hcl:"vpc_id,optional"`

	// Find the VPC by filters. Exactly one VPC must match. Ignored when `vpc_id` is set.
	VPCFilter *VPCFilter `hcl:"vpc_filter,block"`

	// Find the subnet by filters. If several match, set `most_free` or `random`. Ignored
	// when `subnet_id` is set.
	SubnetFilter *SubnetFilter `hcl:"subnet_filter,block"`

	// ID of an existing security group for the machine, instead of a temporary one. It must
	// allow connections to the communicator's port (22 for SSH by default). Not together
	// with `security_group_ids`.
	SecurityGroupID string `hcl:"security_group_id,optional"`

	// IDs of existing security groups for the machine, instead of a temporary one. One of
	// them must allow connections to the communicator's port.
	SecurityGroupIDs []string `hcl:"security_group_ids,optional"`

	// Find existing security groups by filters; the machine gets all that match. Ignored
	// when `security_group_id` or `security_group_ids` is set.
	SecurityGroupFilter *SecurityGroupFilter `hcl:"security_group_filter,block"`

	// CIDR blocks that may connect through the temporary security group. Not set: only the
	// address of the computer that runs bake, if it can be determined, and otherwise any
	// address; the log says which.
	TemporarySecurityGroupSourceCIDRs []string `hcl:"temporary_security_group_source_cidrs,optional"`

	// Allow connections only from the public address of the computer that runs bake, as
	// reported by https://checkip.amazonaws.com; the build fails if it cannot be
	// determined. Ignored when `temporary_security_group_source_cidrs` is set.
	TemporarySecurityGroupSourcePublicIP bool `hcl:"temporary_security_group_source_public_ip,optional"`

	// Name of an existing instance profile, which gives programs on the machine its role.
	// Everything that runs on the machine during the build can use that role.
	IAMInstanceProfile string `hcl:"iam_instance_profile,optional"`

	// IAM policy of a temporary role for the machine. bake creates the role and its instance
	// profile, and deletes both after the build. Ignored when `iam_instance_profile` is set.
	TemporaryIAMInstanceProfilePolicyDocument *PolicyDocument `hcl:"temporary_iam_instance_profile_policy_document,block"`

	// Do not check that `iam_instance_profile` exists before launching. Use it when the
	// credentials may not call iam:GetInstanceProfile.
	SkipProfileValidation bool `hcl:"skip_profile_validation,optional"`

	// Tags for the instance and for everything else that is created for it. The image and
	// its snapshots get them too, unless `skip_ami_run_tags` is set.
	RunTags map[string]string `hcl:"run_tags,optional,deferred"`

	// A single tag, added to `run_tags`. Repeatable.
	RunTag []interpolate.Tag `hcl:"run_tag,block"`

	// Launch an EBS-optimized instance, with dedicated bandwidth to EBS. Not set:
	// the default of the instance type.
	EBSOptimized bool `hcl:"ebs_optimized,optional"`

	// Enable AWS Nitro Enclaves on the instance. Not possible on spot instances and t
	// instance types.
	EnableNitroEnclave bool `hcl:"enable_nitro_enclave,optional"`

	// Let a burstable instance (t2, t3, t3a, t4g) burst without limit, at an extra charge. Not
	// set: `false`, and an instance that has used up its credits is slowed down.
	EnableUnlimitedCredits bool `hcl:"enable_unlimited_credits,optional"`

	// Deprecated: use `enable_unlimited_credits`.
	EnableT2Unlimited bool `hcl:"enable_t2_unlimited,optional"`

	// What EC2 does when the instance shuts itself down: `stop` or `terminate`. With
	// `terminate`, a shutdown during provisioning loses the machine. Not set: `stop`; or
	// `terminate` if the run has a time limit, at which machines shut themselves down, and
	// `disable_stop_instance` is not set.
	ShutdownBehavior ShutdownBehavior `hcl:"shutdown_behavior,optional"`

	// Do not stop the instance before the image is created: a provisioner does that, for
	// example sysprep on Windows. bake waits until the instance has stopped.
	DisableStopInstance bool `hcl:"disable_stop_instance,optional"`

	// Settings of the instance metadata service during the build. For instances of the
	// finished image, see `imds_support`.
	MetadataOptions *MetadataOptions `hcl:"metadata_options,block"`

	// Whether to use any open capacity reservation that matches (`open`) or none (`none`).
	// Not together with `capacity_reservation_id` or `capacity_reservation_group_arn`.
	CapacityReservationPreference CapacityPreference `hcl:"capacity_reservation_preference,optional"`

	// ID of the capacity reservation to launch into. Not together with
	// `capacity_reservation_group_arn`.
	CapacityReservationID string `hcl:"capacity_reservation_id,optional"`

	// ARN of a resource group of capacity reservations to launch into. Not together with
	// `capacity_reservation_id`.
	CapacityReservationGroupARN string `hcl:"capacity_reservation_group_arn,optional"`

	// Host and tenancy of the instance. Not set: shared hardware.
	Placement *Placement `hcl:"placement,block"`

	// Deprecated: use `placement { tenancy }`.
	Tenancy Tenancy `hcl:"tenancy,optional"`

	// License configurations of AWS License Manager for the instance. Repeatable.
	LicenseSpecifications []LicenseSpecification `hcl:"license_specifications,block"`

	// User data for the instance, such as a cloud-init configuration or a script. It is sent
	// unchanged if it is valid base64, and encoded otherwise. The limit of EC2 is 16 KiB.
	// Anyone on the machine can read it: do not put secrets in it. Not together with
	// `user_data_file`.
	UserData string `hcl:"user_data,optional"`

	// File to read the user data from. The rules of `user_data` apply to its content. Not
	// together with `user_data`.
	UserDataFile string `hcl:"user_data_file,optional"`

	// Which address of the machine to connect to. Not set: the public address, or the
	// private one if there is none. `session_manager` connects through AWS Session Manager
	// and needs no open port: the image must run the SSM agent, and the machine needs an
	// instance profile that allows it (AmazonSSMManagedInstanceCore).
	SSHInterface Interface `hcl:"ssh_interface,optional"`

	// How long to wait before the first Session Manager connection. Only used with
	// `ssh_interface = "session_manager"`.
	PauseBeforeSSM time.Duration `hcl:"pause_before_ssm,optional"`

	// Local port through which other programs can reach the machine via Session Manager
	// while the build runs. Not set: no such port; bake itself needs none.
	SessionManagerPort int `hcl:"session_manager_port,optional"`

	// Name of an existing EC2 key pair to launch with, instead of a temporary one. Its
	// private key must be in `ssh_private_key_file` or in the SSH agent (`ssh_agent_auth`).
	SSHKeyPairName string `hcl:"ssh_keypair_name,optional"`

	// Name of the temporary key pair. Not set: a unique name chosen by bake. A fixed name
	// makes builds that run at the same time collide.
	TemporaryKeyPairName string `hcl:"temporary_key_pair_name,optional"`

	// Type of the temporary key pair: `rsa` or `ed25519`. Windows passwords need `rsa`.
	TemporaryKeyPairType KeyType `hcl:"temporary_key_pair_type,optional"`

	// Has no effect except for a warning: EC2 generates the key pair, with 2048 bits if
	// the type is `rsa`.
	TemporaryKeyPairBits int `hcl:"temporary_key_pair_bits,optional"`

	// Remove the temporary key from the authorized_keys files before the image is created.
	// Otherwise the image contains the public key; the private key is deleted with the
	// build.
	SSHClearAuthorizedKeys bool `hcl:"ssh_clear_authorized_keys,optional"`
}

// Reads implements [schema.Reader].
func (o *Options) Reads() []string { return []string{o.UserDataFile} }

// VolumeTags are the tags that volumes get when they are launched.
type VolumeTags struct {
	// Tags for the volumes of the instance during the build. The image and its snapshots
	// do not get them.
	RunVolumeTags map[string]string `hcl:"run_volume_tags,optional,deferred"`

	// A single tag, added to `run_volume_tags`. Repeatable.
	RunVolumeTag []interpolate.NamedTag `hcl:"run_volume_tag,block"`
}

// Validate reports what is wrong with the options. Structs that embed them call it.
func (v *VolumeTags) Validate(c *schema.Checker) { interpolate.CheckTags(c, v.Deferred()) }

// Deferred returns the tags for rendering.
func (v *VolumeTags) Deferred() interpolate.Tags {
	return interpolate.OfNamed(&v.RunVolumeTags, v.RunVolumeTag)
}

// Volumes are the options for the volumes of an instance whose image includes all of
// them.
type Volumes struct {
	// Volumes of the build instance. A mapping with the device name of a volume of the
	// source image changes that volume, such as its size; another one adds a volume.
	// Repeatable.
	LaunchBlockDeviceMappings []device.Mapping `hcl:"launch_block_device_mappings,block"`

	// Launch without instance store volumes: the devices xvdca to xvdcz are suppressed.
	NoEphemeral bool `hcl:"no_ephemeral,optional"`
}

// Validate reports what is wrong with the options. Structs that embed them call it.
func (v *Volumes) Validate(c *schema.Checker) { device.Validate(c, v.Devices()) }

// Kept returns the devices whose volumes the user wants to outlive the instance.
func Kept(src *schema.Source, devices []*device.Mapping) (names []string) {
	for _, m := range devices {
		if src.Set(&m.DeleteOnTermination) && !m.DeleteOnTermination && !m.NoDevice {
			names = append(names, m.DeviceName)
		}
	}
	return names
}

// Devices returns the mappings in the form that [Launcher] uses.
func (v *Volumes) Devices() (all []*device.Mapping) {
	for i := range v.LaunchBlockDeviceMappings {
		all = append(all, &v.LaunchBlockDeviceMappings[i])
	}
	return all
}

// VPCFilter finds a VPC.
type VPCFilter struct {
	sourceami.Filters
}

// SubnetFilter finds a subnet.
type SubnetFilter struct {
	sourceami.Filters

	// If several subnets match, use the one with the most free IP addresses. Wins over `random`.
	MostFree bool `hcl:"most_free,optional"`

	// If several subnets match, use a random one. `most_free` wins if both are set.
	Random bool `hcl:"random,optional"`
}

// SecurityGroupFilter finds security groups.
type SecurityGroupFilter struct {
	sourceami.Filters
}

// MetadataOptions are those of the instance.
type MetadataOptions struct {
	// Whether the metadata service is `enabled` or `disabled`. cloud-init needs it: when it
	// is disabled, the key pair does not reach the machine.
	HTTPEndpoint Switch `hcl:"http_endpoint,optional"`

	// Whether requests need a session token (IMDSv2): `optional` or `required`. Not set: the
	// setting of the image (`imds_support`) or the account, or `optional` if there is
	// neither.
	HTTPTokens Tokens `hcl:"http_tokens,optional"`

	// Maximum number of network hops of a token response, 1 to 64. Containers on the
	// machine need at least 2. Not set: the setting of the image or the account; otherwise
	// 1, or 2 if the image requires tokens.
	HTTPPutResponseHopLimit int `hcl:"http_put_response_hop_limit,optional"`

	// Whether the machine can read its own tags from the metadata service: `enabled` or
	// `disabled`.
	InstanceMetadataTags Switch `hcl:"instance_metadata_tags,optional"`
}

// SetDefaults implements [schema.Defaulter].
func (m *MetadataOptions) SetDefaults() {
	*m = MetadataOptions{HTTPEndpoint: "enabled", InstanceMetadataTags: "disabled"}
}

// Placement is the host that an instance runs on.
type Placement struct {
	// ARN of the host resource group to launch in. Not together with `host_id`.
	HostResourceGroupARN string `hcl:"host_resource_group_arn,optional"`

	// ID of the dedicated host to launch on. Not together with `host_resource_group_arn`.
	HostID string `hcl:"host_id,optional"`

	// `default` for shared hardware, `dedicated` for hardware of this account, or `host` for
	// a dedicated host. `dedicated` and `host` cost extra.
	Tenancy Tenancy `hcl:"tenancy,optional"`
}

// LicenseSpecification is one license configuration.
type LicenseSpecification struct {
	// License configuration to use.
	LicenseConfigurationRequest LicenseConfiguration `hcl:"license_configuration_request,block"`
}

// LicenseConfiguration identifies a license configuration.
type LicenseConfiguration struct {
	// ARN of the license configuration.
	LicenseConfigurationARN string `hcl:"license_configuration_arn"`
}

// PolicyDocument is a policy of IAM. Its arguments are named as in its JSON.
type PolicyDocument struct {
	// Version of the policy language. Use `2012-10-17`; without it IAM assumes the older
	// 2008-10-17.
	Version string `hcl:"Version,optional" json:",omitempty"`

	// A statement of the policy. Repeatable.
	Statement []Statement `hcl:"Statement,block"`
}

// Statement is one statement of a policy.
type Statement struct {
	// `Allow` or `Deny`. A `Deny` overrides every `Allow`.
	Effect string `hcl:"Effect"`

	// Actions, such as `s3:GetObject`. `*` matches any text.
	Action []string `hcl:"Action"`

	// ARNs of the resources that the actions apply to. `*` matches any text.
	Resource []string `hcl:"Resource"`
}

// SpotAllocation is how EC2 chooses among spot instance types.
type SpotAllocation string

// Choices implements [schema.Choices].
func (SpotAllocation) Choices() []string {
	return []string{"price-capacity-optimized", "capacity-optimized", "capacity-optimized-prioritized", "diversified", "lowest-price"}
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *SpotAllocation) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// ShutdownBehavior is what happens when the instance shuts itself down.
type ShutdownBehavior string

// Choices implements [schema.Choices].
func (ShutdownBehavior) Choices() []string { return []string{"stop", "terminate"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *ShutdownBehavior) UnmarshalText(b []byte) error {
	return schema.ParseChoice(v, b, v.Choices())
}

// CapacityPreference defines which capacity reservations are used.
type CapacityPreference string

// Choices implements [schema.Choices].
func (CapacityPreference) Choices() []string { return []string{"none", "open"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *CapacityPreference) UnmarshalText(b []byte) error {
	return schema.ParseChoice(v, b, v.Choices())
}

// Tenancy defines whether the instance shares its hardware with other accounts.
type Tenancy string

// Choices implements [schema.Choices].
func (Tenancy) Choices() []string { return []string{"default", "dedicated", "host"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *Tenancy) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// Switch is on or off.
type Switch string

// Choices implements [schema.Choices].
func (Switch) Choices() []string { return []string{"enabled", "disabled"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *Switch) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// Tokens defines whether the metadata service requires session tokens.
type Tokens string

// Choices implements [schema.Choices].
func (Tokens) Choices() []string { return []string{"optional", "required"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *Tokens) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// KeyType is a type of key pair.
type KeyType string

// Choices implements [schema.Choices].
func (KeyType) Choices() []string { return []string{"rsa", "ed25519"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *KeyType) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// Interface is the address by which a machine is reached.
type Interface string

// The addresses of a machine.
const (
	PublicIP   Interface = "public_ip"
	PrivateIP  Interface = "private_ip"
	PublicDNS  Interface = "public_dns"
	PrivateDNS Interface = "private_dns"
	IPv6       Interface = "ipv6"

	// SessionManager connects without an address.
	SessionManager Interface = "session_manager"
)

// Choices implements [schema.Choices].
func (Interface) Choices() []string {
	return []string{string(PublicIP), string(PrivateIP), string(PublicDNS), string(PrivateDNS), string(IPv6), string(SessionManager)}
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *Interface) UnmarshalText(b []byte) error {
	return schema.ParseChoice(v, b, v.Choices())
}

// Defaults returns the options of a template that sets none.
func Defaults() Options {
	return Options{
		Options:                       ssh.Defaults(),
		Settings:                      winrm.Defaults(),
		WindowsPasswordTimeout:        20 * time.Minute,
		ShutdownBehavior:              "stop",
		CapacityReservationPreference: "none",
		TemporaryKeyPairType:          "rsa",
	}
}

// Validate reports what is wrong with the options. Structs that embed them call it.
func (o *Options) Validate(c *schema.Checker) {
	o.Options.Validate(c)
	o.validateSource(c)
	o.validateNetwork(c)
	o.validateInstance(c)
	o.validateSpot(c)
	o.validateKey(c)
	o.validateWindows(c)
	o.validateSession(c)
	o.validateTags(c)
	both(c, &o.UserData, &o.UserDataFile)
	if f := o.UserDataFile; f != "" && c.Known(&o.UserDataFile) {
		if err := hostpath.Check(f); err != nil {
			c.Errorf(&o.UserDataFile, "User data cannot be read", "%s.", err)
		}
	}
}

// both reports an error if two strings are both set.
func both(c *schema.Checker, a, b *string) {
	if *a != "" && *b != "" {
		c.Errorf(b, "Conflicting arguments", "Set either %s or %s.", c.Name(a), c.Name(b))
	}
}

func (o *Options) validateSource(c *schema.Checker) {
	o.Selection.Validate(c, "source_ami or source_ami_filter")
	switch {
	case o.InstanceType == "" && len(o.SpotInstanceTypes) == 0 && o.typesKnown(c):
		c.Errorf(&o.InstanceType, "No instance type", "Set instance_type or, for a spot instance, spot_instance_types.")
	case o.InstanceType != "" && len(o.SpotInstanceTypes) > 0:
		c.Errorf(&o.SpotInstanceTypes, "Conflicting arguments", "Set either instance_type or spot_instance_types.")
	}
}

// DeferredRunTags returns the tags of the instance.
func (o *Options) DeferredRunTags() interpolate.Tags { return interpolate.Of(&o.RunTags, o.RunTag) }

func (o *Options) validateTags(c *schema.Checker) {
	for _, tags := range []interpolate.Tags{o.DeferredRunTags(), interpolate.Of(&o.SpotTags, o.SpotTag), interpolate.Of(&o.FleetTags, o.FleetTag)} {
		interpolate.CheckTags(c, tags)
	}
}

// ValidateIn reports options that are invalid in the region of the build, which may be
// empty.
func (o *Options) ValidateIn(c *schema.Checker, region string) {
	names.Zone(c, &o.AvailabilityZone, region)
}

func (o *Options) validateNetwork(c *schema.Checker) {
	if o.SecurityGroupID != "" && len(o.SecurityGroupIDs) > 0 {
		c.Errorf(&o.SecurityGroupIDs, "Conflicting arguments", "Set either security_group_id or security_group_ids.")
	}
	for _, cidr := range o.TemporarySecurityGroupSourceCIDRs {
		if _, _, err := net.ParseCIDR(cidr); err != nil {
			c.Errorf(&o.TemporarySecurityGroupSourceCIDRs, "Not an address range", "%q is not a range such as 192.0.2.0/24 or 2001:db8::/32.", cidr)
		}
	}
}

var burstable = lazyregexp.New(`^(t2|t3|t3a|t4g)\.`)

// unlimited reports whether the instance may burst without limit.
func (o *Options) unlimited() bool { return o.EnableUnlimitedCredits || o.EnableT2Unlimited }

func (o *Options) validateInstance(c *schema.Checker) {
	if o.EnableT2Unlimited {
		c.Warnf(&o.EnableT2Unlimited, "Deprecated argument", "enable_t2_unlimited is the old name of enable_unlimited_credits.")
	}
	if i := slices.IndexFunc(o.types(), func(t string) bool { return !burstable.Get().MatchString(t) }); o.unlimited() && o.typesKnown(c) && i >= 0 {
		ptr := &o.EnableUnlimitedCredits
		if !o.EnableUnlimitedCredits {
			ptr = &o.EnableT2Unlimited
		}
		c.Errorf(ptr, "Not a burstable instance type", "Only t2, t3, t3a and t4g instances have CPU credits; %s does not.", o.types()[i])
	}
	if i := slices.IndexFunc(o.types(), func(t string) bool { return strings.HasPrefix(t, "t") }); o.EnableNitroEnclave && o.typesKnown(c) && i >= 0 {
		c.Errorf(&o.EnableNitroEnclave, "No enclaves on this instance type", "%s does not support Nitro enclaves.", o.types()[i])
	}
	if m := o.MetadataOptions; m != nil && (m.HTTPPutResponseHopLimit < 0 || m.HTTPPutResponseHopLimit > 64) {
		c.Errorf(&m.HTTPPutResponseHopLimit, "Invalid hop limit", "http_put_response_hop_limit must be 1 to 64, not %d.", m.HTTPPutResponseHopLimit)
	}
	names.ARN(c, &o.CapacityReservationGroupARN, names.ResourceGroup)
	both(c, &o.CapacityReservationID, &o.CapacityReservationGroupARN)
	if o.CapacityReservationID+o.CapacityReservationGroupARN != "" && c.Set(&o.CapacityReservationPreference) {
		c.Errorf(&o.CapacityReservationPreference, "Conflicting arguments",
			"capacity_reservation_preference cannot be set together with capacity_reservation_id or capacity_reservation_group_arn.")
	}
	if o.Tenancy != "" {
		c.Warnf(&o.Tenancy, "Deprecated argument", "tenancy has moved to placement { tenancy }.")
		if o.Placement != nil && o.Placement.Tenancy != "" {
			c.Errorf(&o.Tenancy, "Conflicting arguments", "Set either tenancy or placement { tenancy }.")
		}
	}
	for i := range o.LicenseSpecifications {
		names.ARN(c, &o.LicenseSpecifications[i].LicenseConfigurationRequest.LicenseConfigurationARN, names.License)
	}
	if p := o.Placement; p != nil {
		names.ARN(c, &p.HostResourceGroupARN, names.ResourceGroup)
		both(c, &p.HostResourceGroupARN, &p.HostID)
		if p.HostResourceGroupARN+p.HostID != "" && p.Tenancy != "" && p.Tenancy != "host" {
			c.Errorf(&p.Tenancy, "Invalid tenancy", "An instance on a dedicated host must have the tenancy host.")
		}
	}
}

func (o *Options) typesKnown(c *schema.Checker) bool {
	return c.Known(&o.InstanceType) && c.Known(&o.SpotInstanceTypes)
}

func (o *Options) validateSpot(c *schema.Checker) {
	if o.SpotPriceAutoProduct != "" {
		c.Warnf(&o.SpotPriceAutoProduct, "Deprecated argument", "spot_price_auto_product no longer has an effect.")
	}
	if n := o.BlockDurationMinutes; n != 0 {
		c.Warnf(&o.BlockDurationMinutes, "Deprecated argument", "EC2 no longer has spot instances with a fixed duration; block_duration_minutes has no effect.")
		if n%60 != 0 {
			c.Errorf(&o.BlockDurationMinutes, "Invalid duration", "block_duration_minutes must be a multiple of 60.")
		}
	}
	if !o.Spot() && c.Known(&o.SpotPrice) {
		for _, s := range []struct {
			ptr any
			set bool
		}{
			{&o.SpotTags, len(o.SpotTags) > 0}, {&o.SpotTag, len(o.SpotTag) > 0}, {&o.FleetTags, len(o.FleetTags) > 0}, {&o.FleetTag, len(o.FleetTag) > 0},
			{&o.SpotInstanceTypes, len(o.SpotInstanceTypes) > 0}, {&o.BlockDurationMinutes, o.BlockDurationMinutes != 0},
		} {
			if s.set {
				c.Errorf(s.ptr, "No spot instance", "This is for spot instances only; set spot_price, for instance to \"auto\".")
			}
		}
		return
	}
	if p := o.SpotPrice; p != "auto" && o.Spot() {
		if n, err := strconv.ParseFloat(p, 64); err != nil || n <= 0 {
			c.Errorf(&o.SpotPrice, "Not a price", "spot_price must be a number of dollars per hour, such as \"0.05\", or \"auto\".")
		}
	}
	if o.EnableNitroEnclave && o.Spot() {
		c.Errorf(&o.EnableNitroEnclave, "No enclaves on spot instances", "Spot instances do not support Nitro enclaves.")
	}
	if i := slices.IndexFunc(o.types(), func(t string) bool { return strings.HasPrefix(t, "t2.") }); o.unlimited() && o.Spot() && i >= 0 {
		ptr := &o.EnableUnlimitedCredits
		if !o.EnableUnlimitedCredits {
			ptr = &o.EnableT2Unlimited
		}
		c.Errorf(ptr, "No unlimited credits on t2 spot instances", "A %s spot instance cannot have unlimited credits.", o.types()[i])
	}
}

func (o *Options) validateKey(c *schema.Checker) {
	if o.TemporaryKeyPairBits != 0 {
		c.Warnf(&o.TemporaryKeyPairBits, "Argument without effect", "EC2 generates the temporary key pair and chooses its size, so temporary_key_pair_bits has no effect. For a key of another size, import it into EC2, and set ssh_keypair_name and ssh_private_key_file.")
	}
	if o.SSHKeyPairName != "" && o.Communicator == ssh.SSH && o.PrivateKeyFile == "" && !o.AgentAuth && c.Known(&o.PrivateKeyFile) && c.Known(&o.AgentAuth) {
		c.Errorf(&o.SSHKeyPairName, "Key pair without its private key",
			"Set ssh_private_key_file to the private key of this key pair, or ssh_agent_auth if the agent has it.")
	}
}

// sendsPublicKey reports whether EC2 Instance Connect installs the user's own key on the
// machine, which was not launched with it.
func (o *Options) sendsPublicKey() bool {
	return o.SSHInterface == SessionManager && o.PrivateKeyFile != "" && o.SSHKeyPairName == ""
}

func (o *Options) validateSession(c *schema.Checker) {
	if p := o.SessionManagerPort; p < 0 || p > 65535 {
		c.Errorf(&o.SessionManagerPort, "Not a port", "A port is a number from 1 to 65535, not %d.", p)
	}
	if o.SSHInterface != SessionManager {
		return
	}
	if o.Communicator != ssh.SSH && c.Known(&o.Communicator) {
		c.Errorf(&o.SSHInterface, "Session Manager carries SSH only", "ssh_interface = \"session_manager\" needs the communicator ssh, not %s.", o.Communicator)
	}
	if !o.hasProfile() && c.Known(&o.IAMInstanceProfile) {
		c.Errorf(&o.SSHInterface, "No instance profile",
			"Session Manager can only reach a machine that has an instance profile; set iam_instance_profile or temporary_iam_instance_profile_policy_document.")
	}
}

// hasProfile reports whether the machine gets an instance profile.
func (o *Options) hasProfile() bool {
	return o.IAMInstanceProfile != "" || o.TemporaryIAMInstanceProfilePolicyDocument != nil
}

// userData returns the user data in base64, as the API requires.
func (o *Options) userData() (string, error) {
	data := o.UserData
	if o.UserDataFile != "" {
		b, err := hostpath.Read(o.UserDataFile, hostpath.Limit)
		if err != nil {
			return "", err
		}
		data = string(b)
	}
	if _, err := base64.StdEncoding.DecodeString(data); err == nil {
		return data, nil
	}
	return base64.StdEncoding.EncodeToString([]byte(data)), nil
}

// groups returns the security groups named in the template.
func (o *Options) groups() []string {
	ids := slices.Clone(o.SecurityGroupIDs)
	if o.SecurityGroupID != "" {
		ids = append(ids, o.SecurityGroupID)
	}
	return ids
}
