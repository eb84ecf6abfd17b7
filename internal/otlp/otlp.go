// Package otlp sends spans to a collector: OTLP 1 over HTTP, in its JSON encoding
// (https://opentelemetry.io/docs/specs/otlp/). OpenTelemetry's SDK would add megabytes to
// a program; this package has only what a program with few spans needs.
package otlp

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
)

// TraceID identifies a trace. Zero means none.
type TraceID [16]byte

// SpanID identifies a span within its trace. Zero means none.
type SpanID [8]byte

// Attr is an attribute.
type Attr struct{ Key, Value string }

// Event is an event within a span.
type Event struct {
	Time  time.Time
	Name  string
	Attrs []Attr
}

// Span is a finished span.
type Span struct {
	Trace      TraceID
	ID, Parent SpanID // Parent is zero for the span of a whole trace
	State      string // tracestate of W3C's Trace Context
	Name       string
	Start, End time.Time
	Attrs      []Attr
	Events     []Event

	Failed bool
	Error  string // the error, if it has failed
}

// size estimates the memory of a span, and its size in a request, in bytes.
func (s *Span) size() int {
	const item = 64 // of an attribute, an event or the rest
	n := 4*item + len(s.State) + len(s.Name) + len(s.Error)
	count := func(all []Attr) {
		for _, a := range all {
			n += item + len(a.Key) + len(a.Value)
		}
	}
	count(s.Attrs)
	for _, e := range s.Events {
		n += item + len(e.Name)
		count(e.Attrs)
	}
	return n
}

// The names of the encoding.
type (
	jsonValue struct {
		Text string `json:"stringValue"`
	}
	jsonAttr struct {
		Key   string    `json:"key"`
		Value jsonValue `json:"value"`
	}
	jsonEvent struct {
		Time  string     `json:"timeUnixNano"`
		Name  string     `json:"name"`
		Attrs []jsonAttr `json:"attributes,omitempty"`
	}
	jsonStatus struct {
		Code    int    `json:"code,omitempty"` // 2: error
		Message string `json:"message,omitempty"`
	}
	jsonSpan struct {
		Trace  string      `json:"traceId"`
		ID     string      `json:"spanId"`
		Parent string      `json:"parentSpanId,omitempty"`
		State  string      `json:"traceState,omitempty"`
		Name   string      `json:"name"`
		Kind   int         `json:"kind"`
		Start  string      `json:"startTimeUnixNano"`
		End    string      `json:"endTimeUnixNano"`
		Attrs  []jsonAttr  `json:"attributes,omitempty"`
		Events []jsonEvent `json:"events,omitempty"`
		Status jsonStatus  `json:"status"`
	}
	jsonScope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	jsonScopeSpans struct {
		Scope jsonScope  `json:"scope"`
		Spans []jsonSpan `json:"spans"`
	}
	jsonResource struct {
		Attrs []jsonAttr `json:"attributes"`
	}
	jsonResourceSpans struct {
		Resource jsonResource     `json:"resource"`
		Scopes   []jsonScopeSpans `json:"scopeSpans"`
	}
	jsonRequest struct {
		Resources []jsonResourceSpans `json:"resourceSpans"`
	}
)

// internalKind is the kind of spans that are neither requests nor their answers.
const internalKind = 1

// encode returns the request that sends the spans of a program with this name and version.
func encode(resource []Attr, name, version string, spans []Span) ([]byte, error) {
	all := make([]jsonSpan, 0, len(spans))
	for _, s := range spans {
		one := jsonSpan{
			Trace: hex.EncodeToString(s.Trace[:]), ID: hex.EncodeToString(s.ID[:]), State: s.State, Name: s.Name, Kind: internalKind,
			Start: nanoseconds(s.Start), End: nanoseconds(s.End), Attrs: attributes(s.Attrs),
		}
		if s.Parent != (SpanID{}) {
			one.Parent = hex.EncodeToString(s.Parent[:])
		}
		if s.Failed {
			one.Status = jsonStatus{2, s.Error}
		}
		for _, e := range s.Events {
			one.Events = append(one.Events, jsonEvent{nanoseconds(e.Time), e.Name, attributes(e.Attrs)})
		}
		all = append(all, one)
	}
	return json.Marshal(jsonRequest{[]jsonResourceSpans{{
		jsonResource{attributes(resource)}, []jsonScopeSpans{{jsonScope{name, version}, all}},
	}}})
}

func nanoseconds(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func attributes(all []Attr) (out []jsonAttr) {
	for _, a := range all {
		out = append(out, jsonAttr{a.Key, jsonValue{a.Value}})
	}
	return out
}
