package cloud_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestFailedCalls checks that watchers are notified of a failed call, and that its message
// is truncated if it is long. A failed read is recorded without a notification, and not at
// all if the client only looks.
func TestFailedCalls(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	if _, err := client.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{}); err != nil { // creates the networks
		t.Fatal(err)
	}
	changed := s.Cloud.Watch(t.Context())
	last := func() cloud.Call {
		calls := s.Cloud.Calls()
		return calls[len(calls)-1]
	}
	refused[*ec2.DescribeVpcsOutput](t, "InvalidVpcID.NotFound")(client.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{VpcIds: []string{"vpc-0123456789abcdef0"}}))
	if call := last(); call.Code != "InvalidVpcID.NotFound" || len(changed) != 0 {
		t.Errorf("a call that reads: %+v, told %d", call, len(changed))
	}
	before := len(s.Cloud.Calls())
	looks := func(o *ec2.Options) { o.APIOptions = append(o.APIOptions, smithyhttp.AddHeaderValue(s.Cloud.Looks())) }
	refused[*ec2.DescribeVpcsOutput](t, "InvalidVpcID.NotFound")(client.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{VpcIds: []string{"vpc-0123456789abcdef0"}}, looks))
	if len(s.Cloud.Calls()) != before {
		t.Errorf("of who only looks: %+v", last())
	}
	refused[*ec2.CreateVpcOutput](t, "InvalidParameterValue")(client.CreateVpc(t.Context(), &ec2.CreateVpcInput{CidrBlock: aws.String(strings.Repeat("é", 5000))}))
	call := last()
	if call.Action != "CreateVpc" || call.Code != "InvalidParameterValue" || len(call.Message) > 1<<10+len("…") || !strings.HasSuffix(call.Message, "é…") {
		t.Errorf("remembered: %+v", call)
	}
	if len(changed) != 1 {
		t.Error("nobody was told of it")
	}
}

// TestInternalErrors checks that clients do not see paths of the host, but the log does.
func TestInternalErrors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my cloud")
	var text strings.Builder
	s := cloudtest.Start(t, cloud.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&text, nil))})
	entries, err := os.ReadDir(filepath.Join(dir, "ec2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // so that no state can be written
		if err := os.RemoveAll(filepath.Join(dir, "ec2", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.EC2("default", "us-east-1").CreateKeyPair(t.Context(), &ec2.CreateKeyPairInput{KeyName: aws.String("a"), KeyType: types.KeyTypeEd25519}, func(o *ec2.Options) { o.RetryMaxAttempts = 1 })
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() != "InternalError" || strings.Contains(e.ErrorMessage(), "my cloud") || !strings.HasSuffix(e.ErrorMessage(), ": no such file or directory") {
		t.Errorf("the client is told %v", err)
	}
	if !strings.Contains(text.String(), "my cloud/ec2/") {
		t.Errorf("the log says %q", text.String())
	}
}
