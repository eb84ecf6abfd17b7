package ebs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/amidata"
	"bake/cloud/ec2"
	"bake/config/schema"
	"bake/run"
	"bake/step"
)

func TestEncryptedByWayOfATemporaryImage(t *testing.T) {
	w := newWorld(t)
	images := w.MustBuild(t, plain(`
ami_name     = "web"
encrypt_boot = true
ami_regions  = ["eu-west-1"]
tags         = { Name = "web" }
`))
	if len(images) != 2 {
		t.Fatalf("images = %v, want two", images)
	}
	if left := w.Holdings(); len(left) != 4 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	for in, id := range images {
		i := w.Describe(in, id)
		if *i.Name != "web" || !aws.ToBool(i.BlockDeviceMappings[0].Ebs.Encrypted) {
			t.Errorf("%s: %s, encrypted %v", in, *i.Name, aws.ToBool(i.BlockDeviceMappings[0].Ebs.Encrypted))
		}
	}
}

func TestOnlyCopies(t *testing.T) {
	w := newWorld(t)
	images := w.MustBuild(t, plain("ami_name = \"web\"\nami_regions = [\"eu-west-1\"]\nskip_save_build_region = true"))
	if len(images) != 1 || images["eu-west-1"] == "" {
		t.Fatalf("images = %v, want one in eu-west-1", images)
	}
	if left := w.Holdings(); len(left) != 2 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

func TestForce(t *testing.T) {
	w := newWorld(t)
	body := "ami_name = \"web\"\nami_regions = [\"eu-west-1\"]\nforce_delete_snapshot = true"
	old := w.MustBuild(t, plain(body))
	b := w.Bake(t)
	b.Scope.Run.Force = true
	a, err := b.Build(t.Context(), plain(body))
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	for in, id := range a.Images {
		if id == old[in] {
			t.Errorf("%s: the image is the old one", in)
		}
	}
	if left := w.Holdings(); len(left) != 4 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestForceLeavesWhatMustStay: a held image is not replaced, whether it is tagged before the
// launch or only before the new image is made. An image in use is reported.
func TestForceLeavesWhatMustStay(t *testing.T) {
	body := "ami_name = \"web\"\nforce_deregister = true"
	for name, late := range map[string]bool{"before the launch": false, "meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old := w.MustBuild(t, plain(body))[region]
			hold := func() {
				_, err := w.Client(region).CreateTags(t.Context(), &awsec2.CreateTagsInput{Resources: []string{old}, Tags: []types.Tag{{Key: aws.String("bake:hold"), Value: aws.String("audit")}}})
				if err != nil {
					t.Error(err)
				}
			}
			b := w.Bake(t)
			if !late {
				hold()
			}
			b.Provision = func(context.Context, builder.Machine) error {
				if !late {
					t.Error("a machine was launched")
				}
				hold()
				return nil
			}
			_, err := b.Build(t.Context(), plain(body))
			wantDiagnostic(t, err, plain(body), "The image to replace must stay", "true")
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			if i := w.Describe(region, old); i.State != types.ImageStateAvailable {
				t.Errorf("the image is %s", i.State)
			}
		})
	}
	w := newWorld(t)
	old := w.MustBuild(t, plain(body))[region]
	out, err := w.Client(region).RunInstances(t.Context(), &awsec2.RunInstancesInput{ImageId: &old, InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), plain(body)); err != nil {
		t.Fatal(err)
	}
	if text := "which is to be replaced, is used by instance " + *out.Instances[0].InstanceId; !strings.Contains(b.Said(), text) {
		t.Errorf("nothing says %q:\n%s", text, b.Said())
	}
}

// TestForceLeavesQuarantine: an image in quarantine is not replaced, whether it is put there
// before the launch or while the machine is provisioned; a disabled one without that tag is,
// and without force the name that it has is said to be that of a disabled image.
func TestForceLeavesQuarantine(t *testing.T) {
	body := "ami_name = \"web\"\nforce_deregister = true\nforce_delete_snapshot = true"
	for name, tt := range map[string]struct{ late, retired bool }{"before the launch": {}, "meanwhile": {late: true}, "retired": {retired: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old := w.MustBuild(t, plain(body))[region]
			disable := func() {
				if !tt.retired {
					if _, err := w.Client(region).CreateTags(t.Context(), &awsec2.CreateTagsInput{Resources: []string{old}, Tags: []types.Tag{{Key: aws.String("bake:quarantine"), Value: aws.String("")}}}); err != nil {
						t.Error(err)
					}
				}
				if _, err := w.Client(region).DisableImage(t.Context(), &awsec2.DisableImageInput{ImageId: &old}); err != nil {
					t.Error(err)
				}
			}
			if !tt.late {
				disable()
				b := w.Bake(t)
				_, err := b.Build(t.Context(), plain("ami_name = \"web\""))
				wantDiagnostic(t, err, plain("ami_name = \"web\""), "The image name is taken", `"web"`)
				if !strings.Contains(err.Error(), old+" (disabled)") {
					t.Errorf("the state is not said: %v", err)
				}
				if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
					t.Error(err)
				}
			}
			b := w.Bake(t)
			b.Provision = func(context.Context, builder.Machine) error {
				if tt.late {
					disable()
				}
				return nil
			}
			_, err := b.Build(t.Context(), plain(body))
			if tt.retired {
				if err != nil {
					t.Error(err)
				}
			} else {
				wantDiagnostic(t, err, plain(body), "The image to replace is in quarantine", "true")
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			out, err := w.Client(region).DescribeImages(t.Context(), &awsec2.DescribeImagesInput{Owners: []string{"self"}, IncludeDisabled: new(true)})
			if err != nil {
				t.Fatal(err)
			}
			kept := slices.ContainsFunc(out.Images, func(i types.Image) bool { return *i.ImageId == old })
			if kept == tt.retired {
				t.Errorf("the old image is there: %t", kept)
			}
		})
	}
}

// TestForceFaults makes each call of builds that replace an image fail. The image is held
// during provisioning, and stays.
func TestForceFaults(t *testing.T) {
	body := "ami_name = \"web\"\nforce_deregister = true\nforce_delete_snapshot = true"
	for name, fail := range map[string]func(http.ResponseWriter, func(http.ResponseWriter)){
		"refused": func(rw http.ResponseWriter, _ func(http.ResponseWriter)) {
			http.Error(rw, "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>No.</Message></Error></Errors></Response>", http.StatusForbidden)
		},
		"answer lost": func(_ http.ResponseWriter, serve func(http.ResponseWriter)) {
			serve(httptest.NewRecorder())
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old := w.MustBuild(t, plain(body))[region]
			tag := &awsec2.CreateTagsInput{Resources: []string{old}, Tags: []types.Tag{{Key: aws.String("bake:hold"), Value: aws.String("audit")}}}
			for n, calls := 1, 1; n <= calls; n++ {
				w.Quietly(func() {
					if _, err := w.Client(region).DeleteTags(t.Context(), &awsec2.DeleteTagsInput{Resources: []string{old}, Tags: tag.Tags}); err != nil {
						t.Fatal(err)
					}
				})
				w.Mu.Lock()
				w.Calls = nil
				w.Intercept = func(i int, _ call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
					if i == n {
						fail(rw, serve)
						return
					}
					serve(rw)
				}
				w.Mu.Unlock()
				b := w.Bake(t)
				b.Provision = func(ctx context.Context, _ builder.Machine) (err error) {
					w.Quietly(func() { _, err = w.Client(region).CreateTags(ctx, tag) })
					return err
				}
				if a, err := b.Build(t.Context(), plain(body)); err == nil {
					t.Fatalf("call %d: the image is replaced by %v", n, a.Images)
				}
				if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
					t.Errorf("call %d: %v", n, err)
				}
				w.Mu.Lock()
				w.Intercept, calls = nil, len(w.Calls)
				w.Mu.Unlock()
				if i := w.Describe(region, old); i.State != types.ImageStateAvailable || len(w.Holdings()) != 2 {
					t.Fatalf("call %d: the image is %s; left:\n%s", n, i.State, strings.Join(w.Holdings(), "\n"))
				}
			}
		})
	}
}

// TestForceKeepsTheCopiesOfAFailedBuild: if the image fails, images of the same name in
// other regions are not touched.
func TestForceKeepsTheCopiesOfAFailedBuild(t *testing.T) {
	w := newWorld(t, ec2.Fault{Action: "CreateImage", Nth: 2, Effect: ec2.EffectFail, Code: "InternalError"})
	body := "ami_name = \"web\"\nami_regions = [\"eu-west-1\"]\nforce_deregister = true"
	old := w.MustBuild(t, plain(body))
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), plain(body)); err == nil || !strings.Contains(err.Error(), "failed") {
		t.Errorf("error: %v", err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if i := w.Describe("eu-west-1", old["eu-west-1"]); i.State != types.ImageStateAvailable {
		t.Errorf("the old copy is %s", i.State)
	}
}

func TestProtectionIsLiftedForTeardown(t *testing.T) {
	w := newWorld(t)
	b := w.Bake(t)
	a, err := b.Build(t.Context(), plain("ami_name = \"web\"\ndeprecate_at = \"2035-01-02T15:04:05Z\"\nderegistration_protection {\n enabled = true\n}"))
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if i := w.Describe(region, a.Images[region]); !strings.HasPrefix(aws.ToString(i.DeregistrationProtection), "enabled") || !strings.HasPrefix(aws.ToString(i.DeprecationTime), "2035-01-02") {
		t.Errorf("protection %q, deprecation %q", aws.ToString(i.DeregistrationProtection), aws.ToString(i.DeprecationTime))
	}
	if err := b.Scope.Destroyers().Destroy(t.Context(), a.Resources[0]); err != nil {
		t.Error(err)
	}
}

func TestVolumes(t *testing.T) {
	mapping := func(more string) string {
		return "skip_create_ami = true\nami_name = \"web\"\nlaunch_block_device_mappings {\n device_name = \"/dev/sdf\"\n volume_size = 1\n" + more + "}\n"
	}
	for name, tt := range map[string]struct {
		more string
		left int
	}{
		"nothing said":           {"", 0},
		"to delete":              {"delete_on_termination = true\n", 0},
		"to keep, as one wished": {"delete_on_termination = false\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if a := w.MustBuild(t, plain(mapping(tt.more))); a != nil {
				t.Error("there is an artifact")
			}
			left := w.Holdings()
			if len(left) != tt.left {
				t.Errorf("left:\n%s", strings.Join(left, "\n"))
			}
			w.Quietly(func() {
				if tagged, err := amazon.FindTagged(t.Context(), amazon.Place{Region: region, Cloud: w.Cloud}, ""); err != nil || len(tagged) > 0 {
					t.Errorf("a sweep would delete %v, %v", tagged, err)
				}
			})
		})
	}
}

// TestLate makes new resources invisible for a while.
func TestLate(t *testing.T) {
	var rules []ec2.Fault
	for _, action := range []string{"CreateSecurityGroup", "RunInstances", "CreateImage", "CopyImage"} {
		rules = append(rules, ec2.Fault{Action: action, Effect: ec2.EffectHide, Times: 2})
	}
	w := newWorld(t, rules...)
	if images := w.MustBuild(t, plain("ami_name = \"web\"\nami_regions = [\"eu-west-1\"]")); len(images) != 2 {
		t.Errorf("images = %v, want two", images)
	}
	if left := w.Holdings(); len(left) != 4 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestPartitions checks the tags of images in partitions where they do not get
// run_tags.
func TestPartitions(t *testing.T) {
	for in, want := range map[string]string{region: "images", "us-gov-west-1": "", "cn-north-1": ""} {
		t.Run(in, func(t *testing.T) {
			w := newWorld(t)
			body := strings.Replace(plain("ami_name = \"web\"\nrun_tags = { Team = \"images\" }\ntags = { Name = \"web\" }"), region, in, 1)
			images := w.MustBuild(t, body)
			i := w.Describe(in, images[in])
			if team, name := tag(i.Tags, "Team"), tag(i.Tags, "Name"); team != want || name != "web" {
				t.Errorf("Team is %q, Name is %q", team, name)
			}
			p := w.Sent("RunInstances")
			if p["TagSpecification.1.ResourceType"] != "instance" {
				t.Errorf("RunInstances was called with %v, want tags for the instance first", p)
			}
		})
	}
}

func tag(tags []types.Tag, key string) string {
	for _, t := range tags {
		if *t.Key == key {
			return *t.Value
		}
	}
	return ""
}

// TestThrottled refuses polling calls more often than the SDK retries them.
func TestThrottled(t *testing.T) {
	w := newWorld(t, ec2.Fault{Action: "DescribeInstances", Nth: 1, Calls: 3, Code: "RequestLimitExceeded"})
	w.MustBuild(t, plain("ami_name = \"web\"\nskip_create_ami = true"))
}

// TestSideBySide: concurrent builds that share watchers each find their own resources.
func TestSideBySide(t *testing.T) {
	w := newWorld(t)
	w.Cloud.Watchers = &amazon.Watchers{}
	var all sync.WaitGroup
	for i := range 4 {
		b := w.Bake(t)
		all.Go(func() {
			name := fmt.Sprint("web-", i)
			a, err := b.Build(t.Context(), plain(fmt.Sprintf("ami_name = %q\nami_regions = [\"eu-west-1\"]", name)))
			if err == nil {
				err = b.Scope.Close(t.Context(), context.Background())
			}
			if err != nil {
				t.Error(err)
				return
			}
			for in, id := range a.Images {
				if got := *w.Describe(in, id).Name; got != name {
					t.Errorf("%s has %s", name, got)
				}
			}
		})
	}
	all.Wait()
	if left := w.Holdings(); len(left) != 16 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestCopiesAgain makes a copy fail fewer times than it is tried.
func TestCopiesAgain(t *testing.T) {
	for name, fault := range map[string]ec2.Fault{
		"fails":    {Action: "CopyImage", Region: "eu-west-1", Nth: 1, Calls: 2, Effect: ec2.EffectFail},
		"too many": {Action: "CopyImage", Region: "eu-west-1", Nth: 1, Calls: 4, Code: "ResourceLimitExceeded", Message: "Too many snapshot copies in progress."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fault)
			if images := w.MustBuild(t, plain(small)); len(images) != 2 {
				t.Errorf("images = %v, want two", images)
			}
			if left := w.Holdings(); len(left) != 4 {
				t.Errorf("left:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// TestPart: if one region fails permanently, the images in the other regions are
// complete and kept.
func TestPart(t *testing.T) {
	for name, tt := range map[string]struct {
		fault ec2.Fault
		left  int // images
	}{
		"copy fails":       {ec2.Fault{Action: "CopyImage", Region: "eu-west-1", Effect: ec2.EffectFail, Message: "no room there"}, 2},
		"copy refused":     {ec2.Fault{Action: "CopyImage", Region: "eu-west-1", Code: "UnauthorizedOperation"}, 2},
		"sharing refused":  {ec2.Fault{Action: "ModifyImageAttribute", Region: "us-west-2", Code: "UnauthorizedOperation"}, 2},
		"handover refused": {ec2.Fault{Action: "DeleteTags", Region: "us-west-2", Nth: 1, Code: "UnauthorizedOperation"}, 2},
		"source refused":   {ec2.Fault{Action: "ModifyImageAttribute", Region: region, Code: "UnauthorizedOperation"}, 2},
		"all refused":      {ec2.Fault{Action: "ModifyImageAttribute", Code: "UnauthorizedOperation"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.fault)
			b := w.Bake(t)
			a, err := b.Build(t.Context(), plain("ami_name = \"web\"\nami_regions = [\"eu-west-1\", \"us-west-2\"]\nami_users = [\"123456789013\"]"))
			if err == nil || !strings.Contains(err.Error(), tt.fault.Region) {
				t.Errorf("the error does not name the region: %v", err)
			}
			if (a != nil) != (tt.left > 0) || a != nil && (len(a.Images) != tt.left || a.Images[tt.fault.Region] != "") {
				t.Errorf("artifact %+v", a)
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			if left := w.Holdings(); len(left) != 2*tt.left {
				t.Errorf("left:\n%s", strings.Join(left, "\n"))
			}
			if a != nil {
				for in, id := range a.Images {
					if run := tag(w.Describe(in, id).Tags, "bake:run"); run != "" {
						t.Errorf("%s still has the tag of the run", in)
					}
				}
			}
		})
	}
}

// TestFailures makes accepted operations fail later.
func TestFailures(t *testing.T) {
	for _, action := range []string{"RunInstances", "CreateImage"} {
		t.Run(action, func(t *testing.T) {
			w := newWorld(t, ec2.Fault{Action: action, Effect: ec2.EffectFail, Code: "InsufficientRehearsal", Message: "This was to be expected."})
			b := w.Bake(t)
			_, err := b.Build(t.Context(), plain("ami_name = \"web\"\nami_regions = [\"eu-west-1\"]"))
			if err == nil || !strings.Contains(err.Error(), "This was to be expected") {
				t.Errorf("the error does not give the reason: %v", err)
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			if left := w.Holdings(); len(left) > 0 {
				t.Errorf("left:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

func TestHostKeyFromTheConsole(t *testing.T) {
	w := newWorld(t)
	printed := false
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action == "GetConsoleOutput" && !printed {
			printed = true
			if m := w.Driver.Machine(c.Params["InstanceId"]); m != nil {
				key := "[   12.3] cloud-init[600]: " + strings.TrimSuffix(w.HostKey.PublicKey, "\n") + " root@host"
				w.Fatal(m.Print("-----BEGIN SSH HOST KEY KEYS-----\n" + key + "\n-----END SSH HOST KEY KEYS-----"))
			}
		}
		serve(rw)
	}
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), plain("ami_name = \"web\"\nskip_create_ami = true\nssh_host_key_check = \"strict\"")); err != nil {
		t.Fatal(err)
	}
	if !printed || !strings.Contains(b.Said(), "console") {
		t.Errorf("said:\n%s", b.Said())
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
}

func TestSecurityGroupSource(t *testing.T) {
	w := newWorld(t)
	w.MustBuild(t, plain("ami_name = \"web\"\nskip_create_ami = true\ntemporary_security_group_source_cidrs = [\"127.0.0.0/8\", \"2001:db8::/32\"]"))
	p := w.Sent("AuthorizeSecurityGroupIngress")
	if p["IpPermissions.1.IpRanges.1.CidrIp"] != "127.0.0.0/8" || p["IpPermissions.1.Ipv6Ranges.1.CidrIpv6"] != "2001:db8::/32" || p["IpPermissions.1.FromPort"] != "22" {
		t.Errorf("AuthorizeSecurityGroupIngress was called with %v, want port 22 for both ranges", p)
	}
}

// TestSecurityGroupSourceHere: a local cloud is on this machine, whatever addresses the
// template admits for AWS.
func TestSecurityGroupSourceHere(t *testing.T) {
	for option, want := range map[string][2]string{
		`temporary_security_group_source_cidrs = ["10.0.0.0/8"]`: {"10.0.0.0/8", "127.0.0.1/32"},
		`temporary_security_group_source_public_ip = true`:       {"127.0.0.1/32", ""},
	} {
		w := newWorld(t)
		w.MustBuild(t, plain("ami_name = \"web\"\nskip_create_ami = true\n"+option))
		p := w.Sent("AuthorizeSecurityGroupIngress")
		if got := [2]string{p["IpPermissions.1.IpRanges.1.CidrIp"], p["IpPermissions.1.IpRanges.2.CidrIp"]}; got != want {
			t.Errorf("%s: %q, want %q", option, got, want)
		}
	}
}

func TestRunRequest(t *testing.T) {
	w := newWorld(t)
	w.MustBuild(t, plain(`
ami_name        = "web"
skip_create_ami = true
user_data       = "aGVsbG8="
associate_public_ip_address = true
no_ephemeral    = true
metadata_options {
  http_tokens            = "required"
  instance_metadata_tags = "enabled"
}
run_volume_tag {
  name  = "From"
  value = "{{ .SourceAMIName }}"
}
`))
	p := w.Sent("RunInstances")
	for k, want := range map[string]string{
		"UserData": "aGVsbG8=", "NetworkInterface.1.AssociatePublicIpAddress": "true", "NetworkInterface.1.DeviceIndex": "0",
		"MetadataOptions.HttpTokens": "required", "MetadataOptions.InstanceMetadataTags": "enabled",
		"BlockDeviceMapping.26.DeviceName": "xvdcz", "SubnetId": "",
	} {
		if p[k] != want {
			t.Errorf("%s is %q, want %q", k, p[k], want)
		}
	}
	if !strings.HasPrefix(p["NetworkInterface.1.SubnetId"], "subnet-") || !strings.HasPrefix(p["NetworkInterface.1.SecurityGroupId.1"], "sg-") {
		t.Errorf("RunInstances was called with %v, want a network interface with subnet and security group", p)
	}
	found := false
	for k, v := range p {
		found = found || v == "debian-12-amd64-20260101-1" && strings.HasPrefix(k, "TagSpecification.3.")
	}
	if !found {
		t.Errorf("no volume tag in %v", p)
	}
}

func TestDebugKeyAndClearing(t *testing.T) {
	t.Chdir(t.TempDir())
	w := newWorld(t)
	b := w.Bake(t)
	b.Scope.Run.Debug = true
	var file string
	w.AwaitFirstBoot = func(_ context.Context, m builder.Machine) error { // as if cloud-init were that late
		file = filepath.Join(w.Dir, "home", m.Data["ID"].Text, ".ssh", "authorized_keys")
		public := strings.TrimSpace(m.Data["SSHPublicKey"].Text)
		text := "ssh-ed25519 AAAAmine me@home\n" + public + " " + keyName(t, b) + "\n"
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(text), 0o600)
	}
	body := strings.Replace(plain("ami_name = \"web\"\nskip_create_ami = true\nssh_clear_authorized_keys = true"), `temporary_key_pair_type = "ed25519"`, "", 1)
	if _, err := b.Build(t.Context(), body); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(file); err != nil || string(kept) != "ssh-ed25519 AAAAmine me@home\n" {
		t.Errorf("authorized_keys: %q, %v", kept, err)
	}
	if info, err := os.Stat("ec2_web.pem"); err != nil || info.Mode() != 0o600 {
		t.Errorf("ec2_web.pem: %v, %v", info, err)
	}
	if w.Sent("CreateKeyPair")["KeyType"] != "rsa" {
		t.Error("the usual key is not rsa")
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("ec2_web.pem"); !os.IsNotExist(err) {
		t.Errorf("ec2_web.pem after the teardown: %v", err)
	}
}

// keyName is the name of the temporary key pair.
func keyName(t *testing.T, b *bake) string {
	owned, err := b.Open.Owned()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range owned {
		if r.Kind == "ec2:key-pair" {
			return r.With["name"]
		}
	}
	t.Fatal("no key pair")
	return ""
}

// TestTheUsersKeyPair: an existing key pair with the chosen name is not deleted.
func TestTheUsersKeyPair(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Client(region).CreateKeyPair(t.Context(), &awsec2.CreateKeyPairInput{KeyName: aws.String("mine")}); err != nil {
		t.Fatal(err)
	}
	b := w.Bake(t)
	body := plain("ami_name = \"web\"\ntemporary_key_pair_name = \"mine\"")
	_, err := b.Build(t.Context(), body)
	wantDiagnostic(t, err, body, "Key pair exists", `"mine"`)
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if left := w.Holdings(); len(left) != 1 || !strings.Contains(left[0], "mine") {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestSweepByTag deletes the resources of a dead run without a ledger.
func TestSweepByTag(t *testing.T) {
	w := newWorld(t)
	stop := errors.New("killed")
	ctx, cancel := context.WithCancelCause(t.Context())
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		serve(rw)
		if c.Action == "CopyImage" {
			cancel(stop)
		}
	}
	b, other := w.Bake(t), w.Bake(t)
	if _, err := b.Build(ctx, plain(small)); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	w.Intercept = nil
	other.Provision = func(context.Context, builder.Machine) error { return stop }
	if _, err := other.Build(t.Context(), plain(`ami_name = "other"`)); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	d := amazon.Destroyer(func(context.Context, string) (amazon.Cloud, error) { return w.Cloud, nil })
	sweep := func(run string) {
		for _, in := range []string{region, "eu-west-1"} {
			found, err := amazon.FindTagged(t.Context(), amazon.Place{Region: in, Cloud: w.Cloud}, run)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range found {
				if err := d.Destroy(t.Context(), r); err != nil {
					t.Errorf("%s: %v", r, err)
				}
			}
		}
	}
	sweep(b.Scope.Run.ID)
	left := strings.Join(w.Holdings(), "\n")
	if strings.Count(left, "instance") != 1 || strings.Contains(left, "image") {
		t.Errorf("left of one run:\n%s", left)
	}
	sweep("")
	if left := w.Holdings(); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestSweepByAge: a sweep of all regions deletes the resources of a killed bake after a
// day, and not earlier. Finished images stay, whatever their age.
func TestSweepByAge(t *testing.T) {
	w := newWorld(t)
	w.MustBuild(t, plain(small))
	finished := w.Holdings()
	stop := errors.New("killed")
	ctx, cancel := context.WithCancelCause(t.Context())
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		serve(rw)
		if c.Action == "CopyImage" {
			cancel(stop)
		}
	}
	if _, err := w.Bake(t).Build(ctx, plain(strings.ReplaceAll(small, `"web"`, `"other"`))); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	w.Intercept = nil
	var kinds []string
	ahead := 23 * time.Hour
	o := run.SweepOptions{
		State: run.State(t.TempDir()), OlderThan: 24 * time.Hour, Now: func() time.Time { return time.Now().Add(ahead) },
		Destroyers: step.Destroyers{amazon.Prefix: amazon.Destroyer(func(context.Context, string) (amazon.Cloud, error) { return w.Cloud, nil })},
		Tags: &run.Tags{
			All: true,
			Enabled: func(ctx context.Context, p amazon.Place) ([]string, error) {
				p.Cloud = w.Cloud
				return amazon.Regions(ctx, p)
			},
			Find: func(ctx context.Context, p amazon.Place, id string) ([]step.Resource, error) {
				p.Cloud = w.Cloud
				return amazon.FindTagged(ctx, p, id)
			},
		},
		Resource: func(r run.SweptResource) {
			if age := time.Since(r.Created); age < -time.Second || age > 10*time.Minute {
				t.Errorf("%s was created %s", r.Resource, r.Created)
			}
			kinds = append(kinds, r.Resource.Kind+" "+r.Region+" "+r.Action)
		},
	}
	before := w.Holdings()
	if swept, err := run.Sweep(t.Context(), o); err != nil || len(swept) > 0 || !slices.Equal(before, w.Holdings()) {
		t.Errorf("too early: %v, %+v", err, swept)
	}
	want := []string{
		"ec2:image eu-west-1 spared", "ec2:image us-east-1 spared", "ec2:instance us-east-1 spared",
		"ec2:key-pair us-east-1 spared", "ec2:security-group us-east-1 spared",
	}
	if slices.Sort(kinds); !slices.Equal(kinds, want) {
		t.Errorf("looked at %q", kinds)
	}
	ahead += time.Hour
	if swept, err := run.Sweep(t.Context(), o); err != nil || len(swept) != 1 || len(swept[0].Left) > 0 {
		t.Errorf("%v, %+v", err, swept)
	}
	if left := w.Holdings(); !slices.Equal(left, finished) {
		t.Errorf("left:\n%s\nfinished:\n%s", strings.Join(left, "\n"), strings.Join(finished, "\n"))
	}
}

// TestAgeOfBuild: a resource without a creation time is as old as its build, if nothing
// else of the build is left.
func TestAgeOfBuild(t *testing.T) {
	w := newWorld(t)
	stop := errors.New("killed")
	ctx, cancel := context.WithCancelCause(t.Context())
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		serve(rw)
		if c.Action == "RunInstances" && c.Params["DryRun"] != "true" {
			cancel(stop)
		}
	}
	if _, err := w.Bake(t).Build(ctx, plain(small)); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	w.Intercept = nil
	d := amazon.Destroyer(func(context.Context, string) (amazon.Cloud, error) { return w.Cloud, nil })
	find := func() []step.Resource {
		found, err := amazon.FindTagged(t.Context(), amazon.Place{Region: region, Cloud: w.Cloud}, "")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, r := range find() {
		if r.Kind == "ec2:security-group" {
			continue
		}
		if err := d.Destroy(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	found := find()
	if len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	at, err := time.Parse(time.RFC3339, found[0].With[amazon.WithCreated])
	if err != nil || time.Since(at) > 10*time.Minute || time.Since(at) < 0 {
		t.Errorf("%+v: %v", found[0], err)
	}
}

func TestCloudThatCannotBeReached(t *testing.T) {
	d := amazon.Destroyer(nil)
	err := d.Destroy(t.Context(), step.Resource{Kind: "ec2:instance", Key: "k", Where: region, With: map[string]string{"cloud": "gone"}})
	if err == nil || !strings.Contains(err.Error(), `"gone"`) {
		t.Error(err)
	}
}

func TestImageData(t *testing.T) {
	w := newWorld(t)
	read := func(body string) (cty.Value, error) {
		d, diags := amidata.Factory(w.Cloud, nil).New(input(body))
		if diags.HasErrors() {
			return cty.NilVal, diags
		}
		return d.Read(t.Context())
	}
	body := "owners = [\"136693071363\"]\nfilters = { name = \"debian-12-amd64-*\" }\n"
	v, err := read(body + "most_recent = true")
	if err != nil {
		t.Fatal(err)
	}
	for name, ty := range amidata.Factory(w.Cloud, nil).Exports(schema.Input{}).Types {
		if !v.GetAttr(name).Type().Equals(ty) {
			t.Errorf("%s is %#v", name, v.GetAttr(name))
		}
	}
	if got := v.GetAttr("name").AsString(); got != "debian-12-amd64-20260101-1" {
		t.Errorf("name = %q, want debian-12-amd64-20260101-1", got)
	}
	if _, err := amidata.Factory(w.Cloud, nil).Docs(); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct{ body, summary string }{
		{body, "Several images match"},
		{strings.Replace(body, "debian", "ubuntu", 1), "No such image"},
		{strings.Replace(body, `"136693071363"`, "", 1), "No owners"},
		{"owners = [\"self\"]", "No such image"}, // owners alone are filter enough
	} {
		_, err := read(tt.body)
		wantDiagnostic(t, err, tt.body, tt.summary, "")
	}
}

// TestPlainCalls limits the number of calls of a plain build with two copies.
func TestPlainCalls(t *testing.T) {
	w := newWorld(t)
	w.MustBuild(t, plain("ami_name = \"web\"\nami_regions = [\"eu-west-1\", \"us-west-2\"]\nami_users = [\"123456789013\"]"))
	waiting, once := 0, 0
	for i, c := range w.Calls {
		if i > 0 && strings.HasPrefix(c.Action, "Describe") && c.Action == w.Calls[i-1].Action {
			waiting++
		} else {
			once++
		}
	}
	t.Logf("%d calls, %d of them waiting: %s", len(w.Calls), waiting, tally(w.Calls))
	if len(w.Calls) > 45 {
		t.Errorf("%d calls: %s", len(w.Calls), tally(w.Calls))
	}
}

// TestExpectKey: a cloud that makes keys itself learns of an RSA key pair at the start of the
// build, and of no other.
func TestExpectKey(t *testing.T) {
	for options, want := range map[string]int{"": 1, `temporary_key_pair_type = "ed25519"`: 0, `ssh_password = "x"`: 0, `communicator = "none"`: 0} {
		w := newWorld(t)
		expected := 0
		w.Cloud.ExpectKey = func() { expected++ }
		b := w.Bake(t)
		body := strings.NewReplacer("most_recent = true", "most_recent = false", `temporary_key_pair_type = "ed25519"`, options).Replace(plain("ami_name = \"keys\""))
		if _, err := b.Build(t.Context(), body); err == nil || !strings.Contains(err.Error(), "match") {
			t.Errorf("%s: %v; several images match", options, err)
		}
		if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
			t.Error(err)
		}
		if expected != want {
			t.Errorf("%s: %d RSA key pairs were expected, not %d", options, expected, want)
		}
	}
}
