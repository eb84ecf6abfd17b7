package fleet_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"bake/builder/amazon"
	"bake/builtin"
	"bake/fleet"
	"bake/run"
	"bake/run/runtest"
)

// allows reports whether a policy allows an action in a region, with some resource.
func allows(p amazon.Policy, action, region string) bool {
	for _, s := range p.Statement {
		regions := s.Condition["StringEquals"]["aws:RequestedRegion"]
		if !slices.Contains(s.Action, action) || regions != nil && !slices.Contains(regions, region) {
			continue
		}
		for _, r := range s.Resource {
			part := strings.Split(r, ":")
			if r == "*" || part[3] == "" || part[3] == "*" || part[3] == region {
				return true
			}
		}
	}
	return false
}

// TestPolicyOfFleet: a fleet can be run with the policies that are printed for it: of the roles in
// each account, which have nothing elsewhere, and of who takes them on.
func TestPolicyOfFleet(t *testing.T) {
	web := strings.Replace(template, `ami_name      = "web"`, `ami_name      = "web-${uuidv4()}"`+"\n  ami_regions   = [\"us-east-1\"]", 1)
	w := newWorld(t, web, "bake { reports = \"s3://acme-images/nightly\" }\n"+bakeFile)
	client := s3.NewFromConfig(w.Config("default", "us-east-1"), func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("acme-images")}); err != nil {
		t.Fatal(err)
	}
	f := w.template.Fleets[0]
	of, err := w.template.PolicyFor(f)
	if err != nil || !slices.Equal(of.Regions, []string{"eu-west-1", "us-west-2"}) || len(of.Images) != 2 {
		t.Fatalf("%+v, %v", of, err)
	}
	o, err := w.host.Options(t.Context(), f.Cells[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	role, _, err := run.Policy(t.Context(), o.Template, builtin.Parts{}.Catalog().Components(), of)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := w.template.WorkerPolicy(f)
	if err != nil {
		t.Fatal(err)
	}
	address, calls := w.Watch()
	t.Setenv("AWS_ENDPOINT_URL", address)
	if s, text := w.run(fleet.RunOptions{}); s.State != fleet.StateDone {
		w.dump()
		t.Fatalf("%s:\n%s", s.State, text)
	}
	accounts := map[string]int{}
	called := map[string]bool{}
	ofS3 := map[string]string{"PUT": "PutObject", "GET": "GetObject", "HEAD": "ListBucket"}
	for _, c := range calls.Made() {
		accounts[c.Account]++
		called[c.Action] = true
		p := role
		if c.Account == "" {
			p = worker
		}
		service, action, _ := strings.Cut(c.Action, ":")
		if service == "s3" {
			c.Action = "s3:" + ofS3[action]
		}
		if c.Action != "sts:GetCallerIdentity" && !allows(p, c.Action, c.Region) { // which everybody may
			t.Errorf("%+v is called, which the policy does not allow", c)
		}
	}
	if accounts["123456789012"] == 0 || accounts["987654321098"] == 0 || accounts[""] == 0 {
		t.Errorf("calls by account: %v", accounts)
	}
	for _, c := range []runtest.Call{
		{Action: "ec2:RunInstances", Region: "us-east-1"}, // which is only copied to, whatever the sources say
		{Action: "ec2:RunInstances", Region: "ap-south-1"},
		{Action: "ec2:CopyImage", Region: "ap-south-1"},
		{Action: "s3:PutObject", Region: "us-east-1"}, // which is for the workers
	} {
		if allows(role, c.Action, c.Region) {
			t.Errorf("the role may do %+v", c)
		}
	}
	if text, err := json.Marshal(role); err != nil || len(text) > 6144 {
		t.Errorf("the policy has %d characters, %v", len(text), err)
	}
	var all []string
	for _, s := range worker.Statement {
		all = append(all, s.Action...)
		all = append(all, s.Resource...)
	}
	if want := []string{"sts:AssumeRole", "arn:aws:iam::123456789012:role/bake-build", "arn:aws:iam::987654321098:role/bake-build",
		"s3:GetObject", "s3:PutObject", "arn:aws:s3:::acme-images/nightly/*", "s3:ListBucket", "arn:aws:s3:::acme-images"}; !slices.Equal(all, want) {
		t.Errorf("the worker may: %q", all)
	}
}
