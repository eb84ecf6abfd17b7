package images_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/builder/amazon/internal/amazontest"
	"bake/cloud"
	"bake/cloud/cloudtest"
)

// The test's account is called default, and another one other.
const (
	home  = "us-east-1"
	west  = "us-west-2"
	other = "other"
)

// soon is when the parameters that name images become valid.
const soon = 20 * time.Millisecond

// call is a request that the cloud received.
type call struct {
	Region, Service, Action string
	Params                  url.Values
	Body                    string
}

// changes reports whether the call may change something.
func (c call) changes() bool {
	return !strings.HasPrefix(c.Action, "Describe") && !strings.HasPrefix(c.Action, "Get")
}

// has reports whether the call has at least one of the parameters.
func (c call) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return c.Params.Has(n) })
}

func TestMain(m *testing.M) {
	if err := amazontest.Frugal(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// world is an embedded cloud without machines that records calls.
type world struct {
	*cloudtest.Server
	t     *testing.T
	cloud amazon.Cloud

	few bool // the account has enabled the two regions only; set before there are calls

	mu        sync.Mutex
	calls     []call
	intercept func(n int, c call, w http.ResponseWriter, serve func(http.ResponseWriter)) // in the place of the cloud; n is from 1
}

func newWorld(t *testing.T, opts cloud.Options) *world {
	w := &world{Server: cloudtest.Start(t, opts), t: t}
	to, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.handle(forward, rw, r) }))
	t.Cleanup(front.Close)
	w.cloud = w.as("default")
	w.cloud.Endpoint = front.URL
	return w
}

// as returns the cloud for one of its accounts. Its calls are not recorded.
func (w *world) as(profile string) amazon.Cloud {
	for _, c := range w.Credentials() {
		if c.Profile == profile {
			return amazon.Cloud{Name: "test", Endpoint: w.URL, AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey, Region: home}
		}
	}
	w.t.Fatalf("no account %s", profile)
	return amazon.Cloud{}
}

var scope = regexp.MustCompile(`Credential=[^/]+/\d+/([^/]+)/([^/]+)/`)

func (w *world) handle(forward http.Handler, rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	c := call{Body: string(body)}
	if m := scope.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		c.Region, c.Service = m[1], m[2]
	}
	if c.Params, err = url.ParseQuery(string(body)); err == nil {
		c.Action = c.Params.Get("Action")
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		_, c.Action, _ = strings.Cut(target, ".")
	}
	w.mu.Lock()
	w.calls = append(w.calls, c)
	n, intercept := len(w.calls), w.intercept
	w.mu.Unlock()
	serve := func(rw http.ResponseWriter) {
		if w.few && c.Action == "DescribeRegions" {
			_, _ = io.WriteString(rw, "<DescribeRegionsResponse><regionInfo><item><regionName>"+home+"</regionName></item><item><regionName>"+west+"</regionName></item></regionInfo></DescribeRegionsResponse>")
			return
		}
		forward.ServeHTTP(rw, r.WithContext(context.WithoutCancel(r.Context())))
	}
	if intercept != nil {
		intercept(n, c, rw, serve)
		return
	}
	serve(rw)
}

// watch discards the recorded calls, and sets the handler of the following ones.
func (w *world) watch(intercept func(n int, c call, w http.ResponseWriter, serve func(http.ResponseWriter))) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls, w.intercept = nil, intercept
}

// seen returns the calls since watch.
func (w *world) seen() []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// open opens the account, and records its calls.
func (w *world) open(regions ...string) *images.Account {
	w.t.Helper()
	a, err := images.Open(w.t.Context(), images.Place{Regions: regions, Cloud: w.cloud})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// client returns a client that examines the cloud as the user would.
func (w *world) client(profile, region string) *ec2.Client { return w.EC2(profile, region) }

// snapshot makes an empty snapshot.
func (w *world) snapshot(profile, region string, key *string) string {
	w.t.Helper()
	ctx, c := w.t.Context(), w.client(profile, region)
	volume, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(region + "a"), Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3, KmsKeyId: key, Encrypted: aws.Bool(key != nil),
	})
	w.fatal(err)
	s, err := c.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: volume.VolumeId})
	w.fatal(err)
	w.until("the snapshot is complete", func() bool {
		out, err := c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*s.SnapshotId}})
		w.fatal(err)
		return out.Snapshots[0].State == types.SnapshotStateCompleted
	})
	_, err = c.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: volume.VolumeId})
	w.fatal(err)
	return *s.SnapshotId
}

// register makes an image of snapshots; the first one is the root. tags are key-value pairs.
func (w *world) register(profile, region, name string, snapshots []string, tags ...string) string {
	w.t.Helper()
	in := &ec2.RegisterImageInput{Name: &name, RootDeviceName: aws.String("/dev/xvda"), VirtualizationType: aws.String("hvm")}
	for i, s := range snapshots {
		in.BlockDeviceMappings = append(in.BlockDeviceMappings, types.BlockDeviceMapping{
			DeviceName: aws.String("/dev/xvd" + string(rune('a'+i))), Ebs: &types.EbsBlockDevice{SnapshotId: &s},
		})
	}
	if len(tags) > 0 {
		spec := types.TagSpecification{ResourceType: types.ResourceTypeImage}
		for i := 0; i < len(tags); i += 2 {
			spec.Tags = append(spec.Tags, types.Tag{Key: &tags[i], Value: &tags[i+1]})
		}
		in.TagSpecifications = append(in.TagSpecifications, spec)
	}
	out, err := w.client(profile, region).RegisterImage(w.t.Context(), in)
	w.fatal(err)
	return *out.ImageId
}

// image makes an image of the test's account with its own snapshot.
func (w *world) image(region, name string, tags ...string) string {
	w.t.Helper()
	return w.register("default", region, name, []string{w.snapshot("default", region, nil)}, tags...)
}

func (w *world) fatal(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// until waits for a change that the cloud makes in the background.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("it did not happen that %s", what)
		}
	}
}

// nextSecond waits until new resources get a later date than the existing ones: dates have no
// fractions of seconds.
func (w *world) nextSecond() {
	w.t.Helper()
	now := time.Now().Unix()
	w.until("another second begins", func() bool { return time.Now().Unix() > now })
}

// names returns the names of images, in order.
func names(all []images.Image) (out []string) {
	for _, i := range all {
		out = append(out, i.Name+" "+i.Region)
	}
	return out
}

// refuse answers a call as EC2 does when permission is missing.
func refuse(rw http.ResponseWriter) {
	rw.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(rw, "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation.</Message></Error></Errors><RequestID>id</RequestID></Response>")
}

var errInterrupted = errors.New("interrupted")
