package otlp

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"bake/internal/tlsfiles"
)

// Config is the configuration of the export of spans.
type Config struct {
	URL      string            // of requests for traces
	Headers  map[string]string // of each request; may hold secrets
	Timeout  time.Duration     // of each request
	Gzip     bool
	TLS      *tls.Config // nil: that of the system
	Resource []Attr      // the program that sends the spans

	// Parent is the span of another program that contains the spans of this program; zero
	// means none.
	Parent Parent
}

// Parent is a span of another program, as W3C's Trace Context describes it.
type Parent struct {
	Trace TraceID
	Span  SpanID
	State string
}

// String returns the traceparent of a span that is sampled.
func (p Parent) String() string { return fmt.Sprintf("00-%x-%x-01", p.Trace[:], p.Span[:]) }

// general is the prefix of variables for all signals, and traces that of variables for
// traces, which take precedence.
const (
	general = "OTEL_EXPORTER_OTLP_"
	traces  = general + "TRACES_"
)

// FromEnv reads the configuration from the variables of OpenTelemetry's specification; get
// returns the value of a variable. It returns nil if they name no collector, or disable
// traces. service is the service name unless the variables set another one.
func FromEnv(get func(name string) string, service string) (*Config, error) {
	own := func(short string) (name, value string) {
		if v := get(traces + short); v != "" {
			return traces + short, v
		}
		return general + short, get(general + short)
	}
	if _, at := own("ENDPOINT"); at == "" || strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	switch exporter := get("OTEL_TRACES_EXPORTER"); exporter {
	case "", "otlp":
	case "none":
		return nil, nil
	default:
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER is %q; there are otlp and none", exporter)
	}
	if name, p := own("PROTOCOL"); p != "" && p != "http/json" && p != "http/protobuf" {
		return nil, fmt.Errorf("%s is %q; spans are sent by HTTP, which collectors take at another port, 4318 if nobody has changed it: set it to http/json", name, p)
	}
	parent, sampled := parseParent(get("TRACEPARENT"))
	if !sampled {
		return nil, nil
	}
	if parent.Trace != (TraceID{}) { // it names no other one
		parent.State = get("TRACESTATE")
	}
	c := &Config{Timeout: 10 * time.Second, Parent: parent}
	switch name, how := own("COMPRESSION"); how {
	case "", "none":
	case "gzip":
		c.Gzip = true
	default:
		return nil, fmt.Errorf("%s is %q; there are gzip and none", name, how)
	}
	var err error
	if c.URL, err = endpoint(get); err != nil {
		return nil, err
	}
	name, text := own("HEADERS")
	if c.Headers, err = pairs(text); err == nil {
		err = checkHeaders(c.Headers)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if name, t := own("TIMEOUT"); t != "" {
		ms, err := strconv.ParseInt(t, 10, 32)
		if err != nil || ms <= 0 {
			return nil, fmt.Errorf("%s is %q, which is no number of milliseconds", name, t)
		}
		c.Timeout = time.Duration(ms) * time.Millisecond
	}
	if c.TLS, err = certificates(own); err != nil {
		return nil, err
	}
	c.Resource, err = resource(get, service)
	return c, err
}

// resource returns the attributes of the resource: the service name from
// OTEL_SERVICE_NAME, else from OTEL_RESOURCE_ATTRIBUTES, else the program's own, and the
// other resource attributes.
func resource(get func(name string) string, service string) (all []Attr, err error) {
	said, err := pairs(get("OTEL_RESOURCE_ATTRIBUTES"))
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if name := get("OTEL_SERVICE_NAME"); name != "" {
		service = name
	} else if name := said["service.name"]; name != "" {
		service = name
	}
	said["service.name"] = service
	for _, name := range slices.Sorted(maps.Keys(said)) {
		all = append(all, Attr{name, said[name]})
	}
	return all, nil
}

// endpoint returns the URL for traces. A URL that is only for traces is used unchanged; to
// a URL for all signals, endpoint adds the path of traces.
func endpoint(get func(string) string) (string, error) {
	name, path := traces+"ENDPOINT", ""
	text := get(name)
	if text == "" {
		name, path = general+"ENDPOINT", "v1/traces"
		text = get(name)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" { // the value may be a secret
		return "", fmt.Errorf("%s is no URL such as http://127.0.0.1:4318", name)
	}
	if path != "" {
		u = u.JoinPath(path)
	}
	return u.String(), nil
}

// pairs parses name=value,name=value, in which special characters are %-encoded.
func pairs(text string) (map[string]string, error) {
	out := map[string]string{}
	for one := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(one) == "" {
			continue
		}
		name, value, ok := strings.Cut(one, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || name == "" || err != nil {
			return nil, errors.New("it is not as in name=value,name=value, with %2C for a comma in a value") // which may be a secret
		}
		out[name] = value
	}
	return out, nil
}

// checkHeaders returns an error for invalid HTTP headers. It does not include values or
// invalid names, which may be secrets.
func checkHeaders(all map[string]string) error {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" // RFC 9110, section 5.6.2
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.ContainsFunc(strings.ToLower(name), func(r rune) bool { return !strings.ContainsRune(token, r) }) {
			return errors.New("it has a name that no header of HTTP has: there are only letters, digits and - in such names")
		}
		if strings.ContainsFunc(all[name], func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("the value of %s has a control character in it", name)
		}
	}
	return nil
}

// certificates returns the TLS configuration from own, or nil if own sets nothing.
func certificates(own func(string) (name, value string)) (*tls.Config, error) {
	var names, files []string
	for _, short := range []string{"CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"} {
		name, file := own(short)
		if files = append(files, file); file != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	c, err := tlsfiles.Client(files[0], files[1], files[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(names, ", "), err)
	}
	return c, nil
}

// ParseParent reads a traceparent. ok reports whether it is one.
func ParseParent(text string) (p Parent, ok bool) {
	p, _ = parseParent(text)
	return p, p.Trace != (TraceID{})
}

// parseParent parses a traceparent. An empty text means no parent, and so does an invalid
// one, as the specification requires; sampled is then true.
func parseParent(text string) (p Parent, sampled bool) {
	if text == "" {
		return p, true
	}
	parts := strings.Split(strings.TrimSpace(text), "-")
	flags := [1]byte{}
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || parts[0] == "00" && len(parts) != 4 ||
		!unhex(p.Trace[:], parts[1]) || !unhex(p.Span[:], parts[2]) || !unhex(flags[:], parts[3]) || p.Trace == (TraceID{}) || p.Span == (SpanID{}) {
		return Parent{}, true
	}
	return p, flags[0]&1 != 0
}

// unhex decodes lower-case hexadecimal digits, which must fill to exactly.
func unhex(to []byte, text string) bool {
	if len(text) != 2*len(to) || strings.ToLower(text) != text {
		return false
	}
	_, err := hex.Decode(to, []byte(text))
	return err == nil
}

// client returns an HTTP client configured by c that does not follow redirects.
func (c *Config) client() *http.Client {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: c.TLS, ForceAttemptHTTP2: true}
	return &http.Client{Transport: t, Timeout: c.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
