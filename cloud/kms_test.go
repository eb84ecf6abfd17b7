package cloud_test

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestKMS checks that keys sign, that their account finds them by id, ARN and alias in
// their region, also after a restart, and that other signatures do not verify.
func TestKMS(t *testing.T) {
	dir := t.TempDir()
	message := []byte("what is signed")
	sum := sha256.Sum256(message)
	signatures := map[string][]byte{}
	algorithms := map[types.KeySpec]types.SigningAlgorithmSpec{
		types.KeySpecEccNistP256: types.SigningAlgorithmSpecEcdsaSha256, types.KeySpecEccNistP384: types.SigningAlgorithmSpecEcdsaSha384,
		types.KeySpecRsa2048: types.SigningAlgorithmSpecRsassaPssSha256,
	}
	ids := map[types.KeySpec]string{}
	t.Run("make", func(t *testing.T) {
		s := cloudtest.Start(t, cloud.Options{Dir: dir})
		client := kms.NewFromConfig(s.Config("default", "us-east-1"))
		for spec, algorithm := range algorithms {
			made, err := client.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: types.KeyUsageTypeSignVerify})
			if err != nil {
				t.Fatal(err)
			}
			id := *made.KeyMetadata.KeyId
			ids[spec] = id
			signed, err := client.Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: message, SigningAlgorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			signatures[id] = signed.Signature
		}
		id := ids[types.KeySpecEccNistP256]
		if _, err := client.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/x"), TargetKeyId: &id}); err != nil {
			t.Fatal(err)
		}
		for want, in := range map[string]*kms.CreateAliasInput{
			"AlreadyExistsException":    {AliasName: aws.String("alias/x"), TargetKeyId: &id},
			"InvalidAliasNameException": {AliasName: aws.String("x"), TargetKeyId: &id},
			"NotFoundException":         {AliasName: aws.String("alias/y"), TargetKeyId: aws.String("missing")},
		} {
			if _, err := client.CreateAlias(t.Context(), in); code(err) != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		multi := &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify, MultiRegion: aws.Bool(true)}
		if _, err := client.CreateKey(t.Context(), multi); code(err) != "UnsupportedOperationException" {
			t.Errorf("a key of many regions: %v", err)
		}
		if _, err := client.CreateKey(t.Context(), &kms.CreateKeyInput{}); code(err) != "UnsupportedOperationException" {
			t.Errorf("a symmetric key: %v", err)
		}
	})
	s := cloudtest.Start(t, cloud.Options{Dir: dir})
	client := kms.NewFromConfig(s.Config("default", "us-east-1"))
	for spec, algorithm := range algorithms {
		id := ids[spec]
		in := kms.VerifyInput{KeyId: &id, Message: message, SigningAlgorithm: algorithm, Signature: signatures[id]}
		if out, err := client.Verify(t.Context(), &in); err != nil || !out.SignatureValid {
			t.Errorf("%s: %v", spec, err)
		}
		in.Message = []byte("something else")
		if _, err := client.Verify(t.Context(), &in); code(err) != "KMSInvalidSignatureException" {
			t.Errorf("%s, another message: %v", spec, err)
		}
	}
	id := ids[types.KeySpecEccNistP256]
	arn := "arn:aws:kms:us-east-1:123456789012:"
	for _, name := range []string{id, arn + "key/" + id, "alias/x", arn + "alias/x"} {
		out, err := client.Verify(t.Context(), &kms.VerifyInput{
			KeyId: &name, Message: sum[:], MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256, Signature: signatures[id],
		})
		if err != nil || *out.KeyId != arn+"key/"+id {
			t.Errorf("%s: %v", name, err)
		}
	}
	elsewhere := kms.NewFromConfig(s.Config("default", "eu-west-1"))
	if _, err := elsewhere.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id}); code(err) != "NotFoundException" {
		t.Errorf("in another region: %v", err)
	}
	for want, in := range map[string]*kms.SignInput{
		"InvalidKeyUsageException": {KeyId: &id, Message: message, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha384},
		"ValidationException":      {KeyId: &id, Message: message, MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256},
		"NotFoundException":        {KeyId: aws.String("alias/y"), Message: message, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256},
	} {
		if _, err := client.Sign(t.Context(), in); code(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if list, err := client.ListAliases(t.Context(), &kms.ListAliasesInput{}); err != nil || len(list.Aliases) != 1 || *list.Aliases[0].TargetKeyId != id {
		t.Errorf("aliases: %+v, %v", list, err)
	}
	if list, err := client.ListKeys(t.Context(), &kms.ListKeysInput{}); err != nil || len(list.Keys) != 3 {
		t.Errorf("keys: %+v, %v", list, err)
	}
	var keys []string
	for p := kms.NewListKeysPaginator(client, &kms.ListKeysInput{Limit: aws.Int32(2)}); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		if err != nil || len(page.Keys) > 2 || page.Truncated != p.HasMorePages() {
			t.Fatalf("a page: %+v, %v", page, err)
		}
		for _, k := range page.Keys {
			keys = append(keys, *k.KeyId)
		}
	}
	if slices.Sort(keys); len(slices.Compact(keys)) != 3 {
		t.Errorf("in pages: %v", keys)
	}
	if _, err := client.ListAliases(t.Context(), &kms.ListAliasesInput{Limit: aws.Int32(101)}); code(err) != "ValidationException" {
		t.Errorf("a page that is too long: %v", err)
	}
	if _, err := client.ListKeys(t.Context(), &kms.ListKeysInput{Marker: aws.String("x")}); code(err) != "InvalidMarkerException" {
		t.Errorf("a marker of nothing: %v", err)
	}
	gone, err := client.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: &id, PendingWindowInDays: aws.Int32(7)})
	if err != nil || time.Until(*gone.DeletionDate) < 6*24*time.Hour {
		t.Errorf("deletion: %+v, %v", gone, err)
	}
	if _, err := client.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String("alias/x")}); code(err) != "KMSInvalidStateException" {
		t.Errorf("a key that will be deleted: %v", err)
	}
	err = filepath.WalkDir(filepath.Join(dir, "kms"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("PRIVATE")) {
			t.Errorf("%s holds a key that is not sealed", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
