package facts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"bake/communicator"
	"bake/internal/tlsfiles"
)

// dial answers a question for which dialed returns true, over connections that the machine
// forwards. Nothing runs on the machine for it, except to read files (see [askFiles]).
// The error is ErrNoForwarding if connections cannot be forwarded.
func (q Question) dial(ctx context.Context, f communicator.Forwarder, files Answer) (Answer, error) {
	switch q.Kind {
	case "addr":
		return dialAddr(ctx, f, q, files)
	case "dns":
		return dialDNS(ctx, f, q, files)
	}
	return dialHTTP(ctx, f, q, files)
}

// dialed reports whether the question is one for dial. The source address of a forwarded
// connection cannot be chosen, and without a server the machine itself must resolve names.
func (q Question) dialed() bool {
	switch q.Kind {
	case "addr":
		return q.Options["local-address"] == ""
	case "dns":
		return q.Options["server"] != ""
	}
	return q.Kind == "http"
}

// reach answers the questions with these indexes, and returns the indexes of those that it
// cannot answer.
func reach(ctx context.Context, f communicator.Forwarder, questions []Question, dialed []int, answers []Answer) (rest []int, err error) {
	errs := make([]error, len(dialed))
	var g errgroup.Group
	g.SetLimit(workers)
	for n, i := range dialed {
		g.Go(func() error {
			answers[i], errs[n] = questions[i].dial(ctx, f, answers[i])
			return nil
		})
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for n, i := range dialed {
		switch {
		case errors.Is(errs[n], communicator.ErrNoForwarding):
			rest = append(rest, i)
		case errs[n] != nil:
			return nil, errs[n]
		}
	}
	return rest, nil
}

// endpoint returns the protocol, the host and the port of an addr.
func endpoint(key string) (protocol, host, port string, err error) {
	protocol, address, ok := strings.Cut(key, "://")
	if !ok {
		protocol, address = "tcp", key
	}
	host, port, err = net.SplitHostPort(address)
	if err == nil {
		if n, bad := strconv.ParseUint(port, 10, 16); bad != nil || n == 0 {
			err = fmt.Errorf("%q is not a TCP port", port)
		}
	}
	if err == nil && protocol != "tcp" && protocol != "udp" {
		err = fmt.Errorf("%q is neither tcp nor udp", protocol)
	}
	return protocol, host, port, err
}

// standard is the timeout of addr and dns.
const standard = 500 * time.Millisecond

// detour is added to a timeout for the connection to the machine: a slow connection to
// the machine must not look like a closed port.
const detour = 2 * time.Second

// errTimeout is the error of a query that exceeded its timeout.
var errTimeout = errors.New("it took too long")

func dialAddr(ctx context.Context, f communicator.Forwarder, q Question, _ Answer) (Answer, error) {
	protocol, host, port, err := endpoint(q.Key)
	if err != nil {
		return all(unknown(err.Error()), q), nil
	}
	if protocol == "udp" { // UDP gets no reply
		return Answer{"reachable": known(true)}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, q.patience(standard)+detour, errTimeout)
	defer cancel()
	conn, err := f.Forward(ctx, net.JoinHostPort(host, port))
	switch {
	case err == nil:
		_ = conn.Close()
		return Answer{"reachable": known(true)}, nil
	case errors.Is(err, communicator.ErrNoForwarding), errors.Is(err, communicator.ErrDisconnected):
		return nil, err
	}
	return Answer{"reachable": known(false)}, nil
}

func askAddr(p *plan, q Question) reader {
	protocol, host, port, err := endpoint(q.Key)
	if err != nil {
		return func([]reply) Answer { return all(unknown(err.Error()), q) }
	}
	if protocol == "udp" {
		return func([]reply) Answer { return Answer{"reachable": known(true)} }
	}
	id := p.short("p_connect", q.seconds(standard), host, port, q.Options["local-address"])
	return func(r []reply) Answer {
		if r[id].status > 1 && r[id].status != 137 || r[id].lost != "" {
			return all(unknown(r[id].failed()), q)
		}
		return Answer{"reachable": known(r[id].status == 0)}
	}
}

// seconds returns the timeout in whole seconds, for programs that accept no fractions.
func (q Question) seconds(standard time.Duration) string {
	return strconv.FormatInt(int64(max(1, (q.patience(standard)+time.Second-1)/time.Second)), 10)
}

// httpFiles are the options of http that name files on the machine.
var httpFiles = []string{"ca-file", "cert-file", "key-file"}

// askFiles reads the files on the machine that a question for dials needs. Each becomes a
// fact with the name of its option.
func askFiles(p *plan, q Question) reader {
	ids := map[string]int{}
	for _, name := range httpFiles {
		if path := q.Options[name]; path != "" {
			ids[name] = p.probe("p_text", path)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return func(r []reply) Answer {
		a := Answer{}
		for name, id := range ids {
			a[name] = fileText("contents", r[id])
		}
		return a
	}
}

// trust returns the TLS configuration: how certificates are verified, and the client's
// certificate. files are the results of [askFiles].
func (q Question) trust(files Answer) (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: q.flag("allow-insecure")} // the check requests it
	text := map[string][]byte{}
	for name, fact := range files {
		content, ok := fact.Value.(Text)
		if fact.Err != "" || !ok {
			return nil, fmt.Errorf("%s: %s", name, fact.Err)
		}
		text[name] = []byte(content)
	}
	if authorities, ok := text["ca-file"]; ok {
		var err error
		if c.RootCAs, err = tlsfiles.ParseAuthorities(authorities, q.Options["ca-file"]); err != nil {
			return nil, fmt.Errorf("ca-file: %w", err)
		}
	}
	switch cert, key := text["cert-file"], text["key-file"]; {
	case (cert == nil) != (key == nil):
		return nil, errors.New("cert-file and key-file go together")
	case cert != nil:
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert-file and key-file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func dialHTTP(ctx context.Context, f communicator.Forwarder, q Question, files Answer) (Answer, error) {
	req, err := q.request(ctx)
	if err != nil {
		return all(unknown(err.Error()), q), nil
	}
	trust, err := q.trust(files)
	if err != nil {
		return all(unknown(err.Error()), q), nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, q.patience(5*time.Second)+detour, errTimeout)
	defer cancel()
	var refused error
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			conn, err := f.Forward(ctx, addr)
			if errors.Is(err, communicator.ErrNoForwarding) || errors.Is(err, communicator.ErrDisconnected) {
				refused = err
			}
			return conn, err
		},
		TLSClientConfig:   trust,
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	if proxy := q.Options["proxy"]; proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil {
			return all(unknown("proxy: "+err.Error()), q), nil
		}
		transport.Proxy = http.ProxyURL(u)
	}
	client := &http.Client{Transport: transport}
	if q.flag("no-follow-redirects") {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		if refused != nil {
			return nil, refused
		}
		return all(unknown(why(ctx, err)), q), nil
	}
	defer resp.Body.Close()
	a := Answer{"status": known(int64(resp.StatusCode)), "headers": known(headerText(resp.Header))}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxText+1))
	if err != nil {
		a["body"] = unknown(why(ctx, err))
	} else {
		a["body"] = reply{}.text(body)
	}
	return a, nil
}

// why returns the text of an error of net/http, or a message about a timeout.
func why(ctx context.Context, err error) string {
	if cause := context.Cause(ctx); cause != nil {
		return cause.Error()
	}
	return firstLine([]byte(err.Error()))
}

func (q Question) flag(name string) bool { return q.Options[name] == "true" }

// header returns the request's own headers.
func (q Question) header() ([][2]string, error) {
	var all [][2]string
	for line := range strings.Lines(q.Options["request-headers"]) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			return nil, fmt.Errorf("the request header %q is not of the form NAME: VALUE", strings.TrimSpace(line))
		}
		all = append(all, [2]string{strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	return all, nil
}

func (q Question) method() string {
	if m := q.Options["method"]; m != "" {
		return strings.ToUpper(m)
	}
	return http.MethodGet
}

func (q Question) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, q.method(), q.Key, strings.NewReader(q.Options["request-body"]))
	if err != nil {
		return nil, err
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%q is not an HTTP URL", q.Key)
	}
	header, err := q.header()
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "bake")
	for _, h := range header {
		if strings.EqualFold(h[0], "Host") {
			req.Host = h[1]
			continue
		}
		req.Header.Set(h[0], h[1])
	}
	if q.Options["username"] != "" || q.Options["password"] != "" {
		req.SetBasicAuth(q.Options["username"], q.Options["password"])
	}
	return req, nil
}

// headerText formats headers as goss does: a line for each value, sorted.
func headerText(h http.Header) Text {
	var all []string
	for name, values := range h {
		for _, v := range values {
			all = append(all, http.CanonicalHeaderKey(name)+": "+v)
		}
	}
	slices.Sort(all)
	return Text(strings.Join(all, "\n"))
}

// askHTTP makes a request with the machine's curl.
func askHTTP(p *plan, q Question) reader {
	if _, err := q.request(context.Background()); err != nil {
		return func([]reply) Answer { return all(unknown(err.Error()), q) }
	}
	header, _ := q.header()
	seconds := strconv.FormatFloat(q.patience(5*time.Second).Seconds(), 'f', 3, 64)
	var config strings.Builder
	set := func(name, value string) {
		escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(value)
		fmt.Fprintf(&config, "%s = \"%s\"\n", name, escaped)
	}
	set("url", q.Key)
	set("max-time", seconds)
	set("user-agent", "bake")
	set("proto", "=http,https")
	config.WriteString("globoff\ncompressed\n")
	if m := q.method(); m == http.MethodHead {
		config.WriteString("head\n")
	} else {
		set("request", m)
	}
	if !q.flag("no-follow-redirects") {
		config.WriteString("location\n")
	}
	if q.flag("allow-insecure") {
		config.WriteString("insecure\n")
	}
	if body := q.Options["request-body"]; body != "" {
		set("data-raw", body)
	}
	if q.Options["username"] != "" || q.Options["password"] != "" {
		set("user", q.Options["username"]+":"+q.Options["password"])
	}
	for _, o := range [][2]string{{"proxy", "proxy"}, {"cacert", "ca-file"}, {"cert", "cert-file"}, {"key", "key-file"}} {
		if value := q.Options[o[1]]; value != "" {
			set(o[0], value)
		}
	}
	for _, h := range header {
		set("header", h[0]+": "+h[1])
	}
	files := askFiles(p, q)
	id := p.probe("p_http", config.String())
	return func(r []reply) Answer {
		if files != nil {
			if _, err := q.trust(files(r)); err != nil {
				return all(unknown(err.Error()), q)
			}
		}
		if why := r[id].failed(); why != "" {
			return all(unknown(why), q)
		}
		return responded(r[id])
	}
}

// responded parses the output of curl: the headers of each response, and the body of the
// last one.
func responded(r reply) Answer {
	rest := string(r.out)
	var status string
	header := http.Header{}
	for strings.HasPrefix(rest, "HTTP/") {
		var head string
		head, rest, _ = strings.Cut(rest, "\r\n\r\n")
		status, head, _ = strings.Cut(head, "\r\n")
		header = http.Header{}
		for line := range strings.Lines(head) {
			name, value, _ := strings.Cut(line, ":")
			header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	words := strings.Fields(status)
	if len(words) < 2 {
		return Answer{"status": unknown("curl shows no response")}
	}
	a := Answer{"status": whole(words[1]), "headers": known(headerText(header)), "body": known(Text(rest))}
	if len(r.out) > maxText {
		a["body"] = Fact{Text(rest), fmt.Sprintf("it is longer than %d MB", maxText>>20)}
	}
	return a
}

func askDNS(p *plan, q Question) reader {
	if q.Options["server"] != "" || strings.Contains(q.Key, ":") {
		return askServer(p, q)
	}
	hosts := p.probe("p_text", "/etc/hosts")
	id := p.short("p_dns", q.seconds(standard), q.Key)
	return func(r []reply) Answer {
		addrs := inHosts(string(r[hosts].out), q.Key)
		if len(addrs) == 0 {
			got := r[id]
			if got.lost != "" || got.status == 127 || got.status == 137 || got.status == 124 {
				return all(unknown(got.failed()), q)
			}
			addrs = addresses(string(got.out))
		}
		return resolved(addrs)
	}
}

// inHosts returns the addresses that /etc/hosts has for a name.
func inHosts(text, name string) (addrs []string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) > 1 && slices.ContainsFunc(f[1:], func(n string) bool { return strings.EqualFold(n, strings.TrimSuffix(name, ".")) }) {
			addrs = append(addrs, addresses(f[0])...)
		}
	}
	return addrs
}

// addresses returns the IP addresses at the start of lines.
func addresses(text string) (addrs []string) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 {
			if ip, err := netip.ParseAddr(f[0]); err == nil {
				addrs = append(addrs, ip.String())
			}
		}
	}
	return addrs
}
