// Package runtest provides an embedded cloud whose machines are SSH servers in the test
// process, for tests of whole runs without real machines.
package runtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	gossh "golang.org/x/crypto/ssh"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
	"bake/communicator/commtest"
)

// World is an embedded cloud that the environment Env points to.
type World struct {
	*cloudtest.Server
	Env []string // of the account default, without other variables that programs need

	t       testing.TB
	hostKey *commtest.KeyPair
	mu      sync.Mutex
	servers map[string]*commtest.Server
}

// Start serves a cloud until the test ends. Each of its machines accepts the keys that it
// was booted with, and runs commands on this host in a separate directory. Start sets the
// environment of the test, so the test cannot be parallel.
func Start(t testing.TB, opts cloud.Options) *World {
	key, err := commtest.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &World{t: t, hostKey: key, servers: map[string]*commtest.Server{}}
	homes := t.TempDir()
	opts.Driver = &machinetest.Driver{Dial: func(ctx context.Context, spec machine.Spec, port uint16) (net.Conn, error) {
		s, err := w.server(filepath.Join(homes, spec.ID), spec)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
	}}
	w.Server = cloudtest.Start(t, opts)
	for _, c := range w.Credentials() {
		if c.Profile == "default" {
			w.Env = []string{
				"AWS_ENDPOINT_URL=" + w.URL, "AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey,
				"AWS_SHARED_CREDENTIALS_FILE=" + w.CredentialsFile(), "AWS_REGION=us-east-1", "AWS_CONFIG_FILE=" + os.DevNull,
			}
		}
	}
	for _, v := range w.Env { // the SDK reads credentials from the environment of the process
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	return w
}

// server returns the SSH server that is the machine of a spec.
func (w *World) server(home string, spec machine.Spec) (*commtest.Server, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.servers[spec.ID]; s != nil {
		return s, nil
	}
	login := commtest.Login{User: spec.User, HostKey: w.hostKey.Signer, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}}
	for _, line := range spec.AuthorizedKeys {
		key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, err
		}
		login.Key = key
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	s := commtest.Serve(w.t, home, login)
	w.servers[spec.ID] = s
	return s, nil
}

// Holdings lists the resources of an account in a region that cost money or block a later
// run, as in "image ami-1 (name)".
func (w *World) Holdings(profile, region string) (out []string) {
	w.t.Helper()
	ctx, c := context.Background(), w.EC2(profile, region)
	fatal := func(err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	add := func(kind string, id *string, more any) {
		out = append(out, fmt.Sprintf("%s %s (%v)", kind, aws.ToString(id), more))
	}
	instances, err := c.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	fatal(err)
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				add("instance", i.InstanceId, i.State.Name)
			}
		}
	}
	images, err := c.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})
	fatal(err)
	for _, i := range images.Images {
		add("image", i.ImageId, aws.ToString(i.Name))
	}
	snapshots, err := c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	fatal(err)
	for _, s := range snapshots.Snapshots {
		add("snapshot", s.SnapshotId, s.State)
	}
	keys, err := c.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{})
	fatal(err)
	for _, k := range keys.KeyPairs {
		add("key pair", k.KeyPairId, aws.ToString(k.KeyName))
	}
	groups, err := c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{})
	fatal(err)
	for _, g := range groups.SecurityGroups {
		if *g.GroupName != "default" {
			add("security group", g.GroupId, *g.GroupName)
		}
	}
	slices.Sort(out)
	return out
}

// Calls records the times of calls to EC2, in order, by account and region, and the calls to
// all services.
type Calls struct {
	mu       sync.Mutex
	accounts map[string]string // by the id of an access key
	at       map[string][]time.Time
	made     map[Call]bool

	// Refuse reports whether to refuse a call of EC2, as a policy would. Nil: refuse none.
	Refuse func(Call) bool
}

// Call is a call of a service.
type Call struct {
	Account string // of the role that was assumed; empty: other credentials
	Action  string // as in permissions, such as ec2:RunInstances; for S3, the method
	Region  string
}

// Watch starts a server that forwards calls to the cloud until the test ends, and records
// those of EC2. It knows the accounts of roles that were assumed through it; for other
// credentials the account is empty.
func (w *World) Watch() (address string, calls *Calls) {
	to, err := url.Parse(w.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	calls = &Calls{accounts: map[string]string{}, at: map[string][]time.Time{}, made: map[Call]bool{}}
	key, role := regexp.MustCompile(`<AccessKeyId>(\w+)<`), regexp.MustCompile(`arn:aws:sts::(\d+):assumed-role/`)
	proxy := &httputil.ReverseProxy{
		ErrorLog: log.New(io.Discard, "", 0), // clients may disconnect, such as one that watches a machine
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // which is signed
		},
		ModifyResponse: func(r *http.Response) error {
			if !strings.Contains(r.Request.Header.Get("Authorization"), "/sts/aws4_request") {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			r.Body = io.NopCloser(bytes.NewReader(body))
			if k, a := key.FindSubmatch(body), role.FindSubmatch(body); k != nil && a != nil {
				calls.mu.Lock()
				calls.accounts[string(k[1])] = string(a[1])
				calls.mu.Unlock()
			}
			return err
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		call := calls.add(r)
		if calls.Refuse != nil && strings.HasPrefix(call.Action, "ec2:") && calls.Refuse(call) {
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(rw, "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation.</Message></Error></Errors><RequestID>1</RequestID></Response>")
		} else if r.Method != http.MethodConnect {
			proxy.ServeHTTP(rw, r)
		} else if err := tunnel(to.Host, rw, r); err != nil { // to a machine
			http.Error(rw, err.Error(), http.StatusBadGateway)
		}
	}))
	w.t.Cleanup(s.Close)
	return s.URL, calls
}

// tunnel makes the server at an address answer a CONNECT, and relays data until one side
// closes.
func tunnel(address string, rw http.ResponseWriter, r *http.Request) error {
	up, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer up.Close()
	if _, err := fmt.Fprintf(up, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", r.RequestURI, r.Host); err != nil {
		return err
	}
	if err := r.Header.Write(up); err != nil {
		return err
	}
	if _, err := io.WriteString(up, "\r\n"); err != nil {
		return err
	}
	down, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return err
	}
	defer down.Close()
	go func() {
		defer up.Close()
		_, _ = io.Copy(up, buffered)
	}()
	_, _ = io.Copy(down, up)
	return nil
}

// add records a signed call.
func (c *Calls) add(r *http.Request) (call Call) {
	// Credential=KEY/DATE/REGION/SERVICE/aws4_request
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	part := strings.Split(credential, "/")
	if len(part) < 4 {
		return call
	}
	call = Call{Action: part[3] + ":" + r.Method, Region: part[2]}
	if part[3] != "s3" {
		body, _ := io.ReadAll(r.Body) // the cloud rejects a truncated body
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, _ := url.ParseQuery(string(body))
		_, target, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		call.Action = part[3] + ":" + form.Get("Action") + target
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	call.Account = c.accounts[part[0]]
	c.made[call] = true
	if part[3] == "ec2" {
		place := strings.TrimPrefix(call.Account+"/"+call.Region, "/")
		c.at[place] = append(c.at[place], time.Now())
	}
	return call
}

// Made returns the recorded calls, without duplicates.
func (c *Calls) Made() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.made))
}

// Places returns the times of the calls in each place, ACCOUNT/REGION or REGION.
func (c *Calls) Places() map[string][]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.at)
}

// Held fails the test if a place was called more than rate times per second on average, since
// single calls may arrive late. It logs the average and the maximum for each place.
func (c *Calls) Held(t testing.TB, rate float64) {
	t.Helper()
	places := c.Places()
	for _, place := range slices.Sorted(maps.Keys(places)) {
		at := places[place]
		took := at[len(at)-1].Sub(at[0]).Seconds()
		if most := took*rate + 2; float64(len(at)) > most {
			t.Errorf("%d calls of EC2 in %s within %.1f s, of at most %.0f", len(at), place, took, most)
		}
		peak := 0
		for first, last := 0, 0; last < len(at); last++ {
			for at[last].Sub(at[first]) >= time.Second {
				first++
			}
			peak = max(peak, last-first+1)
		}
		t.Logf("%s: %d calls in %.1f s, %.1f a second, %d in the second with the most", place, len(at), took, float64(len(at))/took, peak)
	}
}
