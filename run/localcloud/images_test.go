package localcloud

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon"
	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestImage: a name refers to the newest image that the instance type can run, or to the
// newest of all if it can run none.
func TestImage(t *testing.T) {
	const region = "us-east-1"
	s := cloudtest.Start(t, cloud.Options{})
	credentials := s.Credentials()[0]
	c := &Cloud{Cloud: amazon.Cloud{Name: Name, Endpoint: s.URL, AccessKey: credentials.AccessKeyID, SecretKey: credentials.SecretAccessKey, Region: region}}
	client := s.EC2("default", region)
	sources, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{})
	if err != nil || len(sources.Images) == 0 {
		t.Fatal(err)
	}
	ran, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{
		ImageId: sources.Images[0].ImageId, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	machine := ran.Instances[0].InstanceId
	if err := ec2.NewInstanceRunningWaiter(client, func(o *ec2.InstanceRunningWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	}).Wait(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{*machine}}, time.Minute); err != nil {
		t.Fatal(err)
	}
	x86, err := client.CreateImage(t.Context(), &ec2.CreateImageInput{InstanceId: machine, Name: aws.String("mine-x86")})
	if err != nil {
		t.Fatal(err)
	}
	described := &ec2.DescribeImagesInput{ImageIds: []string{*x86.ImageId}}
	if err := ec2.NewImageAvailableWaiter(client, func(o *ec2.ImageAvailableWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	}).Wait(t.Context(), described, time.Minute); err != nil {
		t.Fatal(err)
	}
	made, err := client.DescribeImages(t.Context(), described)
	if err != nil {
		t.Fatal(err)
	}
	arm, err := client.RegisterImage(t.Context(), &ec2.RegisterImageInput{
		Name: aws.String("mine-arm64"), Architecture: types.ArchitectureValuesArm64, VirtualizationType: aws.String("hvm"),
		RootDeviceName: made.Images[0].RootDeviceName, BlockDeviceMappings: made.Images[0].BlockDeviceMappings,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, instanceType, want string }{
		{"mine-*", "t3.micro", *x86.ImageId},
		{"mine-*", "t4g.micro", *arm.ImageId},
		{"mine-arm64", "t3.micro", *arm.ImageId},
		{*arm.ImageId, "t3.micro", *arm.ImageId},
	} {
		if i, err := c.Image(t.Context(), region, tt.name, tt.instanceType); err != nil || i.ID != tt.want {
			t.Errorf("%s for %s is %s, %v, want %s", tt.name, tt.instanceType, i.ID, err, tt.want)
		}
	}
	if _, err := c.Images(t.Context(), "nowhere"); err == nil || err.Error() != "the local cloud refuses: There is no region 'nowhere'" {
		t.Errorf("%v", err)
	}
	if _, err := (&Cache{Cloud: c, Now: time.Now}).List(t.Context(), "nowhere"); err == nil || err.Error() != "the local cloud refuses: There is no region 'nowhere'" {
		t.Errorf("%v", err)
	}
}
