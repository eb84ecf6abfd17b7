package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	queueSize = 2048            // spans that wait to be sent; more are dropped
	batchSize = 512             // spans of a request
	batchTime = 2 * time.Second // that a span waits for others

	// What could not be sent is sent again after pauses that grow.
	firstWait = time.Second
	longWait  = 30 * time.Second
)

// Exporter sends spans to a collector while the program goes on. It never waits for the
// collector but in Close.
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

	mu     sync.Mutex
	lost   int  // spans
	closed bool // nothing is taken any more
	warned bool // since the collector last took something
}

// NewExporter sends spans as c says, for a program of that name and version, until Close.
// warn is told when the collector does not take them, once until it does again; it is called
// by another goroutine.
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

// Export takes a span to be sent, and drops it if too many wait.
func (e *Exporter) Export(s Span) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	select {
	case e.queue <- s:
	default:
		e.lost++
	}
}

// Close sends what waits, for as long as ctx lasts, and ends the exporter. What is not sent
// then is lost, and warned of. Only the first call does something.
func (e *Exporter) Close(ctx context.Context) {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return
	}
	close(e.closing)
	defer context.AfterFunc(ctx, e.cancel)()
	<-e.over
	e.cancel()
	e.client.CloseIdleConnections()
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

// next waits for spans, and a little for more of them. last says that there will be no more.
func (e *Exporter) next() (batch []Span, last bool) {
	select {
	case s := <-e.queue:
		batch = append(batch, s)
	case <-e.closing:
	}
	more := time.NewTimer(batchTime)
	defer more.Stop()
	for len(batch) < batchSize {
		select {
		case s := <-e.queue:
			batch = append(batch, s)
			continue
		default:
		}
		select {
		case s := <-e.queue:
			batch = append(batch, s)
		case <-more.C:
			return batch, false
		case <-e.closing: // nothing is taken any more
			return batch, len(e.queue) == 0
		}
	}
	return batch, false
}

// deliver sends a batch, and again while that may help.
func (e *Exporter) deliver(batch []Span) {
	body, err := encode(e.config.Resource, e.name, e.version, batch)
	for wait := firstWait; err == nil; wait = min(2*wait, longWait) {
		again, failure := e.post(body)
		if failure == nil {
			e.taken()
			return
		}
		e.fail(failure)
		if !again || !e.pause(wait) {
			break
		}
	}
	e.mu.Lock()
	e.lost += len(batch)
	e.mu.Unlock()
}

// pause waits before another try, and reports whether there is one: a last one if the exporter
// is closed meanwhile, and none after that.
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

// taken notes that the collector has taken something, and tells what was lost before.
func (e *Exporter) taken() {
	e.mu.Lock()
	lost := e.lost
	e.lost, e.warned = 0, false
	e.mu.Unlock()
	if lost > 0 {
		e.warn(fmt.Errorf("%d spans are lost: the collector of traces was too slow, or away", lost))
	}
}

// fail warns, unless it has.
func (e *Exporter) fail(err error) {
	e.mu.Lock()
	warned := e.warned
	e.warned = true
	e.mu.Unlock()
	if !warned {
		e.warn(fmt.Errorf("the collector of traces does not take them: %w", err))
	}
}

// post sends a request. again says that it may succeed later.
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
	if wrapped, ok := errors.AsType[*url.Error](err); ok { // its URL may hold secrets
		return true, fmt.Errorf("%s: %w", req.URL.Host, wrapped.Err)
	} else if err != nil {
		return true, err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 1<<16)
	if answer.StatusCode/100 == 2 {
		return false, nil
	}
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return again, fmt.Errorf("%s answers %s", req.URL.Host, answer.Status)
}
