package cloud_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestModifyRules checks that rules keep their ids when they change, and that a request
// with an invalid part changes nothing.
func TestModifyRules(t *testing.T) {
	client := cloudtest.Start(t, cloud.Options{}).EC2("default", "us-east-1")
	ctx := t.Context()
	group := got[*ec2.CreateSecurityGroupOutput](t)(client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("g")})).GroupId
	cidr := func(port int32, cidr string) types.IpPermission {
		return types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: &port, ToPort: &port, IpRanges: []types.IpRange{{CidrIp: &cidr}}}
	}
	made := got[*ec2.AuthorizeSecurityGroupIngressOutput](t)(client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: group, IpPermissions: []types.IpPermission{cidr(22, "10.0.0.0/8"), cidr(80, "0.0.0.0/0")},
		TagSpecifications: []types.TagSpecification{{ResourceType: "security-group-rule", Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("web")}}}},
	})).SecurityGroupRules
	ssh, http := made[0].SecurityGroupRuleId, made[1].SecurityGroupRuleId
	modify := func(updates ...types.SecurityGroupRuleUpdate) error {
		_, err := client.ModifySecurityGroupRules(ctx, &ec2.ModifySecurityGroupRulesInput{GroupId: group, SecurityGroupRules: updates})
		return err
	}
	update := func(id *string, port int32, cidr string) types.SecurityGroupRuleUpdate {
		return types.SecurityGroupRuleUpdate{SecurityGroupRuleId: id, SecurityGroupRule: &types.SecurityGroupRuleRequest{IpProtocol: aws.String("tcp"), FromPort: &port, ToPort: &port, CidrIpv4: &cidr, Description: aws.String("now")}}
	}
	both := update(ssh, 22, "10.0.0.0/8")
	both.SecurityGroupRule.CidrIpv6 = aws.String("::/0")
	six := update(ssh, 22, "")
	six.SecurityGroupRule.CidrIpv4, six.SecurityGroupRule.CidrIpv6 = nil, aws.String("::/0")
	for _, wrong := range []struct {
		updates []types.SecurityGroupRuleUpdate
		code    string
	}{
		{[]types.SecurityGroupRuleUpdate{update(aws.String("sgr-0123456789abcdef0"), 22, "10.0.0.0/8")}, "InvalidSecurityGroupRuleId.NotFound"},
		{[]types.SecurityGroupRuleUpdate{update(ssh, 2222, "10.0.0.0/8"), update(http, 80, "10.0.0.0")}, "InvalidParameterValue"},
		{[]types.SecurityGroupRuleUpdate{update(ssh, 80, "0.0.0.0/0")}, "InvalidPermission.Duplicate"},
		{[]types.SecurityGroupRuleUpdate{update(ssh, 1, "0.0.0.0/0"), update(ssh, 2, "0.0.0.0/0")}, "InvalidParameterValue"},
		{[]types.SecurityGroupRuleUpdate{both}, "InvalidParameterCombination"},
		{[]types.SecurityGroupRuleUpdate{six}, "InvalidParameterValue"},
		{[]types.SecurityGroupRuleUpdate{{SecurityGroupRuleId: ssh}}, "MissingParameter"},
	} {
		if err := modify(wrong.updates...); code(err) != wrong.code {
			t.Errorf("%s: %v", wrong.code, err)
		}
	}
	if err := modify(update(ssh, 2222, "192.168.0.0/16"), update(http, 8080, "0.0.0.0/0")); err != nil {
		t.Fatal(err)
	}
	rules := got[*ec2.DescribeSecurityGroupRulesOutput](t)(client.DescribeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{
		Filters: []types.Filter{{Name: aws.String("group-id"), Values: []string{*group}}, {Name: aws.String("tag:Name"), Values: []string{"web"}}},
	})).SecurityGroupRules
	var have []string
	for _, r := range rules {
		have = append(have, aws.ToString(r.SecurityGroupRuleId)+" "+aws.ToString(r.CidrIpv4)+" "+aws.ToString(r.Description))
		if *r.FromPort != *r.ToPort || aws.ToString(r.SecurityGroupRuleArn) == "" {
			t.Errorf("%+v", r)
		}
	}
	for _, want := range []string{*ssh + " 192.168.0.0/16 now", *http + " 0.0.0.0/0 now"} {
		if len(have) != 2 || !strings.Contains(strings.Join(have, "\n"), want) {
			t.Errorf("%q, not %s", have, want)
		}
	}
}
