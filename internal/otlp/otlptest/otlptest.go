// Package otlptest is a collector for tests.
package otlptest

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Span is a span as received by the collector.
type Span struct {
	Trace, ID, Parent, Name string
	Start, End              time.Time
	Attrs, Resource         map[string]string
	Events                  []string // their names, with the values of their attributes
	Failed                  bool
	Error                   string
}

// Collector receives spans.
type Collector struct {
	URL string // the endpoint of all signals

	mu    sync.Mutex
	spans []Span
	asked []*http.Request // without their bodies
	wrong error
}

// attrs are attributes, whose values must all be strings.
type attrs []struct {
	Key   string
	Value struct{ StringValue *string }
}

func (a attrs) texts() (map[string]string, error) {
	out := map[string]string{}
	for _, one := range a {
		if _, again := out[one.Key]; again || one.Key == "" || one.Value.StringValue == nil {
			return nil, fmt.Errorf("the attribute %q occurs twice or is not a string", one.Key)
		}
		out[one.Key] = *one.Value.StringValue
	}
	return out, nil
}

// Start starts a collector that ends with the test.
func Start(t testing.TB) *Collector {
	c, stop := New()
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// New starts a collector. stop ends it, and returns an error about requests that it could not
// parse.
func New() (c *Collector, stop func() error) {
	c = &Collector{}
	s := httptest.NewServer(c)
	c.URL = s.URL
	return c, func() error {
		s.Close()
		if c.wrong != nil {
			return fmt.Errorf("the collector rejected the data: %w", c.wrong)
		}
		return nil
	}
}

// ServeHTTP handles a request.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	spans, err := read(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, r)
	if err != nil {
		c.wrong = err
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.spans = append(c.spans, spans...)
	_, _ = io.WriteString(w, "{}")
}

// Spans returns the accepted spans.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Span(nil), c.spans...)
}

// Requests returns all requests.
func (c *Collector) Requests() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*http.Request(nil), c.asked...)
}

func read(r *http.Request) ([]Span, error) {
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		return nil, fmt.Errorf("%s with %q", r.Method, r.Header.Get("Content-Type"))
	}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(body); err != nil {
			return nil, err
		}
	}
	var request struct {
		ResourceSpans []struct {
			Resource   struct{ Attributes attrs }
			ScopeSpans []struct{ Spans []wireSpan }
		}
	}
	if err := json.NewDecoder(body).Decode(&request); err != nil {
		return nil, err
	}
	var all []Span
	for _, rs := range request.ResourceSpans {
		resource, err := rs.Resource.Attributes.texts()
		if err != nil {
			return nil, err
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				one, err := s.span(resource)
				if err != nil {
					return nil, err
				}
				all = append(all, one)
			}
		}
	}
	return all, nil
}

// wireSpan is a span in a request.
type wireSpan struct {
	TraceID, SpanID, ParentSpanID, Name string
	Kind                                int
	StartTimeUnixNano, EndTimeUnixNano  string
	Attributes                          attrs
	Events                              []struct {
		TimeUnixNano, Name string
		Attributes         attrs
	}
	Status struct {
		Code    int
		Message string
	}
}

// span checks s, and returns it with the attributes of its resource.
func (s wireSpan) span(resource map[string]string) (Span, error) {
	one := Span{Trace: s.TraceID, ID: s.SpanID, Parent: s.ParentSpanID, Name: s.Name, Resource: resource, Failed: s.Status.Code == 2, Error: s.Status.Message}
	var err, e1, e2 error
	one.Start, e1 = at(s.StartTimeUnixNano)
	one.End, e2 = at(s.EndTimeUnixNano)
	if one.Attrs, err = s.Attributes.texts(); err != nil || e1 != nil || e2 != nil || len(s.TraceID) != 32 || len(s.SpanID) != 16 || len(s.ParentSpanID)%16 != 0 || s.Kind != 1 || one.End.Before(one.Start) {
		return Span{}, fmt.Errorf("the span %+v: %w, %w, %w", s, err, e1, e2)
	}
	for _, e := range s.Events {
		text := e.Name
		for _, a := range e.Attributes {
			text += " " + *a.Value.StringValue
		}
		one.Events = append(one.Events, text)
	}
	return one, nil
}

func at(text string) (time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(0, n), err
}
