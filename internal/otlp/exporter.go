package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	queueSize  = 2048            // maximum number of waiting spans, and
	queueBytes = 16 << 20        // their maximum size in bytes; more are dropped
	batchSize  = 512             // maximum number of spans in a request, and
	batchBytes = 1 << 20         // their size in bytes, without the last one
	batchTime  = 2 * time.Second // how long a span waits for others

	longestAnswer = 1 << 16 // of a collector, in bytes
	longestReason = 500     // of its message, in bytes

	// Failed requests are retried after increasing pauses.
	firstWait = time.Second
	longWait  = 30 * time.Second
)

// Exporter sends spans to a collector in the background. Only Close waits for the
// collector.
type Exporter struct {
	config        Config
	name, version string
	warn          func(error)
	client        *http.Client

	queue   chan Span
	closing chan struct{}
	over    chan struct{}
	ctx     context.Context // of requests
	cancel  context.CancelFunc

	mu      sync.Mutex
	waiting int  // bytes of the queue
	lost    int  // spans
	told    bool // the user was warned that some are lost
	closed  bool // no more spans are accepted
	warned  bool // since the collector last accepted something
}

// NewExporter sends spans as configured in c, for a program of that name and version,
// until Close. warn is called once when the collector stops accepting spans, until it
// accepts them again; when the first spans are lost; and at the end with the number of
// lost spans. It is called by another goroutine, or by Close.
func NewExporter(c Config, name, version string, warn func(error)) *Exporter {
	return newExporter(c, name, version, warn, c.client())
}

func newExporter(c Config, name, version string, warn func(error), client *http.Client) *Exporter {
	e := &Exporter{
		config: c, name: name, version: version, warn: warn, client: client,
		queue: make(chan Span, queueSize), closing: make(chan struct{}), over: make(chan struct{}),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	go e.run()
	return e
}

// Export queues a span, and drops it if too many are waiting.
func (e *Exporter) Export(s Span) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	size := s.size()
	if e.waiting+size > queueBytes {
		e.lost++
		return
	}
	select {
	case e.queue <- s:
		e.waiting += size
	default:
		e.lost++
	}
}

// Close sends the remaining spans until ctx ends, and stops the exporter. It drops what it
// could not send, and warns of all lost spans. Only the first call has an effect.
func (e *Exporter) Close(ctx context.Context) {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return
	}
	start := time.Now()
	close(e.closing)
	defer context.AfterFunc(ctx, e.cancel)()
	<-e.over
	late := e.ctx.Err() != nil
	e.cancel()
	e.client.CloseIdleConnections()
	switch {
	case e.lost == 0:
	case late:
		waited := time.Since(start)
		if end, ok := ctx.Deadline(); ok {
			waited = min(waited, end.Sub(start)) // on a busy host, more time passes
		}
		e.warn(fmt.Errorf("the collector of traces did not answer within %s; spans that are lost: %d", waited.Round(100*time.Millisecond), e.lost))
	default:
		e.warn(fmt.Errorf("the collector of traces was too slow, or did not take all; spans that are lost: %d", e.lost))
	}
}

// run sends batches until the exporter is closed and the queue is empty.
func (e *Exporter) run() {
	defer close(e.over)
	for {
		batch, last := e.next()
		if len(batch) > 0 {
			e.deliver(batch)
		}
		if last {
			return
		}
	}
}

// next waits for spans, and a little longer for more of them. last reports that there will
// be no more.
func (e *Exporter) next() (batch []Span, last bool) {
	size := 0
	take := func(s Span) {
		n := s.size()
		batch, size = append(batch, s), size+n
		e.mu.Lock()
		e.waiting -= n
		e.mu.Unlock()
	}
	select {
	case s := <-e.queue:
		take(s)
	case <-e.closing:
	}
	more := time.NewTimer(batchTime)
	defer more.Stop()
	for len(batch) < batchSize && size < batchBytes {
		select {
		case s := <-e.queue:
			take(s)
			continue
		default:
		}
		select {
		case s := <-e.queue:
			take(s)
		case <-more.C:
			return batch, false
		case <-e.closing: // no more spans are accepted
			return batch, len(e.queue) == 0
		}
	}
	return batch, false
}

// deliver sends a batch, and retries while that may help.
func (e *Exporter) deliver(batch []Span) {
	body, err := encode(e.config.Resource, e.name, e.version, batch)
	lost := len(batch)
	for wait := firstWait; err == nil; wait = min(2*wait, longWait) {
		again, failure := e.post(body)
		if failure == nil {
			e.taken()
			return
		}
		e.fail(failure)
		if some, ok := errors.AsType[*rejectedError](failure); ok {
			lost = min(some.spans, lost)
		}
		if !again || !e.pause(wait) {
			break
		}
	}
	e.mu.Lock()
	e.lost += lost
	e.mu.Unlock()
}

// pause waits before another attempt, and reports whether there is one: a last one if the
// exporter is closed meanwhile, and none after that.
func (e *Exporter) pause(wait time.Duration) bool {
	select {
	case <-e.closing:
		return false
	default:
	}
	select {
	case <-e.closing:
	case <-time.After(wait):
	}
	return true
}

// taken records that the collector has accepted spans, and warns once if some were lost
// before.
func (e *Exporter) taken() {
	e.mu.Lock()
	tell := e.lost > 0 && !e.told && !e.closed
	e.warned, e.told = false, e.told || tell
	e.mu.Unlock()
	if tell {
		e.warn(errors.New("the collector of traces was too slow or unavailable, so some spans are lost; their number is reported at the end"))
	}
}

// fail warns, unless it has already, or Close will.
func (e *Exporter) fail(err error) {
	if e.ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	warned := e.warned
	e.warned = true
	e.mu.Unlock()
	if !warned {
		e.warn(fmt.Errorf("the collector of traces does not take them: %w", err))
	}
}

// rejectedError is the answer of a collector that does not accept all spans of a
// request.
type rejectedError struct {
	host  string
	spans int
	why   string // empty if it gives no reason
}

func (e *rejectedError) Error() string {
	text := fmt.Sprintf("%s rejects %d of the spans of a request", e.host, e.spans)
	if e.why != "" {
		text += ": " + e.why
	}
	return text
}

// partly returns an error for spans that an answer reports as rejected, or nil.
func partly(host string, body io.Reader) error {
	var answer struct {
		PartialSuccess struct {
			RejectedSpans json.RawMessage // a number, or a text with one
			ErrorMessage  string
		}
	}
	if json.NewDecoder(body).Decode(&answer) != nil {
		return nil // the spans were accepted, whatever the body contains
	}
	partial := answer.PartialSuccess
	n, err := strconv.ParseInt(strings.Trim(string(partial.RejectedSpans), `"`), 10, 32)
	if err != nil || n <= 0 {
		return nil
	}
	return &rejectedError{host, int(n), strings.ToValidUTF8(partial.ErrorMessage[:min(len(partial.ErrorMessage), longestReason)], "")}
}

// post sends a request. again reports whether a retry may succeed.
func (e *Exporter) post(body []byte) (again bool, err error) {
	encoding := ""
	if e.config.Gzip {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write(body); err != nil {
			return false, err
		}
		if err := w.Close(); err != nil {
			return false, err
		}
		body, encoding = packed.Bytes(), "gzip"
	}
	req, err := http.NewRequestWithContext(e.ctx, http.MethodPost, e.config.URL, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("its URL is wrong")
	}
	for name, value := range e.config.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	answer, err := e.client.Do(req)
	if wait, ok := errors.AsType[net.Error](err); ok && wait.Timeout() {
		return true, fmt.Errorf("%s did not answer within %s", req.URL.Host, e.client.Timeout)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok { // its URL may hold secrets
		return true, fmt.Errorf("%s: %w", req.URL.Host, wrapped.Err)
	} else if err != nil {
		return true, err
	}
	defer answer.Body.Close()
	said := io.LimitReader(answer.Body, longestAnswer)
	defer func() { _, _ = io.Copy(io.Discard, said) }() // so that the connection can be used again
	if answer.StatusCode/100 == 2 {
		return false, partly(req.URL.Host, said)
	}
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return again, fmt.Errorf("%s answers %s", req.URL.Host, answer.Status)
}
