package cloud_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestImageReferences: what refers to an image is found by its kind, and only what is
// the caller's.
func TestImageReferences(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	parameters := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	ami := source(t, client)
	img := made(t, client, "web") // of an instance that refers to ami
	run(t, other, ec2.RunInstancesInput{ImageId: &ami})
	stopped := *run(t, client, ec2.RunInstancesInput{ImageId: img.ImageId}).InstanceId
	if _, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{stopped}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, stopped+" stopped", func() bool {
		out, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{stopped}})
		return err == nil && out.Reservations[0].Instances[0].State.Name == types.InstanceStateNameStopped
	})
	template, err := client.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: requestData(*img.ImageId)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := client.CreateLaunchTemplateVersion(ctx, &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: requestData(ami)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, kind := range map[string]string{"/web": "aws:ec2:image", "/text": "text"} {
		if _, err := parameters.PutParameter(ctx, &ssm.PutParameterInput{Name: &name, Value: img.ImageId, Type: ssmtypes.ParameterTypeString, DataType: &kind}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "/web valid", func() bool {
		_, err := parameters.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/web")})
		return err == nil
	})

	instance := "arn:aws:ec2:us-east-1:123456789012:instance/" + stopped
	launchTemplate := "arn:aws:ec2:us-east-1:123456789012:launch-template/" + *template.LaunchTemplate.LaunchTemplateId
	parameter := "arn:aws:ssm:us-east-1:123456789012:parameter/web"
	all := []types.ResourceTypeRequest{}
	request := func(kind types.ImageReferenceResourceType, option types.ImageReferenceOptionName, values ...string) []types.ResourceTypeRequest {
		r := types.ResourceTypeRequest{ResourceType: kind}
		if option != "" {
			r.ResourceTypeOptions = []types.ResourceTypeOption{{OptionName: option, OptionValues: values}}
		}
		return []types.ResourceTypeRequest{r}
	}
	const vm, lt, depth, state = types.ImageReferenceResourceTypeEc2Instance, types.ImageReferenceResourceTypeEc2LaunchTemplate, types.ImageReferenceOptionNameVersionDepth, types.ImageReferenceOptionNameStateName
	for name, test := range map[string]struct {
		of   []types.ResourceTypeRequest
		want []string
		code string
	}{
		"all":               {all, []string{instance, launchTemplate, parameter}, ""},
		"instances":         {request(vm, ""), []string{instance}, ""},
		"running instances": {request(vm, state, "running", "pending"), nil, ""},
		"stopped instances": {request(vm, state, "stopped"), []string{instance}, ""},
		"templates":         {request(lt, ""), []string{launchTemplate}, ""},
		"2 versions":        {request(lt, depth, "2"), nil, ""},
		"3 versions":        {request(lt, depth, "3"), []string{launchTemplate}, ""},
		"0 versions":        {request(lt, depth, "0"), nil, "InvalidParameterValue"},
		"wrong option":      {request(vm, depth, "3"), nil, "InvalidParameterValue"},
		"recipes":           {request(types.ImageReferenceResourceTypeImageBuilderImageRecipe, ""), nil, ""},
		"nothing":           {nil, nil, "MissingParameter"},
	} {
		in := &ec2.DescribeImageReferencesInput{ImageIds: []string{*img.ImageId}, ResourceTypes: test.of}
		if test.of != nil && len(test.of) == 0 {
			in.IncludeAllResourceTypes = aws.Bool(true)
		}
		out, err := client.DescribeImageReferences(ctx, in)
		if code(err) != test.code {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		if err == nil {
			for _, r := range out.ImageReferences {
				if got = append(got, *r.Arn); *r.ImageId != *img.ImageId {
					t.Errorf("%s: %s refers to %s", name, *r.Arn, *r.ImageId)
				}
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}

	pages := ec2.NewDescribeImageReferencesPaginator(client, &ec2.DescribeImageReferencesInput{ImageIds: []string{*img.ImageId, ami}, IncludeAllResourceTypes: aws.Bool(true), MaxResults: aws.Int32(5)})
	run(t, client, ec2.RunInstancesInput{ImageId: &ami, MinCount: aws.Int32(4), MaxCount: aws.Int32(4)})
	n, seen := 0, 0
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n++
		seen += len(out.ImageReferences)
	}
	if n != 2 || seen != 9 { // 1 + 4 instances and the template for ami, three for the image
		t.Errorf("%d references on %d pages", seen, n)
	}
	for name, in := range map[string]*ec2.DescribeImageReferencesInput{
		"4 a page":  {ImageIds: []string{ami}, MaxResults: aws.Int32(4)},
		"11 images": {ImageIds: strings.Split(strings.Repeat(ami+",", 10)+ami, ",")},
	} {
		in.IncludeAllResourceTypes = aws.Bool(true)
		if _, err := client.DescribeImageReferences(ctx, in); code(err) != "InvalidParameterValue" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
