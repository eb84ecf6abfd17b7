package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"bake/internal/delay"
)

// Limits on what is read from a server and on waits.
const (
	maxIndex   = 64 << 20  // bytes of a list of versions
	maxText    = 4 << 20   // of checksums, signatures, manifests
	maxArchive = 512 << 20 // of an archive
	maxTries   = 20        // of one download, whatever progress they make
	tries      = 4         // of a request, or of a download that makes no progress
	stall      = time.Minute
	progress   = 16 << 10         // bytes that must arrive meanwhile
	patience   = 5 * time.Minute  // for a response other than an archive
	maxPause   = 30 * time.Second // before the next try, if the server asks for a pause
)

// client makes requests and retries those that fail with a temporary error.
type client struct {
	http  *http.Client
	api   string // base of the API, which alone gets the token
	token string
	dir   string // root directory for file URLs
	log   *slog.Logger
	tell  func(string) // informs the user what bake waits for
	now   func() time.Time

	first    time.Duration // pause before the second try
	stall    time.Duration // without data, after which a transfer is retried
	patience time.Duration // for a response other than an archive
}

// transport returns a transport that uses the proxies of the environment and reads file URLs from a
// directory.
func transport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 15 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
	}
}

// redirect follows redirects, but not from TLS to plain text.
func redirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return errors.New("it redirects more than 10 times")
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("the redirect to %s was not followed, because it is not encrypted", req.URL.Redacted())
	}
	return nil
}

// errNotFound is the error for status 404 or 410.
var errNotFound = errors.New("not found")

// errStalled is the error of a transfer that received nothing, or next to nothing, for too long.
var errStalled = errors.New("the download has stalled")

// failure is the error of a request.
type failure struct {
	url   string
	err   error
	again bool          // a retry may succeed
	mute  bool          // there was no response at all
	after time.Duration // delay before the next try, if the server asked for one
}

func (f *failure) Error() string { return fmt.Sprintf("%s: %v", f.url, f.err) }
func (f *failure) Unwrap() error { return f.err }

// get returns the body at address and the header.
func (c *client) get(ctx context.Context, address string, limit int64) (body []byte, header http.Header, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.patience, &failure{url: c.shown(address), err: fmt.Errorf("no complete response within %s", c.patience)})
	defer cancel()
	err = c.retry(ctx, func(ctx context.Context) (bool, error) {
		body, header = nil, nil
		return false, c.request(ctx, address, nil, func(resp *http.Response, r io.Reader) error {
			if resp.StatusCode != http.StatusOK {
				return c.refused(resp)
			}
			var err error
			if body, err = io.ReadAll(io.LimitReader(r, limit+1)); err != nil {
				return &failure{err: err, again: true}
			}
			if int64(len(body)) > limit {
				return &failure{err: fmt.Errorf("the answer is longer than %d MiB", limit>>20)}
			}
			header = resp.Header
			return nil
		})
	})
	return body, header, err
}

// download writes the content at address to the empty file. After an interruption it continues if
// the server supports that, and starts again otherwise. All attempts together receive no more than
// twice the limit.
func (c *client) download(ctx context.Context, address string, file *os.File, limit int64, report func(done, total int64)) error {
	var done, received int64
	var validator string // identifies the version of the partial content
	return c.retry(ctx, func(ctx context.Context) (bool, error) {
		header := http.Header{}
		if done > 0 && validator != "" {
			header.Set("Range", fmt.Sprintf("bytes=%d-", done))
			header.Set("If-Range", validator)
		}
		before := done
		err := c.request(ctx, address, header, func(resp *http.Response, r io.Reader) error {
			switch resp.StatusCode {
			case http.StatusOK:
				done = 0
			case http.StatusPartialContent:
				if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", done)) {
					done, validator = 0, ""
					return &failure{err: fmt.Errorf("the server sent %q instead of the missing part", resp.Header.Get("Content-Range")), again: true}
				}
			case http.StatusRequestedRangeNotSatisfiable:
				done, validator = 0, ""
				return &failure{err: errors.New("the server cannot continue the download"), again: true}
			default:
				return c.refused(resp)
			}
			if validator = resp.Header.Get("ETag"); validator == "" || strings.HasPrefix(validator, "W/") {
				validator = resp.Header.Get("Last-Modified")
			}
			total := int64(0)
			if resp.ContentLength > 0 {
				total = done + resp.ContentLength
			}
			tooLong := &failure{err: fmt.Errorf("the file is larger than %d MiB", limit>>20)}
			if total > limit {
				return tooLong
			}
			allowed := min(limit-done, 2*limit-received)
			if err := errors.Join(file.Truncate(done), seek(file, done)); err != nil {
				return err
			}
			report(done, total)
			_, err := io.Copy(file, io.TeeReader(io.LimitReader(r, allowed+1), counter(func(n int) {
				done, received = done+int64(n), received+int64(n)
				report(done, total)
			})))
			switch {
			case err != nil && isLocal(err):
				return err
			case received > 2*limit:
				return &failure{err: fmt.Errorf("the server sent more than %d MiB in several attempts, and no complete file", 2*limit>>20)}
			case err != nil:
				return &failure{err: err, again: true}
			case done > limit:
				return tooLong
			}
			return nil
		})
		return done >= before+progress, err
	})
}

func seek(f *os.File, at int64) error {
	_, err := f.Seek(at, io.SeekStart)
	return err
}

// isLocal reports whether a copy failed because of the local file.
func isLocal(err error) bool {
	_, ok := errors.AsType[*os.PathError](err)
	return ok
}

// counter is a writer that counts.
type counter func(n int)

func (c counter) Write(b []byte) (int, error) {
	c(len(b))
	return len(b), nil
}

// retry calls try until it succeeds, fails permanently, or has failed too often. A try that makes
// further progress does not count.
func (c *client) retry(ctx context.Context, try func(context.Context) (further bool, err error)) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.Multiplier = c.first, 3
	left := tries
	for n := 1; n <= maxTries; n++ {
		further, err := try(ctx)
		f, ok := errors.AsType[*failure](err)
		if err == nil || !ok || !f.again {
			return err
		}
		if further {
			left = tries
			pause.Reset()
		}
		if left--; f.mute { // each try takes long, and the next is unlikely to succeed
			left--
		}
		if left <= 0 {
			return fmt.Errorf("%w (tried %d times)", err, n)
		}
		wait := max(pause.NextBackOff(), f.after)
		c.log.Debug("a download is tried again", "reason", err, "in", wait)
		c.tell(fmt.Sprintf("%v; trying again", err))
		if err := delay.For(ctx, wait); err != nil {
			return err
		}
	}
	return &failure{url: "download", err: fmt.Errorf("it was broken off %d times", maxTries)}
}

// request makes one request and passes the response to use. Reading the body fails if no data
// arrives for a while.
func (c *client) request(ctx context.Context, address string, header http.Header, use func(*http.Response, io.Reader) error) (err error) {
	parent := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.stall, func() { cancel(fmt.Errorf("%w: less than %d KiB in %s", errStalled, progress>>10, c.stall)) })
	defer watch.Stop()
	defer func() {
		if err == nil {
			return
		}
		if parent.Err() != nil {
			err = context.Cause(parent)
			return
		}
		f, ok := errors.AsType[*failure](err)
		if !ok {
			return
		}
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			f.err = cause
		}
		f.url = c.shown(address)
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("User-Agent", "bake")
	// A compressed response could neither be resumed nor measured.
	req.Header.Set("Accept-Encoding", "identity")
	if c.token != "" && c.api != "" && strings.HasPrefix(address, c.api+"/") {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return unreachable(err)
	}
	defer resp.Body.Close()
	return use(resp, &watched{Reader: resp.Body, watch: watch, stall: c.stall})
}

// shown returns an address for messages.
func (c *client) shown(address string) string {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return address
	case u.Scheme == "file":
		return filepath.Join(c.dir, filepath.FromSlash(u.Path))
	}
	return u.Redacted()
}

// watched is a body that extends its deadline as it makes progress.
type watched struct {
	io.Reader
	watch *time.Timer
	stall time.Duration
	got   int // bytes since then
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if w.got += n; w.got >= progress && w.watch.Stop() {
		w.got = 0
		w.watch.Reset(w.stall)
	}
	return n, err
}

// unreachable returns the failure of a request that got no response.
func unreachable(err error) *failure {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the failure has the address
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &failure{err: fmt.Errorf("%w. If a proxy inspects the traffic, add its certificate to those that this host trusts (SSL_CERT_FILE names a file of them)", err)}
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return &failure{err: err}
	}
	return &failure{err: err, again: true, mute: true}
}

// refused returns the failure that a response's status means.
func (c *client) refused(resp *http.Response) error {
	code := resp.StatusCode
	after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	f := &failure{err: errors.New("the server responded with " + resp.Status), after: min(time.Duration(max(after, 0))*time.Second, maxPause)}
	switch {
	case code == http.StatusNotFound || code == http.StatusGone:
		f.err = errNotFound
	case code == http.StatusForbidden && (resp.Header.Get("X-RateLimit-Remaining") == "0" || after > 0),
		code == http.StatusTooManyRequests && (resp.Header.Get("X-RateLimit-Remaining") == "0" || after > int(maxPause/time.Second)):
		f.err = c.limited(resp, after)
	case code == http.StatusUnauthorized && c.token != "":
		f.err = fmt.Errorf("the server does not accept the token in PACKER_GITHUB_API_TOKEN (%s); replace it, or unset it", resp.Status)
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		f.again = true
	}
	return f
}

// limited returns the error of a rate limit: when it ends, and what to do.
func (c *client) limited(resp *http.Response, after int) error {
	text := "the server's rate limit is reached"
	if limit := resp.Header.Get("X-RateLimit-Limit"); limit != "" {
		text = fmt.Sprintf("the server's rate limit of %s requests per hour is reached", limit)
	}
	until := time.Time{}
	if reset, err := strconv.ParseInt(resp.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		until = time.Unix(reset, 0)
	} else if after > 0 {
		until = c.now().Add(time.Duration(after) * time.Second)
	}
	if wait := until.Sub(c.now()); wait > 0 {
		text += fmt.Sprintf("; try again in %s", wait.Round(time.Second))
	}
	if c.token == "" {
		text += "; to raise the limit, set PACKER_GITHUB_API_TOKEN to a GitHub token (it needs no permissions)"
	}
	return errors.New(text)
}
