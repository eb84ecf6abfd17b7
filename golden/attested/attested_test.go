package attested_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/golden/attest"
	"bake/golden/attested"
	"bake/golden/manifest"
	"bake/golden/reports"
)

const (
	region = "us-east-1"
	digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)

// world is a cloud with an image, and the attestation of the image.
type world struct {
	t       *testing.T
	ec2     *ec2.Client
	account *images.Account
	reports string
	key     *ecdsa.PrivateKey
	id      string
}

func newWorld(t *testing.T) *world {
	server := cloudtest.Start(t, cloud.Options{})
	w := &world{t: t, ec2: server.EC2("default", region), reports: t.TempDir()}
	for _, c := range server.Credentials() {
		if c.Profile != "default" {
			continue
		}
		var err error
		w.account, err = images.Open(t.Context(), images.Place{Cloud: amazon.Cloud{Name: "test", Endpoint: server.URL, AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey, Region: region}})
		w.fatal(err)
	}
	w.key = newKey(t)
	w.id = w.register()
	return w
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) fatal(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// register makes an image of an empty snapshot.
func (w *world) register() string {
	ctx := w.t.Context()
	volume, err := w.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(region + "a"), Size: aws.Int32(1)})
	w.fatal(err)
	s, err := w.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: volume.VolumeId})
	w.fatal(err)
	w.fatal(ec2.NewSnapshotCompletedWaiter(w.ec2, func(o *ec2.SnapshotCompletedWaiterOptions) { o.MinDelay = time.Millisecond }).
		Wait(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*s.SnapshotId}}, time.Minute))
	out, err := w.ec2.RegisterImage(ctx, &ec2.RegisterImageInput{
		Name: aws.String("web"), RootDeviceName: aws.String("/dev/xvda"),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: s.SnapshotId}}},
	})
	w.fatal(err)
	return *out.ImageId
}

func (w *world) tag(key, value string) {
	_, err := w.ec2.CreateTags(w.t.Context(), &ec2.CreateTagsInput{Resources: []string{w.id}, Tags: []types.Tag{{Key: &key, Value: &value}}})
	w.fatal(err)
}

func (w *world) untag(key string) {
	_, err := w.ec2.DeleteTags(w.t.Context(), &ec2.DeleteTagsInput{Resources: []string{w.id}, Tags: []types.Tag{{Key: &key}}})
	w.fatal(err)
}

// attest stores an attestation of an image, and tags the image with it.
func (w *world) attest(id, name, files string) string {
	identity := attest.Identity{Image: "web", ID: id, Region: region, Account: w.account.ID, Name: name, Tags: map[string]string{"bake:image": "web", reports.Manifest: digest}}
	st, err := attest.Attested(identity, files, attest.Provenance{
		BuildDefinition: attest.BuildDefinition{BuildType: attest.BuildType, ExternalParameters: map[string]any{}},
		RunDetails:      attest.RunDetails{Builder: attest.Builder{ID: attest.BuilderID}},
	})
	w.fatal(err)
	text, err := attest.Sign(st, w.key)
	w.fatal(err)
	sum, err := reports.Store{Dir: w.reports}.Keep(w.t.Context(), "web.provenance.json", text)
	w.fatal(err)
	w.tag(reports.Attestation, sum)
	return filepath.Join(w.reports, "web.provenance.json")
}

// in is a directory of reports about any image.
func in(dir string) func(context.Context, *images.Account, map[string]string) (reports.Store, error) {
	return func(context.Context, *images.Account, map[string]string) (reports.Store, error) {
		return reports.Store{Dir: dir}, nil
	}
}

// reset makes the image match its attestation.
func (w *world) reset() {
	w.untag(images.RevokedTag)
	w.tag("bake:image", "web")
	w.tag(reports.Manifest, digest)
	w.tag(reports.Run, "20260101-1")
	w.attest(w.id, "web", digest)
}

// TestFind: an image is found if it matches its attestation; otherwise the error says what
// differs.
func TestFind(t *testing.T) {
	w := newWorld(t)
	other := newKey(t)
	for _, test := range []struct {
		name   string
		change func(*attested.Where)
		want   string // in the error; empty: it is found
	}{
		{"as attested", nil, ""},
		{"in a file", func(o *attested.Where) { o.File = w.attest(w.id, "web", digest); o.Reports = in(t.TempDir()) }, ""},
		{"more tags", func(*attested.Where) { w.tag("team", "x") }, ""},
		{"no attestation", func(*attested.Where) { w.untag(reports.Attestation) }, "nothing is attested of it, or the tag was removed"},
		{"another file", func(o *attested.Where) {
			o.File = filepath.Join(t.TempDir(), "other")
			w.fatal(os.WriteFile(o.File, []byte("{}"), 0o600))
		}, "names another attestation than"},
		{"reports elsewhere", func(o *attested.Where) { o.Reports = in(t.TempDir()) }, "cannot be read"},
		{"another key", func(o *attested.Where) { o.Key = other.Public() }, "its attestation: "},
		{"another builder", func(o *attested.Where) { o.Expected.BuilderID = "https://example.com" }, "its attestation: "},
		{"another tag", func(*attested.Where) { w.tag("bake:image", "db") }, `its tag bake:image is "db", but "web" is attested`},
		{"a tag less", func(*attested.Where) { w.untag("bake:image") }, "its tag bake:image is missing"},
		{"another name", func(*attested.Where) { w.attest(w.id, "db", digest) }, `its name is "web", but "db" is attested`},
		{"of another image", func(*attested.Where) { w.attest("ami-00000000000000000", "web", digest) }, "this is not a copy of it"},
		{"two lists of files", func(*attested.Where) { w.attest(w.id, "web", strings.Repeat("0", 64)) }, "names two lists of files"},
		{"revoked", func(*attested.Where) { w.tag(images.RevokedTag, "it leaks") }, "the image was revoked: it leaks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.reset()
			o := attested.Where{Reports: in(w.reports), Key: w.key.Public()}
			if test.change != nil {
				test.change(&o)
			}
			found, err := attested.Find(t.Context(), w.account, "web", o)
			switch {
			case test.want == "" && (err != nil || found.ID != w.id):
				t.Errorf("found %s: %v", found.ID, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), w.id+": ")):
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// TestFiles: the list of files is read from the reports, and without one there is an error.
func TestFiles(t *testing.T) {
	w := newWorld(t)
	w.reset()
	o := attested.Where{Reports: in(w.reports), Key: w.key.Public(), Files: true}
	if _, err := attested.Find(t.Context(), w.account, w.id, o); err == nil || !strings.Contains(err.Error(), "its list of files") {
		t.Errorf("a list that is not there: %v", err)
	}
	w.attest(w.id, "web", "")
	if _, err := attested.Find(t.Context(), w.account, w.id, o); err == nil || !strings.Contains(err.Error(), "no list of files to compare") {
		t.Errorf("a list that is not attested: %v", err)
	}
	o.Files = false
	if _, err := attested.Find(t.Context(), w.account, w.id, o); err != nil {
		t.Errorf("a list that nobody asks for: %v", err)
	}
}

// TestDifferError: an error names some of the files, and says how many there are.
func TestDifferError(t *testing.T) {
	err := error(&attested.DifferError{Image: "ami-1", Changes: make([]manifest.Change, 60)})
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 52 || !strings.Contains(lines[0], "(60)") || lines[51] != "  and 10 more" {
		t.Errorf("error %q", err)
	}
	if _, ok := errors.AsType[*attested.DifferError](err); !ok {
		t.Error("not a DifferError")
	}
}

func TestIsImage(t *testing.T) {
	for arg, want := range map[string]bool{"ami-0a1b2c3d": true, "ami-0a1b2c3d4e5f60718": true, "ami-0a1b2c3d.json": false, "ami-0A1B2C3D": false, "ami-": false, "x": false} {
		if got := attested.IsImage(arg); got != want {
			t.Errorf("%s: %t", arg, got)
		}
	}
}

// TestFilesOnDisk: the error names the attestations that do not meet the requirements; the
// others are returned.
func TestFilesOnDisk(t *testing.T) {
	w := newWorld(t)
	key := w.key.Public()
	good := w.attest(w.id, "web", digest)
	w.key, w.reports = newKey(t), t.TempDir()
	forged := w.attest(w.id, "web", digest) // the same statement, signed with another key
	missing := filepath.Join(t.TempDir(), "missing.json")
	expected := attest.Expected{Subjects: []attest.Resource{attest.Image(region, w.id)}}
	all, err := attested.Files([]string{forged, good, missing}, key, expected)
	if len(all) != 1 || all[0].Path != good || len(all[0].Statement.Subject) == 0 {
		t.Errorf("%+v", all)
	}
	if err == nil || !strings.Contains(err.Error(), forged+": ") || !strings.Contains(err.Error(), missing+": ") || strings.Contains(err.Error(), good) {
		t.Error(err)
	}
	expected.Subjects = []attest.Resource{attest.Image(region, "ami-00000000")}
	if all, err := attested.Files([]string{good}, key, expected); err == nil || len(all) > 0 {
		t.Errorf("of another image: %+v, %v", all, err)
	}
	if all, err := attested.Files([]string{good}, newKey(t).Public(), attest.Expected{}); err == nil || len(all) > 0 {
		t.Errorf("of another key: %+v, %v", all, err)
	}
}
