package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"bake/cloud"
)

// Rehearse returns the delays and rules in effect on the cloud that a process serves in
// dir. If file is not empty, Rehearse first replaces them by those in the file.
func Rehearse(ctx context.Context, dir, file string) (r Rehearsed, err error) {
	if file == "" {
		return rehearse(ctx, dir, http.MethodGet, nil)
	}
	if _, err := cloud.LoadRehearsal(file); err != nil { // the message includes the line
		return r, err
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	return rehearse(ctx, dir, http.MethodPut, body)
}

// ClearFaults removes all fault rules from the cloud that a process serves in dir. It does
// not change delays.
func ClearFaults(ctx context.Context, dir string) (Rehearsed, error) {
	return rehearse(ctx, dir, http.MethodPut, []byte(`{"faults": {"seed": 0, "rules": []}}`))
}

func rehearse(ctx context.Context, dir, method string, body []byte) (r Rehearsed, err error) {
	url, err := Endpoint(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return r, errors.New("no process serves the local cloud. Start it with: bake cloud up")
	}
	if err != nil {
		return r, err
	}
	file := filepath.Join(dir, "aws", "credentials")
	profile, err := config.LoadSharedConfigProfile(ctx, "default", func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{file}, nil
	})
	if err != nil {
		return r, fmt.Errorf("%s: %w", file, err)
	}
	key := aws.Credentials{AccessKeyID: profile.Credentials.AccessKeyID, SecretAccessKey: profile.Credentials.SecretAccessKey}
	return r, ask(ctx, asked{service: "rehearsal", region: DefaultRegion, method: method, url: url + "/", key: key, body: body}, &r)
}
