package ebs_test

import (
	"bake/builder/amazon"
	"context"
	"net/http"
	"strings"
	"testing"

	"bake/cloud/ec2"
)

// TestPreflight runs builds that EC2 would refuse: the error points at the option that
// caused it, and nothing has been made.
func TestPreflight(t *testing.T) {
	tests := []struct {
		name, more    string
		code, message string
		summary, at   string   // of the diagnostic, if one is expected
		want          []string // in the error
	}{
		{name: "no permission", code: "UnauthorizedOperation",
			want: []string{"RunInstances: UnauthorizedOperation", `add {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*"} to their policy`, "decode-authorization-message shows more"}},
		{name: "no permission, decoded", more: "decode_authorization_messages = true", code: "UnauthorizedOperation",
			want: []string{`"Action": "ec2:RunInstances"`, `AWS says: {"allowed":false`, `"arn":"arn:aws:iam::123456789012:`}},
		{name: "instance type", code: "Unsupported", message: "The requested configuration is currently not supported: instance type t3.micro.",
			summary: "The instance type cannot be used", at: `"t3.micro"`},
		{name: "architecture", code: "InvalidParameterValue", message: "The architecture 'arm64' of the specified instance type does not match the architecture 'x86_64' of the specified AMI.",
			summary: "The instance type cannot be used", at: `"t3.micro"`},
		{name: "default VPC", code: "VPCIdNotSpecified", message: "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.",
			summary: "No subnet, and no default VPC"},
		{name: "zone", more: `availability_zone = "us-east-1a"`, code: "InvalidParameterValue", message: "Invalid availability zone: [us-east-1a]",
			summary: "The availability zone cannot be used", at: `"us-east-1a"`},
		{name: "reservation", more: `capacity_reservation_id = "cr-0123456789abcdef0"`, code: "InvalidCapacityReservationId.NotFound", message: "There is none.",
			summary: "The capacity reservation cannot be used", at: `"cr-0123456789abcdef0"`},
		{name: "volumes", more: "launch_block_device_mappings {\n device_name = \"/dev/xvda\"\n volume_size = 1\n}", code: "InvalidBlockDeviceMapping", message: "Volume of size 1GB is smaller than the snapshot.",
			summary: "The volumes cannot be created", at: `"/dev/xvda"`},
		{name: "a volume type", more: "launch_block_device_mappings {\n device_name = \"/dev/xvda\"\n}\nlaunch_block_device_mappings {\n device_name = \"/dev/sdf\"\n volume_size = 1\n volume_type = \"gp9\"\n}",
			code: "InvalidParameterValue", message: "Value (gp9) for parameter volumeType is invalid.", summary: "The volumes cannot be created", at: `"gp9"`},
		{name: "a snapshot", more: "launch_block_device_mappings {\n device_name = \"/dev/xvda\"\n}\nlaunch_block_device_mappings {\n device_name = \"/dev/sdf\"\n snapshot_id = \"snap-0123456789abcdef0\"\n}",
			code: "InvalidSnapshot.NotFound", message: "The snapshot 'snap-0123456789abcdef0' does not exist.", summary: "The volumes cannot be created", at: `"snap-0123456789abcdef0"`},
		{name: "a device name", more: "launch_block_device_mappings {\n device_name = \"/dev/xvda\"\n}\nlaunch_block_device_mappings {\n device_name = \"xvd\"\n volume_size = 1\n}",
			code: "InvalidBlockDeviceMapping", message: "Invalid device name xvd", summary: "The volumes cannot be created", at: `"xvd"`},
		{name: "a profile of IAM that is not EC2's", more: `iam_instance_profile = "web"`, code: "InvalidParameterValue", message: "Value (web) for parameter iamInstanceProfile.name is invalid.",
			summary: "The instance profile cannot be used", at: `"web"`},
		{name: "anything else", code: "OperationNotPermitted", message: "It is Sunday.", want: []string{"It is Sunday"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, ec2.Fault{Action: "RunInstances", Code: tt.code, Message: tt.message, Status: 400})
			if strings.Contains(tt.more, "iam_instance_profile") {
				w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
					if c.Action == "GetInstanceProfile" {
						_, _ = rw.Write([]byte(`<GetInstanceProfileResponse><GetInstanceProfileResult></GetInstanceProfileResult></GetInstanceProfileResponse>`))
						return
					}
					serve(rw)
				}
			}
			body := plain("ami_name = \"web\"\n" + tt.more)
			b := w.Bake(t)
			_, err := b.Build(t.Context(), body)
			if tt.summary != "" {
				wantDiagnostic(t, err, body, tt.summary, tt.at)
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q: %v", part, err)
				}
			}
			nothingMade(t, w)
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// nothingMade reports calls that changed something, and machines.
func nothingMade(t *testing.T, w *world) {
	t.Helper()
	for _, c := range w.Calls {
		if c.Changes() && c.Action != "DecodeAuthorizationMessage" {
			t.Errorf("%s in %s was sent: %v", c.Action, c.Region, c.Params)
		}
	}
	if left := w.Holdings(); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestPreflightGoesOn launches although the dry run is refused for a reason that may
// not apply to the launch: insufficient capacity, and the default security group.
func TestPreflightGoesOn(t *testing.T) {
	for _, refusal := range []string{
		`<Code>Unsupported</Code><Message>Your requested instance type (t3.micro) is not supported in your requested Availability Zone (us-east-1e).</Message>`,
		`<Code>UnauthorizedOperation</Code><Message>You are not authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:us-east-1:123456789012:security-group/sg-0123456789abcdef0</Message>`,
	} {
		w := newWorld(t)
		w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			if c.Params["DryRun"] == "true" {
				rw.WriteHeader(http.StatusBadRequest)
				_, _ = rw.Write([]byte(`<Response><Errors><Error>` + refusal + `</Error></Errors></Response>`))
				return
			}
			serve(rw)
		}
		w.MustBuild(t, plain(`ami_name = "web"`))
	}
}

// TestPreflightOfStranger bakes on an endpoint that ignores the dry-run flag: the
// machine that it launches is terminated at once.
func TestPreflightOfStranger(t *testing.T) {
	w := newWorld(t)
	const stray = "i-0123456789abcdef0"
	terminated := false
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		switch {
		case c.Params["DryRun"] == "true":
			_, _ = rw.Write([]byte(`<RunInstancesResponse><instancesSet><item><instanceId>` + stray + `</instanceId></item></instancesSet></RunInstancesResponse>`))
		case c.Action == "TerminateInstances" && c.Params["InstanceId.1"] == stray:
			w.Mu.Lock()
			terminated = true
			w.Mu.Unlock()
			_, _ = rw.Write([]byte(`<TerminateInstancesResponse></TerminateInstancesResponse>`))
		default:
			serve(rw)
		}
	}
	w.MustBuild(t, plain(`ami_name = "web"`))
	if !terminated {
		t.Error("what the dry run launched is left")
	}
}

// TestRegionNotEnabled: a region that is not enabled is distinguished from one that
// does not exist, by a query that is made only then.
func TestRegionNotEnabled(t *testing.T) {
	for region, summary := range map[string]string{"ap-east-1": "The region is not enabled", "eu-west-9": "Unknown region"} {
		w := newWorld(t)
		w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			if c.Action == "DescribeRegions" {
				names := []string{"us-east-1", "us-west-2"}
				if c.Params["AllRegions"] == "true" {
					names = append(names, "ap-east-1")
				}
				_, _ = rw.Write([]byte(`<DescribeRegionsResponse><regionInfo><item><regionName>` +
					strings.Join(names, `</regionName></item><item><regionName>`) + `</regionName></item></regionInfo></DescribeRegionsResponse>`))
				return
			}
			serve(rw)
		}
		body := plain("ami_name = \"web\"\nami_regions = [\"" + region + "\"]")
		_, err := w.Bake(t).Build(t.Context(), body)
		wantDiagnostic(t, err, body, summary, `["`+region+`"]`)
		nothingMade(t, w)
	}
}

// TestEncryptedForEverybody makes encrypted images public.
func TestEncryptedForEverybody(t *testing.T) {
	for _, more := range []string{
		"encrypt_boot = true\nami_groups = [\"all\"]",
		"encrypt_boot = true\nkms_key_id = \"alias/mine\"\nsnapshot_groups = [\"all\"]",
		"ami_groups = [\"all\"]\nlaunch_block_device_mappings {\n device_name = \"/dev/sdf\"\n encrypted = true\n volume_size = 1\n}",
	} {
		w := newWorld(t)
		body := plain("ami_name = \"web\"\n" + more)
		_, err := w.Bake(t).Build(t.Context(), body)
		wantDiagnostic(t, err, body, "Sharing an encrypted image with everyone", `["all"]`)
		nothingMade(t, w)
	}
}

// TestEncryptedSource shares an image whose source is encrypted, with a key of the
// account's own.
func TestEncryptedSource(t *testing.T) {
	w := newWorld(t)
	w.MustBuild(t, plain("ami_name = \"base\"\nencrypt_boot = true\nkms_key_id = \"alias/images\""))
	before := len(w.Holdings())
	from := func(more string) string {
		body := plain("ami_name = \"web\"\n" + more)
		return strings.NewReplacer(`"136693071363"`, `"self"`, `"debian-12-amd64-*"`, `"base"`).Replace(body)
	}
	body := from(`ami_groups = ["all"]`)
	w.Calls = nil
	_, err := w.Bake(t).Build(t.Context(), body)
	wantDiagnostic(t, err, body, "Sharing an encrypted image with everyone", `["all"]`)
	for _, c := range w.Calls {
		if c.Changes() {
			t.Errorf("%s was sent", c.Action)
		}
	}
	if left := w.Holdings(); len(left) != before {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), from(`ami_users = ["123456789013"]`)); err != nil {
		t.Error(err)
	}
	if said := b.Said(); !strings.Contains(said, "is encrypted. The image can be shared only if") {
		t.Errorf("no warning in:\n%s", said)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
}

// TestCallsOfPlain counts the calls for a plain image with two copies: Packer makes 36. On a
// busy host there are more polls, so the best of several builds counts.
func TestCallsOfPlain(t *testing.T) {
	var calls []call
	for range 5 {
		w := newWorld(t)
		w.MustBuild(t, plain("ami_name = \"web\"\nami_regions = [\"eu-west-1\", \"us-west-2\"]"))
		if calls == nil || len(w.Calls) < len(calls) {
			calls = w.Calls
		}
		if len(calls) < 36 {
			break
		}
	}
	dry := 0
	for _, c := range calls {
		if c.Params["DryRun"] == "true" {
			dry++
		}
	}
	t.Logf("%d calls: %s", len(calls), tally(calls))
	if dry != 1 || len(calls) >= 36 {
		t.Errorf("%d calls, %d dry runs: %s", len(calls), dry, tally(calls))
	}
}

// TestProtectedImage: an image that cannot be replaced is an error before anything is
// made.
func TestProtectedImage(t *testing.T) {
	w := newWorld(t)
	w.MustBuild(t, plain("ami_name = \"web\"\nderegistration_protection {\n enabled = true\n}"))
	before := len(w.Holdings())
	body := plain("ami_name = \"web\"\nforce_deregister = true")
	w.Calls = nil
	_, err := w.Bake(t).Build(t.Context(), body)
	wantDiagnostic(t, err, body, "The image to replace is protected", `true`)
	for _, c := range w.Calls {
		if c.Changes() {
			t.Errorf("%s was sent", c.Action)
		}
	}
	if after := w.Holdings(); len(after) != before {
		t.Errorf("left: %q", after)
	}
}

// TestSameName: two builds of a run cannot make images of the same name in a region.
func TestSameName(t *testing.T) {
	w := newWorld(t)
	w.Cloud.Watchers = &amazon.Watchers{}
	w.MustBuild(t, plain("ami_name = \"web\"\nskip_save_build_region = true\nami_regions = [\"eu-west-1\"]"))
	before := len(w.Holdings())
	body := plain("ami_name = \"web\"\nforce_deregister = true\nami_regions = [\"eu-west-1\"]")
	b := w.Bake(t)
	b.Scope.Build = "amazon-ebs.other"
	_, err := b.Build(t.Context(), body)
	wantDiagnostic(t, err, body, "Two builds create the same image", `"web"`)
	if after := w.Holdings(); len(after) != before {
		t.Errorf("left: %q", after)
	}
}

// TestWrongPlace names resources that do not exist: each error underlines the
// attribute.
func TestWrongPlace(t *testing.T) {
	filters := "filters     = { name = \"debian-12-amd64-*\" }"
	for _, tt := range []struct{ old, new, summary, at string }{
		{filters, `filters     = { naem = "debian-*" }`, "Unknown filter", `{ naem = "debian-*" }`},
		{filters, "filter {\n name = \"naem\"\n value = \"x\"\n}", "Unknown filter", `"naem"`},
		{"", "subnet_filter {\n filters = { colour = \"red\" }\n}", "Unknown filter", `{ colour = "red" }`},
		{"", "vpc_filter {\n filters = { colour = \"red\" }\n}", "Unknown filter", `{ colour = "red" }`},
		{"", "security_group_filter {\n filters = { colour = \"red\" }\n}", "Unknown filter", `{ colour = "red" }`},
		{"", `subnet_id = "subnet-0123456789abcdef0"`, "No such subnet", `"subnet-0123456789abcdef0"`},
		{"", `vpc_id = "vpc-0123456789abcdef0"`, "No such VPC", `"vpc-0123456789abcdef0"`},
		{`"us-east-1"`, `"us-east-7"`, "Unknown region", `"us-east-7"`},
		{`"us-east-1"`, "\"us-east-7\"\nskip_credential_validation = true", "Unknown region", `"us-east-7"`},
	} {
		t.Run(tt.new, func(t *testing.T) {
			t.Parallel()
			body := plain("ami_name = \"web\"\n")
			if tt.old == "" {
				body += tt.new
			} else {
				body = strings.Replace(body, tt.old, tt.new, 1)
			}
			w := newWorld(t)
			_, err := w.Bake(t).Build(t.Context(), body)
			wantDiagnostic(t, err, body, tt.summary, tt.at)
			nothingMade(t, w)
		})
	}
}
