//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// slow has delays of about a fifth of those of a small image on EC2.
var slow = cloud.Delays{Launch: 4 * time.Second, Stop: 5 * time.Second, Terminate: 5 * time.Second,
	Snapshot: 10 * time.Second, Image: 4 * time.Second, Copy: 8 * time.Second}

// bakes measures the cost of baking on a cloud that does not boot machines: calls, the
// delay until changes are noticed, and memory.
func (b *bench) bakes(ctx context.Context) error {
	plain, err := b.bakeSideBySide(ctx, 1, cloud.Delays{})
	if err != nil {
		return err
	}
	report("API calls of a plain image with two copies, nothing to wait for", fmt.Sprint(plain.calls), "goal: less than 36")
	for _, n := range []int{1, 10, 100} {
		r, err := b.bakeSideBySide(ctx, n, slow)
		if err != nil {
			return err
		}
		report(fmt.Sprintf("%d side by side: calls a minute that wait, in three regions", n), fmt.Sprintf("%.0f", float64(r.looks)/r.wall.Minutes()), "")
		report("  all calls of one bake", fmt.Sprint(r.calls/n), "")
		report("  wall time", round(r.wall), "")
		report("  changes noticed after, median and longest", fmt.Sprintf("%s, %s of %d", round(median(r.late)), round(slices.Max(r.late)), len(r.late)), "goal: at most 1 s")
		report("  largest resident set", fmt.Sprintf("%d MB", r.rss>>20), "goal for 100: at most 300 MB")
	}
	return nil
}

// result is what one run of bake cost.
type result struct {
	calls, looks int // looks are the calls that wait for a change
	wall         time.Duration
	late         []time.Duration // from a change in the cloud to the step that ends with it
	rss          int64           // bytes
}

// waits reports whether a call polls for a change of instances or images, or for the
// progress of snapshots.
func waits(call url.Values) bool {
	switch call.Get("Action") {
	case "DescribeInstances":
		return true
	case "DescribeImages":
		return call.Has("ImageId.1") || call.Get("Filter.1.Name") == "image-id"
	case "DescribeSnapshots":
		return call.Get("Filter.1.Name") == "tag:bake:build"
	}
	return false
}

// eachCall returns a handler that shows the parameters of each call to see before next serves it.
func eachCall(next http.Handler, see func(url.Values)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the client has gone
		}
		if form, err := url.ParseQuery(string(body)); err == nil {
			see(form)
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, req)
	})
}

// bakeSideBySide runs bake on a template with n sources.
func (b *bench) bakeSideBySide(ctx context.Context, n int, delays cloud.Delays) (r result, err error) {
	dir, err := os.MkdirTemp(b.dir, "bakes")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	s, err := cloudtest.Open(ctx, func() string { return filepath.Join(dir, "cloud") }, cloud.Options{Delays: delays})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
	var mu sync.Mutex
	counted := httptest.NewServer(eachCall(s.Handler(), func(form url.Values) {
		mu.Lock()
		defer mu.Unlock()
		r.calls++
		if waits(form) {
			r.looks++
		}
	}))
	defer counted.Close()
	direct := httptest.NewServer(s.Handler())
	defer direct.Close()
	who := s.Credentials()[0]

	cmd, err := b.sideBySideCommand(ctx, dir, n)
	if err != nil {
		return r, err
	}
	cmd.Env = append(cmd.Env, "AWS_ENDPOINT_URL="+counted.URL, "AWS_ACCESS_KEY_ID="+who.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+who.SecretAccessKey)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	w := &observer{changes: map[string]time.Time{}}
	var observing sync.WaitGroup
	for _, region := range []string{"us-east-1", "eu-west-1", "us-west-2"} {
		client := ec2.New(ec2.Options{Region: region, BaseEndpoint: &direct.URL,
			Credentials: credentials.NewStaticCredentialsProvider(who.AccessKeyID, who.SecretAccessKey, "")})
		observing.Go(func() { w.observe(watching, client) })
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return r, errors.Join(err, out.Close())
	}
	noticed, tail := noticedIn(out)
	err = cmd.Wait()
	stop()
	observing.Wait()
	if err != nil {
		return r, fmt.Errorf("%w: %s", err, tail)
	}
	r.wall = time.Since(start)
	r.rss = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	for what, at := range noticed {
		if changed, ok := w.changes[what]; ok {
			r.late = append(r.late, max(0, at.Sub(changed)))
		}
	}
	if len(r.late) == 0 {
		r.late = []time.Duration{0}
	}
	return r, nil
}

// sideBySideCommand returns the command that bakes a template with n sources, and keeps its state
// in dir.
func (b *bench) sideBySideCommand(ctx context.Context, dir string, n int) (*exec.Cmd, error) {
	template := filepath.Join(dir, "t.pkr.hcl")
	if err := os.WriteFile(template, []byte(sideBySide(n)), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.bake, "build", "-json", "-color=false", template)
	cmd.Env = append(os.Environ(), "BAKE_STATE_DIR="+filepath.Join(dir, "state"))
	return cmd, nil
}

// sideBySide is a template that makes n images, each with two copies.
func sideBySide(n int) string {
	var t, names strings.Builder
	for i := range n {
		fmt.Fprintf(&t, `
source "amazon-ebs" "s%[1]d" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  communicator  = "none"
  ami_name      = "web-%[1]d"
  ami_regions   = ["eu-west-1", "us-west-2"]
  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}
`, i)
		fmt.Fprintf(&names, "%q, ", fmt.Sprintf("amazon-ebs.s%d", i))
	}
	return t.String() + "build {\n  sources = [" + names.String() + "]\n}\n"
}

// observer records when things change in the cloud, to about 50 ms.
type observer struct {
	mu      sync.Mutex
	changes map[string]time.Time // "ami-1 available"
}

func (o *observer) observe(ctx context.Context, client *ec2.Client) {
	saw := func(id *string, state string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if key := aws.ToString(id) + " " + state; o.changes[key].IsZero() {
			o.changes[key] = time.Now()
		}
	}
	for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		if out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}}); err == nil {
			for _, i := range out.Images {
				saw(i.ImageId, string(i.State))
			}
		}
		if client.Options().Region != "us-east-1" {
			continue
		}
		if out, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}); err == nil {
			for _, r := range out.Reservations {
				for _, i := range r.Instances {
					saw(i.InstanceId, string(i.State.Name))
				}
			}
		}
	}
}

// noticedIn reads the events of a run. It returns when the run noticed each change, in the
// form of [observer], and the last lines.
func noticedIn(events io.Reader) (noticed map[string]time.Time, tail string) {
	noticed = map[string]time.Time{}
	ids := map[string]string{} // build and region, or build, to the image or instance
	var last []string
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		last = append(last[max(0, len(last)-5):], lines.Text())
		var e struct {
			Time              time.Time
			Kind, Build, Step string
			Resource          struct{ Kind, ID, Where string }
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		step := e.Step[strings.LastIndex(e.Step, "> ")+1:]
		step = strings.TrimSpace(step)
		in, waits := strings.CutPrefix(step, "wait for the image in ")
		switch {
		case e.Kind == "resource-created" && e.Resource.Kind == "ec2:image":
			ids[e.Build+e.Resource.Where] = e.Resource.ID
		case e.Kind == "resource-created" && e.Resource.Kind == "ec2:instance":
			ids[e.Build] = e.Resource.ID
		case e.Kind != "step-finished":
		case waits:
			noticed[ids[e.Build+in]+" available"] = e.Time
		case step == "wait for the instance to run":
			noticed[ids[e.Build]+" running"] = e.Time
		case step == "stop the instance":
			noticed[ids[e.Build]+" stopped"] = e.Time
		}
	}
	return noticed, strings.Join(last, "\n")
}
