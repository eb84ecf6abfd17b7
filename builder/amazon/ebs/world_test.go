package ebs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	gossh "golang.org/x/crypto/ssh"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
	"bake/cloud/ec2"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
	"bake/cloud/wire"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/step"
)

const (
	account   = "123456789012"
	publisher = "136693071363"
	region    = "us-east-1"
)

// call is one request that the cloud got.
type call struct {
	Action string            `json:"action"`
	Region string            `json:"region"`
	Params map[string]string `json:"params"`
}

// world is an embedded EC2 behind HTTP, whose machines are one SSH server.
type world struct {
	t      testing.TB
	dir    string
	cloud  amazon.Cloud
	driver *machinetest.Driver

	hostKey *ssh.KeyPair // of every machine
	servers map[string]*commtest.Server

	underWay sync.WaitGroup // calls

	mu    sync.Mutex
	calls []call

	// intercept, when not nil, answers call n (from 1) instead of or after the
	// cloud: serve carries it out and writes the answer.
	intercept func(n int, c call, w http.ResponseWriter, serve func(http.ResponseWriter))
}

func newWorld(t testing.TB, rules ...ec2.Fault) *world {
	key, err := ssh.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir(), driver: &machinetest.Driver{}, hostKey: key, servers: map[string]*commtest.Server{}}
	w.driver.Dial = w.dialMachine
	faults, err := ec2.NewFaults(1, rules...)
	if err != nil {
		t.Fatal(err)
	}
	service, err := ec2.Open(t.Context(), ec2.Options{
		Dir: w.dir, Driver: w.driver, Images: &imageStore{dir: filepath.Join(w.dir, "layers")}, Faults: faults,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Close(context.WithoutCancel(t.Context())) })
	endpoint, err := service.Endpoint()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.handle(endpoint, rw, r) }))
	t.Cleanup(server.Close)
	w.cloud = amazon.Cloud{
		Name: "test", Endpoint: server.URL, AccessKey: "AKIATEST", SecretKey: "secret", Region: region,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return service.DialPublic(ctx, netip.MustParseAddr("127.0.0.1"), to.Addr(), to.Port())
		},
	}
	return w
}

func (w *world) handle(endpoint *wire.Service, rw http.ResponseWriter, r *http.Request) {
	w.underWay.Add(1)
	defer w.underWay.Done()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	scope, err := wire.ParseScope(r)
	if err != nil {
		endpoint.WriteError(rw, "id", err)
		return
	}
	params, err := url.ParseQuery(string(body))
	if err != nil {
		w.t.Error(err)
	}
	c := call{Action: params.Get("Action"), Region: scope.Region, Params: map[string]string{}}
	for k, v := range params {
		if k != "Action" && k != "Version" {
			c.Params[k] = v[0]
		}
	}
	w.mu.Lock()
	w.calls = append(w.calls, c)
	n := len(w.calls)
	intercept := w.intercept
	w.mu.Unlock()
	serve := func(rw http.ResponseWriter) {
		if scope.AccessKey != "AKIATEST" && scope.Service == "sts" {
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprint(rw, `<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid.</Message></Error></ErrorResponse>`)
			return
		}
		if scope.AccessKey != "AKIATEST" {
			endpoint.WriteError(rw, "id", &wire.Error{Code: "AuthFailure", Message: "AWS was not able to validate the provided access credentials", Status: 401})
			return
		}
		if scope.Service == "sts" {
			fmt.Fprintf(rw, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::%[1]s:user/me</Arn><UserId>me</UserId><Account>%[1]s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, account)
			return
		}
		ctx := wire.WithCaller(context.WithoutCancel(r.Context()), wire.Caller{Account: account, Region: scope.Region, AccessKey: scope.AccessKey})
		endpoint.Serve(ctx, rw, r, body)
	}
	if intercept == nil {
		serve(rw)
		return
	}
	intercept(n, c, rw, serve)
}

// dialMachine connects to a machine: to an SSH server that lets in the keys that
// the machine was booted with.
func (w *world) dialMachine(ctx context.Context, spec machine.Spec, port uint16) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.servers[spec.ID]; s != nil {
		return net.Dial("tcp", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
	}
	login := commtest.Login{User: spec.User, HostKey: w.hostKey.Signer}
	for _, line := range spec.AuthorizedKeys {
		key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, err
		}
		login.Key = key
	}
	home := filepath.Join(w.dir, "home", spec.ID)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	s := commtest.Serve(w.t, home, login)
	w.servers[spec.ID] = s
	return net.Dial("tcp", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
}

// client is what the user would look at the cloud with; its calls are not recorded.
func (w *world) client(in string) *awsec2.Client {
	return awsec2.New(awsec2.Options{
		Region: in, BaseEndpoint: &w.cloud.Endpoint,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: "secret"}, nil
		}),
	})
}

// quietly runs f without recording or intercepting its calls.
func (w *world) quietly(f func()) {
	w.mu.Lock()
	calls, intercept := w.calls, w.intercept
	w.intercept = nil
	w.mu.Unlock()
	f()
	w.mu.Lock()
	w.calls, w.intercept = calls, intercept
	w.mu.Unlock()
}

// holdings lists everything in the account, in these regions, that costs
// something or is in the way: "us-east-1 image ami-1 (name)".
func (w *world) holdings() []string {
	var out []string
	w.quietly(func() {
		for _, in := range []string{region, "eu-west-1", "us-west-2"} {
			out = append(out, w.holdingsIn(in)...)
		}
	})
	slices.Sort(out)
	return out
}

func (w *world) holdingsIn(in string) (out []string) {
	ctx, c := context.Background(), w.client(in)
	add := func(kind string, id *string, more any) {
		out = append(out, fmt.Sprintf("%s %s %s (%v)", in, kind, aws.ToString(id), more))
	}
	instances, err := c.DescribeInstances(ctx, &awsec2.DescribeInstancesInput{})
	w.fatal(err)
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				add("instance", i.InstanceId, i.State.Name)
			}
		}
	}
	images, err := c.DescribeImages(ctx, &awsec2.DescribeImagesInput{Owners: []string{"self"}})
	w.fatal(err)
	for _, i := range images.Images {
		add("image", i.ImageId, *i.Name)
	}
	snapshots, err := c.DescribeSnapshots(ctx, &awsec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	w.fatal(err)
	for _, s := range snapshots.Snapshots {
		add("snapshot", s.SnapshotId, s.State)
	}
	volumes, err := c.DescribeVolumes(ctx, &awsec2.DescribeVolumesInput{})
	w.fatal(err)
	for _, v := range volumes.Volumes {
		add("volume", v.VolumeId, v.State)
	}
	groups, err := c.DescribeSecurityGroups(ctx, &awsec2.DescribeSecurityGroupsInput{})
	w.fatal(err)
	for _, g := range groups.SecurityGroups {
		if *g.GroupName != "default" {
			add("security group", g.GroupId, *g.GroupName)
		}
	}
	keys, err := c.DescribeKeyPairs(ctx, &awsec2.DescribeKeyPairsInput{})
	w.fatal(err)
	for _, k := range keys.KeyPairs {
		add("key pair", k.KeyPairId, *k.KeyName)
	}
	return out
}

func (w *world) fatal(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// bake is one run of one build in a world.
type bake struct {
	world  *world
	ledger string // path
	scope  *step.Scope
	open   *step.FileLedger

	mu     sync.Mutex
	events []step.Event

	// provision stands for the provisioners; nil does nothing.
	provision builder.Provision
}

func (w *world) bake(t testing.TB) *bake {
	b := &bake{world: w}
	dir := t.TempDir()
	run := fmt.Sprintf("run-%d", time.Now().UnixNano())
	l, err := step.CreateLedger(dir, step.Header{Run: run})
	if err != nil {
		t.Fatal(err)
	}
	b.ledger, b.open = filepath.Join(dir, run+".jsonl"), l
	b.scope = step.NewScope(step.Scope{
		Run:   step.Run{ID: run, Start: time.Unix(1700000000, 0)},
		Build: "amazon-ebs.web", SourceType: "amazon-ebs", SourceName: "web",
		Ledger: l, Grace: time.Minute,
		Emit: func(e step.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
		},
	})
	return b
}

// build decodes body as the source block and runs it, without teardown.
func (b *bake) build(ctx context.Context, body string) (*builder.Artifact, error) {
	return b.buildInput(ctx, input(body))
}

func (b *bake) buildInput(ctx context.Context, in schema.Input) (*builder.Artifact, error) {
	maker, diags := ebs.Factory(b.world.cloud).New(in)
	if diags.HasErrors() {
		return nil, diags
	}
	provision := b.provision
	if provision == nil {
		provision = func(context.Context, builder.Machine) error { return nil }
	}
	return maker.Build(ctx, b.scope, provision)
}

// said returns what was said, one text a line.
func (b *bake) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []string
	for _, e := range b.events {
		if e.Kind == step.Say || e.Kind == step.Warning {
			lines = append(lines, e.Text)
		}
	}
	return strings.Join(lines, "\n")
}

// sweep deletes what a copy of the ledger lists, as another process would.
func (b *bake) sweep(t testing.TB, ledger []byte) error {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	if err := os.WriteFile(path, ledger, 0o600); err != nil {
		return err
	}
	l, err := step.OpenLedger(path)
	if err != nil {
		return err
	}
	defer l.Close()
	owned, err := l.Owned()
	if err != nil {
		return err
	}
	d := amazon.Destroyer(func(_ context.Context, name string) (amazon.Cloud, error) {
		if name != "test" {
			return amazon.Cloud{}, fmt.Errorf("unknown cloud %q", name)
		}
		return b.world.cloud, nil
	})
	for _, r := range slices.Backward(owned) {
		if err := d.Destroy(t.Context(), r); err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
	}
	return nil
}

// input decodes the body of a source block.
func input(body string) schema.Input {
	f, diags := hclsyntax.ParseConfig([]byte(body), "web.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		panic(diags)
	}
	g := gotemplate.Context{BuildName: "web", BuildType: "amazon-ebs", Start: time.Unix(1700000000, 0)}
	return schema.Input{Body: f.Body, Context: &hcl.EvalContext{}, Render: func(text string, late bool) (string, error) {
		if late {
			return text, g.Check(text)
		}
		return g.Render(text, nil)
	}}
}

// blockIn returns the body of the source block of a template file.
func blockIn(t testing.TB, path string) schema.Input {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	in := input(string(text))
	for _, block := range in.Body.(*hclsyntax.Body).Blocks {
		if block.Type == "source" {
			in.Body = block.Body
		}
	}
	return in
}

// plain is the body of a source block that sets little more than it must.
func plain(more string) string {
	return `
region        = "us-east-1"
instance_type = "t3.micro"
ssh_username  = "admin"
temporary_key_pair_type = "ed25519"
source_ami_filter {
  owners      = ["136693071363"]
  most_recent = true
  filters     = { name = "debian-12-amd64-*" }
}
` + more
}

// imageStore keeps layers as directories.
type imageStore struct {
	ec2.Images // what no test here uses
	dir        string
	mu         sync.Mutex
	n          int
}

func (s *imageStore) Publications() ([]ec2.Publication, error) {
	p := ec2.Publication{Owner: publisher, Name: "debian-12-amd64-20260101-1", Architecture: "x86_64",
		Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Base: "debian-12", User: "admin"}
	older := p
	older.Name, older.Created = "debian-12-amd64-20250101-1", p.Created.AddDate(-1, 0, 0)
	amazonLinux := p
	amazonLinux.Owner, amazonLinux.OwnerAlias, amazonLinux.Name = "137112412989", "amazon", "amzn2-ami-hvm-2.0.20260727.0-x86_64-gp2"
	return []ec2.Publication{p, older, amazonLinux}, nil
}

func (s *imageStore) Ensure(context.Context, string, func(ec2.Progress)) ([]string, error) {
	return []string{"base"}, os.MkdirAll(filepath.Join(s.dir, "base"), 0o755)
}

func (s *imageStore) NewID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	return fmt.Sprintf("layer-%d", s.n)
}

func (s *imageStore) Freeze(_ context.Context, id, dir string) error {
	return os.Rename(dir, filepath.Join(s.dir, id))
}

func (s *imageStore) Clone(_ context.Context, dir string) (string, error) {
	id := s.NewID()
	return id, os.CopyFS(filepath.Join(s.dir, id), os.DirFS(dir))
}

func (s *imageStore) Paths(layers []string) (paths []string, err error) {
	for _, l := range layers {
		p := filepath.Join(s.dir, l)
		if _, err := os.Stat(p); err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}

func (s *imageStore) ImportDisk(context.Context, *os.File, string) (ec2.ImportedDisk, error) {
	return ec2.ImportedDisk{}, errors.New("disks are not imported here")
}

func (s *imageStore) Collect(context.Context, []string) error { return nil }

// readCalls reads a recording.
func readCalls(t testing.TB, path string) (calls []call) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var c call
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	return calls
}

// tally counts calls by action.
func tally(calls []call) string {
	n := map[string]int{}
	for _, c := range calls {
		n[c.Action]++
	}
	var parts []string
	for _, a := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%s %d", a, n[a]))
	}
	return strings.Join(parts, ", ")
}

// mustBuild bakes body and tears down.
func (w *world) mustBuild(t testing.TB, body string) map[string]string {
	t.Helper()
	b := w.bake(t)
	a, err := b.build(t.Context(), body)
	if err == nil {
		err = b.scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if a == nil {
		return nil
	}
	return a.Images
}
