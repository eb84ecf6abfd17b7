// Package launch makes the machine that a build runs on, and all it needs: key
// pair, security group, place in the network.
package launch

import (
	_ "embed"
	"encoding/base64"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/late"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/sourceami"
	"bake/communicator/ssh"
	"bake/communicator/winrm"
	"bake/config/schema"
)

// Source is the Go source that documents [Options], for [schema.Docs].
//
//go:embed options.go
var Source string

// Options say what is launched, where, and how it is reached.
type Options struct {
	ssh.Options
	winrm.Settings

	// How long to wait for the password that Windows makes at its first start, where
	// `winrm_password` is not set. It is decrypted with the key pair that the machine
	// is launched with.
	WindowsPasswordTimeout time.Duration `hcl:"windows_password_timeout,optional"`

	// Id of the image to start from. With `source_ami_filter` as well, the image
	// must also match that.
	SourceAMI string `hcl:"source_ami,optional"`

	// Finds the image to start from.
	SourceAMIFilter *SourceAMIFilter `hcl:"source_ami_filter,block"`

	// Instance type to build on, such as t3.micro.
	InstanceType string `hcl:"instance_type,optional"`

	// Highest price in dollars per hour for a spot instance, or `auto` for up to
	// the price on demand. Not set, or `0`: no spot instance.
	SpotPrice string `hcl:"spot_price,optional"`

	// Instance types that will do for a spot instance, instead of `instance_type`.
	SpotInstanceTypes []string `hcl:"spot_instance_types,optional"`

	// How EC2 chooses among the spot instance types: `price-capacity-optimized`,
	// `capacity-optimized`, `capacity-optimized-prioritized`, `diversified` or
	// `lowest-price`. EC2's own default if not set.
	SpotAllocationStrategy SpotAllocation `hcl:"spot_allocation_strategy,optional"`

	// Tags for the spot request.
	SpotTags map[string]string `hcl:"spot_tags,optional,late"`

	// One more of `spot_tags`.
	SpotTag []late.Tag `hcl:"spot_tag,block"`

	// Tags for the fleet that launches the spot instance.
	FleetTags map[string]string `hcl:"fleet_tags,optional,late"`

	// One more of `fleet_tags`.
	FleetTag []late.Tag `hcl:"fleet_tag,block"`

	// Deprecated: EC2 no longer asks for a product to find a price.
	SpotPriceAutoProduct string `hcl:"spot_price_auto_product,optional"`

	// Deprecated: EC2 no longer has spot instances with a fixed duration.
	BlockDurationMinutes int `hcl:"block_duration_minutes,optional"`

	// Give the machine a public address, or do not. The subnet decides if this is
	// not set. Without `subnet_id` a subnet of the default VPC is chosen.
	AssociatePublicIPAddress *bool `hcl:"associate_public_ip_address,optional"`

	// Availability zone to launch in.
	AvailabilityZone string `hcl:"availability_zone,optional"`

	// Subnet to launch in.
	SubnetID string `hcl:"subnet_id,optional"`

	// VPC of the temporary security group. Without a subnet it must be the default VPC.
	VPCID string `hcl:"vpc_id,optional"`

	// Finds the VPC, which must be the only match.
	VPCFilter *VPCFilter `hcl:"vpc_filter,block"`

	// Finds the subnet.
	SubnetFilter *SubnetFilter `hcl:"subnet_filter,block"`

	// Security group of the machine, instead of a temporary one.
	SecurityGroupID string `hcl:"security_group_id,optional"`

	// Security groups of the machine, instead of a temporary one.
	SecurityGroupIDs []string `hcl:"security_group_ids,optional"`

	// Finds the security groups of the machine: all that match.
	SecurityGroupFilter *SecurityGroupFilter `hcl:"security_group_filter,block"`

	// Address ranges that the temporary security group lets in. Without it only
	// the address of this machine is let in, where that can be told, and
	// everybody otherwise; the log says which.
	TemporarySecurityGroupSourceCIDRs []string `hcl:"temporary_security_group_source_cidrs,optional"`

	// Let in the public address of this machine, which https://checkip.amazonaws.com
	// tells, and fail if it does not. `temporary_security_group_source_cidrs` wins.
	TemporarySecurityGroupSourcePublicIP bool `hcl:"temporary_security_group_source_public_ip,optional"`

	// Instance profile that lends the machine a role.
	IAMInstanceProfile string `hcl:"iam_instance_profile,optional"`

	// Policy of a role that is lent to the machine and deleted after the build,
	// unless `iam_instance_profile` names a profile.
	TemporaryIAMInstanceProfilePolicyDocument *PolicyDocument `hcl:"temporary_iam_instance_profile_policy_document,block"`

	// Do not ask IAM whether the instance profile exists.
	SkipProfileValidation bool `hcl:"skip_profile_validation,optional"`

	// Tags for the instance and what is made for it. The image gets them too,
	// unless `skip_ami_run_tags` is set.
	RunTags map[string]string `hcl:"run_tags,optional,late"`

	// One more of `run_tags`.
	RunTag []late.Tag `hcl:"run_tag,block"`

	// Launch an EBS-optimized instance, with dedicated bandwidth to EBS. Not set:
	// the default of the instance type.
	EBSOptimized bool `hcl:"ebs_optimized,optional"`

	// Enable Nitro enclaves.
	EnableNitroEnclave bool `hcl:"enable_nitro_enclave,optional"`

	// Let a burstable instance (t2, t3, t3a, t4g) burst without limit, at an extra charge.
	EnableUnlimitedCredits bool `hcl:"enable_unlimited_credits,optional"`

	// Deprecated: use `enable_unlimited_credits`.
	EnableT2Unlimited bool `hcl:"enable_t2_unlimited,optional"`

	// What a shutdown from inside does to the instance: `stop` or `terminate`.
	ShutdownBehavior ShutdownBehavior `hcl:"shutdown_behavior,optional"`

	// Do not stop the instance: a provisioner does. bake only waits for it.
	DisableStopInstance bool `hcl:"disable_stop_instance,optional"`

	// The metadata service as the machine sees it.
	MetadataOptions *MetadataOptions `hcl:"metadata_options,block"`

	// Run in any open capacity reservation that fits (`open`), or in none (`none`).
	CapacityReservationPreference CapacityPreference `hcl:"capacity_reservation_preference,optional"`

	// Capacity reservation to run in.
	CapacityReservationID string `hcl:"capacity_reservation_id,optional"`

	// ARN of the resource group of capacity reservations to run in.
	CapacityReservationGroupARN string `hcl:"capacity_reservation_group_arn,optional"`

	// Which host the instance runs on.
	Placement *Placement `hcl:"placement,block"`

	// Deprecated: `placement { tenancy }`.
	Tenancy Tenancy `hcl:"tenancy,optional"`

	// Licences that the instance uses.
	LicenseSpecifications []LicenseSpecification `hcl:"license_specifications,block"`

	// User data for the instance. It is sent as it is if it is base64 already.
	UserData string `hcl:"user_data,optional"`

	// File with the user data.
	UserDataFile string `hcl:"user_data_file,optional"`

	// Which address of the machine to connect to. Without it: in a VPC the public
	// address, or the private one if there is none. `session_manager` connects
	// through AWS Session Manager, so that no port of the machine has to be open:
	// the image must run the SSM agent, and the machine needs an instance profile
	// that lets it (AmazonSSMManagedInstanceCore).
	SSHInterface Interface `hcl:"ssh_interface,optional"`

	// How long to wait before the first session of `session_manager`.
	PauseBeforeSSM time.Duration `hcl:"pause_before_ssm,optional"`

	// Local port that other programs can connect to, for sessions of their own.
	// Without it there is none; bake itself needs none.
	SessionManagerPort int `hcl:"session_manager_port,optional"`

	// Key pair to launch with, instead of a temporary one. Its private key is
	// `ssh_private_key_file` or in the agent (`ssh_agent_auth`).
	SSHKeyPairName string `hcl:"ssh_keypair_name,optional"`

	// Name of the temporary key pair. Chosen by bake if not set.
	TemporaryKeyPairName string `hcl:"temporary_key_pair_name,optional"`

	// Type of the temporary key pair, which AWS generates.
	TemporaryKeyPairType KeyType `hcl:"temporary_key_pair_type,optional"`

	// Size of the temporary key pair in bits. It changes nothing, and a warning says
	// so: EC2 makes the key pair, of 2048 bits where the type is `rsa`.
	TemporaryKeyPairBits int `hcl:"temporary_key_pair_bits,optional"`

	// Remove the temporary key from authorized_keys before the image is made.
	SSHClearAuthorizedKeys bool `hcl:"ssh_clear_authorized_keys,optional"`
}

// VolumeTags are the tags that volumes get when they are launched.
type VolumeTags struct {
	// Tags for the volumes of the instance.
	RunVolumeTags map[string]string `hcl:"run_volume_tags,optional,late"`

	// One more of `run_volume_tags`.
	RunVolumeTag []late.NamedTag `hcl:"run_volume_tag,block"`
}

// Validate reports what is wrong with the options. Structs that embed them call it.
func (v *VolumeTags) Validate(c *schema.Checker) { late.CheckTags(c, v.Late()) }

// Late returns the tags for rendering.
func (v *VolumeTags) Late() late.Tags { return late.OfNamed(&v.RunVolumeTags, v.RunVolumeTag) }

// Volumes are the options about the volumes of an instance whose image is made
// of them all.
type Volumes struct {
	// Volumes of the instance, beside or instead of those of the source image.
	LaunchBlockDeviceMappings []device.Mapping `hcl:"launch_block_device_mappings,block"`

	// Do without instance store volumes: the device names xvdca to xvdcz are kept free.
	NoEphemeral bool `hcl:"no_ephemeral,optional"`
}

// Validate reports what is wrong with the options. Structs that embed them call it.
func (v *Volumes) Validate(c *schema.Checker) { device.Validate(c, v.Devices()) }

// Kept are the devices whose volumes the user wants to outlive the instance.
func Kept(src *schema.Source, devices []*device.Mapping) (names []string) {
	for _, m := range devices {
		if src.Set(&m.DeleteOnTermination) && !m.DeleteOnTermination && !m.NoDevice {
			names = append(names, m.DeviceName)
		}
	}
	return names
}

// Devices are the mappings as [Launcher] takes them.
func (v *Volumes) Devices() (all []*device.Mapping) {
	for i := range v.LaunchBlockDeviceMappings {
		all = append(all, &v.LaunchBlockDeviceMappings[i])
	}
	return all
}

// SourceAMIFilter finds an image.
type SourceAMIFilter struct {
	sourceami.Filters

	// Accounts whose images are looked at: account ids, `self`, or aliases such as `amazon`.
	Owners []string `hcl:"owners,optional"`

	// Take the newest image when several match; otherwise that is an error.
	MostRecent bool `hcl:"most_recent,optional"`

	// Look at deprecated images too.
	IncludeDeprecated bool `hcl:"include_deprecated,optional"`
}

// VPCFilter finds a VPC.
type VPCFilter struct {
	sourceami.Filters
}

// SubnetFilter finds a subnet.
type SubnetFilter struct {
	sourceami.Filters

	// Of several, take the one with the most free addresses.
	MostFree bool `hcl:"most_free,optional"`

	// Of several, take any.
	Random bool `hcl:"random,optional"`
}

// SecurityGroupFilter finds security groups.
type SecurityGroupFilter struct {
	sourceami.Filters
}

// MetadataOptions are those of the instance.
type MetadataOptions struct {
	// `enabled` or `disabled`.
	HTTPEndpoint Switch `hcl:"http_endpoint,optional"`

	// Whether a session token is `optional` or `required`. Not set: as the image
	// (`imds_support`) or the account says, which is `optional` if neither does.
	HTTPTokens Tokens `hcl:"http_tokens,optional"`

	// How many hops an answer may travel, 1 to 64. Not set: as the image or the
	// account says, which is 1 if neither does, or 2 if the image requires tokens.
	HTTPPutResponseHopLimit int `hcl:"http_put_response_hop_limit,optional"`

	// Whether the machine can read its tags there: `enabled` or `disabled`.
	InstanceMetadataTags Switch `hcl:"instance_metadata_tags,optional"`
}

// SetDefaults implements [schema.Defaulter].
func (m *MetadataOptions) SetDefaults() {
	*m = MetadataOptions{HTTPEndpoint: "enabled", InstanceMetadataTags: "disabled"}
}

// Placement is the host an instance runs on.
type Placement struct {
	// ARN of a host resource group.
	HostResourceGroupARN string `hcl:"host_resource_group_arn,optional"`

	// Id of a dedicated host.
	HostID string `hcl:"host_id,optional"`

	// `default`, `dedicated` or `host`.
	Tenancy Tenancy `hcl:"tenancy,optional"`
}

// LicenseSpecification is one licence.
type LicenseSpecification struct {
	// The licence's configuration.
	LicenseConfigurationRequest LicenseConfiguration `hcl:"license_configuration_request,block"`
}

// LicenseConfiguration names a licence's configuration.
type LicenseConfiguration struct {
	// ARN of the configuration.
	LicenseConfigurationARN string `hcl:"license_configuration_arn"`
}

// PolicyDocument is a policy of IAM. Its arguments are named as in its JSON.
type PolicyDocument struct {
	// Version of the policy language: `2012-10-17`.
	Version string `hcl:"Version,optional" json:",omitempty"`

	// One statement.
	Statement []Statement `hcl:"Statement,block"`
}

// Statement is one statement of a policy.
type Statement struct {
	// `Allow` or `Deny`.
	Effect string `hcl:"Effect"`

	// Actions, such as `s3:GetObject`. A `*` stands for any text.
	Action []string `hcl:"Action"`

	// ARNs of what the actions are done to. A `*` stands for any text.
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

// ShutdownBehavior is what a shutdown from inside does.
type ShutdownBehavior string

// Choices implements [schema.Choices].
func (ShutdownBehavior) Choices() []string { return []string{"stop", "terminate"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *ShutdownBehavior) UnmarshalText(b []byte) error {
	return schema.ParseChoice(v, b, v.Choices())
}

// CapacityPreference says which capacity reservations are used.
type CapacityPreference string

// Choices implements [schema.Choices].
func (CapacityPreference) Choices() []string { return []string{"none", "open"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *CapacityPreference) UnmarshalText(b []byte) error {
	return schema.ParseChoice(v, b, v.Choices())
}

// Tenancy says who shares the instance's hardware.
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

// Tokens says whether the metadata service asks for one.
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

// Interface is an address of a machine.
type Interface string

// The addresses of a machine.
const (
	PublicIP   Interface = "public_ip"
	PrivateIP  Interface = "private_ip"
	PublicDNS  Interface = "public_dns"
	PrivateDNS Interface = "private_dns"
	IPv6       Interface = "ipv6"

	// SessionManager is none of them.
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

// Defaults are the options of a template that sets none.
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
		if _, err := os.Stat(f); err != nil {
			c.Errorf(&o.UserDataFile, "User data file not found", "%s.", err)
		}
	}
}

// both complains when both of two strings are set.
func both(c *schema.Checker, a, b *string) {
	if *a != "" && *b != "" {
		c.Errorf(b, "Conflicting arguments", "Set either %s or %s.", c.Name(a), c.Name(b))
	}
}

func (o *Options) validateSource(c *schema.Checker) {
	f := o.SourceAMIFilter
	switch {
	case f == nil:
		if o.SourceAMI == "" {
			c.Errorf(&o.SourceAMI, "No source image", "Set source_ami or source_ami_filter.")
		}
	case len(f.Owners) == 0 && o.SourceAMI == "" && c.Known(&o.SourceAMI):
		c.Errorf(&o.SourceAMIFilter, "No owners", "Set owners in source_ami_filter: anybody can publish an image under any name.")
	}
	switch {
	case o.InstanceType == "" && len(o.SpotInstanceTypes) == 0 && o.typesKnown(c):
		c.Errorf(&o.InstanceType, "No instance type", "Set instance_type or, for a spot instance, spot_instance_types.")
	case o.InstanceType != "" && len(o.SpotInstanceTypes) > 0:
		c.Errorf(&o.SpotInstanceTypes, "Conflicting arguments", "Set either instance_type or spot_instance_types.")
	}
}

// LateRunTags are the tags of the instance.
func (o *Options) LateRunTags() late.Tags { return late.Of(&o.RunTags, o.RunTag) }

func (o *Options) validateTags(c *schema.Checker) {
	for _, tags := range []late.Tags{o.LateRunTags(), late.Of(&o.SpotTags, o.SpotTag), late.Of(&o.FleetTags, o.FleetTag)} {
		late.CheckTags(c, tags)
	}
}

// ValidateIn reports what cannot be in the region of the build, which may be empty.
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

var burstable = regexp.MustCompile(`^(t2|t3|t3a|t4g)\.`)

// Unlimited reports whether the instance may burst without limit.
func (o *Options) Unlimited() bool { return o.EnableUnlimitedCredits || o.EnableT2Unlimited }

func (o *Options) validateInstance(c *schema.Checker) {
	if o.EnableT2Unlimited {
		c.Warnf(&o.EnableT2Unlimited, "Deprecated argument", "enable_t2_unlimited is the old name of enable_unlimited_credits.")
	}
	if i := slices.IndexFunc(o.types(), func(t string) bool { return !burstable.MatchString(t) }); o.Unlimited() && o.typesKnown(c) && i >= 0 {
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
		c.Errorf(&m.HTTPPutResponseHopLimit, "Invalid hop limit", "http_put_response_hop_limit is 1 to 64, not %d.", m.HTTPPutResponseHopLimit)
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
			c.Errorf(&p.Tenancy, "Invalid tenancy", "An instance on a dedicated host has tenancy host.")
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
			c.Errorf(&o.BlockDurationMinutes, "Invalid duration", "block_duration_minutes is a multiple of 60.")
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
			c.Errorf(&o.SpotPrice, "Not a price", "spot_price is a number of dollars per hour, such as \"0.05\", or \"auto\".")
		}
	}
	if o.EnableNitroEnclave && o.Spot() {
		c.Errorf(&o.EnableNitroEnclave, "No enclaves on spot instances", "Spot instances do not support Nitro enclaves.")
	}
	if i := slices.IndexFunc(o.types(), func(t string) bool { return strings.HasPrefix(t, "t2.") }); o.Unlimited() && o.Spot() && i >= 0 {
		ptr := &o.EnableUnlimitedCredits
		if !o.EnableUnlimitedCredits {
			ptr = &o.EnableT2Unlimited
		}
		c.Errorf(ptr, "No unlimited credits on t2 spot instances", "A %s spot instance cannot have unlimited credits.", o.types()[i])
	}
}

func (o *Options) validateKey(c *schema.Checker) {
	if o.TemporaryKeyPairBits != 0 {
		c.Warnf(&o.TemporaryKeyPairBits, "Argument without effect", "EC2 makes the temporary key pair and chooses its size: temporary_key_pair_bits changes nothing. For a key of another size, import it into EC2, and set ssh_keypair_name and ssh_private_key_file.")
	}
	if o.SSHKeyPairName != "" && o.Communicator == ssh.SSH && o.PrivateKeyFile == "" && !o.AgentAuth && c.Known(&o.PrivateKeyFile) && c.Known(&o.AgentAuth) {
		c.Errorf(&o.SSHKeyPairName, "Key pair without its private key",
			"Set ssh_private_key_file to the private key of this key pair, or ssh_agent_auth if the agent has it.")
	}
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
			"Through Session Manager only a machine can be reached that has an instance profile; set iam_instance_profile or temporary_iam_instance_profile_policy_document.")
	}
}

// hasProfile reports whether the machine gets an instance profile.
func (o *Options) hasProfile() bool {
	return o.IAMInstanceProfile != "" || o.TemporaryIAMInstanceProfilePolicyDocument != nil
}

// userData returns the user data as the API takes it, in base64.
func (o *Options) userData() (string, error) {
	data := o.UserData
	if o.UserDataFile != "" {
		b, err := os.ReadFile(o.UserDataFile)
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
