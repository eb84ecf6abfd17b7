package temporal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"bake/cloud"
	cloudec2 "bake/cloud/ec2"
	"bake/fleet"
	"bake/run"
	"bake/run/runtest"
	"bake/step"
)

const copiesBakefile = `
image "base" {
  sources = ["amazon-ebs.base"]
  distribute { regions = ["eu-central-1"] }
}
fleet "nightly" {
  images = [image.base]
  matrix {
    account = ["123456789012"]
    region  = ["eu-west-1"]
  }
  role = "arn:aws:iam::${each.account}:role/bake-build"
}
`

// TestTeardownOfCopies: if the state of a run is lost, everything with its tag is found, in the
// region of its cell and in those that its image is copied to. Resources of other runs stay. What
// was deleted is recorded in the reports, in a directory or a bucket, even if something could not
// be deleted at first: the next attempt knows about it.
func TestTeardownOfCopies(t *testing.T) {
	t.Run("directory", func(t *testing.T) { tearDownCopies(t, filepath.Join(t.TempDir(), "reports")) })
	t.Run("bucket", func(t *testing.T) { tearDownCopies(t, "s3://acme-images/nightly") })
}

func tearDownCopies(t *testing.T, reports string) {
	faults, err := cloudec2.NewFaults(1, cloud.Fault{Action: "DeleteVolume", Region: "us-west-2", Nth: 1, Code: "UnauthorizedOperation", Message: "not yet"})
	if err != nil {
		t.Fatal(err)
	}
	w := runtest.Start(t, cloud.Options{Faults: faults})
	if _, err := s3.NewFromConfig(w.Config("default", "us-east-1"), func(o *s3.Options) { o.UsePathStyle = true }).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("acme-images")}); err != nil {
		t.Fatal(err)
	}
	if _, err := iam.NewFromConfig(w.Config("default", "us-east-1")).CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("bake-build"), AssumeRolePolicyDocument: aws.String(trust)}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := strings.Replace(strings.ReplaceAll(fleetSource, "NAME", "base"), `ami_name `, `ami_regions = ["us-west-2"]
  ami_name `, 1)
	for name, text := range map[string]string{"x.pkr.hcl": source + `build { sources = ["amazon-ebs.base"] }`, "x.bake.hcl": fmt.Sprintf("bake { reports = %q }\n", reports) + copiesBakefile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address, seen := w.Watch()
	t.Setenv("AWS_ENDPOINT_URL", address)
	loaded, host, err := open(t.Context(), dir, filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	id, other := uuid.NewString(), uuid.NewString()
	regions := []string{"eu-west-1", "us-west-2", "eu-central-1"}
	for _, region := range regions {
		for _, of := range []string{id, other} {
			_, err := ec2.NewFromConfig(w.Config("default", region)).CreateVolume(t.Context(), &ec2.CreateVolumeInput{
				AvailabilityZone: aws.String(region + "a"), Size: aws.Int32(1),
				TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("bake:run"), Value: aws.String(of)}}}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	f := loaded.Fleets[0]
	a := &activities{host: host, client: heart{answer: func() error { return nil }}, fleets: map[string]*fleet.Fleet{f.Name: f}, rates: map[string]*fleet.Rates{}, metrics: newMetrics()}
	if a.key, err = run.NewKey("a key for the tests"); err != nil {
		t.Fatal(err)
	}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(a.teardown)
	var said progress // by the last heartbeat
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		if err := details.Get(&said); err != nil {
			t.Error(err)
		}
	})
	if _, err := env.ExecuteActivity(a.teardown, teardownIn{Cell: f.Cells[0], Run: id}); err == nil || !strings.Contains(err.Error(), "not yet") || len(said.Failed) != 1 {
		t.Fatalf("the first attempt: %+v, %v", said, err)
	}
	env.SetHeartbeatDetails(said)
	var out teardownOut
	result, err := env.ExecuteActivity(a.teardown, teardownIn{Cell: f.Cells[0], Run: id})
	if err == nil {
		err = result.Get(&out)
	}
	if err != nil || !out.Logged || out.Log == nil || len(out.Failed) != 1 || out.Failed[0].Log == nil || out.Failed[0].Run != id {
		t.Fatalf("%+v, %v", out, err)
	}
	for part, want := range map[*run.LogPart]int{out.Failed[0].Log: len(regions) - 1, out.Log: 1} {
		deleted := 0
		err = host.Log(t.Context(), id, *part, func(e step.Event) {
			if e.Kind == step.ResourceDestroyed {
				deleted++
			}
		})
		if err != nil || deleted != want || !strings.HasPrefix(part.Name, "logs/base.123456789012.eu-west-1/") {
			t.Errorf("the log %s tells of %d that were deleted, want %d: %v", part.Name, deleted, want, err)
		}
	}
	for _, region := range regions { // counted calls have waited
		made, counted := len(seen.Places()[f.Cells[0].Account+"/"+region]), a.metrics.counters[calls("ec2", region)]
		if made == 0 || float64(made) != counted {
			t.Errorf("%d calls of EC2 in %s, of which %g have waited", made, region, counted)
		}
		left, err := ec2.NewFromConfig(w.Config("default", region)).DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
		if err != nil || len(left.Volumes) != 1 || aws.ToString(left.Volumes[0].Tags[0].Value) != other {
			t.Errorf("in %s there is left: %v, %v", region, left, err)
		}
	}
}
