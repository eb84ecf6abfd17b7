package ssmsession_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	"github.com/coder/websocket"

	"bake/builder/amazon/internal/ssmsession"
	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

// world is a cloud with an instance on which every port echoes.
type world struct {
	t      *testing.T
	ssm    *ssm.Client
	ec2    *ec2.Client
	id     string
	server *cloudtest.Server
}

func newWorld(t *testing.T, profile bool) *world {
	t.Helper()
	driver := &machinetest.Driver{}
	driver.Dial = func(ctx context.Context, _ machine.Spec, port uint16) (net.Conn, error) {
		if port != 22 {
			return nil, errors.New("nobody listens there")
		}
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			_, _ = io.WriteString(far, "hello\n")
			b := make([]byte, 32<<10)
			for {
				n, err := far.Read(b)
				if bytes.HasPrefix(b[:n], []byte("hang up")) || err != nil {
					return
				}
				if _, err := far.Write(b[:n]); err != nil {
					return
				}
			}
		}()
		return near, nil
	}
	s := cloudtest.Start(t, cloud.Options{Driver: driver})
	w := &world{t: t, ssm: ssm.NewFromConfig(s.Config("default", "us-east-1")), ec2: s.EC2("default", "us-east-1"), server: s}
	images, err := w.ec2.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"136693071363"}})
	if err != nil {
		t.Fatal(err)
	}
	in := &ec2.RunInstancesInput{ImageId: images.Images[0].ImageId, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: types.InstanceTypeT3Micro}
	if profile {
		w.makeProfile("ssm")
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("ssm")}
	}
	out, err := w.ec2.RunInstances(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	w.id = *out.Instances[0].InstanceId
	for deadline := time.Now().Add(time.Minute); ; {
		seen, err := w.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{w.id}})
		if err != nil {
			t.Fatal(err)
		}
		if seen.Reservations[0].Instances[0].State.Name == types.InstanceStateNameRunning {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the instance does not run")
		}
	}
	return w
}

// makeProfile makes an instance profile and a role of the same name.
func (w *world) makeProfile(name string) {
	w.t.Helper()
	client := iam.NewFromConfig(w.server.Config("default", "us-east-1"))
	const trust = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}]}`
	_, err := client.CreateInstanceProfile(w.t.Context(), &iam.CreateInstanceProfileInput{InstanceProfileName: &name})
	_, err2 := client.CreateRole(w.t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(trust)})
	_, err3 := client.AddRoleToInstanceProfile(w.t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name})
	if err := errors.Join(err, err2, err3); err != nil {
		w.t.Fatal(err)
	}
}

// api starts sessions with a port of the instance. via, if not nil, may replace the URL of the
// WebSocket.
func (w *world) api(port string, via func(string) string) ssmsession.API {
	if via == nil {
		via = func(url string) string { return url }
	}
	return ssmsession.API{
		Start: func(ctx context.Context) (ssmsession.Stream, error) {
			out, err := w.ssm.StartSession(ctx, &ssm.StartSessionInput{Target: &w.id, DocumentName: aws.String("AWS-StartPortForwardingSession"),
				Parameters: map[string][]string{"portNumber": {port}}})
			if err != nil {
				return ssmsession.Stream{}, err
			}
			return ssmsession.Stream{ID: *out.SessionId, URL: via(*out.StreamUrl), Token: *out.TokenValue}, nil
		},
		Resume: func(ctx context.Context, id string) (ssmsession.Stream, error) {
			out, err := w.ssm.ResumeSession(ctx, &ssm.ResumeSessionInput{SessionId: &id})
			if code(err) == "DoesNotExistException" {
				return ssmsession.Stream{}, errors.Join(ssmsession.ErrGone, err)
			}
			if err != nil {
				return ssmsession.Stream{}, err
			}
			return ssmsession.Stream{ID: id, URL: via(*out.StreamUrl), Token: *out.TokenValue}, nil
		},
		Terminate: func(ctx context.Context, id string) error {
			_, err := w.ssm.TerminateSession(ctx, &ssm.TerminateSessionInput{SessionId: &id})
			return err
		},
	}
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// echo reads the machine's greeting, sends size bytes, and expects them back.
func echo(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	greeting := make([]byte, 6)
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "hello\n" {
		t.Fatalf("greeting %q, %v", greeting, err)
	}
	want := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(want)
		sent <- err
	}()
	got := make([]byte, size)
	if n, err := io.ReadFull(conn, got); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, size, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("what came back is not what was sent")
	}
}

// noSessions waits until the cloud has no sessions.
func (w *world) noSessions() {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); w.server.Sessions() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%d sessions are left", w.server.Sessions())
		}
	}
}

func TestSession(t *testing.T) {
	w := newWorld(t, true)
	conn, err := ssmsession.Dial(t.Context(), w.api("22", nil))
	if err != nil {
		t.Fatal(err)
	}
	echo(t, conn, 1<<20)
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	w.noSessions()
}

func TestSessionErrors(t *testing.T) {
	if _, err := ssmsession.Dial(t.Context(), newWorld(t, false).api("22", nil)); code(err) != "TargetNotConnected" {
		t.Errorf("without a profile: %v", err)
	}
	w := newWorld(t, true)
	if _, err := ssmsession.Dial(t.Context(), w.api("23", nil)); err == nil || !strings.Contains(err.Error(), "cannot connect to the port") {
		t.Errorf("a closed port: %v", err)
	}
	conn, err := ssmsession.Dial(t.Context(), w.api("22", nil))
	if err != nil {
		t.Fatal(err)
	}
	echo(t, conn, 10)
	if _, err := io.WriteString(conn, "hang up"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "The connection to the port has ended") {
		t.Errorf("the machine hung up: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	w.noSessions()
	if err := w.api("22", nil).Terminate(t.Context(), "root-none"); err != nil {
		t.Errorf("ending what is not there: %v", err)
	}
}

// TestTerminated: a session that was terminated elsewhere is not resumed.
func TestTerminated(t *testing.T) {
	w := newWorld(t, true)
	api := w.api("22", nil)
	var id string
	start := api.Start
	api.Start = func(ctx context.Context) (ssmsession.Stream, error) {
		s, err := start(ctx)
		id = s.ID
		return s, err
	}
	conn, err := ssmsession.Dial(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, conn, 10)
	if err := api.Terminate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// network is an unreliable transport of WebSockets: it loses, duplicates and reorders binary
// messages of either side, and breaks connections after a number of them.
type network struct {
	lose, double, swap float64
	cut                []int // number of messages after which each connection breaks; the last one does not

	mu    sync.Mutex
	rand  *rand.Rand
	conns int
}

func (n *network) via(t *testing.T) func(string) string {
	n.rand = rand.New(rand.NewPCG(1, 2))
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		near, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer near.CloseNow()
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer cancel()
		far, _, err := websocket.Dial(ctx, "ws://"+r.URL.Query().Get("to")+r.URL.Path, nil)
		if err != nil {
			return
		}
		defer far.CloseNow()
		n.mu.Lock()
		left := -1
		if n.conns < len(n.cut) {
			left = n.cut[n.conns]
		}
		n.conns++
		n.mu.Unlock()
		budget := &left
		done := make(chan struct{}, 2)
		go n.carry(ctx, near, far, budget, done)
		go n.carry(ctx, far, near, budget, done)
		<-done
	}))
	t.Cleanup(s.Close)
	return func(stream string) string {
		u, err := url.Parse(stream)
		if err != nil {
			t.Error(err)
			return stream
		}
		return strings.Replace(s.URL, "http", "ws", 1) + u.Path + "?to=" + u.Host
	}
}

func (n *network) carry(ctx context.Context, from, to *websocket.Conn, budget *int, done chan<- struct{}) {
	defer func() { done <- struct{}{} }()
	from.SetReadLimit(1 << 20)
	var held []byte
	for {
		kind, data, err := from.Read(ctx)
		if err != nil {
			return
		}
		out := [][]byte{data}
		if kind == websocket.MessageBinary {
			n.mu.Lock()
			*budget--
			cut, dice := *budget == 0, n.rand.Float64()
			n.mu.Unlock()
			switch {
			case cut:
				return
			case dice < n.lose:
				out = nil
			case dice < n.lose+n.double:
				out = append(out, data)
			case dice < n.lose+n.double+n.swap && held == nil:
				held, out = data, nil
			case held != nil:
				out = append(out, held)
				held = nil
			}
		}
		for _, b := range out {
			if to.Write(ctx, kind, b) != nil {
				return
			}
		}
	}
}

// TestBadNetwork: whatever the network does, data arrives once and in order, and a session
// continues when its WebSocket breaks.
func TestBadNetwork(t *testing.T) {
	for name, n := range map[string]*network{
		"loss":       {lose: 0.05},
		"duplicates": {double: 0.2},
		"disorder":   {swap: 0.2},
		"cuts":       {cut: []int{1, 2, 5, 100, 300, -1}},
		"all":        {lose: 0.03, double: 0.05, swap: 0.1, cut: []int{50, 200, 150, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, true)
			conn, err := ssmsession.Dial(t.Context(), w.api("22", n.via(t)))
			if err != nil {
				t.Fatal(err)
			}
			echo(t, conn, 300<<10)
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			w.noSessions()
			if want := len(slices.DeleteFunc(slices.Clone(n.cut), func(c int) bool { return c < 0 })) + 1; n.conns < want {
				t.Errorf("%d connections, want %d", n.conns, want)
			}
		})
	}
}

// TestCancelled: cancelling while a session starts leaves no session.
func TestCancelled(t *testing.T) {
	w := newWorld(t, true)
	ctx, cancel := context.WithCancelCause(t.Context())
	api := w.api("22", nil)
	start := api.Start
	api.Start = func(ctx context.Context) (ssmsession.Stream, error) {
		s, err := start(ctx)
		s.URL = strings.Replace(s.URL, "/v1/", "/nowhere/", 1)
		cancel(errors.New("enough"))
		return s, err
	}
	if _, err := ssmsession.Dial(ctx, api); err == nil || err.Error() != "enough" {
		t.Errorf("%v", err)
	}
	w.noSessions()
}
