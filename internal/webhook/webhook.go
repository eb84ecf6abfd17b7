// Package webhook posts notifications to servers.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"bake/internal/delay"
)

// Hook is a webhook.
type Hook struct {
	URL     string
	Headers map[string]string
	Timeout time.Duration // of each attempt
}

// tries is the maximum number of attempts.
const tries = 3

// Send posts what as JSON. It reads only the status of the response, and does not follow
// redirects. Errors name only the host: the rest of the URL, and the headers, may be
// secrets. When ctx ends, its cause is the error.
func (h Hook) Send(ctx context.Context, what any) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := h.post(ctx, body)
		if err == nil || try == tries {
			return err
		}
		if err := delay.For(ctx, time.Duration(try)*time.Second); err != nil {
			return err
		}
	}
}

func (h Hook) post(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	u, err := url.Parse(h.URL)
	if err != nil {
		return fmt.Errorf("its URL is wrong")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s cannot be called", u.Host)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range h.Headers {
		req.Header.Set(name, value)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(req)
	if e, ok := err.(*url.Error); ok { //nolint:errorlint // as Do documents
		return fmt.Errorf("%s: %w", u.Host, e.Err)
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 1<<16)
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", u.Host, answer.Status)
	}
	return nil
}
