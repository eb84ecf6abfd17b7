package cloud_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"bake/cloud"
	"bake/cloud/cloudtest"
	cloudec2 "bake/cloud/ec2"
)

// rehearse serves a cloud with fault rules.
func rehearse(t *testing.T, opts cloud.Options, rules ...cloud.Fault) *cloudtest.Server {
	t.Helper()
	var err error
	if opts.Faults, err = cloudec2.NewFaults(1, rules...); err != nil {
		t.Fatal(err)
	}
	return cloudtest.Start(t, opts)
}

// sleeper is a clock whose Sleep is given by the test.
type sleeper struct {
	cloud.Clock
	sleep func(context.Context, time.Duration) error
}

func (s sleeper) Now() time.Time                                   { return time.Now() }
func (s sleeper) Sleep(ctx context.Context, d time.Duration) error { return s.sleep(ctx, d) }

// answered reports whether an error is an answer of the cloud.
func answered(err error) bool {
	_, ok := errors.AsType[smithy.APIError](err)
	return ok
}

// TestLostCalls checks that a lost request made nothing, and that the call of a lost or
// truncated answer was made: a client cannot tell these apart.
func TestLostCalls(t *testing.T) {
	for effect, made := range map[cloudec2.Effect]int{"lose-request": 0, "lose-answer": 1, "truncate": 1} {
		t.Run(string(effect), func(t *testing.T) {
			s := rehearse(t, cloud.Options{}, cloud.Fault{Action: "CreateKey*", Calls: 1, Effect: effect})
			client := s.EC2("default", "us-east-1")
			_, err := client.CreateKeyPair(t.Context(), &ec2.CreateKeyPairInput{KeyName: aws.String("k")})
			if err == nil || answered(err) {
				t.Fatalf("the error is %v, want one without an answer", err)
			}
			out, err := client.DescribeKeyPairs(t.Context(), &ec2.DescribeKeyPairsInput{})
			if err != nil || len(out.KeyPairs) != made {
				t.Errorf("%d key pairs, %v; want %d", len(out.KeyPairs), err, made)
			}
		})
	}
}

// TestFaultsOfServices checks rules for one service and for one account.
func TestFaultsOfServices(t *testing.T) {
	s := rehearse(t, cloud.Options{},
		cloud.Fault{Service: "ssm", Code: "ThrottlingException"},
		cloud.Fault{Service: "sts", Effect: "lose-answer"},
		cloud.Fault{Service: "ec2", Action: "DescribeVpcs", Account: "999999999999", Code: "AuthFailure"},
		cloud.Fault{Service: "ec2", Action: "DescribeSubnets", Account: "123456789012", Code: "ExpiredToken"})
	config := s.Config("default", "us-east-1")
	if _, err := ssm.NewFromConfig(config).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/a")}); code(err) != "ThrottlingException" {
		t.Errorf("ssm: %v", err)
	}
	if _, err := sts.NewFromConfig(config).GetCallerIdentity(t.Context(), nil); err == nil || answered(err) {
		t.Errorf("sts: %v", err)
	}
	if _, err := s.EC2("default", "us-east-1").DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{}); err != nil {
		t.Errorf("another account's rule: %v", err)
	}
	if _, err := s.EC2("default", "us-east-1").DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{}); code(err) != "ExpiredToken" {
		t.Errorf("the account's rule: %v", err)
	}
}

// TestStuck checks that a stuck transition does not end, and that a stuck instance can be
// terminated.
func TestStuck(t *testing.T) {
	s := rehearse(t, cloud.Options{},
		cloud.Fault{Action: "RunInstances", Calls: 1, Effect: "stuck"},
		cloud.Fault{Action: "StopInstances", Effect: "stuck"},
		cloud.Fault{Action: "CreateImage", Calls: 1, Effect: "stuck"},
		cloud.Fault{Action: "CreateImage", Nth: 2, Effect: "stuck", For: time.Millisecond})
	client := s.EC2("default", "us-east-1")
	launch := func() string {
		out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: aws.String(source(t, client)), InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Instances[0].InstanceId
	}
	terminate := func(id string) {
		if _, err := client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
			t.Fatal(err)
		}
		await(t, client, id, types.InstanceStateNameTerminated)
	}
	pending, running := launch(), launch()
	await(t, client, running, types.InstanceStateNameRunning)
	if in := describe(t, client, pending); in.State.Name != types.InstanceStateNamePending {
		t.Errorf("the stuck launch is %s", in.State.Name)
	}
	terminate(pending)
	var images []string
	for _, name := range []string{"for ever", "for a while"} {
		out, err := client.CreateImage(t.Context(), &ec2.CreateImageInput{InstanceId: &running, Name: &name, NoReboot: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, *out.ImageId)
	}
	state := func(id string) types.ImageState {
		out, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		return out.Images[0].State
	}
	eventually(t, "the second image", func() bool { return state(images[1]) == types.ImageStateAvailable })
	if got := state(images[0]); got != types.ImageStatePending {
		t.Errorf("the stuck image is %s", got)
	}
	if _, err := client.StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{running}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the machine to end", func() bool { return s.Driver.Machine(running) == nil })
	if in := describe(t, client, running); in.State.Name != types.InstanceStateNameStopping {
		t.Errorf("the stuck instance is %s", in.State.Name)
	}
	terminate(running)
}

// TestDelay checks that the answer is delayed by the cloud's clock.
func TestDelay(t *testing.T) {
	var slept atomic.Int64
	c := sleeper{sleep: func(_ context.Context, d time.Duration) error { slept.Add(int64(d)); return nil }}
	s := rehearse(t, cloud.Options{Clock: c}, cloud.Fault{Action: "DescribeRegions", Effect: "delay", For: time.Hour})
	if _, err := s.EC2("default", "us-east-1").DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{}); err != nil || slept.Load() != int64(time.Hour) {
		t.Errorf("slept %s, %v", time.Duration(slept.Load()), err)
	}
}

// TestMishaps checks that rules end running instances, with the right reason.
func TestMishaps(t *testing.T) {
	s := rehearse(t, cloud.Options{},
		cloud.Fault{InstanceType: "t3.small", Effect: "die"},
		cloud.Fault{Effect: "interrupt", For: time.Nanosecond})
	client := s.EC2("default", "us-east-1")
	launch := func(in ec2.RunInstancesInput) string {
		in.ImageId, in.MinCount, in.MaxCount = aws.String(source(t, client)), aws.Int32(1), aws.Int32(1)
		out, err := client.RunInstances(t.Context(), &in)
		if err != nil {
			t.Fatal(err)
		}
		return *out.Instances[0].InstanceId
	}
	spot := &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot}
	died := launch(ec2.RunInstancesInput{InstanceType: "t3.small"})
	taken := launch(ec2.RunInstancesInput{InstanceType: "t3.micro", InstanceMarketOptions: spot})
	lives := launch(ec2.RunInstancesInput{InstanceType: "t3.micro"})
	for id, want := range map[string]string{died: "Server.InternalError", taken: "Server.SpotInstanceTermination"} {
		if in := await(t, client, id, types.InstanceStateNameTerminated); *in.StateReason.Code != want {
			t.Errorf("%s: %s, want %s", id, *in.StateReason.Code, want)
		}
	}
	await(t, client, lives, types.InstanceStateNameRunning)
	requests, err := client.DescribeSpotInstanceRequests(t.Context(), &ec2.DescribeSpotInstanceRequestsInput{})
	if err != nil || len(requests.SpotInstanceRequests) != 1 || *requests.SpotInstanceRequests[0].Status.Code != "instance-terminated-no-capacity" {
		t.Errorf("spot requests: %+v, %v", requests, err)
	}
}

// TestSpotNotice checks that the metadata service says when a Spot Instance will be taken
// back.
func TestSpotNotice(t *testing.T) {
	s := rehearse(t, cloud.Options{}, cloud.Fault{Effect: "interrupt"})
	client := s.EC2("default", "us-east-1")
	id := *run(t, client, ec2.RunInstancesInput{InstanceMarketOptions: &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot}}).InstanceId
	get := func() string {
		r := httptest.NewRequest(http.MethodGet, "/latest/meta-data/spot/instance-action", nil)
		w := httptest.NewRecorder()
		for _, spec := range s.Driver.Specs() {
			if spec.ID == id {
				spec.Network.Metadata.ServeHTTP(w, r)
			}
		}
		body, _ := io.ReadAll(w.Result().Body)
		return string(body)
	}
	eventually(t, "the notice", func() bool { return strings.Contains(get(), `"action": "terminate"`) })
	if in := describe(t, client, id); in.State.Name != types.InstanceStateNameRunning {
		t.Errorf("the instance is %s", in.State.Name)
	}
}

// TestHang checks that the machine is frozen and later thawed.
func TestHang(t *testing.T) {
	asked := make(chan time.Duration, 8)
	thaw := make(chan struct{})
	c := sleeper{sleep: func(ctx context.Context, d time.Duration) error {
		if d != time.Minute {
			return context.Cause(ctx)
		}
		asked <- d
		select {
		case <-thaw:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
	s := rehearse(t, cloud.Options{Clock: c}, cloud.Fault{Effect: "hang", For: time.Minute})
	client := s.EC2("default", "us-east-1")
	id := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	select {
	case <-asked:
	case <-time.After(time.Minute):
		t.Fatal(errors.New("the machine was not frozen"))
	}
	if !s.Driver.Machine(id).Frozen() {
		t.Error("the machine runs")
	}
	close(thaw)
	eventually(t, "the machine to go on", func() bool { return !s.Driver.Machine(id).Frozen() })
}

// TestExamples checks that the rule files in the documentation are valid.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "examples", "rehearsal", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, name := range files {
		if r, err := cloud.LoadRehearsal(name); err != nil || r.Faults == nil || len(rulesOf(r.Faults)) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func rulesOf(f *cloud.Faults) []cloud.Fault {
	rules, _ := f.Rules()
	return rules
}

// rehearsing reads or changes a cloud's rehearsal, as the account with that index.
func rehearsing(t *testing.T, s *cloudtest.Server, profile int, method, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	key := aws.Credentials{AccessKeyID: s.Credentials()[profile].AccessKeyID, SecretAccessKey: s.Credentials()[profile].SecretAccessKey}
	if profile == 1 {
		key.SecretAccessKey = "wrong"
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), key, req, hex.EncodeToString(sum[:]), "rehearsal", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(all))
}

// TestChangedRules changes rules and delays while the cloud runs: the effects of old rules
// on instances end.
func TestChangedRules(t *testing.T) {
	s := rehearse(t, cloud.Options{Delays: cloud.Delays{Copy: time.Second}},
		cloud.Fault{Effect: "hang"}, cloud.Fault{Effect: "unreachable"}, cloud.Fault{Effect: "metadata", Status: 500},
		cloud.Fault{Action: "DescribeRegions", Nth: 2, Code: "Unavailable"})
	client := s.EC2("default", "us-east-1")
	id := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	connect := func() (int, string) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "CONNECT %s:22 HTTP/1.1\r\nHost: %s:22\r\n\r\n", id, id)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		if answer.StatusCode != http.StatusOK {
			all, _ := io.ReadAll(answer.Body)
			text = string(all)
		}
		return answer.StatusCode, text
	}
	metadataStatus := func() int {
		for _, spec := range s.Driver.Specs() {
			if spec.ID == id {
				w := httptest.NewRecorder()
				spec.Network.Metadata.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/latest/meta-data/", nil))
				return w.Code
			}
		}
		return 0
	}
	eventually(t, "the instance to be cut off", func() bool {
		status, text := connect()
		return status == http.StatusBadGateway && strings.Contains(text, "is unreachable")
	})
	eventually(t, "the instance to hang, without metadata", func() bool { return s.Driver.Machine(id).Frozen() && metadataStatus() == 500 })
	for range 2 {
		_, _ = client.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{})
	}
	want := `{"delays":{"copy":"1s"},"faults":{"seed":1,"rules":[{"effect":"hang"},{"effect":"unreachable"},{"status":500,"effect":"metadata"},{"action":"DescribeRegions","nth":2,"effect":"error","code":"Unavailable"}]},` +
		`"counts":[{"seen":1,"applied":1},{"seen":1,"applied":1},{"seen":1,"applied":1},{"seen":2,"applied":1}]}`
	var got, expected any
	status, text := rehearsing(t, s, 0, http.MethodGet, "")
	if err := errors.Join(json.Unmarshal([]byte(text), &got), json.Unmarshal([]byte(want), &expected)); err != nil || status != http.StatusOK || !reflect.DeepEqual(got, expected) {
		t.Errorf("%d %v\ngot  %s\nwant %s", status, err, text, want)
	}

	for body, want := range map[string]string{
		`{"faults": {"rules": [{"effect": "melt"}]}}`: `there is no effect "melt"`,
		`{"fault": {}}`: `unknown field "fault"`,
	} {
		if status, text := rehearsing(t, s, 0, http.MethodPut, body); status != http.StatusBadRequest || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	if status, text := rehearsing(t, s, 1, http.MethodPut, `{"faults": {"rules": []}}`); status != http.StatusForbidden || strings.Contains(text, "rules") {
		t.Errorf("with a wrong key: %d %s", status, text)
	}
	if !s.Driver.Machine(id).Frozen() {
		t.Error("what was refused has changed something")
	}

	status, text = rehearsing(t, s, 0, http.MethodPut, `{"faults": {"seed": 5, "rules": [{"action": "DescribeRegions", "code": "SlowDown"}]}}`)
	if status != http.StatusOK || !strings.Contains(text, `"delays":{"copy":"1s"}`) || !strings.Contains(text, `"seed":5`) {
		t.Errorf("%d %s", status, text)
	}
	eventually(t, "the instance to go on", func() bool {
		_, text := connect()
		return !s.Driver.Machine(id).Frozen() && metadataStatus() == http.StatusOK && !strings.Contains(text, "unreachable")
	})
	if _, err := client.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{}); code(err) != "SlowDown" {
		t.Errorf("the new rule: %v", err)
	}
	if status, text = rehearsing(t, s, 0, http.MethodPut, `{"delays": "aws"}`); !strings.Contains(text, `"launch":"8s"`) || !strings.Contains(text, "SlowDown") {
		t.Errorf("%d %s", status, text)
	}
}

// TestObjectFaults checks that S3 is slow, refuses, and truncates answers by rules.
func TestObjectFaults(t *testing.T) {
	s := rehearse(t, cloud.Options{},
		cloud.Fault{Service: "s3", Action: "GetObject", Nth: 1, Effect: "truncate"},
		cloud.Fault{Service: "s3", Action: "GetObject", Nth: 2, Code: "SlowDown"},
		cloud.Fault{Service: "s3", Action: "PutObject", Nth: 2, Effect: "lose-answer"},
		cloud.Fault{Service: "s3", Action: "PutObject", Nth: 3, Effect: "lose-request"},
		cloud.Fault{Service: "s3", Action: "ListObjectsV2", Effect: "truncate"})
	client, ctx := s3Client(s, 0, "us-east-1"), t.Context()
	bucket := aws.String("images")
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("x", 1<<20)
	put := func(key string) error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader(content)})
		return err
	}
	get := func(key string) (int, error) {
		out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &key})
		if err != nil {
			return 0, err
		}
		defer out.Body.Close()
		n, err := io.Copy(io.Discard, out.Body)
		return int(n), err
	}
	if err := put("a"); err != nil {
		t.Fatal(err)
	}
	if n, err := get("a"); err == nil || n == 0 || n >= len(content) {
		t.Errorf("the cut object: %d bytes, %v", n, err)
	}
	_, err := get("a")
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); code(err) != "SlowDown" || !ok || answer.HTTPStatusCode() != 503 {
		t.Errorf("slow down: %v", err)
	}
	if n, err := get("a"); err != nil || n != len(content) {
		t.Errorf("the object: %d bytes, %v", n, err)
	}
	if err := put("b"); err == nil || answered(err) {
		t.Errorf("the answer was to be lost: %v", err)
	}
	if err := put("c"); err == nil || answered(err) {
		t.Errorf("the request was to be lost: %v", err)
	}
	if _, err := get("b"); err != nil {
		t.Errorf("the object whose answer was lost: %v", err)
	}
	if _, err := get("c"); code(err) != "NoSuchKey" {
		t.Errorf("the object whose request was lost: %v", err)
	}
	if _, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket}); err == nil || answered(err) {
		t.Errorf("the cut list: %v", err)
	}
}
