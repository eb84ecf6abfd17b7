package run

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"bake/builder/amazon"
	"bake/builtin"
	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/config"
	"bake/golden/bakefile"
	"bake/golden/reports"
)

// The reports of a run that is restricted to another account are in the bucket of this one.
func TestReportsOfCell(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	key := s.Credentials()[0]
	client := s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: &s.URL, UsePathStyle: true, HTTPClient: http.DefaultClient,
		Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, "")})
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("acme-images")}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"web.pkr.hcl":  "source \"null\" \"web\" { communicator = \"none\" }\nbuild { sources = [\"null.web\"] }\n",
		"web.bake.hcl": "bake { reports = \"s3://acme-images/reports\" }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	template, _ := config.Load(t.Context(), config.Options{Path: ".", Cwd: dir, Now: time.Now()})
	settings, diags := bakefile.Read(t.Context(), template)
	if place, _ := settings.Reports(); diags.HasErrors() || place == "" {
		t.Fatal("there is no place for reports: ", diags)
	}
	o := Options{State: State(t.TempDir()), Within: &amazon.Within{Account: "222222222222", Region: "eu-west-1", Role: "arn:aws:iam::222222222222:role/none"}}
	parts := builtin.Parts{Cloud: amazon.Cloud{Name: "test", Endpoint: s.URL, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey, Region: "us-east-1", Within: o.Within}}
	of, diags := o.reports(t.Context(), settings, parts)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if err := of("r").Write(t.Context(), "report.html", []byte("page")); err != nil {
		t.Error(err)
	}
}

// The pages of runs do not overwrite each other.
func TestPageDir(t *testing.T) {
	web := &config.Instance{Image: "web", Key: "small"}
	at := func(of *config.Instance, within *amazon.Within) Options {
		o := Options{Within: within}
		o.Template.Instance = of
		return o
	}
	for want, o := range map[string]Options{
		"":                                  at(nil, nil),
		"web.small/":                        at(web, nil),
		"222222222222.eu-west-1/":           at(nil, &amazon.Within{Account: "222222222222", Region: "eu-west-1"}),
		"web.small.222222222222.eu-west-1/": at(web, &amazon.Within{Account: "222222222222", Region: "eu-west-1"}),
	} {
		if got := o.pageDir(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	o := at(nil, nil)
	if o.sharedReports(reports.Store{Dir: o.State.Reports("r")}, "r") || !o.sharedReports(reports.Store{Dir: "reports"}, "r") {
		t.Error("pages are shared in a directory that is named, and not beside the log")
	}
}
