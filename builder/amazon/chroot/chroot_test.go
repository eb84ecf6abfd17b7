package chroot_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/chroot"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazontest"
	"bake/cloud/machine"
)

// host is the instance that bake runs on. It records commands, and has a device for
// each attached volume.
type host struct {
	dir, id string

	mu   sync.Mutex
	ran  []string
	fail string // commands with this prefix fail
}

func (h *host) maker() amazontest.Maker {
	return chroot.FactoryOn(func(*access.Session, []string) chroot.Host {
		return chroot.Host{
			Instance: func(context.Context) (string, error) { return h.id, nil },
			Run: func(_ context.Context, line string) (string, error) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.ran = append(h.ran, line)
				if h.fail != "" && strings.HasPrefix(line, h.fail) {
					return "", errors.New("it is broken")
				}
				return "", nil
			},
			Exists: func(path string) bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				// The first of the free ones comes with the volume.
				return path == "/dev/xvda1" || path == "/dev/xvdf" || path == "/dev/xvdg"
			},
			Lock: filepath.Join(h.dir, "lock"),
		}
	})
}

// newWorld returns a world with a running instance on which builds run.
func newWorld(t *testing.T) (*amazontest.World, *host) {
	h := &host{dir: t.TempDir()}
	w := amazontest.NewWorld(t, h.maker())
	images, err := w.Client(amazontest.Region).DescribeImages(t.Context(), &awsec2.DescribeImagesInput{
		Filters: []types.Filter{{Name: aws.String("name"), Values: []string{"debian-12-amd64-20260101-1"}}}})
	w.Fatal(err)
	out, err := w.Client(amazontest.Region).RunInstances(t.Context(), &awsec2.RunInstancesInput{ImageId: images.Images[0].ImageId,
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: "t3.micro"})
	w.Fatal(err)
	h.id = *out.Instances[0].InstanceId
	for running := false; !running; {
		out, err := w.Client(amazontest.Region).DescribeInstances(t.Context(), &awsec2.DescribeInstancesInput{InstanceIds: []string{h.id}})
		w.Fatal(err)
		running = out.Reservations[0].Instances[0].State.Name == types.InstanceStateNameRunning
	}
	w.Calls = nil
	return w, h
}

const small = `
region          = "us-east-1"
ami_name        = "web"
device_path     = "/dev/xvdg"
command_wrapper = "sudo {{.Command}}"
mount_options   = ["noatime"]
post_mount_commands = ["touch {{.MountPath}}/{{.Device}}"]
root_volume_size = 20
source_ami_filter {
  owners      = ["136693071363"]
  most_recent = true
  filters     = { name = "debian-12-amd64-*" }
}
`

func TestBuild(t *testing.T) {
	w, h := newWorld(t)
	b := w.Bake(t)
	b.Provision = func(_ context.Context, m builder.Machine) error {
		if m.Data["MountPath"].Text != "/mnt/packer-amazon-chroot-volumes/xvdg" || m.Data["SourceAMIName"].Text != "debian-12-amd64-20260101-1" {
			t.Errorf("data %v", m.Data)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ran = append(h.ran, "PROVISION")
		return nil
	}
	a, err := b.Build(t.Context(), small)
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	const at = "/mnt/packer-amazon-chroot-volumes/xvdg"
	want := strings.ReplaceAll(`sudo mkdir -p AT
sudo mount -o noatime /dev/xvdg1 AT
sudo touch AT//dev/xvdg
sudo mkdir -p AT/proc
sudo mount -t proc proc AT/proc
sudo mkdir -p AT/sys
sudo mount -t sysfs sysfs AT/sys
sudo mkdir -p AT/dev
sudo mount --bind /dev AT/dev
sudo mkdir -p AT/dev/pts
sudo mount -t devpts devpts AT/dev/pts
sudo mkdir -p AT/proc/sys/fs/binfmt_misc
sudo mount -t binfmt_misc binfmt_misc AT/proc/sys/fs/binfmt_misc
sudo cp --remove-destination /etc/resolv.conf AT/etc/resolv.conf
PROVISION
sudo rm -f AT/etc/resolv.conf
sudo umount AT/proc/sys/fs/binfmt_misc
sudo umount AT/dev/pts
sudo umount AT/dev
sudo umount AT/sys
sudo umount AT/proc
sudo umount AT`, "AT", at)
	if diff := cmp.Diff(strings.Split(want, "\n"), h.ran); diff != "" {
		t.Errorf("commands differ (-want +got):\n%s", diff)
	}
	var actions []string
	for _, c := range w.Calls {
		if !strings.HasPrefix(c.Action, "Describe") && !strings.HasPrefix(c.Action, "Get") {
			actions = append(actions, c.Action)
		}
	}
	if got := strings.Join(actions, " "); got != "CreateVolume AttachVolume DetachVolume CreateSnapshot RegisterImage DeleteTags DeleteVolume" {
		t.Errorf("calls: %s", got)
	}
	image := w.Describe(amazontest.Region, a.Images[amazontest.Region])
	if root := image.BlockDeviceMappings[0]; len(image.BlockDeviceMappings) != 1 || *root.Ebs.VolumeSize != 20 || a.BuilderID != "mitchellh.amazon.chroot" {
		t.Errorf("image %+v of %s", root.Ebs, a.BuilderID)
	}
	left(t, w, 2)
}

// left counts the account's resources other than the instance, its volume and the
// network.
func left(t *testing.T, w *amazontest.World, want int) {
	t.Helper()
	if got := w.Holdings(); len(got) != want+2 {
		t.Errorf("left:\n%s", strings.Join(got, "\n"))
	}
}

func TestFromScratch(t *testing.T) {
	w, h := newWorld(t)
	b := w.Bake(t)
	a, err := b.Build(t.Context(), `
region = "us-east-1"
ami_name = "scratch"
from_scratch = true
ami_virtualization_type = "hvm"
device_path = "/dev/xvdf"
mount_partition = "0"
pre_mount_commands = ["mkfs.ext4 {{.Device}}"]
root_volume_size = 3
root_device_name = "xvda"
chroot_mounts = []
ami_block_device_mappings {
  device_name = "xvda"
  delete_on_termination = true
}
`)
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	const at = "/mnt/packer-amazon-chroot-volumes/xvdf"
	want := []string{"mkfs.ext4 /dev/xvdf", "mkdir -p " + at, "mount /dev/xvdf " + at, "umount " + at}
	if diff := cmp.Diff(want, h.ran); diff != "" {
		t.Errorf("commands differ (-want +got):\n%s", diff)
	}
	if image := w.Describe(amazontest.Region, a.Images[amazontest.Region]); *image.RootDeviceName != "xvda" || *image.BlockDeviceMappings[0].Ebs.VolumeSize != 3 {
		t.Errorf("image %+v", image)
	}
	left(t, w, 2)
}

// TestFailures makes each command fail: everything is unmounted, and nothing is left in
// the cloud.
func TestFailures(t *testing.T) {
	for _, fail := range []string{"sudo mkdir", "sudo mount -o", "sudo touch", "sudo mount --bind", "sudo cp", "sudo umount", "PROVISION"} {
		t.Run(fail, func(t *testing.T) {
			w, h := newWorld(t)
			h.fail = fail
			b := w.Bake(t)
			b.Provision = func(context.Context, builder.Machine) error {
				if fail == "PROVISION" {
					return errors.New("it is broken")
				}
				return nil
			}
			if _, err := b.Build(t.Context(), small); err == nil || !strings.Contains(err.Error(), "it is broken") {
				t.Errorf("error %v", err)
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			mounts := 0
			for _, line := range h.ran {
				switch {
				case fail != "" && strings.HasPrefix(line, fail) && fail != "sudo umount":
				case strings.HasPrefix(line, "sudo mount"):
					mounts++
				case strings.HasPrefix(line, "sudo umount"):
					mounts--
				}
			}
			if mounts != 0 {
				t.Errorf("%d mounts are left:\n%s", mounts, strings.Join(h.ran, "\n"))
			}
			left(t, w, 0)
		})
	}
}

func TestOptions(t *testing.T) {
	const from = "source_ami = \"ami-1\"\n"
	const scratch = "from_scratch = true\nami_virtualization_type = \"hvm\"\npre_mount_commands = [\"true\"]\nroot_volume_size = 1\nroot_device_name = \"xvda\"\n"
	const mapping = "ami_block_device_mappings {\n device_name = \"xvda\"\n}\n"
	for _, test := range []struct{ body, want string }{
		{from, ""},
		{"", "No source image"},
		{"source_ami_filter {\n owners = [\"self\"]\n}", ""},
		{"source_ami_filter {\n filters = { name = \"x\" }\n}", "No owners"},
		{scratch + mapping, ""},
		{scratch, "Missing argument"},
		{"from_scratch = true\n" + mapping, "Missing argument"},
		{scratch + mapping + from, "Conflicting arguments"},
		{scratch + mapping + `root_volume_type = "io1"`, "Invalid volume type"},
		{from + mapping, "Missing argument"},
		{from + mapping + "root_device_name = \"xvda\"\nroot_volume_size = 9", ""},
		{from + `chroot_mounts = [["proc", "/proc"]]`, "Not a mount"},
		{from + `device_path = "-x"`, "Not a device name"},
		{from + `root_volume_size = -1`, "Negative size"},
		{from + `root_volume_kms_key_id = "alias/x"`, "Key without encryption"},
		{from + "root_volume_kms_key_id = \"x\"\nroot_volume_encrypt_boot = true", "Not a KMS key"},
		{from + `mount_path = "{{"`, "Invalid {{ }} template"},
		{from + `ssh_username = "x"`, "Unsupported argument"},
		{from + `ami_architecture = "vax"`, "Invalid value"},
	} {
		diags := chroot.Factory(amazon.Cloud{}).Check(amazontest.Input("region = \"us-east-1\"\nami_name = \"web\"\n" + test.body))
		ok := test.want == "" && len(diags) == 0
		for _, d := range diags {
			ok = ok || d.Summary == test.want
		}
		if !ok {
			t.Errorf("%s\nwant %q, got %v", test.body, test.want, diags)
		}
	}
}

// TestNoSourceImage: if no image matches on the local cloud, the error at the filter
// lists the existing images, as for other builders.
func TestNoSourceImage(t *testing.T) {
	w, _ := newWorld(t)
	b := w.Bake(t)
	_, err := b.Build(t.Context(), strings.Replace(small, "debian-12-amd64-*", "nothing-*", 1))
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		t.Fatalf("error %v, want one at the filter", err)
	}
	for _, want := range []string{"No image of these owners matches these filters in us-east-1.", "This is the local cloud.", "debian-12-amd64-20260101-1", "bake cloud import"} {
		if !strings.Contains(diags[0].Detail, want) {
			t.Errorf("%q lacks %q", diags[0].Detail, want)
		}
	}
	if diags[0].Summary != "No such image" {
		t.Errorf("summary %q", diags[0].Summary)
	}
}

// TestVerified: the image is verified on a machine before it is shared. The builder has
// neither an instance type nor a user for that.
func TestVerified(t *testing.T) {
	w, h := newWorld(t)
	amazontest.Verified(t, w, small+"ami_users = [\"123456789013\"]\n", builder.Boot{InstanceType: "t3.small", User: "admin"}, 2, func(context.Context, builder.Machine) error {
		dir := filepath.Join(w.Dir, "machines", h.id, machine.VolumesDir, "xvdg", machine.VolumeContent)
		return os.WriteFile(filepath.Join(dir, "hello"), []byte("from the volume"), 0o600)
	})
}
