package ec2

// emptyMembers returns, for each shape, the members that EC2 sends even when they are
// empty, according to the examples in its documentation: clients read them without
// checking for nil. All other members are omitted when they are not set.
func emptyMembers() map[string][]string {
	return map[string][]string{
		"Instance": {
			"BlockDeviceMappings", "ClientToken", "NetworkInterfaces", "PrivateDnsName", "ProductCodes", "PublicDnsName", "SecurityGroups", "StateTransitionReason",
		},
		"InstanceNetworkInterface": {"Description", "Groups", "Ipv6Addresses", "PrivateIpAddresses"},
		"NetworkInterface":         {"Description", "Groups", "Ipv6Addresses", "PrivateIpAddresses", "TagSet"},
		"Placement":                {"GroupName"},
		"Reservation":              {"Groups", "Instances"},

		"Image":    {"BlockDeviceMappings"},
		"Snapshot": {"Description"},
		"Volume":   {"Attachments", "SnapshotId"},

		"AvailabilityZone":           {"Messages"},
		"ImportImageTask":            {"SnapshotDetails", "Tags"},
		"IpPermission":               {"IpRanges", "Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs"},
		"KeyPairInfo":                {"Tags"},
		"SecurityGroup":              {"Description", "IpPermissions", "IpPermissionsEgress"},
		"SecurityGroupRule":          {"Tags"},
		"SpotInstanceRequest":        {"Tags"},
		"Subnet":                     {"Ipv6CidrBlockAssociationSet"},
		"Tag":                        {"Value"},
		"TagDescription":             {"Value"},
		"Vpc":                        {"CidrBlockAssociationSet"},
		"InternetGateway":            {"Attachments", "Tags"},
		"RouteTable":                 {"Associations", "PropagatingVgws", "Routes", "Tags"},
		"NetworkAcl":                 {"Associations", "Entries", "Tags"},
		"DhcpOptions":                {"Tags"},
		"NatGateway":                 {"NatGatewayAddresses", "Tags"},
		"VpcEndpoint":                {"DnsEntries", "Groups", "NetworkInterfaceIds", "RouteTableIds", "SubnetIds", "Tags"},
		"PrefixList":                 {"Cidrs"},
		"SnapshotInfo":               {"Description", "Tags"},
		"Ec2InstanceConnectEndpoint": {"NetworkInterfaceIds", "SecurityGroupIds", "StateMessage", "Tags"},

		// The list that an action returns is sent even if it is empty.
		"DescribeAvailabilityZonesResult":      {"AvailabilityZones"},
		"DescribeLaunchTemplateVersionsResult": {"LaunchTemplateVersions"},
		"DescribeRegionsResult":                {"Regions"},
		"StartInstancesResult":                 {"StartingInstances"},
		"StopInstancesResult":                  {"StoppingInstances"},
		"TerminateInstancesResult":             {"TerminatingInstances"},
	}
}
