package cloud_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// Only accounts that may launch an image can read its contents.
func TestContents(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ask := func(profile, region, id string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := s.Config(profile, region).Credentials.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(nil)
		if err := v4.NewSigner().SignHTTP(t.Context(), key, req, hex.EncodeToString(sum[:]), "contents", region, time.Now()); err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	source := source(t, client)
	image := made(t, client, "mine")
	var got cloud.Contents
	status, text := ask("default", "us-east-1", *image.ImageId)
	if err := json.Unmarshal([]byte(text), &got); err != nil || status != http.StatusOK {
		t.Fatalf("status %d, error %v, want the contents: %s", status, err, text)
	}
	if got.Name != "mine" || got.Size != 8 || got.RootDevice != "/dev/xvda" || got.User == "" || len(got.Layers) == 0 || got.Base != "" {
		t.Errorf("%+v", got)
	}
	if status, text := ask("default", "us-east-1", source); status != http.StatusOK || !strings.Contains(text, `"Base":"`) {
		t.Errorf("status %d, want 200 and the base: %s", status, text)
	}
	if status, text := ask("default", "us-east-1", *image.ImageId+"?own"); status != http.StatusOK || !strings.Contains(text, `"Own":[{"ID":"`+got.Layers[0]+`","Bytes":`) || strings.Contains(text, `"ID":"base-`) {
		t.Errorf("status %d, want 200 and the image's own layer alone: %s", status, text)
	}
	for _, refused := range []struct{ profile, region, id, want string }{
		{"default", "eu-west-1", *image.ImageId, "does not exist"},
		{"other", "us-east-1", *image.ImageId, "Not authorized for images"},
		{"default", "us-east-1", "ami-x", "Invalid id"},
	} {
		if status, text := ask(refused.profile, refused.region, refused.id); status/100 != 4 || !strings.Contains(text, refused.want) {
			t.Errorf("%+v: %d %s", refused, status, text)
		}
	}
}

// A completed snapshot has the size of all its layers; others have none.
func TestSnapshotSizes(t *testing.T) {
	passes := make(chan struct{}) // the delay of a snapshot
	c := sleeper{sleep: func(ctx context.Context, d time.Duration) error {
		if d < time.Hour {
			return context.Cause(ctx)
		}
		select {
		case <-passes:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
	s := cloudtest.Start(t, cloud.Options{Clock: c, Delays: cloud.Delays{Snapshot: time.Hour}})
	client := s.EC2("default", "us-east-1")
	id := run(t, client, ec2.RunInstancesInput{}).InstanceId
	size := func(image string) (types.SnapshotState, *int64) {
		t.Helper()
		img := got[*ec2.DescribeImagesOutput](t)(client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{image}})).Images[0]
		snaps := got[*ec2.DescribeSnapshotsOutput](t)(client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*img.BlockDeviceMappings[0].Ebs.SnapshotId}})).Snapshots
		return snaps[0].State, snaps[0].FullSnapshotSizeInBytes
	}
	create := func(name string) string {
		t.Helper()
		return *got[*ec2.CreateImageOutput](t)(client.CreateImage(t.Context(), &ec2.CreateImageInput{InstanceId: id, Name: &name, NoReboot: aws.Bool(true)})).ImageId
	}
	whole := func(image string, want int64) {
		t.Helper()
		passes <- struct{}{}
		awaitImage(t, client, image)
		if state, n := size(image); state != types.SnapshotStateCompleted || n == nil || *n != want {
			t.Errorf("%s: %s, %v bytes, not %d", image, state, n, want)
		}
	}
	upper := filepath.Join(s.Driver.Specs()[0].Dir, "upper")
	whole(create("empty"), 0)
	if err := os.WriteFile(filepath.Join(upper, "file"), make([]byte, 12345), 0o600); err != nil {
		t.Fatal(err)
	}
	image := create("file")
	if state, n := size(image); state != types.SnapshotStatePending || n != nil {
		t.Errorf("%s, %v", state, n)
	}
	whole(image, 12345)
}

// slowSizes is an image store that measures layers only on demand, and counts.
type slowSizes struct {
	*cloudtest.Images
	mu    sync.Mutex
	calls map[string]int
	goOn  chan struct{}
}

func (i *slowSizes) Size(_ context.Context, layer string) (int64, error) {
	i.mu.Lock()
	i.calls[layer]++
	i.mu.Unlock()
	<-i.goOn
	return 1, nil
}

func (i *slowSizes) count() (all, most int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, n := range i.calls {
		all, most = all+n, max(most, n)
	}
	return all, most
}

// A layer is measured once, however many clients ask for it at the same time.
func TestMeasuredOnce(t *testing.T) {
	images := &slowSizes{Images: cloudtest.NewImages(t.TempDir()), calls: map[string]int{}, goOn: make(chan struct{})}
	s := cloudtest.Start(t, cloud.Options{Images: images})
	client := s.EC2("default", "us-east-1")
	snapshot := *made(t, client, "mine").BlockDeviceMappings[0].Ebs.SnapshotId
	const callers = 5
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			out, err := client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{snapshot}})
			if err != nil || aws.ToInt64(out.Snapshots[0].FullSnapshotSizeInBytes) == 0 {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	for begin := time.Now(); time.Since(begin) < time.Second/2; time.Sleep(time.Millisecond) {
		if n, _ := images.count(); n == callers {
			break
		}
	}
	close(images.goOn)
	all.Wait()
	if n, most := images.count(); n == 0 || most != 1 {
		t.Errorf("%d measurements, %d of one layer", n, most)
	}
}
