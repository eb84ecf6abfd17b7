package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"

	"bake/cloud"
)

// Rehearse returns what is rehearsed on the cloud that a process serves in dir. Before
// that, the delays and rules in file take the place of those that hold, if file is not
// empty.
func Rehearse(ctx context.Context, dir, file string) (r Rehearsed, err error) {
	if file == "" {
		return rehearse(ctx, dir, http.MethodGet, nil)
	}
	if _, err := cloud.LoadRehearsal(file); err != nil { // says the line
		return r, err
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	return rehearse(ctx, dir, http.MethodPut, body)
}

// ClearFaults takes all rules for faults from the cloud that a process serves in dir.
// Delays stay.
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
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url+"/", bytes.NewReader(body))
	if err != nil {
		return r, err
	}
	sum := sha256.Sum256(body)
	signer := v4.NewSigner()
	key := aws.Credentials{AccessKeyID: profile.Credentials.AccessKeyID, SecretAccessKey: profile.Credentials.SecretAccessKey}
	if err := signer.SignHTTP(ctx, key, req, hex.EncodeToString(sum[:]), "rehearsal", DefaultRegion, time.Now()); err != nil {
		return r, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		return r, fmt.Errorf("the process that serves the local cloud does not answer: %w. If it was killed, start it again with: bake cloud up", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err != nil {
		return r, err
	}
	if answer.StatusCode != http.StatusOK {
		return r, fmt.Errorf("the local cloud refuses: %s", strings.TrimSpace(string(text)))
	}
	return r, json.Unmarshal(text, &r)
}
