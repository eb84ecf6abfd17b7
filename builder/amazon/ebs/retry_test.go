package ebs_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/cloud/ec2"
	"bake/step"
)

// TestUselessAnswer executes calls but spoils their responses: repeatable calls are
// retried.
func TestUselessAnswer(t *testing.T) {
	spoil := map[string]func(rw http.ResponseWriter, answer []byte){
		"cut off": func(rw http.ResponseWriter, answer []byte) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(answer)))
			_, _ = rw.Write(answer[:len(answer)-20])
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"garbled":      func(rw http.ResponseWriter, _ []byte) { _, _ = rw.Write([]byte("\x00\x01<<<")) },
		"another page": func(rw http.ResponseWriter, _ []byte) { _, _ = rw.Write([]byte("<html><p>Log in</p></html>")) },
		"empty":        func(http.ResponseWriter, []byte) {},
	}
	for name, spoil := range spoil {
		for _, action := range []string{"DescribeImages", "DescribeInstances", "RunInstances", "CopyImage"} {
			t.Run(name+" "+action, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				var spoilt atomic.Bool
				w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
					if c.Action != action || c.Params["DryRun"] == "true" || !spoilt.CompareAndSwap(false, true) {
						serve(rw)
						return
					}
					answer := httptest.NewRecorder()
					serve(answer)
					spoil(rw, answer.Body.Bytes())
				}
				w.MustBuild(t, plain("ami_name = \"web\"\nami_regions = [\"eu-west-1\"]"))
				if !spoilt.Load() {
					t.Error("the call was not made")
				}
				if left := w.Holdings(); len(left) != 4 { // the images and their snapshots
					t.Errorf("left: %q", left)
				}
			})
		}
	}
}

// TestUselessAnswerOnce: calls that must not be repeated are not, and the error
// describes the bad response.
func TestUselessAnswerOnce(t *testing.T) {
	w := newWorld(t)
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action != "CreateSecurityGroup" {
			serve(rw)
			return
		}
		serve(httptest.NewRecorder())
	}
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), plain(`ami_name = "web"`)); err == nil || !strings.Contains(err.Error(), "cut off or garbled") {
		t.Errorf("the error is %v", err)
	}
	if n := count(w.Calls, "CreateSecurityGroup"); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if left := w.Holdings(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestThrottledChanges makes EC2 throttle each call that changes something once.
func TestThrottledChanges(t *testing.T) {
	var rules []ec2.Fault
	changes := []string{"CreateKeyPair", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "StopInstances", "CreateImage",
		"CopyImage", "ModifyImageAttribute", "DeleteTags", "TerminateInstances", "DeleteSecurityGroup", "DeleteKeyPair"}
	for _, action := range changes {
		rules = append(rules, ec2.Fault{Action: action, Calls: 1, Code: "RequestLimitExceeded", Message: "Request limit exceeded.", Status: 503})
	}
	w := newWorld(t, rules...)
	w.MustBuild(t, plain(small))
	for _, action := range changes {
		if n := count(w.Calls, action); n < 2 {
			t.Errorf("%s was sent %d times", action, n)
		}
	}
	if left := w.Holdings(); len(left) != 4 {
		t.Errorf("left: %q", left)
	}
}

// TestKeyPairOfAnother: the teardown of a key pair that may not have been made does not
// delete one of the same name without the tag of the build.
func TestKeyPairOfAnother(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Client(region).CreateKeyPair(t.Context(), &awsec2.CreateKeyPairInput{KeyName: new("mine")}); err != nil {
		t.Fatal(err)
	}
	b := w.Bake(t)
	b.Provision = nil
	if _, err := b.Build(t.Context(), plain("ami_name = \"web\"")); err != nil { // registers the destroyer
		t.Fatal(err)
	}
	if err := b.Open.Intend(step.Resource{Kind: ownership.KeyPair, Key: "key pair mine", Where: region, Build: b.Scope.Build,
		With: map[string]string{ownership.WithName: "mine", ownership.WithBuild: "a-build"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	left := strings.Join(w.Holdings(), "\n")
	if !strings.Contains(left, "(mine)") {
		t.Errorf("the user's key pair is gone; left:\n%s", left)
	}
}

// TestRefusedIsNotOwned: the ledger does not list what EC2 has refused to make.
func TestRefusedIsNotOwned(t *testing.T) {
	for _, action := range []string{"CreateSecurityGroup", "CreateKeyPair", "RunInstances", "CreateImage"} {
		w := newWorld(t)
		w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			if c.Action != action || c.Params["DryRun"] == "true" {
				serve(rw)
				return
			}
			rw.WriteHeader(http.StatusForbidden)
			_, _ = rw.Write([]byte(`<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>No.</Message></Error></Errors></Response>`))
		}
		b := w.Bake(t)
		if _, err := b.Build(t.Context(), plain(`ami_name = "web"`)); err == nil {
			t.Errorf("%s: no error", action)
		}
		kind := map[string]string{"CreateSecurityGroup": ownership.SecurityGroup, "CreateKeyPair": ownership.KeyPair, "RunInstances": ownership.Instance, "CreateImage": ownership.Image}[action]
		all, err := b.Open.Owned()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Kind == kind {
				t.Errorf("%s: the ledger owns %v", action, r)
			}
		}
		if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestFailingService: while the SDK retries calls to a failing service, the user is
// warned, in the step that waits.
func TestFailingService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var first time.Time
	repaired := false
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action != "DescribeRegions" || repaired { // one at a time
			serve(rw)
			return
		}
		if first.IsZero() {
			first = time.Now()
		}
		repaired = time.Since(first) > wait.Trouble+time.Second
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), plain("ami_name = \"web\"\nskip_create_ami = true\nmax_retries = 40")); err != nil {
		t.Error(err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	said := slices.ContainsFunc(b.Events, func(e step.Event) bool {
		return e.Step != "" && strings.Contains(e.Text, "EC2 in us-east-1 has been failing for ")
	})
	if !said {
		t.Error("nothing was said")
	}
}
