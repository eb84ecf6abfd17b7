package ebs_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
	"bake/builder/amazon/internal/amazontest"
	"bake/config/schema"
)

func policyOf(t testing.TB, in schema.Input) amazon.Policy {
	return amazontest.PolicyOf(t, ebs.Factory, in)
}

// demandAllowed fails the test if the policy of a source block does not allow the calls
// that were made for it. foreign are resources that existed before.
func demandAllowed(t *testing.T, in schema.Input, calls []call, foreign string) {
	t.Helper()
	e := amazontest.Evaluator{Policy: policyOf(t, in), Foreign: foreign}
	if refused := e.Refused(calls); refused != nil {
		t.Errorf("the policy does not allow:\n%s", strings.Join(refused, "\n"))
	}
}

// TestPolicyOfPlain: the policy of a plain template allows only what its build does,
// and what is done after failures.
func TestPolicyOfPlain(t *testing.T) {
	w := newWorld(t)
	body := plain(`ami_name = "web"`)
	w.MustBuild(t, body)
	e := amazontest.Evaluator{Policy: policyOf(t, input(body))}
	want := []string{
		"ec2:DeleteSnapshot", "ec2:DeleteVolume", "ec2:DeregisterImage", // when the build fails
		"ec2:DescribeSecurityGroups", // when the response with the ID was lost
		"ec2:DescribeSnapshots",      // when an image takes long, or is deleted
		"ec2:DescribeSubnets",        // when there is no capacity
	}
	if diff := cmp.Diff(want, e.Unused(w.Calls)); diff != "" {
		t.Errorf("unused (-want +got):\n%s", diff)
	}
	untagged := slices.Clone(w.Calls)
	for i, c := range untagged {
		if c.Action == "RunInstances" {
			untagged[i].Params = map[string]string{"ImageId": c.Params["ImageId"]}
		}
	}
	for name, calls := range map[string][]call{
		"another region":  {{Action: "StopInstances", Region: "eu-west-1", Params: map[string]string{"InstanceId.1": "i-0123456789abcdef0"}}},
		"not the build's": {{Action: "TerminateInstances", Region: region, Params: map[string]string{"InstanceId.1": "i-0f0f0f0f0f0f0f0f0"}}},
		"other tags":      {{Action: "DeleteTags", Region: region, Params: map[string]string{"ResourceId.1": "ami-0123456789abcdef0", "Tag.1.Key": "Owner"}}},
		"without tags":    untagged,
	} {
		e.Foreign = "i-0f0f0f0f0f0f0f0f0"
		if e.Refused(calls) == nil {
			t.Errorf("%s: allowed", name)
		}
	}
}

// actions are those that a policy allows, each with the resources and conditions
// that it allows it on.
func actions(p amazon.Policy) map[string]bool {
	out := map[string]bool{}
	for _, s := range p.Statement {
		for _, a := range s.Action {
			out[strings.TrimPrefix(a, "ec2:")] = true
		}
	}
	return out
}

// TestPolicyOptions: the actions that options add to those of a plain template, or
// remove from them.
func TestPolicyOptions(t *testing.T) {
	base := actions(policyOf(t, input(plain(`ami_name = "web"`))))
	kms := "kms:CreateGrant +kms:Decrypt +kms:DescribeKey +kms:GenerateDataKeyWithoutPlaintext +kms:ReEncryptFrom +kms:ReEncryptTo"
	for _, test := range []struct{ options, want string }{
		{`ami_regions = ["eu-west-1"]`, "+CopyImage"},
		{`encrypt_boot = true`, "+CopyImage"},
		{"encrypt_boot = true\nkms_key_id = \"alias/a\"", "+CopyImage +" + kms},
		{"skip_create_ami = true", "-CreateImage -DeleteSnapshot -DeleteTags -DeregisterImage -DescribeSnapshots"},
		{`ami_users = ["123456789012"]`, "+GetEbsDefaultKmsKeyId +GetEbsEncryptionByDefault +ModifyImageAttribute"},
		{"force_deregister = true", "+DescribeFleets +DescribeLaunchTemplateVersions +DescribeSpotFleetRequests +autoscaling:DescribeAutoScalingGroups +autoscaling:DescribeLaunchConfigurations" +
			" +ssm:DescribeParameters +ssm:GetParameterHistory +ssm:GetParameters"},
		{`imds_support = "v2.0"`, "+ModifyImageAttribute"},
		{`snapshot_groups = ["all"]`, "+GetEbsDefaultKmsKeyId +GetEbsEncryptionByDefault +ModifySnapshotAttribute"},
		{`deprecate_at = "2099-01-01T00:00:00Z"`, "+EnableImageDeprecation"},
		{"deregistration_protection { \nenabled = true\n }", "+DisableImageDeregistrationProtection +EnableImageDeregistrationProtection"},
		{`ena_support = true`, "+ModifyInstanceAttribute"},
		{`disable_stop_instance = true`, "-StopInstances"},
		{`skip_region_validation = true`, "-DescribeRegions"},
		{`skip_credential_validation = true`, "-sts:GetCallerIdentity"},
		{`decode_authorization_messages = true`, "+sts:DecodeAuthorizationMessage"},
		{`security_group_id = "sg-1"`, "-AuthorizeSecurityGroupIngress -CreateSecurityGroup -DeleteSecurityGroup"},
		{`ssh_password = "x"`, "-CreateKeyPair -DeleteKeyPair -DescribeKeyPairs"},
		{`subnet_id = "subnet-1"`, ""},
		{`availability_zone = "us-east-1a"`, "-DescribeSubnets"},
		{`associate_public_ip_address = true`, "+DescribeInstanceTypeOfferings +DescribeVpcs"},
		{`vpc_id = "vpc-1"`, "+DescribeVpcs"},
		{`communicator = "none"`, "-AuthorizeSecurityGroupIngress -CreateKeyPair -DeleteKeyPair -DescribeKeyPairs -GetConsoleOutput"},
		{"communicator = \"winrm\"\nwinrm_username = \"Administrator\"\ntemporary_key_pair_type = \"rsa\"", "+GetPasswordData -GetConsoleOutput"},
		{`iam_instance_profile = "web"`, "+iam:GetInstanceProfile +iam:PassRole"},
		{"iam_instance_profile = \"web\"\nskip_profile_validation = true", "+iam:PassRole"},
		{"temporary_iam_instance_profile_policy_document {\nStatement {\nEffect = \"Allow\"\nAction = [\"s3:Get*\"]\nResource = [\"*\"]\n}\n}",
			"+iam:AddRoleToInstanceProfile +iam:CreateInstanceProfile +iam:CreateRole +iam:DeleteInstanceProfile +iam:DeleteRole +iam:DeleteRolePolicy" +
				" +iam:GetInstanceProfile +iam:GetRole +iam:PassRole +iam:PutRolePolicy +iam:RemoveRoleFromInstanceProfile +iam:TagInstanceProfile +iam:TagRole"},
		{"ssh_interface = \"session_manager\"\niam_instance_profile = \"web\"", "+iam:GetInstanceProfile +iam:PassRole +ssm:ResumeSession +ssm:StartSession +ssm:TerminateSession"},
		{`spot_price = "auto"`, "+CreateFleet +CreateLaunchTemplate +DeleteLaunchTemplate +iam:CreateServiceLinkedRole -StopInstances"},
		{"fast_launch {\nenable_fast_launch = true\n}", "+DescribeFastLaunchImages +DescribeLaunchTemplates +EnableFastLaunch +iam:CreateServiceLinkedRole"},
	} {
		t.Run(strings.Fields(test.options)[0], func(t *testing.T) {
			got := actions(policyOf(t, input(overlaid(plain("ami_name = \"web\"\n"), test.options))))
			var diff []string
			for a := range got {
				if !base[a] {
					diff = append(diff, "+"+a)
				}
			}
			for a := range base {
				if !got[a] {
					diff = append(diff, "-"+a)
				}
			}
			slices.Sort(diff)
			if got := strings.Join(diff, " "); got != test.want {
				t.Errorf("%s:\n got %s\nwant %s", test.options, got, test.want)
			}
		})
	}
}

// TestPolicyOfUnknown: for unknown values, all possibilities are allowed.
func TestPolicyOfUnknown(t *testing.T) {
	in := input(overlaid(plain(`ami_name = "web"`), `
region            = later
security_group_id = later
ssh_keypair_name  = later
ami_users         = [later]
kms_key_id        = later
encrypt_boot      = true
`))
	in.Context = &hcl.EvalContext{Variables: map[string]cty.Value{"later": cty.UnknownVal(cty.String)}}
	p := policyOf(t, in)
	got := actions(p)
	for _, a := range []string{"CreateSecurityGroup", "CreateKeyPair", "ModifyImageAttribute", "kms:CreateGrant", "CopyImage"} {
		if !got[a] {
			t.Errorf("%s is not allowed", a)
		}
	}
	e := amazontest.Evaluator{Policy: p}
	if refused := e.Refused([]call{{Action: "StopInstances", Region: "sa-east-1", Params: map[string]string{"InstanceId.1": "i-0123456789abcdef0"}}}); refused != nil {
		t.Errorf("refused = %v, want nothing", refused)
	}
}
