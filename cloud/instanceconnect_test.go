package cloud_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"golang.org/x/crypto/ssh"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestSendSSHPublicKey checks that only running instances accept temporary keys, and that
// only keys are accepted.
func TestSendSSHPublicKey(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := ec2instanceconnect.NewFromConfig(s.Config("default", "us-east-1"))
	in := run(t, s.EC2("default", "us-east-1"), ec2.RunInstancesInput{})
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	line := string(ssh.MarshalAuthorizedKey(key))
	send := func(id, user, key string) error {
		out, err := client.SendSSHPublicKey(t.Context(), &ec2instanceconnect.SendSSHPublicKeyInput{InstanceId: &id, InstanceOSUser: &user, SSHPublicKey: &key})
		if err == nil && (!out.Success || aws.ToString(out.RequestId) == "") {
			t.Errorf("the answer is %+v", out)
		}
		return err
	}
	if err := send(*in.InstanceId, "admin", line); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		"EC2InstanceNotFoundException": send("i-0123456789abcdef0", "admin", line),
		"InvalidArgsException":         send(*in.InstanceId, "../admin", line),
	} {
		if got := code(err); got != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if got := code(send(*in.InstanceId, "admin", line[:60]+"\n"+line)); got != "InvalidArgsException" {
		t.Errorf("a text that is no key: %s", got)
	}
}
