package ebs_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builder/amazon"
)

func asDiagnostics(err error, diags *hcl.Diagnostics) bool { return errors.As(err, diags) }

// TestBlame runs builds that fail, and checks the locations of their errors.
func TestBlame(t *testing.T) {
	tests := []struct{ old, new, summary, at string }{
		{`name = "debian-12-amd64-*"`, `name = "nothing-*"`, "No such image", ``},
		{`most_recent = true`, ``, "Several images match", ``},
		{`ami_name = "web"`, `ami_name = "taken"`, "The image name is taken", `"taken"`},
		{`ami_name = "web"`, "ami_name = \"web\"\nami_regions = [\"eu-west-9\"]", "Unknown region", `["eu-west-9"]`},
		{`ami_name = "web"`, "ami_name = \"web\"\nsource_ami = \"ami-0123456789abcdef0\"", "No such image", `"ami-0123456789abcdef0"`},
		{`ami_name = "web"`, "ami_name = \"web\"\nsubnet_id = \"subnet-0123456789abcdef0\"", "No such subnet", `"subnet-0123456789abcdef0"`},
		{`ami_name = "web"`, "ami_name = \"web\"\nvpc_id = \"vpc-0123456789abcdef0\"", "No such VPC", `"vpc-0123456789abcdef0"`},
		{`ami_name = "web"`, "ami_name = \"web\"\nsecurity_group_id = \"sg-0123456789abcdef0\"", "No such security group", `"sg-0123456789abcdef0"`},
		{`ami_name = "web"`, "ami_name = \"web\"\nvpc_filter {\n filters = { cidr = \"203.0.113.0/24\" }\n}", "Not exactly one VPC", ``},
		{`ami_name = "web"`, "ami_name = \"web\"\nsubnet_filter {\n filters = { availability-zone = \"us-east-1*\" }\n}", "Several subnets match", ``},
		{`ami_name = "web"`, "ami_name = \"web\"\nsecurity_group_filter {\n filters = { group-name = \"nothing\" }\n}", "No such security group", ``},
		{`"t3.micro"`, `"t9.mega"`, "The instance type cannot be used", `"t9.mega"`},
		{`ami_name = "web"`, "ami_name = \"web\"\nssh_keypair_name = \"nobodys\"\nssh_agent_auth = true", "No such key pair", `"nobodys"`},
	}
	w := newWorld(t)
	w.MustBuild(t, plain(`ami_name = "taken"`))
	before := len(w.Holdings())
	for _, tt := range tests {
		t.Run(tt.summary+" "+tt.new, func(t *testing.T) {
			body := plain("ami_name = \"web\"\n")
			if !strings.Contains(body, tt.old) {
				t.Fatalf("%q is not in the block", tt.old)
			}
			body = strings.Replace(body, tt.old, tt.new, 1)
			b := w.Bake(t)
			_, err := b.Build(t.Context(), body)
			defer wantDiagnostic(t, err, body, tt.summary, tt.at)
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			if after := w.Holdings(); len(after) != before {
				t.Errorf("left:\n%s", strings.Join(after, "\n"))
			}
		})
	}
}

// TestNoWay checks the errors of builds that do not reach EC2.
func TestNoWay(t *testing.T) {
	w := newWorld(t)
	none := filepath.Join(t.TempDir(), "none")
	for _, name := range os.Environ() {
		if name, _, _ = strings.Cut(name, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // restored after the test
			os.Unsetenv(name)
		}
	}
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	const refusing = "127.0.0.1:1" // a port that no other program is given

	keys := "access_key = \"AKIATEST\"\nsecret_key = \"secret\"\n"
	tests := []struct {
		name, endpoint, body string
		want                 []string
	}{
		{"no credentials", w.Cloud.Endpoint, plain(`ami_name = "web"`), []string{"no AWS credentials", "access_key", "-local"}},
		{"no profile", w.Cloud.Endpoint, plain("ami_name = \"web\"\nprofile = \"mine\""), []string{"No such profile", "mine"}},
		{"no region", w.Cloud.Endpoint, strings.Replace(plain("ami_name = \"web\"\n"+keys), `region        = "us-east-1"`, "", 1), []string{"No region", "AWS_REGION"}},
		{"wrong credentials", w.Cloud.Endpoint, plain("ami_name = \"web\"\naccess_key = \"AKIAOTHER\"\nsecret_key = \"x\"\n"), []string{"InvalidClientTokenId", "does not accept these credentials"}},
		{"unreachable", "http://" + refusing, plain("ami_name = \"web\"\n" + keys), []string{refusing, "cannot be reached", "connection refused"}},
		{"no such host", "http://nowhere.invalid", plain("ami_name = \"web\"\n" + keys), []string{"nowhere.invalid"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("AWS_ENDPOINT_URL", tt.endpoint)
			w.Cloud = amazon.Cloud{}
			_, err := w.Bake(t).Build(t.Context(), tt.body)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q: %v", part, err)
				}
			}
			t.Log(err)
		})
	}
}

// TestOwnConfiguration builds with the configuration in the environment, and sweeps
// with the configuration in the ledger.
func TestOwnConfiguration(t *testing.T) {
	w := newWorld(t)
	t.Setenv("AWS_ENDPOINT_URL", w.Cloud.Endpoint)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	dial := w.Cloud.Dial
	w.Cloud = amazon.Cloud{Dial: dial}
	b := w.Bake(t)
	b.Provision = func(context.Context, builder.Machine) error { return errors.New("the script failed") }
	if _, err := b.Build(t.Context(), plain(`ami_name = "web"`)); err == nil || !strings.Contains(err.Error(), "the script failed") {
		t.Fatal(err)
	}
	ledger, err := os.ReadFile(b.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(ledger), "AKIATEST") || strings.Contains(string(ledger), "secret") {
		t.Error("the ledger holds credentials")
	}
	os.Unsetenv("AWS_ENDPOINT_URL") // t.Setenv restores it
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action == "GetCallerIdentity" {
			_, _ = rw.Write([]byte(`<GetCallerIdentityResponse><GetCallerIdentityResult><Account>999999999999</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`))
			return
		}
		serve(rw)
	}
	if err := b.Sweep(t, ledger); err == nil || !strings.Contains(err.Error(), "for account 999999999999, but the resource is in account 123456789012") {
		t.Errorf("a sweep with credentials of another account: %v", err)
	}
	w.Intercept = nil
	w.Cloud.Endpoint = "" // only the ledger knows it
	if err := b.Sweep(t, ledger); err != nil {
		t.Error(err)
	}
}
