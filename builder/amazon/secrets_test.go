package amazon_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/builder/amazon"
	"bake/builder/amazon/parameterstore"
	"bake/builder/amazon/secretsmanager"
	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/component"
	"bake/config/schema"
	"bake/datasource"
)

// world is a cloud with some parameters and secrets.
func world(t *testing.T) amazon.Cloud {
	t.Helper()
	s := cloudtest.Start(t, cloud.Options{})
	params, secrets := ssm.NewFromConfig(s.Config("default", "us-east-1")), sm.NewFromConfig(s.Config("default", "us-east-1"))
	for _, p := range []ssm.PutParameterInput{
		{Name: aws.String("/app/host"), Value: aws.String("one"), Type: types.ParameterTypeString},
		{Name: aws.String("/app/host"), Value: aws.String("two"), Overwrite: aws.Bool(true)},
		{Name: aws.String("/app/password"), Value: aws.String("hush"), Type: types.ParameterTypeSecureString},
	} {
		if _, err := params.PutParameter(t.Context(), &p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []sm.CreateSecretInput{
		{Name: aws.String("plain"), SecretString: aws.String("whisper")},
		{Name: aws.String("json"), SecretString: aws.String(`{"user": "me", "password": "murmur", "port": 5432, "tls": true}`)},
		{Name: aws.String("bytes"), SecretBinary: []byte("bytes")},
		{Name: aws.String("none")},
	} {
		if _, err := secrets.CreateSecret(t.Context(), &p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := secrets.PutSecretValue(t.Context(), &sm.PutSecretValueInput{SecretId: aws.String("plain"), SecretString: aws.String("shout")}); err != nil {
		t.Fatal(err)
	}
	key := s.Credentials()[0]
	return amazon.Cloud{Name: "test", Endpoint: s.URL, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey, Region: "us-east-1"}
}

// read returns the attribute out of a data source with this body, or the error, and the texts that
// were marked as secret.
func read(t *testing.T, f component.Factory[datasource.DataSource], body, out string) (value string, secrets []string) {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d, diags := f.New(schema.Input{Body: file.Body, Context: &hcl.EvalContext{}, Secret: func(s string) { secrets = append(secrets, s) }})
	if diags.HasErrors() {
		return "error: " + diags.Error(), nil
	}
	v, err := d.Read(t.Context())
	if err != nil {
		return "error: " + err.Error(), secrets
	}
	for name, typ := range f.Exports(schema.Input{}).Types {
		if !v.GetAttr(name).Type().Equals(typ) || typ != cty.String {
			t.Errorf("%s is %#v", name, v.GetAttr(name))
		}
	}
	return v.GetAttr(out).AsString(), secrets
}

func TestDataSources(t *testing.T) {
	c := world(t)
	params, secrets := parameterstore.Factory(c, nil), secretsmanager.Factory(c, nil)
	for _, test := range []struct {
		of         component.Factory[datasource.DataSource]
		body, attr string
		want       string
		secret     string // one that must have been marked
	}{
		{params, `name = "/app/host"`, "value", "two", ""},
		{params, `name = "/app/host"`, "version", "2", ""},
		{params, `name = "/app/host:1"`, "value", "one", ""},
		{params, `name = "/app/host"`, "arn", "arn:aws:ssm:us-east-1:123456789012:parameter/app/host", ""},
		{params, "name = \"/app/password\"\nwith_decryption = true", "value", "hush", "hush"},
		{params, `name = "/aws/service/debian/release/12/latest/amd64"`, "version", "1", ""},
		{params, `name = "/app/absent"`, "value", "error: There is no parameter /app/absent in us-east-1.", ""},
		{params, `name = "/app/host:9"`, "value", "error: could not find version 9", ""},
		{params, `name = ""`, "value", "error: Set name to the parameter", ""},
		{secrets, `name = "plain"`, "value", "shout", "shout"},
		{secrets, "name = \"plain\"\nversion_stage = \"AWSPREVIOUS\"", "value", "whisper", "whisper"},
		{secrets, "name = \"json\"\nkey = \"password\"", "value", "murmur", "murmur"},
		{secrets, "name = \"json\"\nkey = \"port\"", "value", "5432", "murmur"},
		{secrets, "name = \"json\"\nkey = \"absent\"", "value", "", "murmur"},
		{secrets, `name = "json"`, "value", "murmur", "me"},
		{secrets, `name = "json"`, "secret_string", `{"user": "me", "password": "murmur", "port": 5432, "tls": true}`, "murmur"},
		{secrets, `name = "bytes"`, "secret_binary", "bytes", "bytes"},
		{secrets, "name = \"json\"\nkey = \"tls\"", "value", `error: the value of "tls" is neither a string nor a number`, "murmur"},
		{secrets, `name = "none"`, "value", "error: can't find the specified secret value for staging label: AWSCURRENT", ""},
		{secrets, `name = "absent"`, "value", "error: can't find the specified secret (absent in us-east-1)", ""},
		{secrets, "name = \"plain\"\nregion = \"eu-west-1\"", "value", "error: (plain in eu-west-1)", ""},
		{secrets, `name = ""`, "value", "error: Set name to the secret", ""},
	} {
		got, told := read(t, test.of, test.body, test.attr)
		if want, fails := strings.CutPrefix(test.want, "error: "); fails && !strings.Contains(got, want) || !fails && got != test.want {
			t.Errorf("%s: %s is %q, want %q", test.body, test.attr, got, test.want)
		}
		if test.secret != "" && !slices.Contains(told, test.secret) {
			t.Errorf("%s: only %q are secret, not %q", test.body, told, test.secret)
		}
		if test.of == params && test.secret == "" && len(told) > 0 {
			t.Errorf("%s: %q are secret", test.body, told)
		}
	}
	for _, f := range []component.Factory[datasource.DataSource]{params, secrets} {
		if _, err := f.Docs(); err != nil {
			t.Error(err)
		}
	}
}

func TestSecrets(t *testing.T) {
	look := amazon.Secrets(world(t), nil)
	for name, want := range map[string]string{"plain": "shout", "bytes": "is binary", "absent": "can't find the specified secret"} {
		got, err := look(t.Context(), name)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestSecretsOnce: values are cached, and not queried again.
func TestSecretsOnce(t *testing.T) {
	c := world(t)
	look := amazon.Secrets(c, nil)
	if _, err := look(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	admin := sm.New(sm.Options{Region: c.Region, BaseEndpoint: &c.Endpoint, Credentials: credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")})
	if _, err := admin.DeleteSecret(t.Context(), &sm.DeleteSecretInput{SecretId: aws.String("plain"), ForceDeleteWithoutRecovery: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	got, err := look(t.Context(), "plain")
	_, again := amazon.Secrets(c, nil)(t.Context(), "plain")
	if got != "shout" || err != nil || again == nil {
		t.Errorf("secret = %q, %v, want shout; without it, the error is %v, want one", got, err, again)
	}
}
