package cloud_test

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestClientTokens sends each creating request twice with the same client token, like a
// client that has lost the answer, and then with other parameters.
func TestClientTokens(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	ami, token := source(t, client), aws.String("once")
	template, err := client.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("fleet"), LaunchTemplateData: requestData(ami)})
	if err != nil {
		t.Fatal(err)
	}
	for action, send := range map[string]func(n int32) (string, error){
		"RunInstances": func(n int32) (string, error) {
			out, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: &ami, InstanceType: "t3.micro", MinCount: &n, MaxCount: &n, ClientToken: token})
			if err != nil {
				return "", err
			}
			return *out.Instances[0].InstanceId, nil
		},
		"CreateFleet": func(n int32) (string, error) {
			out, err := client.CreateFleet(ctx, &ec2.CreateFleetInput{Type: types.FleetTypeInstant, ClientToken: token,
				TargetCapacitySpecification: &types.TargetCapacitySpecificationRequest{TotalTargetCapacity: &n, DefaultTargetCapacityType: types.DefaultTargetCapacityTypeSpot},
				LaunchTemplateConfigs: []types.FleetLaunchTemplateConfigRequest{{LaunchTemplateSpecification: &types.FleetLaunchTemplateSpecificationRequest{
					LaunchTemplateId: template.LaunchTemplate.LaunchTemplateId, Version: aws.String("1")}}}})
			if err != nil {
				return "", err
			}
			return *out.FleetId + " " + out.Instances[0].InstanceIds[0], nil
		},
		"CreateVolume": func(n int32) (string, error) {
			out, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{Size: &n, AvailabilityZone: aws.String("us-east-1a"), ClientToken: token})
			if err != nil {
				return "", err
			}
			return *out.VolumeId, nil
		},
	} {
		first, err := send(1)
		if err != nil {
			t.Errorf("%s: %v", action, err)
			continue
		}
		if again, err := send(1); err != nil || again != first {
			t.Errorf("%s again is %s (%v), want %s", action, again, err, first)
		}
		if _, err := send(2); code(err) != "IdempotentParameterMismatch" {
			t.Errorf("%s of the token with other parameters: %v", action, err)
		}
	}
	if n := instancesIn(ctx, t, client); n != 2 {
		t.Errorf("there are %d instances, want one of RunInstances and one of the fleet", n)
	}
}

func instancesIn(ctx context.Context, t *testing.T, client *ec2.Client) (n int) {
	t.Helper()
	out, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.Reservations {
		n += len(r.Instances)
	}
	return n
}
