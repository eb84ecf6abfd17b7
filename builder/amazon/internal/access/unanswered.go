package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"

	"bake/builder/amazon/internal/wait"
)

// answerLimit is how long an endpoint may take to receive the next answerStep bytes of a request, to
// begin its answer to one that it has received, and then to send the next answerStep bytes of it.
// The slowest calls of AWS take several seconds.
const (
	answerLimit = 90 * time.Second
	answerStep  = 64 << 10
)

// unansweredAttempts is how often a request is sent to an endpoint that does not answer it.
const unansweredAttempts = 2

// attentive is the HTTP client of a session: it reports that an endpoint does not answer, and ends
// a request that does not go on.
type attentive struct {
	aws.HTTPClient
	session *Session
}

// Do implements [aws.HTTPClient].
func (c attentive) Do(r *http.Request) (*http.Response, error) {
	endpoint := r.URL.Scheme + "://" + r.URL.Host
	ctx, cancel := context.WithCancelCause(r.Context())
	w := &watched{ctx: ctx}
	w.slow = time.AfterFunc(wait.Trouble, func() { c.session.waitsFor(ctx, endpoint) })
	w.late = time.AfterFunc(answerLimit, func() { cancel(&unansweredError{endpoint, w.begun.Load(), os.ErrDeadlineExceeded}) })
	w.end = func() {
		w.slow.Stop()
		w.late.Stop()
		cancel(nil)
	}
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &sentBody{r.Body, w}
	}
	resp, err := c.HTTPClient.Do(r)
	if err != nil || resp == nil {
		err = w.why(err)
		w.end()
		return resp, err
	}
	w.begun.Store(true)
	if w.late.Stop() {
		w.late.Reset(answerLimit)
	}
	resp.Body = &steadyBody{resp.Body, w}
	return resp, nil
}

// watched is a request that ends if it makes no progress. Its body may still be sent while the answer
// is read, and after that.
type watched struct {
	ctx        context.Context // of the request
	begun      atomic.Bool     // the answer has begun
	slow, late *time.Timer     // until the user is told, and until the request ends
	moved      atomic.Int64    // bytes since they were set
	end        func()          // releases the timers and ctx; may be called several times
}

// progress notes that n bytes were sent or received.
func (w *watched) progress(n int) {
	if w.moved.Add(int64(n)) < answerStep {
		return
	}
	w.moved.Store(0)
	if w.slow.Stop() {
		w.slow.Reset(wait.Trouble)
	}
	if w.late.Stop() { // otherwise the request has ended
		w.late.Reset(answerLimit)
	}
}

// why returns the reason for err, which is that the request was ended if it was.
func (w *watched) why(err error) error {
	if late, ok := errors.AsType[*unansweredError](context.Cause(w.ctx)); ok && err != nil && !errors.Is(err, io.EOF) {
		return late
	}
	return err
}

// sentBody is the body of a request.
type sentBody struct {
	io.ReadCloser
	w *watched
}

// Read implements [io.Reader].
func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.w.progress(n)
	return n, err
}

// steadyBody is the body of an answer.
type steadyBody struct {
	io.ReadCloser
	w *watched
}

// Read implements [io.Reader].
func (b *steadyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		err = b.w.why(err)
		b.w.end()
		return n, err
	}
	b.w.progress(n)
	return n, nil
}

// Close implements [io.Closer].
func (b *steadyBody) Close() error {
	b.w.end()
	return b.ReadCloser.Close()
}

// waitsFor tells the user, once for each endpoint, which call it has not answered yet. ctx is that of
// the request, and ends with it.
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
	begun    bool // the answer has begun
	err      error
}

func (e *unansweredError) Error() string {
	if e.begun {
		return fmt.Sprintf("%s has begun an answer and not gone on with it for %s", e.endpoint, answerLimit)
	}
	return fmt.Sprintf("%s has not answered within %s", e.endpoint, answerLimit)
}

// Unwrap implements errors.Unwrap.
func (e *unansweredError) Unwrap() error { return e.err }
