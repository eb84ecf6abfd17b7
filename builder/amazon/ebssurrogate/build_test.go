package ebssurrogate_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/ebssurrogate"
	"bake/builder/amazon/internal/amazontest"
	"bake/cloud/machine"
)

const small = `
ami_name                = "web"
ami_virtualization_type = "hvm"
tags                    = { Name = "web" }
snapshot_tags           = { Snap = "yes" }
launch_block_device_mappings {
  device_name           = "/dev/xvdf"
  volume_size           = 4
  delete_on_termination = true
}
launch_block_device_mappings {
  device_name           = "/dev/xvdg"
  volume_size           = 1
  omit_from_artifact    = true
}
launch_block_device_mappings {
  device_name           = "/dev/xvdh"
  volume_size           = 2
  encrypted             = true
}
ami_root_device {
  source_device_name    = "/dev/xvdf"
  device_name           = "/dev/xvda"
  volume_type           = "gp3"
  volume_size           = 5
  delete_on_termination = true
}
`

func TestTrace(t *testing.T) { amazontest.TracePolicy(t, ebssurrogate.Factory, "surrogate", nil) }

// TestFaults wants an image and two snapshots, or nothing.
func TestFaults(t *testing.T) {
	for name, more := range map[string]string{"registered": "", "from the instance": "use_create_image = true\n"} {
		t.Run(name, func(t *testing.T) { amazontest.Faults(t, ebssurrogate.Factory, small+more, 3) })
	}
}

// TestResume: a build that is killed after provisioning is resumed and makes the same
// image.
func TestResume(t *testing.T) { amazontest.Resume(t, ebssurrogate.Factory, small) }

// TestBuild checks the image, and launches an instance of it: its root has the content
// of the volume.
func TestBuild(t *testing.T) {
	for name, more := range map[string]string{
		"registered": "", "from the instance": "use_create_image = true\n", "encrypted": "encrypt_boot = true\nami_regions = [\"eu-west-1\"]\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := amazontest.NewWorld(t, ebssurrogate.Factory)
			b := w.Bake(t)
			b.Provision = func(_ context.Context, m builder.Machine) error {
				// What a provisioner does after mkfs and mount.
				dir := filepath.Join(w.Dir, "machines", m.Data["ID"].Text, machine.VolumesDir, "xvdf", machine.VolumeContent)
				return os.WriteFile(filepath.Join(dir, "hello"), []byte("from the volume"), 0o600)
			}
			a, err := b.Build(t.Context(), amazontest.Plain(small+more))
			if err == nil {
				err = b.Scope.Close(t.Context(), context.Background())
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.BuilderID != "mitchellh.amazon.ebssurrogate" || !strings.HasPrefix(a.Text, "AMIs were created:\n") {
				t.Errorf("artifact %+v", a)
			}
			id := a.Images[amazontest.Region]
			image := w.Describe(amazontest.Region, id)
			devices := map[string]string{}
			for _, m := range image.BlockDeviceMappings {
				devices[*m.DeviceName] = aws.ToString(m.Ebs.SnapshotId)
			}
			if *image.RootDeviceName != "/dev/xvda" || len(devices) != 2 || devices["/dev/xvda"] == "" || devices["/dev/xvdh"] == "" {
				t.Errorf("root %s of %v", *image.RootDeviceName, devices)
			}
			if left := w.Holdings(); len(left) != 3*len(a.Images) {
				t.Errorf("left:\n%s", strings.Join(left, "\n"))
			}
			c := w.Client(amazontest.Region)
			snapshots, err := c.DescribeSnapshots(t.Context(), &awsec2.DescribeSnapshotsInput{SnapshotIds: []string{devices["/dev/xvda"]}})
			w.Fatal(err)
			for _, tag := range snapshots.Snapshots[0].Tags {
				if strings.HasPrefix(*tag.Key, "bake:") {
					t.Errorf("the snapshot still has the tag %s", *tag.Key)
				}
			}
			_, err = c.RunInstances(t.Context(), &awsec2.RunInstancesInput{ImageId: &id, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: "t3.micro"})
			w.Fatal(err)
			await(t, w, func() bool { return len(w.Driver.Specs()) == 2 })
			spec := w.Driver.Specs()[1]
			text, err := os.ReadFile(filepath.Join(spec.Layers[0], "hello"))
			if err != nil || string(text) != "from the volume" {
				t.Errorf("the root holds %q, %v", text, err)
			}
		})
	}
}

func await(t *testing.T, w *amazontest.World, done func() bool) {
	t.Helper()
	for !done() {
		if _, err := w.Client(amazontest.Region).DescribeInstances(t.Context(), &awsec2.DescribeInstancesInput{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOptions(t *testing.T) {
	const root = "ami_root_device {\n source_device_name = \"/dev/xvdf\"\n device_name = \"/dev/xvda\"\n}\n"
	const volume = "launch_block_device_mappings {\n device_name = \"/dev/xvdf\"\n}\n"
	const hvm = "ami_virtualization_type = \"hvm\"\n"
	for _, test := range []struct{ body, want string }{
		{hvm + root + volume, ""},
		{root + volume, "No virtualization type"},
		{hvm + volume, "No root device"},
		{hvm + root, "No such volume"},
		{hvm + root + "launch_block_device_mappings {\n device_name = \"/dev/xvdf\"\n omit_from_artifact = true\n}\n", "Root volume omitted"},
		{hvm + root + "launch_block_device_mappings {\n device_name = \"/dev/xvdf\"\n no_device = true\n}\n", "No volume"},
		{hvm + root + volume + volume, "Duplicate device"},
		{hvm + root + volume + `ami_architecture = "z80"`, "Invalid value"},
		{hvm + root + volume + `ami_architecture = "arm64_mac"`, ""},
		{hvm + root + volume + `boot_mode = "bios"`, "Invalid value"},
		{hvm + root + volume + `uefi_data = "x"`, "No UEFI"},
		{hvm + root + volume + "uefi_data = \"x\"\nami_architecture = \"arm64\"", ""},
		{hvm + root + volume + "uefi_data = \"x\"\nboot_mode = \"legacy-bios\"", "No UEFI"},
		{hvm + root + volume + "uefi_data = \"x\"\nboot_mode = \"uefi\"", ""},
		{hvm + root + volume + "tpm_support = \"v1.2\"", "Invalid value"},
		{hvm + root + volume + "tpm_support = \"v2.0\"\nboot_mode = \"legacy-bios\"", "No UEFI"},
		{hvm + root + volume + "use_create_image = true\nboot_mode = \"uefi\"", "Argument without effect"},
		{hvm + root + volume + "skip_create_ami = true", "Unsupported argument"},
		{hvm + root + volume + "launch_block_device_mappings {\n device_name = \"/dev/xvdg\"\n volume_type = \"gp3\"\n iops = 1\n}\n", "Invalid IOPS"},
	} {
		diags := ebssurrogate.Factory(amazon.Cloud{}).Check(amazontest.Input(amazontest.Plain("ami_name = \"web\"\n" + test.body)))
		switch {
		case test.want == "" && len(diags) > 0:
			t.Errorf("%s\n%v", test.body, diags)
		case test.want != "" && (len(diags) != 1 || diags[0].Summary != test.want):
			t.Errorf("%s\nwant %q, got %v", test.body, test.want, diags)
		}
	}
}

// TestVerified: the image is verified on a machine before it is shared.
func TestVerified(t *testing.T) {
	for name, more := range map[string]string{"registered": "", "from the instance": "use_create_image = true\n", "encrypted": "encrypt_boot = true\n"} {
		t.Run(name, func(t *testing.T) {
			w := amazontest.NewWorld(t, ebssurrogate.Factory)
			body := amazontest.Plain(small + more + "ami_regions = [\"eu-west-1\"]\n")
			amazontest.Verified(t, w, body, builder.Boot{InstanceType: "t3.small"}, 6, func(_ context.Context, m builder.Machine) error {
				dir := filepath.Join(w.Dir, "machines", m.Data["ID"].Text, machine.VolumesDir, "xvdf", machine.VolumeContent)
				return os.WriteFile(filepath.Join(dir, "hello"), []byte("from the volume"), 0o600)
			})
		})
	}
}
