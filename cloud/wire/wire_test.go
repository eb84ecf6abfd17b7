package wire

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/organizations"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func load(t testing.TB, service string) *Model {
	t.Helper()
	m, err := Load(service)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestModelsAreCompressed checks that the embedded archive contains the models in the
// folder.
func TestModelsAreCompressed(t *testing.T) {
	files, err := filepath.Glob("model/*.json")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d models, %v", len(files), err)
	}
	archive, err := zip.NewReader(strings.NewReader(models), int64(len(models)))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.File) != len(files) {
		t.Errorf("%d models in model.zip, and %d in the folder", len(archive.File), len(files))
	}
	for _, name := range files {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fs.ReadFile(archive, filepath.Base(name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what model.zip has (%v): go run ./cloud/wire/genmodel -out cloud/wire/%s", name, err, name)
		}
	}
}

// TestModelFitsSDK checks that every member of the model has a field of a suitable type in
// the SDK's struct, so that no parameter is refused and no field omitted by accident.
func TestModelFitsSDK(t *testing.T) {
	clients := map[string]reflect.Type{"autoscaling": reflect.TypeFor[*autoscaling.Client](), "organizations": reflect.TypeFor[*organizations.Client](), "ec2": reflect.TypeFor[*ec2.Client](), "iam": reflect.TypeFor[*iam.Client](), "kms": reflect.TypeFor[*kms.Client](), "secretsmanager": reflect.TypeFor[*secretsmanager.Client](),
		"ssm": reflect.TypeFor[*ssm.Client](), "sts": reflect.TypeFor[*sts.Client]()}
	for service, client := range clients {
		m := load(t, service)
		if !strings.Contains(m.License, "Apache License") {
			t.Errorf("%s: the licence of the model is not noted", service)
		}
		for action, op := range m.Operations {
			method, ok := client.MethodByName(action)
			if !ok {
				t.Errorf("%s: the SDK has no action %s", service, action)
				continue
			}
			if op.Input != "" {
				fits(t, m, action, op.Input, method.Type.In(2).Elem())
			}
			if op.Output != "" {
				fits(t, m, action, op.Output, method.Type.Out(0).Elem())
			}
		}
	}
}

func fits(t *testing.T, m *Model, where, shape string, typ reflect.Type) {
	t.Helper()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	s, compound := m.Shapes[shape]
	switch {
	case !compound:
		kinds := map[string][]reflect.Kind{"string": {reflect.String}, "integer": {reflect.Int32}, "long": {reflect.Int64}, "boolean": {reflect.Bool},
			"double": {reflect.Float64}, "float": {reflect.Float32}, "timestamp": {reflect.Struct}, "blob": {reflect.Slice}}
		for _, k := range kinds[shape] {
			if typ.Kind() != k {
				t.Errorf("%s is a %s in the model and a %s in the SDK", where, shape, typ)
			}
		}
		if kinds[shape] == nil {
			t.Errorf("%s has the unknown shape %s", where, shape)
		}
	case s.List != nil:
		if typ.Kind() != reflect.Slice {
			t.Errorf("%s is a list in the model and a %s in the SDK", where, typ)
			return
		}
		fits(t, m, where+"[]", s.List.Shape, typ.Elem())
	case s.Map != nil:
		if typ.Kind() != reflect.Map {
			t.Errorf("%s is a map in the model and a %s in the SDK", where, typ)
			return
		}
		fits(t, m, where+"{}", s.Map.Shape, typ.Elem())
	case strings.Count(where, ".") < 8: // shapes may contain themselves
		for name, member := range s.Members {
			field, ok := typ.FieldByName(name)
			if !ok && where+"."+name == "CopySnapshot.DestinationRegion" {
				continue // the SDK does not export it; the service's own input has it
			}
			if !ok {
				t.Errorf("%s.%s is not in the SDK's %s", where, name, typ)
				continue
			}
			fits(t, m, where+"."+name, member.Shape, field.Type)
		}
	}
}

func TestDecode(t *testing.T) {
	m := load(t, "ec2")
	for _, test := range []struct {
		name, action, params string
		into, want           any
	}{
		{"nested", "RunInstances",
			"ImageId=ami-1&MinCount=1&MaxCount=2&DryRun=false&BlockDeviceMapping.1.DeviceName=/dev/xvda&BlockDeviceMapping.1.Ebs.VolumeSize=12" +
				"&BlockDeviceMapping.1.Ebs.DeleteOnTermination=true&SecurityGroupId.1=sg-1&SecurityGroupId.2=sg-2&TagSpecification.1.ResourceType=instance" +
				"&TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=b%26",
			&ec2.RunInstancesInput{}, &ec2.RunInstancesInput{
				ImageId: aws.String("ami-1"), MinCount: aws.Int32(1), MaxCount: aws.Int32(2), DryRun: aws.Bool(false),
				BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"),
					Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(12), DeleteOnTermination: aws.Bool(true)}}},
				SecurityGroupIds: []string{"sg-1", "sg-2"},
				TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeInstance,
					Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b&")}}}},
			}},
		{"gaps and order", "DescribeInstances", "InstanceId.10=c&InstanceId.2=b&InstanceId.1=a", &ec2.DescribeInstancesInput{},
			&ec2.DescribeInstancesInput{InstanceIds: []string{"a", "b", "c"}}},
		{"empty list", "DescribeInstances", "InstanceId=", &ec2.DescribeInstancesInput{}, &ec2.DescribeInstancesInput{InstanceIds: []string{}}},
		{"blob", "ImportKeyPair", "KeyName=k&PublicKeyMaterial=aGk%3D", &ec2.ImportKeyPairInput{},
			&ec2.ImportKeyPairInput{KeyName: aws.String("k"), PublicKeyMaterial: []byte("hi")}},
		{"time", "EnableImageDeprecation", "ImageId=ami-1&DeprecateAt=2030-01-02T03:04:05Z", &ec2.EnableImageDeprecationInput{},
			&ec2.EnableImageDeprecationInput{ImageId: aws.String("ami-1"), DeprecateAt: aws.Time(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))}},
		{"tri-state", "ModifyInstanceAttribute", "InstanceId=i-1&DisableApiTermination.Value=false", &ec2.ModifyInstanceAttributeInput{},
			&ec2.ModifyInstanceAttributeInput{InstanceId: aws.String("i-1"), DisableApiTermination: &types.AttributeBooleanValue{Value: aws.Bool(false)}}},
		{"both forms of an attribute", "ModifyImageAttribute", "ImageId=ami-1&LaunchPermission.Add.1.UserId=1&UserId.1=1", &ec2.ModifyImageAttributeInput{},
			&ec2.ModifyImageAttributeInput{ImageId: aws.String("ami-1"), UserIds: []string{"1"},
				LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: aws.String("1")}}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			params, err := url.ParseQuery(test.params)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Decode(test.action, params, test.into); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, test.into, ignoreNoSerde()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.action, diff)
			}
		})
	}
}

func ignoreNoSerde() cmp.Option {
	return cmpopts.IgnoreUnexported(ec2.RunInstancesInput{}, ec2.DescribeInstancesInput{}, ec2.ImportKeyPairInput{}, ec2.EnableImageDeprecationInput{},
		ec2.ModifyInstanceAttributeInput{}, ec2.ModifyImageAttributeInput{}, types.BlockDeviceMapping{}, types.EbsBlockDevice{}, types.TagSpecification{},
		types.Tag{}, types.AttributeBooleanValue{}, types.LaunchPermissionModifications{}, types.LaunchPermission{})
}

func TestDecodeErrors(t *testing.T) {
	m := load(t, "ec2")
	for _, test := range []struct{ action, params, code, message string }{
		{"Frobnicate", "", "InvalidAction", "The action Frobnicate is not valid for this web service."},
		{"DescribeInstances", "Foo=1", "UnknownParameter", "The parameter Foo is not recognized"},
		{"DescribeInstances", "InstanceId.1.Foo=1", "UnknownParameter", "The parameter InstanceId.1.Foo is not recognized"},
		{"DescribeInstances", "InstanceId.x=1", "UnknownParameter", "The parameter InstanceId.x is not recognized"},
		{"DescribeInstances", "InstanceId=i-1", "UnknownParameter", "The parameter InstanceId is not recognized"},
		{"DescribeInstances", "Filter.1=a", "UnknownParameter", "The parameter Filter.1 is not recognized"},
		{"DescribeInstances", "Filter..Name=a", "UnknownParameter", "The parameter Filter..Name is not recognized"},
		{"CreateImage", "Name=n", "MissingParameter", "The request must contain the parameter InstanceId"},
		{"RunInstances", "MinCount=one&MaxCount=1", "InvalidParameterValue", "Value (one) for parameter MinCount is invalid. Expected an integer."},
		{"RunInstances", "MinCount=99999999999&MaxCount=1", "InvalidParameterValue", "Value (99999999999) for parameter MinCount is invalid. Expected an integer."},
		{"RunInstances", "MinCount=1&MaxCount=1&DryRun=perhaps", "InvalidParameterValue", "Value (perhaps) for parameter DryRun is invalid. Expected true or false."},
		{"RunInstances", "MinCount=1&MaxCount=1&InstanceType=t99.huge", "InvalidParameterValue", "Invalid value 't99.huge' for InstanceType."},
		{"ImportKeyPair", "KeyName=k&PublicKeyMaterial=%25", "InvalidParameterValue", "Value (%) for parameter PublicKeyMaterial is invalid. Expected base64."},
		{"EnableImageDeprecation", "ImageId=a&DeprecateAt=soon", "InvalidParameterValue", "Value (soon) for parameter DeprecateAt is invalid. Expected a date and time in ISO 8601."},
		{"DescribeInstances", "MaxResults=5&MaxResults=6", "InvalidParameterCombination", "The parameter MaxResults must have one value"},
	} {
		params, err := url.ParseQuery(test.params)
		if err != nil {
			t.Fatal(err)
		}
		var into any = &ec2.RunInstancesInput{}
		switch test.action {
		case "DescribeInstances":
			into = &ec2.DescribeInstancesInput{}
		case "CreateImage":
			into = &ec2.CreateImageInput{}
		case "ImportKeyPair":
			into = &ec2.ImportKeyPairInput{}
		case "EnableImageDeprecation":
			into = &ec2.EnableImageDeprecationInput{}
		}
		e, _ := errors.AsType[*Error](m.Decode(test.action, params, into))
		if e == nil || e.Code != test.code || e.Message != test.message {
			t.Errorf("%s %s: %v; want %s: %s", test.action, test.params, e, test.code, test.message)
		}
	}
}

// IAM and STS word the error for missing parameters differently from EC2.
func TestDecodeMissing(t *testing.T) {
	e, _ := errors.AsType[*Error](load(t, "iam").Decode("CreateRole", url.Values{"RoleName": {"r"}}, &iam.CreateRoleInput{}))
	if e == nil || e.Code != "ValidationError" || !strings.Contains(e.Message, "Value null at 'assumeRolePolicyDocument'") {
		t.Errorf("got %v", e)
	}
}

func TestEncode(t *testing.T) {
	m := load(t, "ec2")
	got, err := m.Encode("DescribeKeyPairs", "id-1", &ec2.DescribeKeyPairsOutput{KeyPairs: []types.KeyPairInfo{{
		KeyName: aws.String("a<b"), KeyType: types.KeyTypeRsa, CreateTime: aws.Time(time.Date(2030, 1, 2, 3, 4, 5, 6e6, time.UTC)), Tags: []types.Tag{},
	}}})
	want := xml.Header + `<DescribeKeyPairsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15"><requestId>id-1</requestId><keySet><item>` +
		`<createTime>2030-01-02T03:04:05.006Z</createTime><keyName>a&lt;b</keyName><keyType>rsa</keyType><tagSet></tagSet></item></keySet></DescribeKeyPairsResponse>`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}

	got, err = load(t, "sts").Encode("GetCallerIdentity", "id-2", &sts.GetCallerIdentityOutput{Account: aws.String("1")})
	want = xml.Header + `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Account>1</Account>` +
		`</GetCallerIdentityResult><ResponseMetadata><RequestId>id-2</RequestId></ResponseMetadata></GetCallerIdentityResponse>`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}
