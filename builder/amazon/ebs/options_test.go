package ebs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
)

// TestValidate adds options to a valid source block, and checks the beginning of the
// error and the text that it underlines.
func TestValidate(t *testing.T) {
	device := func(more string) string {
		return "launch_block_device_mappings {\n device_name = \"/dev/xvdb\"\n" + more + "\n}"
	}
	policy := func(statement string) string {
		return "temporary_iam_instance_profile_policy_document {\n Statement {\n" + statement + "\n}\n}"
	}
	tests := []struct{ option, summary, at string }{
		{`ami_names = "x"`, "Unsupported argument", `ami_names`},

		{`spot_price = "cheap"`, "Not a price", `"cheap"`},
		{`spot_price = "-1"`, "Not a price", `"-1"`},
		{`spot_tags = { a = "b" }`, "No spot instance", `{ a = "b" }`},
		{`fleet_tags = { a = "b" }`, "No spot instance", `{ a = "b" }`},
		{"spot_price = \"0\"\nfleet_tags = { a = \"b\" }", "No spot instance", `{ a = "b" }`},
		{"spot_tag {\n key = \"a\"\n value = \"b\"\n}", "No spot instance", ``},
		{"spot_price = \"auto\"\nspot_instance_types = [\"t3.small\"]", "Conflicting arguments", `["t3.small"]`},
		{"spot_price = \"auto\"\nspot_allocation_strategy = \"cheapest\"", "Invalid value", `"cheapest"`},
		{"spot_price = \"auto\"\nblock_duration_minutes = 90", "Invalid duration", `90`},
		{"spot_price = \"auto\"\nena_support = true", "Not supported on a spot instance", `true`},
		{"spot_price = \"auto\"\nsriov_support = true", "Not supported on a spot instance", `true`},

		{`access_key = "AKIA"`, "Incomplete credentials", `"AKIA"`},
		{`secret_key = "s"`, "Incomplete credentials", `"s"`},
		{"access_key = \"AKIA\"\nsecret_key = \"s\"\nvault_aws_engine {\n name = \"ci\"\n}", "Two sources of credentials", ``},
		{"vault_aws_engine {\n name = \"\"\n engine_name = \"ci\"\n}", "No name", `""`},
		{`custom_endpoint_ec2 = "ec2.example.com"`, "Not a URL", `"ec2.example.com"`},
		{`max_retries = -1`, "Negative number", `-1`},
		{"aws_polling {\n delay_seconds = -1\n}", "Negative number", `-1`},
		{"assume_role {\n role_arn = \"arn:aws:iam::123456789012:role/r\"\n duration_seconds = 10\n}", "Invalid duration", `10`},
		{"assume_role {\n role_arn = \"arn:aws:iam::123456789012:role/r\"\n policy = \"{\"\n}", "Not JSON", `"{"`},
		{"assume_role {\n role_arn = \"arn:aws:iam::123456789012:role/r\"\n transitive_tag_keys = [\"a\"]\n}", "Unknown tag", `["a"]`},

		{policy("Effect = \"Permit\"\nAction = [\"a:b\"]\nResource = [\"*\"]"), "Unknown effect", `"Permit"`},
		{policy("Effect = \"Allow\"\nAction = []\nResource = [\"*\"]"), "No action", `[]`},
		{policy("Effect = \"Allow\"\nAction = [\"a:b\"]\nResource = []"), "No resource", `[]`},
		{policy("Effect = \"Allow\"\nAction = [\"a:b\"]"), "Missing required argument", ``},
		{"temporary_iam_instance_profile_policy_document {\n Version = \"2012-10-17\"\n}", "No statement", ``},
		{"temporary_iam_instance_profile_policy_document {\n Version = \"1\"\n Statement {\n Effect = \"Allow\"\n Action = [\"a:b\"]\n Resource = [\"*\"]\n }\n}", "Unknown version", `"1"`},

		{`user_data = "a"` + "\n" + `user_data_file = "/etc/passwd"`, "Conflicting arguments", `"/etc/passwd"`},
		{`user_data_file = "/no/such/file"`, "User data cannot be read", `"/no/such/file"`},
		{`security_group_id = "sg-1"` + "\n" + `security_group_ids = ["sg-2"]`, "Conflicting arguments", `["sg-2"]`},
		{`temporary_security_group_source_cidrs = ["10.0.0.1"]`, "Not an address range", `["10.0.0.1"]`},
		{`ssh_keypair_name = "mine"`, "Key pair without its private key", `"mine"`},
		{`ssh_interface = "session_manager"`, "No instance profile", `"session_manager"`},
		{`ssh_interface = "front"`, "Invalid value", `"front"`},
		{`shutdown_behavior = "reboot"`, "Invalid value", `"reboot"`},
		{`tenancy = "mine"`, "Invalid value", `"mine"`},
		{"tenancy = \"host\"\nplacement {\n tenancy = \"host\"\n}", "Conflicting arguments", `"host"`},
		{"placement {\n host_id = \"h-1\"\n tenancy = \"default\"\n}", "Invalid tenancy", `"default"`},
		{"placement {\n host_id = \"h-1\"\n host_resource_group_arn = \"arn:aws:resource-groups:us-east-1:123456789012:group/g\"\n}", "Conflicting arguments", `"h-1"`},
		{`capacity_reservation_id = "cr-1"` + "\n" + `capacity_reservation_group_arn = "arn:aws:resource-groups:us-east-1:123456789012:group/g"`, "Conflicting arguments", `"arn:aws:resource-groups:us-east-1:123456789012:group/g"`},
		{`capacity_reservation_id = "cr-1"` + "\n" + `capacity_reservation_preference = "open"`, "Conflicting arguments", `"open"`},
		{"metadata_options {\n http_put_response_hop_limit = 65\n}", "Invalid hop limit", `65`},
		{"metadata_options {\n http_tokens = \"maybe\"\n}", "Invalid value", `"maybe"`},
		{`enable_nitro_enclave = true`, "No enclaves on this instance type", `true`},

		{device(`kms_key_id = "mine"`), "Not a KMS key", `"mine"`},
		{device("encrypted = false\n kms_key_id = \"alias/mine\""), "Key for a volume without encryption", `"alias/mine"`},
		{device("volume_type = \"io1\"\n volume_size = 10\n iops = 501"), "Too many IOPS", `501`},
		{device("volume_type = \"io2\"\n volume_size = 10\n iops = 99"), "Invalid IOPS", `99`},
		{device("volume_type = \"gp3\"\n iops = 16001"), "Invalid IOPS", `16001`},
		{device("volume_type = \"gp3\"\n throughput = 124"), "Invalid throughput", `124`},
		{device("volume_type = \"gp2\"\n throughput = 200"), "Throughput without gp3", `200`},
		{device("") + "\n" + device(""), "Duplicate device", `"/dev/xvdb"`},

		{`ami_groups = ["everybody"]`, "Unknown group", `["everybody"]`},
		{`snapshot_groups = ["everybody"]`, "Unknown group", `["everybody"]`},
		{`deprecate_at = "tomorrow"`, "Not a time", `"tomorrow"`},
		{`imds_support = "v1.0"`, "Invalid value", `"v1.0"`},
		{`snapshot_copy_duration_minutes = 20`, "Invalid duration", `20`},
		{`ami_virtualization_type = "kvm"`, "Invalid value", `"kvm"`},
		{"ami_virtualization_type = \"paravirtual\"\nena_support = true", "Invalid virtualization type", `"paravirtual"`},
		{`kms_key_id = "alias/mine"`, "Key without encryption", `"alias/mine"`},
		{"encrypt_boot = true\nkms_key_id = \"mine\"", "Not a KMS key", `"mine"`},
		{"encrypt_boot = true\nami_users = [\"123456789012\"]", "Sharing an image that others cannot decrypt", `["123456789012"]`},
		{"encrypt_boot = true\nami_regions = [\"eu-west-1\"]\nregion_kms_key_ids = { eu-west-1 = \"\" }\nsnapshot_users = [\"123456789012\"]", "Sharing an image that others cannot decrypt", `["123456789012"]`},
		{"encrypt_boot = true\nami_regions = [\"eu-west-1\"]\nregion_kms_key_ids = { us-west-2 = \"alias/a\", eu-west-1 = \"\" }", "Region without a copy", ``},
		{"encrypt_boot = true\nami_org_arns = [\"arn:aws:organizations::123456789012:organization/o-1\"]", "Sharing an image that others cannot decrypt", ``},
		{"encrypt_boot = true\nami_ou_arns = [\"arn:aws:organizations::123456789012:ou/o-1/ou-1\"]", "Sharing an image that others cannot decrypt", ``},
		{"ami_regions = [\"eu-west-1\"]\nregion_kms_key_ids = { eu-west-1 = \"\" }\nami_users = [\"123456789012\"]", "Sharing an image that others cannot decrypt", `["123456789012"]`},
		{"encrypt_boot = true\nkms_key_id = \"alias/aws/ebs\"\nami_users = [\"123456789012\"]", "Sharing an image that others cannot decrypt", `["123456789012"]`},
		{"encrypt_boot = true\nkms_key_id = \"arn:aws:kms:us-east-1:123456789012:alias/aws/ebs\"\nsnapshot_users = [\"123456789012\"]", "Sharing an image that others cannot decrypt", `["123456789012"]`},
		{"ami_regions = [\"eu-west-1\"]\nregion_kms_key_ids = { eu-west-1 = \"alias/aws/ebs\" }\nami_org_arns = [\"arn:aws:organizations::123456789012:organization/o-1\"]", "Sharing an image that others cannot decrypt", `["arn:aws:organizations::123456789012:organization/o-1"]`},
		{"ami_users = [\"123456789012\"]\nlaunch_block_device_mappings {\n device_name = \"/dev/xvda\"\n encrypted = true\n kms_key_id = \"alias/aws/ebs\"\n}", "Sharing an image that others cannot decrypt", `"alias/aws/ebs"`},
		{"encrypt_boot = false\nkms_key_id = \"alias/mine\"", "Key without encryption", `"alias/mine"`},
		{"encrypt_boot = false\nami_regions = [\"eu-west-1\"]\nregion_kms_key_ids = { eu-west-1 = \"alias/mine\" }", "Key without encryption", ``},
		{"encrypt_boot = true\nami_regions = [\"eu-west-1\"]\nregion_kms_key_ids = { eu-west-1 = \"mine\" }", "Not a KMS key", ``},
		{`snapshot_copy_duration_minutes = -15`, "Invalid duration", `-15`},
		{`snapshot_copy_duration_minutes = 2895`, "Invalid duration", `2895`},
		{"ami_virtualization_type = \"paravirtual\"\nsriov_support = true", "Invalid virtualization type", `"paravirtual"`},
		{"ami_block_device_mappings {\n device_name = \"\"\n}", "No device name", `""`},
		{"ami_block_device_mappings {\n device_name = \"/dev/sdb\"\n volume_size = -1\n}", "Negative number", `-1`},
		{"encrypt_boot = true\nami_regions = [\"eu-west-1\", \"us-west-2\"]\nregion_kms_key_ids = { us-west-2 = \"alias/a\" }", "Region without a key", ``},

		{`tags = { Name = "{{ .Broken" }`, "Invalid {{ }} template", ``},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.option, "\n", " "), func(t *testing.T) {
			body := plain("ami_name = \"web\"\n" + tt.option)
			wantDiagnostic(t, ebs.Factory(amazon.Cloud{}).Check(input(body)), body, tt.summary, tt.at)
		})
	}
}

// TestValidateReplacing replaces a line of a valid source block.
func TestValidateReplacing(t *testing.T) {
	tests := []struct{ old, new, summary, at string }{
		{`ami_name = "web"`, ``, "Missing required argument", ``},
		{`ami_name = "web"`, `ami_name = "ab"`, "Invalid image name", `"ab"`},
		{`ami_name = "web"`, `ami_name = "a:b"`, "Invalid image name", `"a:b"`},
		{`ami_name = "web"`, fmt.Sprintf(`ami_name = "%s"`, strings.Repeat("x", 129)), "Invalid image name", ``},
		{`instance_type = "t3.micro"`, ``, "No instance type", ``},
		{`instance_type = "t3.micro"`, `spot_instance_types = ["t3.micro"]`, "No spot instance", `["t3.micro"]`},
		{`instance_type = "t3.micro"`, "instance_type = \"t2.micro\"\nspot_price = \"auto\"\nenable_unlimited_credits = true", "No unlimited credits on t2 spot instances", `true`},
		{`instance_type = "t3.micro"`, "spot_instance_types = [\"m5.large\", \"c5.large\"]\nspot_price = \"0.1\"\nenable_nitro_enclave = true", "No enclaves on spot instances", `true`},
		{`instance_type = "t3.micro"`, "spot_instance_types = [\"t3.micro\", \"m5.large\"]\nspot_price = \"0.1\"\nenable_unlimited_credits = true", "Not a burstable instance type", `true`},
		{`instance_type = "t3.micro"`, "instance_type = \"m5.large\"\nenable_unlimited_credits = true", "Not a burstable instance type", `true`},
		{`ssh_username  = "admin"`, ``, "Missing ssh_username", ``},
		{`owners      = ["136693071363"]`, ``, "No owners", ``},
	}
	for _, tt := range tests {
		t.Run(tt.new+tt.summary, func(t *testing.T) {
			body := plain("ami_name = \"web\"\n")
			if !strings.Contains(body, tt.old) {
				t.Fatalf("%q is not in the block", tt.old)
			}
			body = strings.Replace(body, tt.old, tt.new, 1)
			wantDiagnostic(t, ebs.Factory(amazon.Cloud{}).Check(input(body)), body, tt.summary, tt.at)
		})
	}
}

// wantDiagnostic requires exactly one error, with a location; at, if not empty, is the
// text there.
func wantDiagnostic(t *testing.T, err error, body, summary, at string) {
	t.Helper()
	var diags hcl.Diagnostics
	if !asDiagnostics(err, &diags) {
		t.Fatalf("no diagnostic: %v", err)
	}
	var found []*hcl.Diagnostic
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			found = append(found, d)
		}
	}
	if len(found) != 1 || found[0].Summary != summary || found[0].Subject == nil || found[0].Detail == "" {
		t.Fatalf("got %v, want one error %q", diags, summary)
	}
	if text := string(found[0].Subject.SliceBytes([]byte(body))); at != "" && text != at {
		t.Errorf("it underlines %q, want %q", text, at)
	}
}

func TestValidateAccepts(t *testing.T) {
	for _, option := range []string{
		``, distributed[strings.Index(distributed, "ami_description"):],
		"encrypt_boot = true\nkms_key_id = \"alias/mine\"\nami_users = [\"123456789012\"]",
		"ami_virtualization_type = \"hvm\"\nena_support = true\nsriov_support = true",
		"vpc_filter {\n filters = { isDefault = \"true\" }\n}\nsubnet_filter {\n filter {\n name = \"tag:x\"\n value = \"y\"\n}\n random = true\n}",
		"encrypt_boot = true\nkms_key_id = \"mrk-0123456789abcdef0123456789abcdef\"",
		"encrypt_boot = true\nkms_key_id = \"01234567-89ab-cdef-0123-456789abcdef\"",
		"encrypt_boot = true\nkms_key_id = \"arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef\"",
		"encrypt_boot = true\nkms_key_id = \"arn:aws:kms:us-east-1:123456789012:alias/mine\"\nami_org_arns = [\"arn:aws:organizations::123456789012:organization/o-1\"]",
		"encrypt_boot = true\nami_regions = [\"eu-west-1\"]\nregion_kms_key_ids = { eu-west-1 = \"\" }",
		"encrypt_boot = true\nkms_key_id = \"alias/aws-images\"\nami_users = [\"123456789012\"]",
		"encrypt_boot = true\nkms_key_id = \"alias/mine\"\nami_users = [\"123456789012\"]\nlaunch_block_device_mappings {\n device_name = \"/dev/xvda\"\n encrypted = true\n kms_key_id = \"alias/aws/ebs\"\n}",
		"encrypt_boot = true\nami_groups = [\"all\"]", "encrypt_boot = false\nami_users = [\"123456789012\"]",
		"snapshot_copy_duration_minutes = 2880", "imds_support = \"v2.0\"", "imds_support = \"\"",
		"communicator = \"none\"", "capacity_reservation_id = \"cr-1\"",
		"deregistration_protection {\n with_cooldown = true\n}", "deprecate_at = \"2030-01-02T15:04:05Z\"",
	} {
		if diags := ebs.Factory(amazon.Cloud{}).Check(input(plain("ami_name = \"web\"\n" + option))); len(diags) > 0 {
			t.Errorf("%s: %v", option, diags)
		}
	}
}

func TestDocs(t *testing.T) {
	docs, err := ebs.Factory(amazon.Cloud{}).Docs()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range docs {
		if seen[d.Name] {
			t.Errorf("%s is there twice", d.Name)
		}
		seen[d.Name] = true
	}
	for _, name := range []string{"region", "source_ami", "ami_name", "ssh_username", "launch_block_device_mappings", "tag"} {
		if !seen[name] {
			t.Errorf("%s is not there", name)
		}
	}
}
