// Package amazontest provides tests of the builders with an embedded EC2 whose machines
// are SSH servers, and with helpers for using it.
package amazontest

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
	"bake/builder/amazon/images"
	"bake/cloud/confined"
	"bake/cloud/ec2"
	"bake/cloud/iam"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
	"bake/cloud/sts"
	"bake/cloud/wire"
	"bake/communicator/commtest"
	"bake/communicator/winrm/winrmtest"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/step"
)

// The accounts of the test's cloud, and the name of its image.
const (
	Account   = "123456789012"
	publisher = "136693071363"
	Region    = "us-east-1"
)

// Call is one request that the cloud received.
type Call struct {
	Action string            `json:"action"`
	Region string            `json:"region"`
	Params map[string]string `json:"params"`
}

// Changes reports whether the call may change something.
func (c Call) Changes() bool {
	return !strings.HasPrefix(c.Action, "Describe") && !strings.HasPrefix(c.Action, "Get") && c.Params["DryRun"] != "true"
}

// Maker makes the builder under test.
type Maker func(amazon.Cloud) component.Factory[builder.Builder]

// World is an embedded EC2 behind HTTP, whose machines are one SSH server.
type World struct {
	t      testing.TB
	maker  Maker
	Dir    string
	Cloud  amazon.Cloud
	URL    string // of the embedded EC2
	Driver *machinetest.Driver
	IAM    *iam.Service

	services map[string]*wire.Service
	sessions *sts.Sessions

	HostKey *commtest.KeyPair // of every machine
	WinRM   *winrmtest.Server // answers at port 5985 of every machine; nil: nothing does
	servers map[string]*commtest.Server

	UnderWay sync.RWMutex // read-locked by each call in progress

	// ImageCreated is [builder.Hooks.ImageCreated] of the builds.
	ImageCreated func(ctx context.Context, image builder.Image) error

	// ImageTags is [builder.Hooks.ImageTags] of the builds.
	ImageTags func(ctx context.Context) (map[string]string, error)

	// AwaitFirstBoot is [builder.Hooks.AwaitFirstBoot] of the builds.
	AwaitFirstBoot func(ctx context.Context, m builder.Machine) error

	// FaultsFrom is the action of the first call in which [Faults] injects a fault; empty:
	// any.
	FaultsFrom string

	Mu    sync.Mutex
	Calls []Call

	// Intercept, if not nil, handles call n (from 1) instead of the cloud or after it:
	// serve carries out the call and writes the response.
	Intercept func(n int, c Call, w http.ResponseWriter, serve func(http.ResponseWriter))

	// Adapt, if not nil, changes the behavior of the cloud: serve carries out a request
	// with another body.
	Adapt func(c Call, body []byte, w http.ResponseWriter, serve func([]byte, http.ResponseWriter))
}

// NewWorld returns a world with an embedded cloud and the given fault rules, for
// components that maker makes. It ends with the test.
func NewWorld(t testing.TB, maker Maker, rules ...ec2.Fault) *World {
	key, err := commtest.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &World{t: t, maker: maker, Dir: t.TempDir(), Driver: &machinetest.Driver{}, HostKey: key, servers: map[string]*commtest.Server{}}
	w.Driver.Dial = w.dialMachine
	faults, err := ec2.NewFaults(1, rules...)
	if err != nil {
		t.Fatal(err)
	}
	service, err := ec2.Open(t.Context(), ec2.Options{
		Dir: w.Dir, Driver: w.Driver, Images: &imageStore{dir: filepath.Join(w.Dir, "layers")}, Faults: faults, Profiles: profiles{w},
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.IAM, err = iam.Open(filepath.Join(w.Dir, "iam"), time.Now); err != nil {
		t.Fatal(err)
	}
	w.sessions = &sts.Sessions{Key: []byte("secret")}
	role := func(arn string) (sts.Role, bool) {
		r, ok := w.IAM.Role(arn)
		return sts.Role(r), ok
	}
	t.Cleanup(func() { service.Close(context.WithoutCancel(t.Context())) })
	w.services = map[string]*wire.Service{}
	for name, open := range map[string]func() (*wire.Service, error){
		"ec2": service.Endpoint, "iam": w.IAM.Endpoint, "sts": (&sts.Service{Sessions: w.sessions, Now: time.Now, Role: role}).Endpoint,
	} {
		if w.services[name], err = open(); err != nil {
			t.Fatal(err)
		}
		w.services[name].Before = service.Before(name)
	}
	server := httptest.NewServer(http.HandlerFunc(w.handle))
	t.Cleanup(server.Close)
	w.URL = server.URL
	w.Cloud = amazon.Cloud{
		Name: "test", Endpoint: server.URL, AccessKey: "AKIATEST", SecretKey: "secret", Region: Region, Users: images.Users,
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

func (w *World) handle(rw http.ResponseWriter, r *http.Request) {
	w.UnderWay.RLock()
	defer w.UnderWay.RUnlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	scope, err := wire.ParseScope(r)
	endpoint := w.services[scope.Service]
	if err == nil && endpoint == nil {
		err = &wire.Error{Code: "InvalidAction", Message: "There is no service " + scope.Service + ".", Status: http.StatusBadRequest}
	}
	if err != nil {
		w.services["ec2"].WriteError(rw, "id", err)
		return
	}
	params, err := url.ParseQuery(string(body))
	if err != nil {
		w.t.Error(err)
	}
	c := Call{Action: params.Get("Action"), Region: scope.Region, Params: map[string]string{}}
	for k, v := range params {
		if k != "Action" && k != "Version" {
			c.Params[k] = v[0]
		}
	}
	w.Mu.Lock()
	w.Calls = append(w.Calls, c)
	n := len(w.Calls)
	intercept := w.Intercept
	w.Mu.Unlock()
	serve := func(rw http.ResponseWriter) {
		caller, err := w.caller(scope, r.Header.Get("X-Amz-Security-Token"))
		if err != nil {
			endpoint.WriteError(rw, "id", err)
			return
		}
		ctx := wire.WithCaller(context.WithoutCancel(r.Context()), caller)
		carryOut := func(body []byte, rw http.ResponseWriter) { endpoint.Serve(ctx, rw, r, body) }
		if w.Adapt != nil {
			w.Adapt(c, body, rw, carryOut)
			return
		}
		carryOut(body, rw)
	}
	if intercept == nil {
		serve(rw)
		return
	}
	intercept(n, c, rw, serve)
}

// caller returns who makes a request.
func (w *World) caller(scope wire.Scope, token string) (wire.Caller, error) {
	caller := wire.Caller{Account: Account, Region: scope.Region, AccessKey: scope.AccessKey}
	switch {
	case sts.Temporary(scope.AccessKey):
		_, session, err := w.sessions.Open(scope.AccessKey, token, time.Now())
		if err != nil {
			return caller, err
		}
		caller.Account, caller.SessionARN, caller.SessionID = session.Account, session.ARN, session.UserID
	case scope.AccessKey != "AKIATEST":
		code := "InvalidClientTokenId"
		if scope.Service == "ec2" {
			code = "AuthFailure"
		}
		return caller, &wire.Error{Code: code, Message: "The security token included in the request is invalid.", Status: http.StatusForbidden}
	}
	return caller, nil
}

// profiles gives the world's EC2 access to the instance profiles of its IAM.
type profiles struct{ *World }

func (p profiles) Find(owner, name, arn string) (ec2.Profile, bool) {
	found, ok := p.IAM.Profile(owner, name, arn)
	return ec2.Profile{ARN: found.ARN, ID: found.ID, Role: found.Role.Name}, ok
}

func (p profiles) IssueCredentials(string, string, string) (ec2.Credentials, bool) {
	return ec2.Credentials{}, false
}

// Identities lists the roles and instance profiles of the account.
func (w *World) Identities() (out []string) {
	data, err := os.ReadFile(filepath.Join(w.Dir, "iam", Account+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	w.Fatal(err)
	var all struct{ Roles, Profiles map[string]any }
	w.Fatal(json.Unmarshal(data, &all))
	for name := range all.Roles {
		out = append(out, "role "+name)
	}
	for name := range all.Profiles {
		out = append(out, "instance profile "+name)
	}
	return out
}

// dialMachine connects to a machine: to an SSH server that accepts the keys that the
// machine was booted with.
func (w *World) dialMachine(ctx context.Context, spec machine.Spec, port uint16) (net.Conn, error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if w.WinRM != nil && port == 5985 {
		return net.Dial("tcp", net.JoinHostPort(w.WinRM.Host, fmt.Sprint(w.WinRM.Port)))
	}
	if s := w.servers[spec.ID]; s != nil {
		return net.Dial("tcp", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
	}
	login := commtest.Login{User: spec.User, HostKey: w.HostKey.Signer}
	for _, line := range spec.AuthorizedKeys {
		key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, err
		}
		login.Key = key
	}
	home := filepath.Join(w.Dir, "home", spec.ID)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	s := commtest.Serve(w.t, home, login)
	w.servers[spec.ID] = s
	return net.Dial("tcp", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
}

// Client returns a client for examining the cloud as the user would; its calls are not
// recorded.
func (w *World) Client(in string) *awsec2.Client {
	return awsec2.New(awsec2.Options{
		Region: in, BaseEndpoint: &w.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: "secret"}, nil
		}),
	})
}

// Quietly runs f without recording or intercepting its calls.
func (w *World) Quietly(f func()) {
	w.Mu.Lock()
	calls, intercept := w.Calls, w.Intercept
	w.Intercept = nil
	w.Mu.Unlock()
	f()
	w.Mu.Lock()
	w.Calls, w.Intercept = calls, intercept
	w.Mu.Unlock()
}

// Holdings lists all resources of the account in these regions that cost money or occupy a
// name: "us-east-1 image ami-1 (name)".
func (w *World) Holdings() []string {
	var out []string
	w.Quietly(func() {
		for _, in := range []string{Region, "eu-west-1", "us-west-2"} {
			out = append(out, w.holdingsIn(in)...)
		}
	})
	out = append(out, w.Identities()...)
	slices.Sort(out)
	return out
}

func (w *World) holdingsIn(in string) (out []string) {
	ctx, c := context.Background(), w.Client(in)
	add := func(kind string, id *string, more any) {
		out = append(out, fmt.Sprintf("%s %s %s (%v)", in, kind, aws.ToString(id), more))
	}
	instances, err := c.DescribeInstances(ctx, &awsec2.DescribeInstancesInput{})
	w.Fatal(err)
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				add("instance", i.InstanceId, i.State.Name)
			}
		}
	}
	images, err := c.DescribeImages(ctx, &awsec2.DescribeImagesInput{Owners: []string{"self"}, IncludeDisabled: new(true)})
	w.Fatal(err)
	for _, i := range images.Images {
		add("image", i.ImageId, *i.Name)
	}
	snapshots, err := c.DescribeSnapshots(ctx, &awsec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	w.Fatal(err)
	for _, s := range snapshots.Snapshots {
		add("snapshot", s.SnapshotId, s.State)
	}
	volumes, err := c.DescribeVolumes(ctx, &awsec2.DescribeVolumesInput{})
	w.Fatal(err)
	for _, v := range volumes.Volumes {
		add("volume", v.VolumeId, v.State)
	}
	groups, err := c.DescribeSecurityGroups(ctx, &awsec2.DescribeSecurityGroupsInput{})
	w.Fatal(err)
	for _, g := range groups.SecurityGroups {
		if *g.GroupName != "default" {
			add("security group", g.GroupId, *g.GroupName)
		}
	}
	keys, err := c.DescribeKeyPairs(ctx, &awsec2.DescribeKeyPairsInput{})
	w.Fatal(err)
	for _, k := range keys.KeyPairs {
		add("key pair", k.KeyPairId, *k.KeyName)
	}
	return out
}

// Fatal ends the test if there is an error.
func (w *World) Fatal(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Bake is one run of one build in a world.
type Bake struct {
	World  *World
	Ledger string // path
	Scope  *step.Scope
	Open   *step.FileLedger

	mu     sync.Mutex
	Events []step.Event

	// Provision replaces the provisioners; nil does nothing.
	Provision builder.Provision
}

// Bake returns a build in the world, with a separate scope and ledger.
func (w *World) Bake(t testing.TB) *Bake {
	b := &Bake{World: w}
	dir := t.TempDir()
	run := fmt.Sprintf("run-%d", time.Now().UnixNano())
	l, err := step.CreateLedger(dir, step.Header{Run: run})
	if err != nil {
		t.Fatal(err)
	}
	b.Ledger, b.Open = filepath.Join(dir, run+".jsonl"), l
	b.Scope = step.NewScope(step.Scope{
		Run:   step.Invocation{ID: run, Start: time.Unix(1700000000, 0)},
		Build: "amazon-ebs.web", SourceType: "amazon-ebs", SourceName: "web",
		Ledger: l, Grace: time.Minute,
		Emit: func(e step.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.Events = append(b.Events, e)
		},
	})
	return b
}

// Build decodes body as a source block and builds it, without teardown.
func (b *Bake) Build(ctx context.Context, body string) (*builder.Artifact, error) {
	return b.BuildInput(ctx, Input(body))
}

// BuildInput is Build with an input of the caller's.
func (b *Bake) BuildInput(ctx context.Context, in schema.Input) (*builder.Artifact, error) {
	maker, diags := b.World.maker(b.World.Cloud).New(in)
	if diags.HasErrors() {
		return nil, diags
	}
	provision := b.Provision
	if provision == nil {
		provision = func(context.Context, builder.Machine) error { return nil }
	}
	return maker.Build(ctx, b.Scope, builder.Hooks{Provision: provision, AwaitFirstBoot: b.World.AwaitFirstBoot, ImageCreated: b.World.ImageCreated, ImageTags: b.World.ImageTags})
}

// Said returns the messages to the user, one per line.
func (b *Bake) Said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []string
	for _, e := range b.Events {
		if e.Kind == step.Say || e.Kind == step.Warning {
			lines = append(lines, e.Text)
		}
	}
	return strings.Join(lines, "\n")
}

// Sweep deletes the resources in a copy of the ledger, as another process would.
func (b *Bake) Sweep(t testing.TB, ledger []byte) error {
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
		switch name {
		case "": // AWS, as the environment defines it
			return amazon.Cloud{Dial: b.World.Cloud.Dial}, nil
		case "test":
			return b.World.Cloud, nil
		}
		return amazon.Cloud{}, fmt.Errorf("unknown cloud %q", name)
	})
	for _, r := range slices.Backward(owned) {
		if err := d.Destroy(t.Context(), r); err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
	}
	return nil
}

// Input decodes the body of a source block.
func Input(body string) schema.Input {
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
	in := Input(string(text))
	for _, block := range in.Body.(*hclsyntax.Body).Blocks {
		if block.Type == "source" {
			in.Body = block.Body
		}
	}
	return in
}

// Plain returns the body of a source block with the required options and more.
func Plain(more string) string {
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

// imageStore keeps layers as directories. It supports only what builders request from a
// cloud.
type imageStore struct {
	ec2.Images
	dir string
	mu  sync.Mutex
	n   int
}

func (s *imageStore) Recall(string) (string, error) { return "", nil }

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

func (s *imageStore) Freeze(_ context.Context, id string, dir confined.Dir) error {
	return dir.Rename(filepath.Join(s.dir, id))
}

func (s *imageStore) Flush() error { return nil }

func (s *imageStore) Hold(context.Context) (release func(), err error) { return func() {}, nil }

func (s *imageStore) Clone(_ context.Context, dir confined.Dir) (string, error) {
	id := s.NewID()
	return id, os.CopyFS(filepath.Join(s.dir, id), os.DirFS(dir.Path()))
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

func (s *imageStore) Size(context.Context, string) (int64, error) { return 1 << 20, nil }

func (s *imageStore) InBases(layers []string) (map[string]bool, error) {
	return map[string]bool{"base": slices.Contains(layers, "base")}, nil
}

func (s *imageStore) Collect(context.Context, func() (layers, bases []string)) error { return nil }

// readCalls reads a recording.
func readCalls(t testing.TB, path string) (calls []Call) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var c Call
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	return calls
}

// Tally counts calls by action.
func Tally(calls []Call) string {
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

// MustBuild bakes body and tears down.
func (w *World) MustBuild(t testing.TB, body string) map[string]string {
	t.Helper()
	b := w.Bake(t)
	a, err := b.Build(t.Context(), body)
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if a == nil {
		return nil
	}
	return a.Images
}

// Describe returns the image with that id in a region.
func (w *World) Describe(in, id string) types.Image {
	out, err := w.Client(in).DescribeImages(context.Background(), &awsec2.DescribeImagesInput{ImageIds: []string{id}})
	w.Fatal(err)
	return out.Images[0]
}

// Sent returns the parameters of the first call of an action that is not a dry run.
func (w *World) Sent(action string) map[string]string {
	for _, c := range w.Calls {
		if c.Action == action && c.Params["DryRun"] != "true" {
			return c.Params
		}
	}
	w.t.Fatalf("no %s was sent", action)
	return nil
}
