package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// asked is a request to a service of the local cloud that AWS does not have.
type asked struct {
	service, region string
	method, url     string
	key             aws.Credentials
	body            []byte
}

// ask makes a request, and decodes the JSON response into answer.
func ask(ctx context.Context, a asked, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, a.method, a.url, bytes.NewReader(a.body))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(a.body)
	if err := v4.NewSigner().SignHTTP(ctx, a.key, req, hex.EncodeToString(sum[:]), a.service, a.region, time.Now()); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the process that serves the local cloud does not answer: %w. If it was killed, start it again with: bake cloud up", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the local cloud refuses: %s", strings.TrimSpace(string(text)))
	}
	return json.Unmarshal(text, answer)
}

// contents queries the layers of an image on the local cloud at an endpoint.
func contents(ctx context.Context, endpoint, region, image string, key Key, answer any) error {
	return ask(ctx, asked{
		service: "contents", region: region, method: http.MethodGet, url: endpoint + "/" + image,
		key: aws.Credentials{AccessKeyID: key.AccessKey, SecretAccessKey: key.SecretKey},
	}, answer)
}

// Layer is a part of an image's content, which several images can share.
type Layer struct {
	ID    string
	Bytes int64
}

// Layers returns those layers of an image of the local cloud at an endpoint that belong to
// no base. It returns nil if there is no such image.
func Layers(ctx context.Context, endpoint, region, image string, key Key) ([]Layer, error) {
	var of struct{ Own []Layer }
	err := contents(ctx, endpoint, region, image+"?own", key, &of)
	return of.Own, err
}
