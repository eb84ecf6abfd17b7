package instance_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/instance"
	"bake/builder/amazon/internal/amazontest"
	"bake/step"
)

// body returns a source block whose commands are run by a real shell. They write their arguments
// to the log that body returns.
func body(t *testing.T, more string) (text, log string) {
	t.Helper()
	dir := t.TempDir()
	log = filepath.Join(dir, "log")
	for name, content := range map[string]string{"account.crt": "the certificate", "account.key": "the key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(`
ami_name              = "web"
account_id            = "1234-5678-9012"
s3_bucket             = "images/web"
x509_cert_path        = "%[1]s/account.crt"
x509_key_path         = "%[1]s/account.key"
x509_upload_path      = "~"
bundle_vol_command    = "echo vol {{.AccountId}} {{.Architecture}} $(cat {{.CertPath}}) $(cat {{.KeyPath}}) $(stat -c %%a {{.KeyPath}}) {{.Destination}} {{.Prefix}} '{{.PrivatePath}}' >>%[2]s; echo bundled"
bundle_upload_command = "echo upload {{.AccessKey}} {{.BucketName}} {{.BundleDirectory}} {{.ManifestPath}} {{.Region}} {{.SecretKey}} {{if .Token}}-t {{.Token}}{{end}} >>%[2]s"
`, dir, log) + more, log
}

func write(t *testing.T, log, line string) {
	f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestFaults expects an image and its snapshot in the world, or nothing.
func TestFaults(t *testing.T) {
	text, _ := body(t, "")
	amazontest.Faults(t, instance.Factory, text, 2, amazontest.InstanceStore)
}

// TestResume: a build that is killed after its bundle was uploaded is resumed and makes the image.
func TestResume(t *testing.T) {
	text, _ := body(t, "")
	amazontest.Resume(t, instance.Factory, text, amazontest.InstanceStore)
}

// TestOrder checks the order and the content of commands and calls.
func TestOrder(t *testing.T) {
	w := amazontest.NewWorld(t, instance.Factory)
	amazontest.InstanceStore(w)
	text, log := body(t, `
deprecate_at      = "2035-01-01T00:00:00Z"
ami_users         = ["123456789013"]
ena_support       = true
sriov_support     = true
tpm_support       = "v2.0"
tags              = { From = "{{ .SourceAMIName }}" }
ami_description   = "of {{ .BuildRegion }}"
ami_block_device_mappings {
  device_name  = "/dev/sdb"
  virtual_name = "ephemeral0"
}
`)
	shown := []string{"RunInstances", "RegisterImage", "EnableImageDeprecation", "ModifyImageAttribute", "DeleteTags", "TerminateInstances"}
	w.Intercept = func(_ int, c amazontest.Call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Changes() && slices.Contains(shown, c.Action) {
			write(t, log, c.Action)
		}
		serve(rw)
	}
	b := w.Bake(t)
	b.Provision = func(context.Context, builder.Machine) error {
		write(t, log, "provision")
		return nil
	}
	var mu sync.Mutex
	var secrets []string
	in := amazontest.Input(amazontest.Plain(text))
	in.Secret = func(s string) {
		mu.Lock()
		defer mu.Unlock()
		secrets = append(secrets, s)
	}
	a, err := b.BuildInput(t.Context(), in)
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := `RunInstances
provision
vol 123456789012 x86_64 the certificate the key 600 /tmp image-1700000000 ~
upload AKIATEST images/web /tmp /tmp/image-1700000000.manifest.xml us-east-1 secret
RegisterImage
EnableImageDeprecation
ModifyImageAttribute
DeleteTags
TerminateInstances
`
	// The order of the calls after the registration of the image does not matter.
	lines := strings.SplitAfter(string(got), "\n")
	if i := slices.Index(lines, "EnableImageDeprecation\n"); i > 0 && i < len(lines)-1 && lines[i-1] == "ModifyImageAttribute\n" {
		lines[i-1], lines[i] = lines[i], lines[i-1]
	}
	if s := strings.Join(lines, ""); s != want {
		t.Errorf("got:\n%s\nwant:\n%s", s, want)
	}
	for name, value := range map[string]string{
		"ImageLocation": "images/web/image-1700000000.manifest.xml", "Name": "web", "Architecture": "x86_64", "VirtualizationType": "hvm",
		"EnaSupport": "true", "SriovNetSupport": "simple", "TpmSupport": "v2.0", "Description": "of us-east-1",
		"BlockDeviceMapping.1.DeviceName": "/dev/sdb", "BlockDeviceMapping.1.VirtualName": "ephemeral0",
	} {
		if sent := w.Sent("RegisterImage")[name]; sent != value {
			t.Errorf("RegisterImage sends %s = %q, want %q", name, sent, value)
		}
	}
	if v, ok := w.Sent("RunInstances")["InstanceInitiatedShutdownBehavior"]; ok {
		t.Errorf("RunInstances says that a shutdown would %s the instance", v)
	}
	if !slices.Contains(secrets, "secret") {
		t.Error("the secret key is not known as a secret")
	}
	if a.BuilderID != "mitchellh.amazon.instance" || !strings.HasPrefix(a.Text, "AMIs were created:\nus-east-1: ami-") {
		t.Errorf("artifact %+v", a)
	}
	image := w.Describe(amazontest.Region, a.Images[amazontest.Region])
	tags := map[string]string{}
	for _, tag := range image.Tags {
		tags[*tag.Key] = *tag.Value
	}
	if tags["From"] != "debian-12-amd64-20260101-1" || tags["bake:run"] != "" || !strings.HasPrefix(*image.DeprecationTime, "2035") {
		t.Errorf("image with the tags %v, deprecated %s", tags, *image.DeprecationTime)
	}
	if !slices.ContainsFunc(b.Events, func(e step.Event) bool { return e.Kind == step.Output && e.Text == "bundled" }) {
		t.Error("what the command writes is not shown")
	}
	owned, err := b.Open.Owned()
	if left := w.Holdings(); err != nil || len(owned) > 0 || len(left) != 2 {
		t.Errorf("left %v, owned %v, %v", left, owned, err)
	}
}

// TestCopies expects images in both regions, and no temporary image.
func TestCopies(t *testing.T) {
	w := amazontest.NewWorld(t, instance.Factory)
	amazontest.InstanceStore(w)
	text, _ := body(t, "ami_regions = [\"eu-west-1\"]\nskip_save_build_region = true\n")
	images := w.MustBuild(t, amazontest.Plain(text))
	if len(images) != 1 || images["eu-west-1"] == "" || len(w.Holdings()) != 2 {
		t.Errorf("images %v of:\n%s", images, strings.Join(w.Holdings(), "\n"))
	}
}

// TestToken builds with credentials that expire.
func TestToken(t *testing.T) {
	w := amazontest.NewWorld(t, instance.Factory)
	amazontest.InstanceStore(w)
	t.Setenv("AWS_ENDPOINT_URL", w.Cloud.Endpoint)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	w.Cloud = amazon.Cloud{Dial: w.Cloud.Dial}
	text, log := body(t, "access_key = \"AKIATEST\"\nsecret_key = \"the-secret\"\ntoken = \"the-token\"\n")
	w.MustBuild(t, amazontest.Plain(text))
	got, err := os.ReadFile(log)
	if err != nil || !strings.HasSuffix(string(got), " us-east-1 the-secret -t the-token\n") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestFailures makes each operation on the machine fail. Nothing must be left.
func TestFailures(t *testing.T) {
	text, _ := body(t, "")
	set := func(name, value string) string {
		lines := strings.SplitAfter(text, "\n")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+" ") })
		lines[i] = fmt.Sprintf("%s = %q\n", name, value)
		return strings.Join(lines, "")
	}
	failed := errors.New("the script failed")
	tests := []struct {
		name, body string
		provision  error
		want       string
	}{
		{"provisioner", text, failed, "the script failed"},
		{"certificate", set("x509_upload_path", "/nowhere/at/all"), nil, "/nowhere/at/all"},
		{"bundle", set("bundle_vol_command", "echo no space left >&2; exit 3"), nil, "bundle_vol_command failed with status 3: no space left"},
		{"upload", set("bundle_upload_command", "exit 4"), nil, "bundle_upload_command failed with status 4"},
	}
	w := amazontest.NewWorld(t, instance.Factory)
	amazontest.InstanceStore(w)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := w.Bake(t)
			b.Provision = func(context.Context, builder.Machine) error { return tt.provision }
			a, err := b.Build(t.Context(), amazontest.Plain(tt.body))
			if err == nil || !strings.Contains(err.Error(), tt.want) || a != nil {
				t.Errorf("%v, %v", a, err)
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			owned, err := b.Open.Owned()
			if left := w.Holdings(); err != nil || len(owned) > 0 || len(left) > 0 {
				t.Errorf("left %v, owned %v, %v", left, owned, err)
			}
		})
	}
}

// TestEmbedded builds on a cloud where no image has an instance store as its root.
func TestEmbedded(t *testing.T) {
	w := amazontest.NewWorld(t, instance.Factory)
	b := w.Bake(t)
	text, _ := body(t, "")
	_, err := b.Build(t.Context(), amazontest.Plain(text))
	if err == nil || !strings.Contains(err.Error(), "Not an instance-store image") {
		t.Error(err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if left := w.Holdings(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestVerified: the image is verified on a machine before it is shared.
func TestVerified(t *testing.T) {
	w := amazontest.NewWorld(t, instance.Factory)
	amazontest.InstanceStore(w)
	text, _ := body(t, "ami_users = [\"123456789013\"]\n")
	amazontest.Verified(t, w, amazontest.Plain(text), builder.Boot{InstanceType: "t3.small"}, 2, nil)
}
