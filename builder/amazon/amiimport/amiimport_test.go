package amiimport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/amiimport"
	"bake/cloud"
	"bake/cloud/cloudtest"
	cloudec2 "bake/cloud/ec2"
	"bake/config/schema"
	"bake/postprocessor"
	"bake/step"
)

func TestDocs(t *testing.T) {
	if _, err := amiimport.Factory(amazon.Cloud{}).Docs(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct{ body, want string }{
		{`s3_bucket_name = "disks"`, ""},
		{`s3_bucket_name = "Acme_Old"`, ""},
		{`s3_bucket_name = "disks/imports"`, `"disks/imports" is not the name of a bucket`},
		{`s3_bucket_name = "disks--use1-az4--x-s3"`, "is a directory bucket"},
		{``, "s3_bucket_name"},
		{`s3_bucket_name = ""`, "No bucket"},
		{"s3_bucket_name = \"disks\"\nformat = \"qcow2\"", "format must be one of"},
		{"s3_bucket_name = \"disks\"\ns3_encryption = \"rot13\"", "s3_encryption must be one of"},
		{"s3_bucket_name = \"disks\"\ns3_encryption_key = \"alias/x\"", ""},
		{"s3_bucket_name = \"disks\"\ns3_encryption = \"aws:kms\"\ns3_encryption_key = \"alias/x\"", ""},
		{"s3_bucket_name = \"disks\"\narchitecture = \"mips\"", "architecture must be one of"},
		{"s3_bucket_name = \"disks\"\narchitecture = \"arm64\"", "No platform"},
		{"s3_bucket_name = \"disks\"\narchitecture = \"arm64\"\nplatform = \"linux\"", ""},
		{"s3_bucket_name = \"disks\"\nboot_mode = \"bios\"", "boot_mode must be one of"},
		{"s3_bucket_name = \"disks\"\nboot_mode = \"uefi\"", "No platform"},
		{"s3_bucket_name = \"disks\"\nplatform = \"macos\"", "platform must be one of"},
		{"s3_bucket_name = \"disks\"\nlicense_type = \"GPL\"", "license_type must be one of"},
		{"s3_bucket_name = \"disks\"\nimds_support = \"v3.0\"", "imds_support must be one of"},
		{"s3_bucket_name = \"disks\"\nami_kms_key = \"alias/x\"", ""},
		{"s3_bucket_name = \"disks\"\nami_users = [\"me\"]", "Invalid account ID"},
		{"s3_bucket_name = \"disks\"\nami_name = \"a*b\"", "Invalid image name"},
		{"s3_bucket_name = \"disks\"\nami_encrypt = true\nami_kms_key = \"my key\"", "Not a KMS key"},
		{"s3_bucket_name = \"disks\"\nami_groups = [\"some\"]", "Unknown group"},
		{"s3_bucket_name = \"disks\"\nami_encrypt = true\nami_groups = [\"all\"]\nami_kms_key = \"alias/golden\"", "Sharing an encrypted image with everyone"},
		{"s3_bucket_name = \"disks\"\nami_encrypt = true\nami_users = [\"123456789012\"]", ""},
		{"s3_bucket_name = \"disks\"\nami_encrypt = true\nami_users = [\"123456789012\"]\nami_kms_key = \"alias/aws/ebs\"", "Sharing an image that others cannot decrypt"},
		{"s3_bucket_name = \"disks\"\nami_encrypt = true\nami_users = [\"123456789012\"]\nami_kms_key = \"alias/golden\"", ""},
		{"s3_bucket_name = \"disks\"\naccess_key = \"a\"", "secret_key"},
	} {
		_, err := component(t, amazon.Cloud{}, test.body)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s:\n%v; want %q", test.body, err, test.want)
		}
	}
}

func component(t *testing.T, c amazon.Cloud, body string) (postprocessor.PostProcessor, error) {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	p, diags := amiimport.Factory(c).New(schema.Input{Body: file.Body, Context: &hcl.EvalContext{}})
	if diags.HasErrors() {
		return nil, diags
	}
	return p, nil
}

// world is a cloud with a bucket "disks".
type world struct {
	*cloudtest.Server
	cloud  amazon.Cloud
	ec2    *ec2.Client
	s3     *s3.Client
	scope  *step.Scope
	ledger *step.FileLedger
}

func newWorld(t *testing.T, opts cloud.Options) *world {
	t.Helper()
	s := cloudtest.Start(t, opts)
	key := s.Credentials()[0]
	w := &world{Server: s, ec2: s.EC2("default", "us-east-1"), cloud: amazon.Cloud{
		Name: "test", Endpoint: s.URL, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey, Region: "us-east-1",
	}}
	w.s3 = s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: &s.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, "")})
	if _, err := w.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("disks")}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.ledger, err = step.CreateLedger(t.TempDir(), step.Header{Run: "run-1"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.ledger.Close() })
	w.scope = step.NewScope(step.Scope{
		Run: step.Invocation{ID: "run-1", Start: time.Now()}, Grace: time.Minute, Build: "file.disk", SourceType: "file", SourceName: "disk", Ledger: w.ledger, Emit: func(step.Event) {},
	})
	return w
}

// process imports an image of a given size and runs the teardown.
func (w *world) process(t *testing.T, ctx context.Context, size int64, body string) (*builder.Artifact, error) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(image, []byte("the disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	p, err := component(t, w.cloud, body)
	if err != nil {
		t.Fatal(err)
	}
	out, keep, err := p.Process(ctx, w.scope, &builder.Artifact{Files: []string{"notes.txt", image}})
	if keep != postprocessor.Discard {
		t.Error("the disk image is kept")
	}
	if closed := w.scope.Close(t.Context(), context.Background()); closed != nil {
		t.Errorf("Close: %v", closed)
	}
	return out, err
}

// images are the account's images.
func (w *world) images(t *testing.T) []types.Image {
	t.Helper()
	out, err := w.ec2.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Images
}

// left lists the resources of a build other than its images.
func (w *world) left(t *testing.T) []string {
	t.Helper()
	var out []string
	objects, err := w.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("disks")})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects.Contents {
		out = append(out, *o.Key)
	}
	uploads, err := w.s3.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("disks")})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range uploads.Uploads {
		out = append(out, "upload of "+*u.Key)
	}
	snapshots, err := w.ec2.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	if err != nil {
		t.Fatal(err)
	}
	images := w.images(t)
	for _, s := range snapshots.Snapshots {
		if !slices.ContainsFunc(images, func(i types.Image) bool { return *i.BlockDeviceMappings[0].Ebs.SnapshotId == *s.SnapshotId }) {
			out = append(out, *s.SnapshotId)
		}
	}
	owned, err := w.ledger.Owned()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range owned {
		out = append(out, "in the ledger: "+r.Key)
	}
	tagged, err := amazon.FindTagged(t.Context(), amazon.Place{Region: "us-east-1", Cloud: w.cloud}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range tagged {
		out = append(out, "tagged: "+r.Key)
	}
	return out
}

func TestImport(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	out, err := w.process(t, t.Context(), 40<<20, `
		s3_bucket_name = "disks"
		format         = "raw"
		tags           = { Team = "web" }
		ami_description = "from a disk"
		ami_users      = ["987654321098"]
		imds_support   = "v2.0"`)
	if err != nil {
		t.Fatal(err)
	}
	images := w.images(t)
	if len(images) != 1 || out.ID != "us-east-1:"+*images[0].ImageId || out.Text != "AMIs were created:\nus-east-1: "+*images[0].ImageId+"\n" {
		t.Fatalf("%d images, artifact %+v", len(images), out)
	}
	if i := images[0]; *i.Description != "from a disk" || i.ImdsSupport != "v2.0" || len(userTags(i)) != 1 || i.BootMode != "legacy-bios" {
		t.Errorf("%+v", i)
	}
	permissions, err := w.ec2.DescribeImageAttribute(t.Context(), &ec2.DescribeImageAttributeInput{ImageId: images[0].ImageId, Attribute: "launchPermission"})
	if err != nil || len(permissions.LaunchPermissions) != 1 || *permissions.LaunchPermissions[0].UserId != "987654321098" {
		t.Errorf("%+v, %v", permissions, err)
	}
	if left := w.left(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	d := amazon.Destroyer(func(context.Context, string) (amazon.Cloud, error) { return w.cloud, nil })
	for _, r := range out.Resources {
		if err := d.Destroy(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	if images, left := w.images(t), w.left(t); len(images)+len(left) > 0 {
		t.Errorf("after the artifact is deleted: %d images, %q", len(images), left)
	}
}

// userTags are the tags from the template.
func userTags(i types.Image) []types.Tag {
	return slices.DeleteFunc(i.Tags, func(t types.Tag) bool { return *t.Key == "bake:user" })
}

func TestImportNamed(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	_, err := w.process(t, t.Context(), 1<<20, `
		s3_bucket_name = "disks"
		s3_key_name    = "kept-{{build_name}}.raw"
		format         = "raw"
		ami_name       = "named"
		ami_encrypt    = true
		tags           = { Team = "web" }
		skip_clean     = true`)
	if err != nil {
		t.Fatal(err)
	}
	images := w.images(t)
	if len(images) != 1 || *images[0].Name != "named" || len(userTags(images[0])) != 1 || !*images[0].BlockDeviceMappings[0].Ebs.Encrypted {
		t.Errorf("%+v", images)
	}
	if left := w.left(t); !slices.Equal(left, []string{"kept-disk.raw"}) {
		t.Errorf("left: %q", left)
	}
}

func TestImportFails(t *testing.T) {
	for _, test := range []struct{ name, body, want string }{
		{"no such file", `format = "vmdk"`, "None of the artifact's files is named *.vmdk"},
		{"no such bucket", "format = \"raw\"\ns3_bucket_name = \"nothing\"", "The bucket cannot be used"},
		{"another region's bucket", "format = \"raw\"\nregion = \"eu-west-1\"", "The bucket cannot be used"},
		{"no key", "format = \"raw\"\ns3_key_name = \"{{if false}}k{{end}}\"", "makes an empty key of it"},
		{"not Linux", "format = \"raw\"\nplatform = \"windows\"", "runs Linux only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, cloud.Options{})
			if !strings.Contains(test.body, "s3_bucket_name") {
				test.body += "\ns3_bucket_name = \"disks\""
			}
			_, err := w.process(t, t.Context(), 1<<20, test.body)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
			if images, left := w.images(t), w.left(t); len(images)+len(left) > 0 {
				t.Errorf("left: %d images, %q", len(images), left)
			}
		})
	}
}

// TestSharingByDefaultKey: if an image that is to be shared would be encrypted with a
// default key that AWS manages, that is an error before anything is uploaded.
func TestSharingByDefaultKey(t *testing.T) {
	for _, test := range []struct{ name, body, key, want string }{
		{"encrypted", "ami_users = [\"987654321098\"]\nami_encrypt = true", "", "Sharing an image that others cannot decrypt"},
		{"encrypted with another default key", "ami_users = [\"987654321098\"]\nami_encrypt = true", "alias/golden", ""},
		{"shared", `ami_users = ["987654321098"]`, "", "Sharing an image that others cannot decrypt"},
		{"public", `ami_groups = ["all"]`, "alias/golden", "Sharing an encrypted image with everyone"},
		{"another default key", `ami_users = ["987654321098"]`, "alias/golden", ""},
		{"a key of its own", "ami_users = [\"987654321098\"]\nami_encrypt = true\nami_kms_key = \"alias/golden\"", "", ""},
		{"for nobody", "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, cloud.Options{})
			if _, err := w.ec2.EnableEbsEncryptionByDefault(t.Context(), &ec2.EnableEbsEncryptionByDefaultInput{}); err != nil {
				t.Fatal(err)
			}
			if test.key != "" {
				if _, err := w.ec2.ModifyEbsDefaultKmsKeyId(t.Context(), &ec2.ModifyEbsDefaultKmsKeyIdInput{KmsKeyId: &test.key}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := w.process(t, t.Context(), 1<<20, "s3_bucket_name = \"disks\"\nformat = \"raw\"\n"+test.body)
			if test.want == "" {
				if err != nil || len(w.images(t)) != 1 {
					t.Errorf("%v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
			if images, left := w.images(t), w.left(t); len(images)+len(left) > 0 {
				t.Errorf("left: %d images, %q", len(images), left)
			}
		})
	}
}

// answering puts a server in front of the cloud in which answer can handle requests about
// objects. It reports whether it has.
func (w *world) answering(t *testing.T, answer func(rw http.ResponseWriter, r *http.Request) bool) {
	t.Helper()
	at, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httputil.NewSingleHostReverseProxy(at)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/disks/") || !answer(rw, r) {
			front.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(srv.Close)
	w.cloud.Endpoint = srv.URL
}

// TestUploadFails: an upload that fails after it has begun leaves nothing, and one without an
// ID is not started.
func TestUploadFails(t *testing.T) {
	for _, test := range []struct {
		name, with, body string
		status           int
		want             string
	}{
		{"a part is refused", "partNumber", "<Error><Code>ExpiredToken</Code><Message>said</Message></Error>", 400, "UploadPart: ExpiredToken"},
		{"no upload", "uploads", "<InitiateMultipartUploadResult/>", 200, "CreateMultipartUpload: the answer names no upload"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, cloud.Options{})
			w.answering(t, func(rw http.ResponseWriter, r *http.Request) bool {
				if !r.URL.Query().Has(test.with) || r.Method == http.MethodGet {
					return false
				}
				_, _ = io.Copy(io.Discard, r.Body)
				rw.WriteHeader(test.status)
				fmt.Fprint(rw, test.body)
				return true
			})
			_, err := w.process(t, t.Context(), 20<<20, "s3_bucket_name = \"disks\"\nformat = \"raw\"")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
			if left := w.left(t); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestChecksums: all uploads have checksums, which S3 requires in buckets with a default
// retention.
func TestChecksums(t *testing.T) {
	for _, size := range []int64{1 << 20, 20 << 20} {
		w := newWorld(t, cloud.Options{})
		var without []string
		w.answering(t, func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut && r.Header.Get("X-Amz-Checksum-Sha256") == "" {
				without = append(without, r.URL.String())
			}
			return false
		})
		if _, err := w.process(t, t.Context(), size, "s3_bucket_name = \"disks\"\nformat = \"raw\"\nskip_clean = true\ns3_key_name = \"k/\""); err != nil {
			t.Fatal(err)
		}
		head, err := w.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("disks"), Key: aws.String("k/"), ChecksumMode: "ENABLED"})
		if err != nil || aws.ToString(head.ChecksumSHA256) == "" || len(without) > 0 {
			t.Errorf("the object is %+v, %v; without a checksum: %q", head, err, without)
		}
	}
}

// TestFaults fails each call to EC2, or cancels the build there: nothing is left.
func TestFaults(t *testing.T) {
	for _, action := range []string{"ImportImage", "DescribeImportImageTasks", "DescribeImages", "CopyImage", "DeregisterImage", "ModifyImageAttribute", "DeleteTags"} {
		t.Run(action, func(t *testing.T) {
			faults, err := cloudec2.NewFaults(1, cloud.Fault{Action: action, Nth: 1, Code: "UnauthorizedOperation", Message: "no", Status: 403})
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, cloud.Options{Faults: faults})
			_, err = w.process(t, t.Context(), 20<<20, `
				s3_bucket_name = "disks"
				format         = "raw"
				ami_name       = "named"
				imds_support   = "v2.0"`)
			if err == nil {
				t.Error("the import succeeded")
			}
			if images, left := w.images(t), w.left(t); len(images)+len(left) > 0 {
				t.Errorf("%v\nleft: %d images, %q", err, len(images), left)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	for n := 2; n < 30; n += 4 {
		w := newWorld(t, cloud.Options{})
		ctx, cancel := context.WithCancelCause(t.Context())
		steps := 0
		w.scope.Emit = func(e step.Event) {
			if steps++; steps == n {
				cancel(fmt.Errorf("cancelled at event %d", n))
			}
		}
		_, err := w.process(t, ctx, 20<<20, "s3_bucket_name = \"disks\"\nformat = \"raw\"\nami_name = \"named\"")
		cancel(nil)
		if err == nil {
			continue // it was over before
		}
		if images, left := w.images(t), w.left(t); len(images)+len(left) > 0 {
			t.Errorf("%v\nleft: %d images, %q", err, len(images), left)
		}
	}
}
