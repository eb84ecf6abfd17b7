package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"

	"bake/builder/amazon/internal/wait"
)

// answerLimit is how long an endpoint may take to begin its answer to a request that it has
// received. The slowest calls of AWS take several seconds.
const answerLimit = 90 * time.Second

// unansweredAttempts is how often a request is sent to an endpoint that does not answer it.
const unansweredAttempts = 2

// attentive is the HTTP client of a session: it reports that an endpoint does not answer.
type attentive struct {
	aws.HTTPClient
	session *Session
}

// Do implements [aws.HTTPClient].
func (c attentive) Do(r *http.Request) (*http.Response, error) {
	start, endpoint := time.Now(), r.URL.Scheme+"://"+r.URL.Host
	slow := time.AfterFunc(wait.Trouble, func() { c.session.waitsFor(r.Context(), endpoint) })
	defer slow.Stop()
	resp, err := c.HTTPClient.Do(r)
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() && time.Since(start) >= answerLimit {
		return resp, &unansweredError{endpoint, err}
	}
	return resp, err
}

// waitsFor tells the user, once for each endpoint, which call it has not answered yet.
func (s *Session) waitsFor(ctx context.Context, endpoint string) {
	if s.Cloud.Warn == nil || ctx.Err() != nil || !s.watchers.firstSlow(endpoint) {
		return
	}
	s.Cloud.Warn(ctx, "%s has not answered %s for %s; bake waits for it up to %s", endpoint, awsmiddleware.GetServiceID(ctx)+" "+middleware.GetOperationName(ctx), wait.Trouble, answerLimit)
}

// firstSlow reports whether it is called for the first time for an endpoint.
func (w *Watchers) firstSlow(endpoint string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slow[endpoint] {
		return false
	}
	if w.slow == nil {
		w.slow = map[string]bool{}
	}
	w.slow[endpoint] = true
	return true
}

// unansweredError is the error of a request that was sent and not answered in time.
type unansweredError struct {
	endpoint string
	err      error
}

func (e *unansweredError) Error() string {
	return fmt.Sprintf("%s has not answered within %s", e.endpoint, answerLimit)
}

// Unwrap implements errors.Unwrap.
func (e *unansweredError) Unwrap() error { return e.err }
