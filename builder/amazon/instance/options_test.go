package instance_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"bake/builder/amazon"
	"bake/builder/amazon/instance"
	"bake/builder/amazon/internal/amazontest"
)

// TestValidate sets an option, and checks the start of the error and the underlined text. No
// summary means that the template is valid.
func TestValidate(t *testing.T) {
	dir := t.TempDir()
	tests := []struct{ option, value, summary, at string }{
		{"", "", "", ""},
		{"account_id", ``, "Missing required argument", ``},
		{"account_id", `"123456789012"`, "", ``},
		{"account_id", `"1234-5678"`, "Invalid account ID", `"1234-5678"`},
		{"s3_bucket", ``, "Missing required argument", ``},
		{"s3_bucket", `""`, "Missing value", `""`},
		{"x509_cert_path", ``, "Missing required argument", ``},
		{"x509_cert_path", `"/no/such/file"`, "File cannot be read", `"/no/such/file"`},
		{"x509_cert_path", `""`, "Missing value", `""`},
		{"x509_key_path", ``, "Missing required argument", ``},
		{"x509_key_path", `"/no/such/file"`, "File cannot be read", `"/no/such/file"`},
		{"x509_key_path", `"` + dir + `"`, "File cannot be read", ``},
		{"x509_upload_path", `""`, "", ``},
		{"bundle_destination", `""`, "", ``},
		{"bundle_prefix", `""`, "", ``},
		{"bundle_vol_command", `""`, "", ``},
		{"bundle_upload_command", `""`, "", ``},
		{"bundle_destination", `"/mnt"`, "", ``},
		{"bundle_prefix", `"web-{{ isotime }}"`, "", ``},
		{"bundle_prefix", `"{{ .Prefix }}"`, "Unknown variable", `"{{ .Prefix }}"`},
		{"bundle_prefix", `"{{ .Prefix"`, "Invalid {{ }} template", ``},
		{"bundle_vol_command", ``, "", ``},
		{"bundle_vol_command", `"bundle {{ .SecretKey }}"`, "Unknown variable", `"bundle {{ .SecretKey }}"`},
		{"bundle_upload_command", ``, "", ``},
		{"bundle_upload_command", `"upload {{ .KeyPath }}"`, "Unknown variable", `"upload {{ .KeyPath }}"`},
		{"tpm_support", `"v1.2"`, "Invalid value", `"v1.2"`},
		{"spot_price", `"auto"`, "", ``},
		{"spot_price", "\"auto\"\nena_support = false", "Not supported on a spot instance", `false`},
		{"spot_price", "\"auto\"\nsriov_support = true", "Not supported on a spot instance", `true`},
		{"ami_groups", `["everybody"]`, "Unknown group", `["everybody"]`},
		{"communicator", `"none"`, "No communicator", `"none"`},
		{"skip_create_ami", `true`, "Unsupported argument", `skip_create_ami`},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, " ", tt.option), func(t *testing.T) {
			base, _ := body(t, "")
			lines := strings.SplitAfter(base, "\n")
			lines = slices.DeleteFunc(lines, func(l string) bool { return tt.option != "" && strings.HasPrefix(l, tt.option+" ") })
			text := amazontest.Plain(strings.Join(lines, ""))
			if tt.value != "" {
				text += tt.option + " = " + tt.value + "\n"
			}
			wantDiagnostic(t, instance.Factory(amazon.Cloud{}).Check(amazontest.Input(text)), text, tt.summary, tt.at)
		})
	}
}

func wantDiagnostic(t *testing.T, err error, text, summary, at string) {
	t.Helper()
	var diags hcl.Diagnostics
	errors.As(err, &diags)
	if summary == "" {
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return
	}
	if len(diags) != 1 || diags[0].Summary != summary || diags[0].Subject == nil {
		t.Fatalf("got %v, want one error %q", diags, summary)
	}
	if got := string(diags[0].Subject.SliceBytes([]byte(text))); at != "" && got != at {
		t.Errorf("it underlines %q, want %q", got, at)
	}
}

// TestShutdown: options that cannot have an effect cause warnings.
func TestShutdown(t *testing.T) {
	text, _ := body(t, "shutdown_behavior = \"terminate\"\n")
	diags := instance.Factory(amazon.Cloud{}).Check(amazontest.Input(amazontest.Plain(text)))
	if len(diags) != 1 || diags[0].Severity != hcl.DiagWarning {
		t.Errorf("diagnostics = %v, want one warning", diags)
	}
}
