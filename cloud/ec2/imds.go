package ec2

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/metadata"
)

// metadataOf returns the current content of the instance's metadata service.
func (s *state) metadataOf(id string) metadata.Instance {
	in, ok := s.instances.Get(id)
	if !ok || len(in.NetworkInterfaces) == 0 {
		return metadata.Instance{} // about to end
	}
	m := metadata.Instance{
		Disabled:       in.MetadataOptions.HttpEndpoint == types.InstanceMetadataEndpointStateDisabled,
		TokensRequired: in.MetadataOptions.HttpTokens == types.HttpTokensStateRequired,
		HopLimit:       int(aws.ToInt32(in.MetadataOptions.HttpPutResponseHopLimit)),

		ID: id, ImageID: *in.ImageId, Type: string(in.InstanceType), Account: in.OwnerId, ReservationID: in.ReservationId,
		Architecture: string(in.Architecture), LaunchIndex: int(aws.ToInt32(in.AmiLaunchIndex)), PendingTime: *in.LaunchTime,
		Region: in.Region, Zone: *in.Placement.AvailabilityZone, ZoneID: *in.Placement.AvailabilityZoneId,

		PrivateName: aws.ToString(in.PrivateDnsName), PrivateAddress: aws.ToString(in.PrivateIpAddress),
		PublicName: aws.ToString(in.PublicDnsName), PublicAddress: aws.ToString(in.PublicIpAddress),
		MAC: *in.NetworkInterfaces[0].MacAddress, InterfaceID: *in.NetworkInterfaces[0].NetworkInterfaceId,
		SubnetID: aws.ToString(in.SubnetId), SubnetCIDR: s.subnetPrefix(in).String(), VPCID: aws.ToString(in.VpcId), VPCCIDR: s.vpcRange(in),
	}
	m.LentKeys = s.temporaryKeys(id)
	if r := s.runners[id]; r != nil {
		m.Interruption, m.Refused = r.notice, r.noMetadata
	}
	m.Role, m.Spot = s.metadataRole(in), in.SpotInstanceRequestId != nil
	m.UserData, _ = base64.StdEncoding.DecodeString(in.UserData) // validated at launch
	if in.PublicKey != "" {
		m.KeyName, m.PublicKey = aws.ToString(in.KeyName), in.PublicKey
	}
	for _, g := range in.SecurityGroups {
		m.Groups = append(m.Groups, metadata.Group{ID: *g.GroupId, Name: *g.GroupName})
	}
	m.Devices = append(m.Devices, metadata.Device{Name: "ami", Path: aws.ToString(in.RootDeviceName)}, metadata.Device{Name: "root", Path: aws.ToString(in.RootDeviceName)})
	for _, b := range in.BlockDeviceMappings {
		if aws.ToString(b.DeviceName) != aws.ToString(in.RootDeviceName) {
			m.Devices = append(m.Devices, metadata.Device{Name: fmt.Sprintf("ebs%d", len(m.Devices)-1), Path: strings.TrimPrefix(*b.DeviceName, "/dev/")})
		}
	}
	if in.MetadataOptions.InstanceMetadataTags == types.InstanceMetadataTagsStateEnabled {
		m.Tags = map[string]string{}
		for _, t := range in.Tags {
			m.Tags[*t.Key] = aws.ToString(t.Value)
		}
	}
	return m
}
