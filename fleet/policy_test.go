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

// TestPolicyOfFleet: a fleet can be run with the policies that are printed for it: those of the
// roles in each account, which grant nothing elsewhere, and that of the process that assumes them.
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
	of, err = w.template.WorkerPolicyFor(f)
	if err != nil || of.Images != nil {
		t.Fatalf("%+v, %v", of, err)
	}
	worker, _, err := run.Policy(t.Context(), o.Template, builtin.Parts{}.Catalog().Components(), of)
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
		if c.Action != "sts:GetCallerIdentity" && !allows(p, c.Action, c.Region) { // which is allowed for everybody
			t.Errorf("%+v is called, which the policy does not allow", c)
		}
	}
	if accounts["123456789012"] == 0 || accounts["987654321098"] == 0 || accounts[""] == 0 {
		t.Errorf("calls by account: %v", accounts)
	}
	for _, c := range []runtest.Call{
		{Action: "ec2:RunInstances", Region: "us-east-1"}, // which is only a destination of copies, whatever the sources contain
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

// TestPolicyOfWorker: a worker for cells without roles may bake them, only in their regions, and
// may write their reports.
func TestPolicyOfWorker(t *testing.T) {
	const reports = "bake { reports = \"s3://acme-images/nightly\" }\n"
	role := `role = "arn:aws:iam::${each.account}:role/bake-build"`
	for name, c := range map[string]struct {
		bakeFile string
		roles    []string
		west     bool // it bakes there
	}{
		"none":  {strings.Replace(strings.Replace(bakeFile, role, "", 1), `"123456789012", "987654321098"`, `"123456789012"`, 1), nil, true},
		"mixed": {bakeFile, []string{"arn:aws:iam::123456789012:role/bake-build", "arn:aws:iam::987654321098:role/bake-build"}, false},
	} {
		w := newWorld(t, template, reports+c.bakeFile)
		f := w.template.Fleets[0]
		for i, one := range f.Cells {
			if one.Account == "123456789012" && one.Region == "eu-west-1" { // no bake file names it yet
				f.Cells[i].Role = ""
			}
		}
		of, err := w.template.WorkerPolicyFor(f)
		if err != nil {
			t.Fatal(err)
		}
		o, err := w.host.Options(t.Context(), f.Cells[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := run.Policy(t.Context(), o.Template, builtin.Parts{}.Catalog().Components(), of)
		if err != nil {
			t.Fatal(err)
		}
		for action, want := range map[string]map[string]bool{
			"ec2:RunInstances": {"eu-west-1": true, "us-west-2": c.west, "us-east-1": false},
			"s3:PutObject":     {"us-east-1": true},
			"sts:AssumeRole":   {"us-east-1": c.roles != nil},
		} {
			for region, may := range want {
				if allows(p, action, region) != may {
					t.Errorf("%s: %s in %s: %v\n%+v", name, action, region, !may, p)
				}
			}
		}
		var roles []string
		for _, s := range p.Statement {
			if slices.Contains(s.Action, "sts:AssumeRole") {
				roles = append(roles, s.Resource...)
			}
		}
		if !slices.Equal(roles, c.roles) {
			t.Errorf("%s: %q", name, roles)
		}
	}
}

// TestTrustPolicy: only a role or a user can be trusted.
func TestTrustPolicy(t *testing.T) {
	for arn, want := range map[string]bool{
		"arn:aws:iam::333333333333:role/bake-worker":       true,
		"arn:aws-cn:iam::333333333333:user/teams/ci+a@b.c": true,
		"*":                                                 false,
		"arn:aws:iam::333333333333:role/*":                  false,
		"arn:aws:iam::333333333333:role/":                   false,
		"arn:aws:iam::333333333333:root":                    false,
		"arn:aws:iam::3333:role/bake-worker":                false,
		"arn:aws:iam::333333333333:group/ops":               false,
		"arn:aws:s3:::acme-images":                          false,
		"arn:aws:sts::333333333333:assumed-role/worker/one": false,
	} {
		if _, err := fleet.TrustPolicyFor(arn); (err == nil) != want {
			t.Errorf("%s: %v", arn, err)
		}
	}
}
