package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"bake/cloud/s3"
	"bake/cloud/ssm"
	"bake/cloud/wire"
)

// maxBody limits the size of a request in bytes; EC2's largest contain 16 KiB of user
// data.
const maxBody = 1 << 20

// Handler answers the requests of all services. The service and the region are in the
// signature. CONNECT opens a tunnel to a port of an instance's public address, for clients
// on hosts that cannot listen on the low ports of that address; security groups apply as
// usual. The data channels of Session Manager are WebSockets, authorized by a token.
func (c *Cloud) Handler() http.Handler {
	c.mu.Lock()
	pages := c.pages
	c.mu.Unlock()
	return c.handler(pages)
}

func (c *Cloud) handler(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pages != nil && strings.HasPrefix(r.URL.Path, pagesPath) {
			pages.ServeHTTP(w, r)
			return
		}
		if r.Method == http.MethodConnect {
			c.tunnel(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, ssm.DataChannelPath) && r.Header.Get("Upgrade") != "" {
			c.ssm.ServeHTTP(w, r)
			return
		}
		c.serve(w, r)
	})
}

func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	id := wire.NewRequestID()
	scope, err := wire.ParseScope(r)
	if scope.Service == "s3" {
		c.serveS3(w, r, scope)
		return
	}
	if scope.Service == rehearsalService {
		c.serveRehearsal(w, r, scope)
		return
	}
	if scope.Service == contentsService {
		c.serveContents(w, r, scope)
		return
	}
	service, ok := c.services[scope.Service]
	if !ok {
		if c.serveUnsigned(w, r) {
			return
		}
		if err == nil {
			err = &wire.Error{Code: "UnknownService", Status: http.StatusNotFound,
				Message: fmt.Sprintf("The embedded cloud has no service %q; it has s3, %s.", scope.Service, strings.Join(slices.Sorted(maps.Keys(c.services)), ", "))}
		}
		c.services["ec2"].WriteError(w, id, err)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		service.WriteError(w, id, requestError(err))
		return
	}
	caller, secret, err := c.identify(r, scope)
	if err != nil {
		service.WriteError(w, id, err)
		return
	}
	// Clients sign with the host's time; the cloud's own clock may differ from it.
	if err := scope.Verify(r.Context(), r, body, secret, time.Now()); err != nil {
		service.WriteError(w, id, err)
		return
	}
	caller.Host, caller.Looks = r.Host, r.Header.Get(looksHeader) == c.looks
	ctx := wire.WithCaller(r.Context(), caller)
	// An action's work continues after its client disconnects.
	service.Serve(context.WithoutCancel(ctx), w, r, body)
}

// serveUnsigned answers a request for an action that needs no signature, and reports whether the
// request is one. A client that calls STS for a role with a web identity token has no credentials
// to sign with.
func (c *Cloud) serveUnsigned(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Authorization") != "" || r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	tokens := c.services["sts"]
	if err != nil || !tokens.IsUnsigned(r, body) {
		return false
	}
	tokens.Serve(wire.WithCaller(r.Context(), wire.Caller{Region: "us-east-1", Host: r.Host}), w, r, body)
	return true
}

// serveS3 answers a request to S3. Its body may have any length and is read by the
// service, not buffered.
func (c *Cloud) serveS3(w http.ResponseWriter, r *http.Request, scope wire.Scope) {
	hash, body, err := s3.Payload(r)
	caller, secret, refused := c.identify(r, scope)
	if refused != nil {
		err = refused
	}
	if err == nil {
		err = scope.VerifyHash(r.Context(), r, hash, secret, time.Now())
	}
	if err != nil {
		s3.WriteError(w, r, err)
		return
	}
	r.Body = io.NopCloser(body)
	ctx, err := c.ec2.BeforeObjects(wire.WithCaller(r.Context(), caller), s3.Action(r))
	switch {
	case errors.Is(err, wire.ErrLost):
		panic(http.ErrAbortHandler) // closes the connection
	case err != nil:
		s3.WriteError(w, r, err)
		return
	}
	wire.Deliver(ctx, w, func(w http.ResponseWriter) { c.s3.ServeHTTP(w, r.WithContext(ctx)) })
}

func requestError(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &wire.Error{Code: "RequestEntityTooLarge", Message: "The request is larger than 1 MiB.", Status: http.StatusRequestEntityTooLarge}
	}
	return wire.Errorf("MalformedQueryString", "The request could not be read: %v", err)
}

// tunnel connects the client to a port of an instance.
func (c *Cloud) tunnel(w http.ResponseWriter, r *http.Request) {
	target, err := c.dial(r)
	if err != nil {
		status := http.StatusBadGateway
		if e, ok := errors.AsType[*wire.Error](err); ok && e.Status != 0 {
			status = e.Status
		}
		w.Header().Set("Server", "bake-cloud") // lets clients distinguish a refusal from a server that is not the cloud
		http.Error(w, wire.WithoutPaths(err), status)
		return
	}
	defer target.Close()
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "this connection cannot become a tunnel", http.StatusHTTPVersionNotSupported)
		return
	}
	client, buffered, err := hijacker.Hijack()
	if err != nil {
		return // the connection is broken
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(target, buffered) // ends when either side closes
		closeWrite(target)
	}()
	_, _ = io.Copy(client, target)
	closeWrite(client)
	<-done
}

// dial connects to the instance port that a CONNECT request names by public address or
// instance id.
func (c *Cloud) dial(r *http.Request) (net.Conn, error) {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		return nil, wire.Errorf("InvalidAddress.Malformed", "%q is not an address and port", r.Host)
	}
	addr, err := netip.ParseAddr(host)
	isID := strings.HasPrefix(host, "i-")
	number, portErr := strconv.ParseUint(port, 10, 16)
	if portErr != nil || !isID && (err != nil || !addr.Is4() || !addr.IsLoopback()) {
		return nil, wire.Errorf("InvalidAddress.Malformed", "%q is not the public address or the id of an instance and a port", r.Host)
	}
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil, fmt.Errorf("the client's address %q: %w", r.RemoteAddr, err)
	}
	if isID {
		return c.ec2.DialInstance(r.Context(), client.Addr(), host, uint16(number))
	}
	return c.ec2.DialPublic(r.Context(), client.Addr(), addr, uint16(number))
}

// closeWrite closes the sending half of the connection, if the connection supports it.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other side may be gone
		return
	}
	_ = conn.Close()
}
