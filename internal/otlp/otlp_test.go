package otlp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bake/internal/otlp/otlptest"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if n, value, _ := strings.Cut(p, "="); n == name {
				return value
			}
		}
		return ""
	}
}

const traceparent = "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"

func TestFromEnv(t *testing.T) {
	const at = "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318"
	for _, tt := range []struct {
		env  []string
		want string // the URL, and other settings; empty: none
	}{
		{nil, ""},
		{[]string{"OTEL_SERVICE_NAME=x"}, ""},
		{[]string{at}, "http://c:4318/v1/traces"},
		{[]string{at + "/base/"}, "http://c:4318/base/v1/traces"},
		{[]string{at, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://t/x"}, "https://t/x"},
		{[]string{at, "OTEL_SDK_DISABLED=True"}, ""},
		{[]string{at, "OTEL_TRACES_EXPORTER=none"}, ""},
		{[]string{at, "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"}, "http://c:4318/v1/traces"},
		{[]string{at, "OTEL_TRACES_EXPORTER=zipkin"}, `error: OTEL_TRACES_EXPORTER is "zipkin"; there are otlp and none`},
		{[]string{at, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, `error: OTEL_EXPORTER_OTLP_PROTOCOL is "grpc"; spans are sent by HTTP, which collectors take at another port, 4318 if nobody has changed it: set it to http/json`},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=c:4318"}, "error: OTEL_EXPORTER_OTLP_ENDPOINT is no URL such as http://127.0.0.1:4318"},
		{[]string{at, "OTEL_EXPORTER_OTLP_HEADERS=secret"}, "error: OTEL_EXPORTER_OTLP_HEADERS: it is not as in name=value,name=value, with %2C for a comma in a value"},
		{[]string{at, "OTEL_EXPORTER_OTLP_TIMEOUT=soon"}, `error: OTEL_EXPORTER_OTLP_TIMEOUT is "soon", which is no number of milliseconds`},
		{[]string{at, "OTEL_EXPORTER_OTLP_CERTIFICATE=/none"}, "error: OTEL_EXPORTER_OTLP_CERTIFICATE: open /none: no such file or directory"},
		{[]string{at, traceparent + "00"}, ""}, // not sampled
		{[]string{at, traceparent + "01"}, "http://c:4318/v1/traces 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331"},
		{[]string{at, "TRACEPARENT=00-00000000000000000000000000000000-b7ad6b7169203331-01"}, "http://c:4318/v1/traces"},
		{[]string{at, "TRACEPARENT=rubbish"}, "http://c:4318/v1/traces"},
		{[]string{at, traceparent + "01", "TRACESTATE=a=b"}, "http://c:4318/v1/traces 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 state a=b"},
		{[]string{at, "TRACEPARENT=rubbish", "TRACESTATE=a=b"}, "http://c:4318/v1/traces"},
		{[]string{at, "TRACESTATE=a=b"}, "http://c:4318/v1/traces"},
		{[]string{at, "OTEL_EXPORTER_OTLP_COMPRESSION=gzip"}, "http://c:4318/v1/traces gzip"},
		{[]string{at, "OTEL_EXPORTER_OTLP_COMPRESSION=gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=none"}, "http://c:4318/v1/traces"},
		{[]string{at, "OTEL_EXPORTER_OTLP_COMPRESSION=zstd"}, `error: OTEL_EXPORTER_OTLP_COMPRESSION is "zstd"; there are gzip and none`},
		{[]string{at, "OTEL_EXPORTER_OTLP_TRACES_HEADERS=secret"}, "error: OTEL_EXPORTER_OTLP_TRACES_HEADERS: it is not as in name=value,name=value, with %2C for a comma in a value"},
		{[]string{at, "OTEL_EXPORTER_OTLP_HEADERS=a secret=x"}, "error: OTEL_EXPORTER_OTLP_HEADERS: it has a name that no header of HTTP has: there are only letters, digits and - in such names"},
		{[]string{at, "OTEL_EXPORTER_OTLP_HEADERS=api-key=secret%0A"}, "error: OTEL_EXPORTER_OTLP_HEADERS: the value of api-key has a control character in it"},
		{[]string{at, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=0"}, `error: OTEL_EXPORTER_OTLP_TRACES_TIMEOUT is "0", which is no number of milliseconds`},
		{[]string{at, "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=/none"}, "error: OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: open /none: no such file or directory"},
	} {
		c, err := FromEnv(env(tt.env...), "bake")
		got := ""
		switch {
		case err != nil:
			got = "error: " + err.Error()
		case c != nil:
			got = c.URL
			if c.Parent.Span != (SpanID{}) {
				got += " " + hex.EncodeToString(c.Parent.Trace[:]) + " " + hex.EncodeToString(c.Parent.Span[:])
				if again, ok := ParseParent(c.Parent.String()); !ok || again.Trace != c.Parent.Trace || again.Span != c.Parent.Span {
					t.Errorf("%q is read as %+v", c.Parent.String(), again)
				}
			}
			if c.Parent.State != "" {
				got += " state " + c.Parent.State
			}
			if c.Gzip {
				got += " gzip"
			}
		}
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.env, got, tt.want)
		}
	}
	c, err := FromEnv(env(at, "OTEL_EXPORTER_OTLP_HEADERS=a=b", "OTEL_EXPORTER_OTLP_TRACES_HEADERS= x-key = a%2Cb ,y=", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=1500",
		"OTEL_RESOURCE_ATTRIBUTES=service.name=other,team=a%20b", "OTEL_SERVICE_NAME=mine"), "bake")
	if err != nil || c.Timeout != 1500*time.Millisecond || fmt.Sprint(c.Headers) != "map[x-key:a,b y:]" || fmt.Sprint(c.Resource) != "[{service.name mine} {team a b}]" {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := FromEnv(env(at, "OTEL_RESOURCE_ATTRIBUTES=service.name=other"), "bake"); err != nil || fmt.Sprint(c.Resource) != "[{service.name other}]" {
		t.Errorf("%+v, %v", c, err)
	}
}

func span(n int) Span {
	return Span{Trace: TraceID{1}, ID: SpanID{1, byte(n >> 8), byte(n)}, Name: fmt.Sprint("span ", n), Start: time.Unix(1, 2), End: time.Unix(3, 4)}
}

func TestExport(t *testing.T) {
	for _, packed := range []string{"", "gzip"} {
		c := otlptest.Start(t)
		config, err := FromEnv(env("OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_HEADERS=key=value", "OTEL_EXPORTER_OTLP_COMPRESSION="+packed), "bake")
		if err != nil {
			t.Fatal(err)
		}
		e := NewExporter(*config, "scope", "1", func(err error) { t.Error(err) })
		s := span(1)
		s.Parent, s.Attrs, s.Failed, s.Error = SpanID{7}, []Attr{{"a", "b"}}, true, "why"
		s.Events = []Event{{time.Unix(2, 0), "event", []Attr{{"c", "d"}}}}
		e.Export(s)
		e.Close(t.Context())
		e.Close(t.Context())
		e.Export(s) // is dropped
		got := c.Spans()
		if len(got) != 1 || got[0].Parent != "0700000000000000" || got[0].Attrs["a"] != "b" || got[0].Resource["service.name"] != "bake" || got[0].Error != "why" || fmt.Sprint(got[0].Events) != "[event d]" || !got[0].Start.Equal(s.Start) || !got[0].End.Equal(s.End) {
			t.Errorf("%+v", got)
		}
		if r := c.Requests(); len(r) != 1 || r[0].URL.Path != "/v1/traces" || r[0].Header.Get("key") != "value" {
			t.Errorf("%d requests", len(r))
		}
	}
}

// transport answers requests without a network.
type transport func(*http.Request) (int, string, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body, err := f(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}, Request: r}, nil
}

// TestAway: an unavailable or failing collector delays nothing and causes one warning, and
// another one about all lost spans.
func TestAway(t *testing.T) {
	away := errors.New("connection refused")
	for _, tt := range []struct {
		name   string
		answer func(n int) (int, error) // of the nth request; status 0: never; -1: nor a second after the end of the request
		first  int                      // warnings when a minute is over
		all    []string                 // when the exporter is closed
		sent   bool
		takes  time.Duration // closing it
	}{
		{"away", func(int) (int, error) { return 0, away }, 1, []string{"the collector of traces does not take them: c:4318: connection refused", "the collector of traces was too slow, or did not take all; spans that are lost: 6145"}, false, 0},
		{"refuses", func(int) (int, error) { return 401, nil }, 1, []string{"the collector of traces does not take them: c:4318 answers 401", "the collector of traces was too slow, or did not take all; spans that are lost: 6145"}, false, 0},
		{"busy", func(n int) (int, error) { return map[bool]int{true: 503, false: 200}[n < 3], nil }, 1, []string{"the collector of traces does not take them: c:4318 answers 503", lostSome, "the collector of traces was too slow, or did not take all; spans that are lost: N"}, true, 0},
		{"hangs", func(int) (int, error) { return 0, nil }, 0, []string{"the collector of traces did not answer within 3s; spans that are lost: 6145"}, false, 3 * time.Second},
		{"hangs, on a busy host", func(int) (int, error) { return -1, nil }, 0, []string{"the collector of traces did not answer within 3s; spans that are lost: 6145"}, false, 8 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var warnings []string
				requests, taken := 0, false
				e := newExporter(Config{URL: "http://c:4318/v1/traces"}, "scope", "1", func(err error) { warnings = append(warnings, err.Error()) }, &http.Client{Transport: transport(func(r *http.Request) (int, string, error) {
					requests++
					status, err := tt.answer(requests)
					if status <= 0 && err == nil {
						<-r.Context().Done()
						time.Sleep(time.Duration(-status) * time.Second)
						err = r.Context().Err()
					}
					taken = taken || status == 200
					return status, "", err
				})})
				e.Export(span(1))
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(warnings) != tt.first {
					t.Errorf("after a minute: %q", warnings)
				}
				start := time.Now()
				for n := range 3 * queueSize { // more than are kept
					e.Export(span(n))
				}
				if time.Since(start) > 0 {
					t.Error("it was waited for the collector")
				}
				if tt.sent { // and is, before the end
					time.Sleep(2 * batchTime)
				}
				start = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				e.Close(ctx)
				if took := time.Since(start); took > tt.takes {
					t.Errorf("the end took %s", took)
				}
				if tt.sent { // how many depends on what was in transit
					warnings[len(warnings)-1] = regexp.MustCompile(`[1-9]\d+$`).ReplaceAllString(warnings[len(warnings)-1], "N")
				}
				if !slices.Equal(warnings, tt.all) || taken != tt.sent {
					t.Errorf("%q, want %q; taken: %t", warnings, tt.all, taken)
				}
			})
		})
	}
}

const lostSome = "the collector of traces was too slow or unavailable, so some spans are lost; their number is reported at the end"

// TestLost: lost spans are reported: once while spans are sent, and at the end with their number.
func TestLost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		big    int    // bytes of each span
		answer string // to each request
		most   int    // bytes of a request
		want   []string
	}{
		{"slow", 10, "{}", 1 << 20, []string{lostSome, "the collector of traces was too slow, or did not take all; spans that are lost: N"}},
		{"large", 1 << 17, "{}", batchBytes + 3<<17, []string{lostSome, "the collector of traces was too slow, or did not take all; spans that are lost: N"}},
		{"rejects", 10, `{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}`, 1 << 20, []string{"the collector of traces does not take them: c:4318 rejects 3 of the spans of a request: too old", "the collector of traces was too slow, or did not take all; spans that are lost: N"}},
		{"takes", 10, `{"partialSuccess":{"rejectedSpans":0,"errorMessage":"use gRPC"}}`, 1 << 20, []string{lostSome, "the collector of traces was too slow, or did not take all; spans that are lost: N"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var warnings []string
				requests := 0
				e := newExporter(Config{URL: "http://c:4318/v1/traces"}, "scope", "1", func(err error) { warnings = append(warnings, err.Error()) }, &http.Client{Transport: transport(func(r *http.Request) (int, string, error) {
					if body, err := io.ReadAll(r.Body); err != nil || len(body) > tt.most {
						t.Errorf("a request of %d bytes, %v", len(body), err)
					}
					requests++
					time.Sleep(time.Second)
					return http.StatusOK, tt.answer, nil
				})})
				for range 5 {
					for n := range 2 * queueSize {
						s := span(n)
						s.Error = strings.Repeat("x", tt.big)
						e.Export(s)
					}
					e.mu.Lock()
					waiting := e.waiting
					e.mu.Unlock()
					if waiting > queueBytes {
						t.Errorf("%d bytes wait", waiting)
					}
					time.Sleep(time.Minute)
					synctest.Wait()
				}
				e.Close(t.Context())
				if e.waiting != 0 {
					t.Errorf("%d bytes wait for nothing", e.waiting)
				}
				last := len(warnings) - 1
				warnings[last] = regexp.MustCompile(`[1-9]\d+$`).ReplaceAllString(warnings[last], "N")
				if !slices.Equal(warnings, tt.want) || requests == 0 {
					t.Errorf("%d requests, %q", requests, warnings)
				}
			})
		})
	}
}

// TestLate: the error of a timeout says what the request waited for.
func TestLate(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	var warnings []string
	e := NewExporter(Config{URL: s.URL, Timeout: 100 * time.Millisecond}, "", "", func(err error) { warnings = append(warnings, err.Error()) })
	e.Export(span(1))
	e.Close(t.Context())
	want := []string{"the collector of traces does not take them: " + s.Listener.Addr().String() + " did not answer within 100ms", "the collector of traces was too slow, or did not take all; spans that are lost: 1"}
	if !slices.Equal(warnings, want) {
		t.Errorf("%q", warnings)
	}
}

// TestNowhereElse: a collector cannot send headers elsewhere.
func TestNowhereElse(t *testing.T) {
	var got atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	warned := ""
	e := NewExporter(Config{URL: s.URL, Timeout: time.Minute}, "", "", func(err error) { warned += err.Error() })
	e.Export(span(1))
	e.Close(t.Context())
	if got.Load() != 0 || !strings.Contains(warned, "answers 307") {
		t.Errorf("%d requests to another server; warned: %s", got.Load(), warned)
	}
}
