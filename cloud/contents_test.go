package cloud_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// What an image is made of is told to those who may launch it.
func TestContents(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ask := func(profile, region, id string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := s.Config(profile, region).Credentials.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(nil)
		if err := v4.NewSigner().SignHTTP(t.Context(), key, req, hex.EncodeToString(sum[:]), "contents", region, time.Now()); err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	source := source(t, client)
	image := made(t, client, "mine")
	var got cloud.Contents
	status, text := ask("default", "us-east-1", *image.ImageId)
	if err := json.Unmarshal([]byte(text), &got); err != nil || status != http.StatusOK {
		t.Fatal(status, text, err)
	}
	if got.Name != "mine" || got.Size != 8 || got.RootDevice != "/dev/xvda" || got.User == "" || len(got.Layers) == 0 || got.Base != "" {
		t.Errorf("%+v", got)
	}
	if status, text := ask("default", "us-east-1", source); status != http.StatusOK || !strings.Contains(text, `"Base":"`) {
		t.Error(status, text)
	}
	for _, refused := range []struct{ profile, region, id, want string }{
		{"default", "eu-west-1", *image.ImageId, "does not exist"},
		{"other", "us-east-1", *image.ImageId, "Not authorized for images"},
		{"default", "us-east-1", "ami-x", "Invalid id"},
	} {
		if status, text := ask(refused.profile, refused.region, refused.id); status/100 != 4 || !strings.Contains(text, refused.want) {
			t.Errorf("%+v: %d %s", refused, status, text)
		}
	}
}
