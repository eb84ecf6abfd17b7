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

// TestImageReferences checks that references to an image are found by kind, and only in
// the caller's resources.
func TestImageReferences(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	parameters := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	ami := source(t, client)
	img := made(t, client, "web") // the instance that refers to ami
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

// TestDeletedVersions checks that versions of a launch template except the default one can
// be deleted, and that their numbers are not used again.
func TestDeletedVersions(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	ami, name := source(t, client), aws.String("web")
	if _, err := client.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: name, LaunchTemplateData: requestData(ami)}); err != nil {
		t.Fatal(err)
	}
	add := func() int64 {
		t.Helper()
		out, err := client.CreateLaunchTemplateVersion(ctx, &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateName: name, LaunchTemplateData: requestData(ami)})
		if err != nil {
			t.Fatal(err)
		}
		return *out.LaunchTemplateVersion.VersionNumber
	}
	add()
	add()
	out, err := client.DeleteLaunchTemplateVersions(ctx, &ec2.DeleteLaunchTemplateVersionsInput{LaunchTemplateName: name, Versions: []string{"1", "3", "3", "9"}})
	if err != nil || len(out.SuccessfullyDeletedLaunchTemplateVersions) != 1 || *out.SuccessfullyDeletedLaunchTemplateVersions[0].VersionNumber != 3 {
		t.Fatalf("DeleteLaunchTemplateVersions = %+v, %v, want version 3 deleted", out, err)
	}
	var codes []string
	for _, e := range out.UnsuccessfullyDeletedLaunchTemplateVersions {
		codes = append(codes, string(e.ResponseError.Code))
	}
	if want := []string{"unexpectedError", "launchTemplateVersionDoesNotExist", "launchTemplateVersionDoesNotExist"}; !slices.Equal(codes, want) {
		t.Errorf("errors %v, want %v", codes, want)
	}
	shown, err := client.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{LaunchTemplateNames: []string{"web"}})
	if err != nil || *shown.LaunchTemplates[0].LatestVersionNumber != 2 {
		t.Errorf("the template: %+v, %v", shown, err)
	}
	if n := add(); n != 4 {
		t.Errorf("the next version is %d, want 4", n)
	}
	if _, err := client.DeleteLaunchTemplateVersions(ctx, &ec2.DeleteLaunchTemplateVersionsInput{LaunchTemplateName: name, Versions: []string{"$Latest"}}); code(err) != "InvalidParameterValue" {
		t.Errorf("$Latest: %v", err)
	}
}

// TestParameterTags checks that a parameter's tags can be changed, and persist when its
// value changes.
func TestParameterTags(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := ssm.NewFromConfig(s.Config("default", "us-east-1")), t.Context()
	name, kind := aws.String("/web"), ssmtypes.ResourceTypeForTaggingParameter
	put := func(value string) {
		t.Helper()
		if _, err := client.PutParameter(ctx, &ssm.PutParameterInput{Name: name, Value: &value, Type: ssmtypes.ParameterTypeString, Overwrite: aws.Bool(true)}); err != nil {
			t.Fatal(err)
		}
	}
	tag := func(key, value string) error {
		_, err := client.AddTagsToResource(ctx, &ssm.AddTagsToResourceInput{ResourceType: kind, ResourceId: name, Tags: []ssmtypes.Tag{{Key: &key, Value: &value}}})
		return err
	}
	if err := tag("a", "1"); code(err) != "InvalidResourceId" {
		t.Errorf("a parameter that is not there: %v", err)
	}
	put("one")
	for _, kv := range [][2]string{{"b", "2"}, {"a", "1"}, {"a", "3"}, {"c", "4"}} {
		if err := tag(kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.RemoveTagsFromResource(ctx, &ssm.RemoveTagsFromResourceInput{ResourceType: kind, ResourceId: name, TagKeys: []string{"c", "d"}}); err != nil {
		t.Fatal(err)
	}
	put("two")
	out, err := client.ListTagsForResource(ctx, &ssm.ListTagsForResourceInput{ResourceType: kind, ResourceId: name})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, tag := range out.TagList {
		got = append(got, *tag.Key+"="+*tag.Value)
	}
	if !slices.Equal(got, []string{"a=3", "b=2"}) {
		t.Errorf("tags %v", got)
	}
	if _, err := client.ListTagsForResource(ctx, &ssm.ListTagsForResourceInput{ResourceType: ssmtypes.ResourceTypeForTaggingDocument, ResourceId: name}); code(err) != "InvalidResourceType" {
		t.Errorf("a document: %v", err)
	}
}
