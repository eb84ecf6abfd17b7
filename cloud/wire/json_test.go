package wire

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestDecodeJSON(t *testing.T) {
	for _, test := range []struct {
		service, action, body string
		into, want            any
	}{
		{"ssm", "PutParameter", `{"Name": "/a", "Value": "é", "Type": "SecureString", "Overwrite": true, "Tags": [{"Key": "k", "Value": ""}], "Unknown": {"x": [1]}, "KeyId": null}`,
			&ssm.PutParameterInput{}, &ssm.PutParameterInput{Name: aws.String("/a"), Value: aws.String("é"), Type: types.ParameterTypeSecureString, Overwrite: aws.Bool(true),
				Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("")}}}},
		{"ssm", "DescribeParameters", `{"MaxResults": 5}`, &ssm.DescribeParametersInput{}, &ssm.DescribeParametersInput{MaxResults: aws.Int32(5)}},
		{"ssm", "DescribeParameters", ``, &ssm.DescribeParametersInput{}, &ssm.DescribeParametersInput{}},
		{"secretsmanager", "CreateSecret", `{"Name": "n", "SecretBinary": "aGk="}`, &secretsmanager.CreateSecretInput{},
			&secretsmanager.CreateSecretInput{Name: aws.String("n"), SecretBinary: []byte("hi")}},
	} {
		if err := load(t, test.service).DecodeJSON(test.action, []byte(test.body), test.into); err != nil {
			t.Errorf("%s: %v", test.body, err)
		}
		ignore := cmpopts.IgnoreUnexported(ssm.PutParameterInput{}, ssm.DescribeParametersInput{}, secretsmanager.CreateSecretInput{}, types.Tag{})
		if diff := cmp.Diff(test.want, test.into, ignore); diff != "" {
			t.Errorf("%s: %s", test.body, diff)
		}
	}
}

func TestDecodeJSONErrors(t *testing.T) {
	m := load(t, "ssm")
	for _, test := range []struct{ body, code, message string }{
		{`{`, "SerializationException", ""},
		{`{}{}`, "SerializationException", ""},
		{`[]`, "SerializationException", "the request cannot be read as structure"},
		{`{"Name": 5, "Value": "v"}`, "SerializationException", "name cannot be read as string"},
		{`{"Name": "n", "Value": "v", "Overwrite": "yes"}`, "SerializationException", "overwrite cannot be read as boolean"},
		{`{"Name": "n", "Value": "v", "Tags": {}}`, "SerializationException", "tags cannot be read as list"},
		{`{"Name": "n", "Value": "v", "Tags": ["x"]}`, "SerializationException", "tags.1.member cannot be read as structure"},
		{`{"Name": "n"}`, "ValidationException", "1 validation error detected: Value null at 'value' failed to satisfy constraint: Member must not be null"},
		{`{"Name": "", "Value": "v", "Type": "Text"}`, "ValidationException",
			"2 validation errors detected: Value at 'name' failed to satisfy constraint: Member must have length greater than or equal to 1; " +
				"Value 'Text' at 'type' failed to satisfy constraint: Member must satisfy enum value set: [String, StringList, SecureString]"},
		{`{"Name": "n", "Value": "v", "Tags": [{"Value": "x"}]}`, "ValidationException",
			"1 validation error detected: Value null at 'tags.1.member.key' failed to satisfy constraint: Member must not be null"},
	} {
		e, _ := errors.AsType[*Error](m.DecodeJSON("PutParameter", []byte(test.body), &ssm.PutParameterInput{}))
		if e == nil || e.Code != test.code || e.Message != test.message {
			t.Errorf("%s: %v; want %s: %s", test.body, e, test.code, test.message)
		}
	}
	e, _ := errors.AsType[*Error](m.DecodeJSON("DescribeParameters", []byte(`{"MaxResults": 51}`), &ssm.DescribeParametersInput{}))
	want := "1 validation error detected: Value '51' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 50"
	if e == nil || e.Message != want {
		t.Errorf("%v; want %s", e, want)
	}
}

func TestEncodeJSON(t *testing.T) {
	got, err := load(t, "ssm").Encode("GetParameter", "id", &ssm.GetParameterOutput{Parameter: &types.Parameter{
		Name: aws.String("<n>"), Version: 3, Type: types.ParameterTypeString, LastModifiedDate: aws.Time(time.UnixMilli(1500)),
	}})
	if want := `{"Parameter":{"LastModifiedDate":1.5,"Name":"<n>","Type":"String","Version":3}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	got, err = load(t, "secretsmanager").Encode("DescribeSecret", "id", &secretsmanager.DescribeSecretOutput{
		VersionIdsToStages: map[string][]string{"a": {"AWSCURRENT"}, "b": {}},
	})
	if want := `{"VersionIdsToStages":{"a":["AWSCURRENT"],"b":[]}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	got, err = load(t, "secretsmanager").Encode("GetSecretValue", "id", &secretsmanager.GetSecretValueOutput{SecretBinary: []byte{0xff}})
	if want := `{"SecretBinary":"/w=="}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func getParameter(_ context.Context, in *ssm.GetParameterInput) (*ssm.GetParameterOutput, error) {
	if *in.Name == "broken" {
		return nil, errors.New("no idea")
	}
	return &ssm.GetParameterOutput{Parameter: &types.Parameter{Name: in.Name}}, nil
}

func TestServeJSON(t *testing.T) {
	m := load(t, "ssm")
	m.Operations = map[string]Operation{"GetParameter": m.Operations["GetParameter"]}
	s, err := New(m, Actions{"GetParameter": Answer(getParameter)})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		target, body string
		status       int
		want         string
	}{
		{"AmazonSSM.GetParameter", `{"Name": "n"}`, 200, `{"Parameter":{"Name":"n","Version":0}}`},
		{"AmazonSSM.GetParameter", `{"Name": "broken"}`, 500, `{"__type":"InternalServerError","message":"An internal error has occurred: no idea"}`},
		{"AmazonSSM.Frobnicate", `{}`, 400, `{"__type":"UnknownOperationException"}`},
		{"Other.GetParameter", `{}`, 400, `{"__type":"UnknownOperationException"}`},
		{"", `{}`, 400, `{"__type":"UnknownOperationException"}`},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("X-Amz-Target", test.target)
		w := httptest.NewRecorder()
		s.Serve(WithCaller(t.Context(), Caller{Account: "123456789012"}), w, r, []byte(test.body))
		if w.Code != test.status || w.Body.String() != test.want || w.Header().Get("Content-Type") != "application/x-amz-json-1.1" {
			t.Errorf("%s %s: %d %s %v; want %d %s", test.target, test.body, w.Code, w.Body, w.Header(), test.status, test.want)
		}
	}
	for code, want := range map[string]string{"SignatureDoesNotMatch": "InvalidSignatureException", "RequestExpired": "InvalidSignatureException",
		"MissingAuthenticationToken": "MissingAuthenticationTokenException", "IncompleteSignature": "IncompleteSignatureException"} {
		w := httptest.NewRecorder()
		s.WriteError(w, "id", &Error{Code: code, Message: "m", Status: http.StatusForbidden})
		if body := `{"__type":"` + want + `","message":"m"}`; w.Code != 400 || w.Body.String() != body {
			t.Errorf("%s: %d %s; want 400 %s", code, w.Code, w.Body, body)
		}
	}
}
