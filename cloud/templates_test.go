package cloud_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"golang.org/x/crypto/ssh"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestLaunchTemplateVersions rolls out an image: a version based on another, a new default
// version, an instance of each, and an image id from a parameter.
func TestLaunchTemplateVersions(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	ami := source(t, client)
	data := requestData(ami)
	for _, kind := range []types.ResourceType{"instance", "volume", "network-interface"} {
		data.TagSpecifications = append(data.TagSpecifications, types.LaunchTemplateTagSpecificationRequest{ResourceType: kind, Tags: []types.Tag{{Key: aws.String("of"), Value: aws.String(string(kind))}}})
	}
	made, err := client.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: data})
	if err != nil {
		t.Fatal(err)
	}
	id := made.LaunchTemplate.LaunchTemplateId
	next := &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateId: id, SourceVersion: aws.String("1"), VersionDescription: aws.String("by name"), ClientToken: aws.String("once"),
		LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: aws.String("resolve:ssm:/golden/web")}}
	second, err := client.CreateLaunchTemplateVersion(ctx, next)
	if err != nil || *second.LaunchTemplateVersion.VersionNumber != 2 || second.LaunchTemplateVersion.LaunchTemplateData.InstanceType != types.InstanceTypeT3Micro {
		t.Fatalf("CreateLaunchTemplateVersion = %+v, %v, want version 2 with the type of version 1", second, err)
	}
	if again, err := client.CreateLaunchTemplateVersion(ctx, next); err != nil || *again.LaunchTemplateVersion.VersionNumber != 2 {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	launch := func(version *string) (*ec2.RunInstancesOutput, error) {
		return client.RunInstances(ctx, &ec2.RunInstancesInput{MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
			LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateId: id, Version: version}})
	}
	if _, err := launch(aws.String("$Latest")); code(err) != "InvalidParameterValue" {
		t.Errorf("a launch by a parameter that is not there: %v", err)
	}
	parameters := ssm.NewFromConfig(s.Config("default", "us-east-1"))
	put := func(name, kind string) {
		t.Helper()
		if _, err := parameters.PutParameter(ctx, &ssm.PutParameterInput{Name: &name, Type: ssmtypes.ParameterTypeString, Value: &ami, DataType: &kind}); err != nil {
			t.Fatal(err)
		}
	}
	put("/golden/web", "aws:ec2:image")
	put("/golden/text", "text")
	eventually(t, "/golden/web valid", func() bool {
		_, err := parameters.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/golden/web")})
		return err == nil
	})
	for version, want := range map[string]string{"": "1", "1": "1", "$Default": "1", "2": "2", "$Latest": "2"} {
		out, err := launch(&version)
		if err != nil {
			t.Errorf("version %q: %v", version, err)
			continue
		}
		in := out.Instances[0]
		if *in.ImageId != ami || tagValue(in.Tags, "aws:ec2launchtemplate:id") != *id || tagValue(in.Tags, "aws:ec2launchtemplate:version") != want || tagValue(in.Tags, "of") != "instance" {
			t.Errorf("version %q: image %s, tags %v", version, *in.ImageId, in.Tags)
		}
	}
	tags, err := client.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: []types.Filter{filter("key", "of")}})
	if err != nil || len(tags.Tags) != 15 {
		t.Errorf("%d tags, %v; want 15: of 5 instances, volumes and interfaces", len(tags.Tags), err)
	}
	for version, want := range map[string]string{"3": "InvalidLaunchTemplateId.VersionNotFound", "newest": "InvalidParameterValue"} {
		if _, err := launch(&version); code(err) != want {
			t.Errorf("version %q: %v", version, err)
		}
	}
	if _, err := parameters.LabelParameterVersion(ctx, &ssm.LabelParameterVersionInput{Name: aws.String("/golden/web"), Labels: []string{"prod"}}); err != nil {
		t.Fatal(err)
	}
	direct := func(image string) error {
		_, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: &image, InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		return err
	}
	for image, want := range map[string]string{"resolve:ssm:/golden/web": "", "resolve:ssm:/golden/web:1": "", "resolve:ssm:/golden/web:9": "InvalidParameterValue",
		"resolve:ssm:/golden/web:prod": "", "resolve:ssm:/golden/web:test": "InvalidParameterValue",
		"resolve:ssm:/golden/text": "InvalidParameterValue", "resolve:ssm:": "InvalidParameterValue"} {
		if err := direct(image); code(err) != want {
			t.Errorf("a launch of %s: %v", image, err)
		}
	}

	modified, err := client.ModifyLaunchTemplate(ctx, &ec2.ModifyLaunchTemplateInput{LaunchTemplateName: aws.String("web"), DefaultVersion: aws.String("2")})
	if err != nil || *modified.LaunchTemplate.DefaultVersionNumber != 2 || *modified.LaunchTemplate.LatestVersionNumber != 2 {
		t.Errorf("%v, %v", modified, err)
	}
	if _, err := client.ModifyLaunchTemplate(ctx, &ec2.ModifyLaunchTemplateInput{LaunchTemplateId: id, DefaultVersion: aws.String("7")}); code(err) != "InvalidLaunchTemplateId.VersionNotFound" {
		t.Errorf("a default that is not there: %v", err)
	}
	numbers := func(in *ec2.DescribeLaunchTemplateVersionsInput) (out []int64) {
		t.Helper()
		got, err := client.DescribeLaunchTemplateVersions(ctx, in)
		if err != nil {
			t.Error(err)
			return nil
		}
		for _, v := range got.LaunchTemplateVersions {
			out = append(out, *v.VersionNumber)
		}
		return out
	}
	if got := numbers(&ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: id}); len(got) != 2 || got[0] != 2 {
		t.Errorf("all versions: %v", got)
	}
	if got := numbers(&ec2.DescribeLaunchTemplateVersionsInput{Versions: []string{"$Default"}}); len(got) != 1 || got[0] != 2 {
		t.Errorf("the default versions of all templates: %v", got)
	}
	if got := numbers(&ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: id, Filters: []types.Filter{filter("image-id", ami)}}); len(got) != 1 || got[0] != 1 {
		t.Errorf("versions with the image: %v", got)
	}
	resolved, err := client.DescribeLaunchTemplateVersions(ctx, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: id, Versions: []string{"2"}, ResolveAlias: aws.Bool(true)})
	if err != nil || *resolved.LaunchTemplateVersions[0].LaunchTemplateData.ImageId != ami {
		t.Errorf("resolved: %v, %v", resolved, err)
	}
}

// TestTemplateLeavesOut launches from a template that omits a device of the image with an
// empty NoDevice, as clients send it. The template survives a restart, and is shown as it
// was given.
func TestTemplateLeavesOut(t *testing.T) {
	dir := t.TempDir()
	leavesOut := func(t *testing.T, client *ec2.Client, id *string) {
		t.Helper()
		out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
			LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateId: id}})
		if err != nil {
			t.Fatal(err)
		}
		if devices := describe(t, client, *out.Instances[0].InstanceId).BlockDeviceMappings; len(devices) != 1 {
			t.Errorf("the instance has %d volumes, want only its root", len(devices))
		}
		shown, err := client.DescribeLaunchTemplateVersions(t.Context(), &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: id})
		if err != nil {
			t.Fatal(err)
		}
		if none := shown.LaunchTemplateVersions[0].LaunchTemplateData.BlockDeviceMappings[0].NoDevice; none == nil || *none != "" {
			t.Errorf("NoDevice is shown as %v, want the empty text", none)
		}
	}
	var id *string
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		client := s.EC2("default", "us-east-1")
		data := requestData(source(t, client))
		data.BlockDeviceMappings = []types.LaunchTemplateBlockDeviceMappingRequest{{DeviceName: aws.String("/dev/sdc"), NoDevice: aws.String("")}}
		made, err := client.CreateLaunchTemplate(t.Context(), &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: data})
		if err != nil {
			t.Fatal(err)
		}
		id = made.LaunchTemplate.LaunchTemplateId
		leavesOut(t, client, id)
	})
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) { leavesOut(t, s.EC2("default", "us-east-1"), id) })
}

// TestImageStates checks that a disabled image is hidden and cannot be launched, and that
// the id of a deregistered image matches nothing while an instance of it exists.
func TestImageStates(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: run(t, client, ec2.RunInstancesInput{}).InstanceId, Name: aws.String("web")})
	if err != nil {
		t.Fatal(err)
	}
	id := *made.ImageId
	awaitImage(t, client, id)
	child := *run(t, client, ec2.RunInstancesInput{ImageId: &id}).InstanceId
	shown := func(in ec2.DescribeImagesInput) int {
		t.Helper()
		in.ImageIds = []string{id}
		out, err := client.DescribeImages(ctx, &in)
		if err != nil {
			t.Error(err)
			return -1
		}
		return len(out.Images)
	}
	launch := func() error {
		_, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: &id, InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		return err
	}
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(client.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &id, LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: aws.String("987654321098")}}}}))
	do(client.DisableImage(ctx, &ec2.DisableImageInput{ImageId: &id}))
	if shown(ec2.DescribeImagesInput{}) != 0 || shown(ec2.DescribeImagesInput{IncludeDisabled: aws.Bool(true)}) != 1 {
		t.Error("a disabled image is shown, or never")
	}
	if err := launch(); code(err) != "InvalidAMIID.Unavailable" {
		t.Errorf("launch of a disabled image: %v", err)
	}
	do(client.EnableImage(ctx, &ec2.EnableImageInput{ImageId: &id}))
	attribute, err := client.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: &id, Attribute: types.ImageAttributeNameLaunchPermission})
	if err != nil || len(attribute.LaunchPermissions) != 0 || shown(ec2.DescribeImagesInput{}) != 1 {
		t.Errorf("enabled again: %v, %v", attribute, err)
	}

	do(client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &id}))
	if n := shown(ec2.DescribeImagesInput{}); n != 0 {
		t.Errorf("%d images of the id of a deregistered one", n)
	}
	if err := launch(); code(err) != "InvalidAMIID.Unavailable" {
		t.Errorf("launch of a deregistered image: %v", err)
	}
	do(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{child}}))
	await(t, client, child, types.InstanceStateNameTerminated)
	if _, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}}); code(err) != "InvalidAMIID.NotFound" {
		t.Errorf("once no instance is of it: %v", err)
	}
}

// TestKeyForms imports a key in every format that EC2 accepts.
func TestKeyForms(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	blob := base64.StdEncoding.EncodeToString(public.Marshal())
	prints := map[string]bool{}
	for name, material := range map[string]string{
		"authorized-keys": string(ssh.MarshalAuthorizedKey(public)),
		"rfc4716":         "---- BEGIN SSH2 PUBLIC KEY ----\nComment: \"2048-bit RSA, \\\nof a test\"\nx-own: y\n" + blob[:70] + "\n" + blob[70:] + "\n---- END SSH2 PUBLIC KEY ----\n",
		"der":             string(der),
		"base64-der":      base64.StdEncoding.EncodeToString(der) + "\n",
		"base64-pkcs1":    base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&private.PublicKey)),
	} {
		out, err := client.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: &name, PublicKeyMaterial: []byte(material)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		prints[*out.KeyFingerprint] = true
	}
	if len(prints) != 1 {
		t.Errorf("fingerprints of one key: %v", prints)
	}
	bad := "---- BEGIN SSH2 PUBLIC KEY ----\n" + strings.Repeat("A", 40) + "\n---- END SSH2 PUBLIC KEY ----\n"
	if _, err := client.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: aws.String("bad"), PublicKeyMaterial: []byte(bad)}); code(err) != "InvalidKey.Format" {
		t.Errorf("a damaged key: %v", err)
	}
}
