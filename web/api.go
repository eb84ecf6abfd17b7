package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"bake/internal/lazyregexp"
)

// maxRequest limits the body of a call, and maxAnswer the part of its answer that is read.
const (
	maxRequest = 1 << 20
	maxAnswer  = 64 << 20
)

// services are the services that the console calls.
var services = []string{"ec2", "ssm", "sts", "ec2-instance-connect"}

var regionPattern = lazyregexp.New(`^[a-z]{2}(-[a-z]+)+-\d$`)

// account returns the account with an id.
func (c *Console) account(id string) (Account, bool) {
	i := slices.IndexFunc(c.opts.Accounts, func(a Account) bool { return a.ID == id })
	if i < 0 {
		return Account{}, false
	}
	return c.opts.Accounts[i], true
}

// api makes a call of the API with the credentials of an account. The page provides everything but
// the signature, and gets the answer unchanged.
func (c *Console) api(w http.ResponseWriter, r *http.Request) {
	account, ok := c.account(r.PathValue("account"))
	region, service := r.PathValue("region"), r.PathValue("service")
	if !ok || !slices.Contains(services, service) || !regionPattern.Get().MatchString(region) {
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "The request is larger than 1 MiB.", http.StatusRequestEntityTooLarge)
		return
	}
	resp, err := c.call(r.Context(), account, region, service, r.Header.Get("Content-Type"), r.Header.Get("X-Amz-Target"), body)
	if err != nil {
		http.Error(w, "The cloud does not answer: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(resp.Body, maxAnswer)) // the browser may have gone
}

// call makes a call of the cloud's API. target is that of the JSON protocol, if not empty.
func (c *Console) call(ctx context.Context, a Account, region, service, contentType, target string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.opts.Endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, c.opts.Looks)
	req.Header.Set("Content-Type", contentType)
	if target != "" {
		req.Header.Set("X-Amz-Target", target)
	}
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: a.AccessKey, SecretAccessKey: a.SecretKey}
	if err := v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(sum[:]), service, region, time.Now()); err != nil {
		return nil, err
	}
	return c.client.Do(req)
}

var imagePattern = lazyregexp.New(`^ami-[0-9a-f]{8,17}$`)

// uses lists the uses of an image. The API deregisters the image regardless of them.
func (c *Console) uses(w http.ResponseWriter, r *http.Request) {
	account, ok := c.account(r.PathValue("account"))
	region, image := r.PathValue("region"), r.PathValue("image")
	if !ok || !regionPattern.Get().MatchString(region) || !imagePattern.Get().MatchString(image) {
		http.NotFound(w, r)
		return
	}
	found, err := c.opts.Uses(r.Context(), account, region, image)
	if err != nil {
		http.Error(w, "What uses the image cannot be found out: "+err.Error(), http.StatusBadGateway)
		return
	}
	if found == nil {
		found = []string{}
	}
	writeJSON(w, found)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the browser may have gone
}

// heartbeat is the interval at which a page that waits for changes gets a sign that the server
// runs.
const heartbeat = 20 * time.Second

// quiet is how long changes are collected before they are sent to a page.
const quiet = 200 * time.Millisecond

// changes notifies a page of changes, as server-sent events, until the page or the cloud closes.
func (c *Console) changes(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	answer := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	changed := c.opts.Changes(ctx)
	event := ": hello"
	for {
		if _, err := fmt.Fprintf(w, "%s\n\n", event); err != nil {
			return
		}
		if err := answer.Flush(); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			event = ": still here"
		case _, ok := <-changed:
			if !ok {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(quiet):
			}
			select {
			case <-changed:
			default:
			}
			event = "event: changed\ndata: {}"
		}
	}
}
