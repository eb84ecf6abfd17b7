package cloud_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/organizations"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestUsageReport checks that a report counts the use of an image by other accounts, a day
// late, becomes available after some time, and is deleted after 30 days.
func TestUsageReport(t *testing.T) {
	var ahead atomic.Int64
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	s := cloudtest.Start(t, cloud.Options{Accounts: 3, Delays: cloud.Delays{Image: 20 * time.Second, Usage: 24 * time.Hour},
		Clock: clock{now: func() time.Time { return start.Add(time.Duration(ahead.Load())) }}})
	mine, ctx := s.EC2("default", "us-east-1"), t.Context()
	img := made(t, mine, "web")
	run(t, mine, ec2.RunInstancesInput{ImageId: img.ImageId})
	if err := permit(t, mine, img.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}, types.LaunchPermission{UserId: aws.String(s.Credentials()[2].Account)}); err != nil {
		t.Fatal(err)
	}
	other, third := s.EC2("other", "us-east-1"), s.EC2("account3", "us-east-1")
	run(t, other, ec2.RunInstancesInput{ImageId: img.ImageId, MinCount: aws.Int32(2), MaxCount: aws.Int32(2)})
	run(t, third, ec2.RunInstancesInput{ImageId: img.ImageId})
	if _, err := other.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: requestData(*img.ImageId)}); err != nil {
		t.Fatal(err)
	}
	request := func(token string, accounts []string, kinds ...string) *ec2.CreateImageUsageReportInput {
		in := &ec2.CreateImageUsageReportInput{ImageId: img.ImageId, AccountIds: accounts, ClientToken: &token}
		for _, k := range kinds {
			in.ResourceTypes = append(in.ResourceTypes, types.ImageUsageResourceTypeRequest{ResourceType: &k})
		}
		return in
	}
	create := func(in *ec2.CreateImageUsageReportInput) string {
		t.Helper()
		out, err := mine.CreateImageUsageReport(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return *out.ReportId
	}
	entries := func(id string) string {
		t.Helper()
		out, err := mine.DescribeImageUsageReportEntries(ctx, &ec2.DescribeImageUsageReportEntriesInput{ReportIds: []string{id}})
		if err != nil {
			return code(err)
		}
		var all []string
		for _, e := range out.ImageUsageReportEntries {
			all = append(all, fmt.Sprintf("%s %s %d", *e.AccountId, *e.ResourceType, *e.UsageCount))
		}
		return fmt.Sprint(all)
	}
	early := create(request("early", nil, "ec2:Instance"))
	ahead.Store(int64(25 * time.Hour))
	if got := entries(early); got != "[]" {
		t.Errorf("what was launched just now is in the report: %s", got)
	}
	all := request("all", nil, "ec2:Instance", "ec2:LaunchTemplate")
	all.TagSpecifications = []types.TagSpecification{{ResourceType: "image-usage-report", Tags: []types.Tag{{Key: aws.String("run"), Value: aws.String("r")}}}}
	full := create(all)
	if again := create(all); again != full {
		t.Errorf("the same request made %s and %s", full, again)
	}
	one := create(request("one", []string{otherAccount}, "ec2:Instance"))
	state := func(id string) string {
		t.Helper()
		out, err := mine.DescribeImageUsageReports(ctx, &ec2.DescribeImageUsageReportsInput{ReportIds: []string{id}})
		if err != nil {
			return code(err)
		}
		return *out.ImageUsageReports[0].State
	}
	if got := state(full); got != "pending" || entries(full) != "[]" {
		t.Errorf("at once the report is %s and has %s", got, entries(full))
	}
	ahead.Add(int64(21 * time.Second))
	counts := "[100000000003 ec2:Instance 1 987654321098 ec2:Instance 2 987654321098 ec2:LaunchTemplate 1]"
	if got := state(full); got != "available" || entries(full) != counts {
		t.Errorf("then it is %s and has %s, want %s", got, entries(full), counts)
	}
	if got := entries(one); got != "[987654321098 ec2:Instance 2]" {
		t.Errorf("the report on one account has %s", got)
	}
	tagged, err := mine.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: []types.Filter{filter("resource-type", "image-usage-report")}})
	if err != nil || len(tagged.Tags) != 1 || *tagged.Tags[0].ResourceId != full {
		t.Errorf("tags: %v, %v", tagged, err)
	}
	for name, in := range map[string]*ec2.CreateImageUsageReportInput{
		"InvalidParameterValue":       request("volumes", nil, "ec2:Volume"),
		"IdempotentParameterMismatch": request("all", nil, "ec2:Instance"),
	} {
		if _, err := mine.CreateImageUsageReport(ctx, in); code(err) != name {
			t.Errorf("%v, want %s", err, name)
		}
	}
	if _, err := other.CreateImageUsageReport(ctx, request("other", nil, "ec2:Instance")); code(err) != "AuthFailure" {
		t.Errorf("a report on another's image: %v", err)
	}
	if _, err := mine.DeleteImageUsageReport(ctx, &ec2.DeleteImageUsageReportInput{ReportId: &one}); err != nil {
		t.Fatal(err)
	}
	ahead.Add(int64(31 * 24 * time.Hour))
	for _, id := range []string{one, full} {
		if got := state(id); got != "InvalidImageUsageReportId.NotFound" {
			t.Errorf("%s: %s", id, got)
		}
	}
}

// TestOrganization checks that resources shared with the organization or its unit are
// shared with its members, the accounts.
func TestOrganization(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{Accounts: 3})
	client, ctx := organizations.NewFromConfig(s.Config("default", "us-east-1")), t.Context()
	o, err := client.DescribeOrganization(ctx, nil)
	if err != nil || *o.Organization.MasterAccountId != "123456789012" {
		t.Fatalf("DescribeOrganization = %+v, %v, want the management account 123456789012", o, err)
	}
	roots, err := client.ListRoots(ctx, nil)
	if err != nil || len(roots.Roots) != 1 {
		t.Fatalf("ListRoots = %+v, %v, want one", roots, err)
	}
	units, err := client.ListOrganizationalUnitsForParent(ctx, &organizations.ListOrganizationalUnitsForParentInput{ParentId: roots.Roots[0].Id})
	if err != nil || len(units.OrganizationalUnits) != 1 {
		t.Fatalf("ListOrganizationalUnitsForParent = %+v, %v, want one", units, err)
	}
	unit := units.OrganizationalUnits[0]
	list := func(parent *string) (ids []string) {
		t.Helper()
		out, err := client.ListAccountsForParent(ctx, &organizations.ListAccountsForParentInput{ParentId: parent})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range out.Accounts {
			ids = append(ids, *a.Id)
		}
		return ids
	}
	if at, in := list(roots.Roots[0].Id), list(unit.Id); !slices.Equal(at, []string{"123456789012"}) || !slices.Equal(in, []string{"100000000003", otherAccount}) {
		t.Errorf("accounts %v at the root, %v in the unit", at, in)
	}
	pages, n := organizations.NewListAccountsPaginator(client, &organizations.ListAccountsInput{MaxResults: aws.Int32(2)}), 0
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += len(out.Accounts)
	}
	if n != 3 {
		t.Errorf("%d accounts", n)
	}
	if _, err := client.ListAccountsForParent(ctx, &organizations.ListAccountsForParentInput{ParentId: aws.String("ou-ab12-cdefghij")}); code(err) != "ParentNotFoundException" {
		t.Errorf("accounts of no unit: %v", err)
	}
	if _, err := organizations.NewFromConfig(s.Config("other", "us-east-1")).ListAccounts(ctx, nil); code(err) != "AccessDeniedException" {
		t.Errorf("a member lists the accounts: %v", err)
	}

	// The second member owns the image, so that the first is not a special case.
	mine := s.EC2("other", "us-east-1")
	img := made(t, mine, "web")
	sees := func(profile string) bool {
		t.Helper()
		out, err := s.EC2(profile, "us-east-1").DescribeImages(ctx, &ec2.DescribeImagesInput{ExecutableUsers: []string{"self"}})
		if err != nil {
			t.Fatal(err)
		}
		return len(out.Images) == 1 && *out.Images[0].ImageId == *img.ImageId
	}
	revoke := func(p types.LaunchPermission) {
		t.Helper()
		if _, err := mine.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: img.ImageId, LaunchPermission: &types.LaunchPermissionModifications{Remove: []types.LaunchPermission{p}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		p              types.LaunchPermission
		manager, third bool
	}{
		{types.LaunchPermission{OrganizationArn: o.Organization.Arn}, true, true},
		{types.LaunchPermission{OrganizationalUnitArn: unit.Arn}, false, true},
		{types.LaunchPermission{OrganizationArn: aws.String("arn:aws:organizations::123456789012:organization/o-0123456789")}, false, false},
	} {
		if err := permit(t, mine, img.ImageId, test.p); err != nil {
			t.Fatal(err)
		}
		if manager, third := sees("default"), sees("account3"); manager != test.manager || third != test.third {
			t.Errorf("%v: the manager sees it: %v, the third account: %v", test.p, manager, third)
		}
		launch := &ec2.RunInstancesInput{ImageId: img.ImageId, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), DryRun: aws.Bool(true), InstanceType: types.InstanceTypeT3Micro}
		want := map[bool]string{true: "DryRunOperation", false: "AuthFailure"}[test.third]
		if _, err := s.EC2("account3", "us-east-1").RunInstances(ctx, launch); code(err) != want {
			t.Errorf("%v: a launch: %v, want %s", test.p, err, want)
		}
		revoke(test.p)
		if sees("account3") {
			t.Errorf("%v: it is still seen", test.p)
		}
	}
}
