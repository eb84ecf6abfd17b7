package ebs_test

import (
	"context"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon"
)

// strange makes the world's EC2 behave like another implementation at a custom
// endpoint: CreateImage fails if snapshots are to be tagged, CopyImage ignores tags,
// and DeleteKeyPair supports only names.
func strange(t *testing.T, w *world) {
	t.Setenv("AWS_ENDPOINT_URL", w.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	w.Cloud = amazon.Cloud{Dial: w.Cloud.Dial}
	w.Adapt = func(c call, body []byte, rw http.ResponseWriter, serve func([]byte, http.ResponseWriter)) {
		params, err := url.ParseQuery(string(body))
		if err != nil {
			t.Error(err)
		}
		switch c.Action {
		case "CreateImage":
			for k, v := range params {
				if strings.HasSuffix(k, ".ResourceType") && v[0] == "snapshot" {
					rw.WriteHeader(http.StatusInternalServerError)
					_, _ = rw.Write([]byte("<!doctype html><title>500 Internal Server Error</title>"))
					return
				}
			}
		case "CopyImage":
			for k := range params {
				if strings.HasPrefix(k, "TagSpecification") || k == "CopyImageTags" {
					params.Del(k)
				}
			}
		case "DeleteKeyPair":
			if params.Get("KeyName") == "" {
				_, _ = rw.Write([]byte(`<DeleteKeyPairResponse><return>true</return></DeleteKeyPairResponse>`))
				return
			}
			params.Del("KeyPairId")
		}
		serve([]byte(params.Encode()), rw)
	}
}

const onStranger = `
ami_name      = "web"
ami_regions   = ["eu-west-1"]
run_tags      = { Team = "a" }
tags          = { Name = "web" }
snapshot_tags = { Disk = "root" }
`

// TestStranger bakes on an endpoint that does not tag new resources.
func TestStranger(t *testing.T) {
	w := newWorld(t)
	strange(t, w)
	b := w.Bake(t)
	a, err := b.Build(t.Context(), plain(onStranger))
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	for in, id := range a.Images {
		image := w.Describe(in, id)
		wantTags(t, in+" image", image.Tags, map[string]string{"Name": "web", "Team": "a"})
		out, err := w.Client(in).DescribeSnapshots(t.Context(), &awsec2.DescribeSnapshotsInput{SnapshotIds: []string{*image.BlockDeviceMappings[0].Ebs.SnapshotId}})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"Name": "web", "Disk": "root"}
		if in == region {
			want["Team"] = "a"
		}
		wantTags(t, in+" snapshot", out.Snapshots[0].Tags, want)
	}
	for _, said := range []string{"cannot tag an image on creation", "did not tag"} {
		if !strings.Contains(b.Said(), said) {
			t.Errorf("it does not say %q:\n%s", said, b.Said())
		}
	}
	if left := w.Holdings(); len(left) != 4 { // two images and their snapshots
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

func wantTags(t *testing.T, what string, have []types.Tag, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, tag := range have {
		if *tag.Key != "bake:user" { // the local cloud's own
			got[*tag.Key] = *tag.Value
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s has the tags %v, want %v", what, got, want)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s has the tags %v, want %v", what, got, want)
		}
	}
}

// TestStrangerRefusesTags: an image without its tags is not kept.
func TestStrangerRefusesTags(t *testing.T) {
	w := newWorld(t)
	strange(t, w)
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action == "CreateTags" {
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = rw.Write([]byte(`<Response><Errors><Error><Code>TagLimitExceeded</Code><Message>No more tags.</Message></Error></Errors></Response>`))
			return
		}
		serve(rw)
	}
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), plain(onStranger)); err == nil || !strings.Contains(err.Error(), "TagLimitExceeded") {
		t.Errorf("the error is %v", err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if left := w.Holdings(); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestStrangerKeepsKeyPair: a key pair is reported as deleted only if it is.
func TestStrangerKeepsKeyPair(t *testing.T) {
	w := newWorld(t)
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action == "DeleteKeyPair" {
			_, _ = rw.Write([]byte(`<DeleteKeyPairResponse><return>true</return></DeleteKeyPairResponse>`))
			return
		}
		serve(rw)
	}
	b := w.Bake(t)
	if _, err := b.Build(t.Context(), plain(`ami_name = "web"`)); err != nil {
		t.Fatal(err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err == nil || !strings.Contains(err.Error(), "still lists it") {
		t.Errorf("the error of the teardown is %v", err)
	}
	if owned, err := b.Open.Owned(); err != nil || len(owned) != 1 {
		t.Errorf("the ledger owns %v, %v", owned, err)
	}
}
