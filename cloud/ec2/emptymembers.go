package ec2

// emptyMembers are, by the shape, the members that EC2 sends although they are empty, as
// its documentation's examples show them: clients read them without asking whether
// they are there. All other members are left out when nothing is set.
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

		// What an action lists is there although it is nothing.
		"DescribeAvailabilityZonesResult":      {"AvailabilityZones"},
		"DescribeLaunchTemplateVersionsResult": {"LaunchTemplateVersions"},
		"DescribeRegionsResult":                {"Regions"},
		"StartInstancesResult":                 {"StartingInstances"},
		"StopInstancesResult":                  {"StoppingInstances"},
		"TerminateInstancesResult":             {"TerminatingInstances"},
	}
}
