// Package web is the console: pages that show the local cloud's machines and images and the runs
// of bake, for one person with a browser. Every action in it is a call of the cloud's API, signed
// and answered like that of any client.
package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"errors"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"bake/golden/report"
	"bake/internal/local"
	"bake/run"
)

// prefix is the beginning of the paths of all consoles on the listener of a cloud. No bucket
// can have its name.
const prefix = "/-/console/"

// ticketFor is the lifetime of a ticket.
const ticketFor = 5 * time.Minute

// Account is an account of the cloud, and the key that signs calls in its name.
type Account struct{ ID, Profile, AccessKey, SecretKey string }

// Options define what the console shows.
type Options struct {
	Endpoint string    // URL of the cloud
	Accounts []Account // the first one is selected at first
	Region   string    // selected at first

	// Ports maps the ports of machines to those at which they are served, where these differ.
	Ports map[int]int

	// Changes returns a channel that signals changes of the cloud's state until the context ends.
	// Changes in quick succession may be combined.
	Changes func(context.Context) <-chan struct{}

	Calls func() []local.Call // the last ones that changed something or failed, oldest first

	// Uses describes, in a line each, what uses an image of an account, including uses that
	// prevent its removal by commands with guards.
	Uses func(ctx context.Context, a Account, region, image string) ([]string, error)

	// Looks are the headers that mark polling requests to the cloud, which fault rules do not
	// count.
	Looks http.Header

	Runs    Runs
	Version string // of bake
}

// Runs are the runs of bake build whose logs are kept, as a [run.Follower] has them.
type Runs interface {
	List() ([]run.Past, error)
	Past(id string) (run.Past, error)
	Stamp() string // changes when a run begins, continues or ends
	Lines(id string, from run.Position, handle func(line []byte) bool) (run.Position, error)
	Report(id, bake string) (*report.Report, error)
}

// Console serves the pages to clients with its token.
type Console struct {
	opts      Options
	path      string // its path: also a secret, since cookies are restricted to paths but not to ports
	token     string
	terminals chan struct{} // has a value for each open terminal
	mux       *http.ServeMux
	client    *http.Client // to the cloud, never through a proxy

	mu      sync.Mutex
	tickets map[string]time.Time // expiry of each, which is valid once
	past    pastRuns
}

//go:embed static
var static embed.FS

// New returns a console with a new token.
func New(opts Options) *Console {
	c := &Console{
		opts: opts, path: prefix + rand.Text() + "/", token: rand.Text(), terminals: make(chan struct{}, maxTerminals), mux: http.NewServeMux(),
		client: &http.Client{Transport: &http.Transport{}}, tickets: map[string]time.Time{},
	}
	c.mux.HandleFunc("GET "+c.path+"{$}", c.index)
	c.mux.HandleFunc("GET "+c.path+"static/", c.file)
	c.mux.HandleFunc("GET "+c.path+"session", c.session)
	c.mux.HandleFunc("POST "+c.path+"api/{account}/{region}/{service}", c.api)
	c.mux.HandleFunc("GET "+c.path+"uses/{account}/{region}/{image}", c.uses)
	c.mux.HandleFunc("GET "+c.path+"changes", c.changes)
	c.mux.HandleFunc("GET "+c.path+"calls", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.opts.Calls()) })
	c.mux.HandleFunc("GET "+c.path+"terminal/{account}/{region}/{instance}", c.terminal)
	c.mux.HandleFunc("GET "+c.path+"bakes", c.bakes)
	c.mux.HandleFunc("GET "+c.path+"bakes/{run}", c.bake)
	c.mux.HandleFunc("GET "+c.path+"bakes/{run}/report", c.report)
	return c
}

// URL returns an address that gives access to the console.
func (c *Console) URL() string { return c.address(c.token) }

func (c *Console) address(token string) string { return c.opts.Endpoint + c.path + "?token=" + token }

// Ticket returns an address that gives access once, within five minutes: for the arguments of a
// program, which other users of the host can see.
func (c *Console) Ticket() string {
	ticket := rand.Text()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tickets[ticket] = time.Now().Add(ticketFor)
	return c.address(ticket)
}

// admits reports whether a token gives access. A ticket does so once.
func (c *Console) admits(token string) bool {
	c.mu.Lock()
	until, ok := c.tickets[token]
	delete(c.tickets, token)
	c.mu.Unlock()
	return ok && time.Now().Before(until) || subtle.ConstantTimeCompare([]byte(token), []byte(c.token)) == 1
}

// policy is the Content-Security-Policy: the pages are made of their own files, and talk
// to their own server. Styles that scripts set are those of bars in a timeline and of the
// terminal.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP serves clients that have the token, or the cookie that replaces it.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case !literal(r.Host):
		// Another site may control the name and let it point here.
		http.Error(w, "The console answers at an IP address or at localhost alone.", http.StatusMisdirectedRequest)
	case !c.sameOrigin(r):
		http.Error(w, "The console does not accept requests from other sites.", http.StatusForbidden)
	case r.URL.Path == c.path && r.URL.Query().Has("token"):
		c.enter(w, r)
	case !c.known(r):
		http.Error(w, "Open the address that \"bake cloud up\" printed: it lets you in.", http.StatusUnauthorized)
	default:
		c.mux.ServeHTTP(w, r)
	}
}

// literal reports whether a Host is an IP address or localhost, neither of which uses DNS.
func literal(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if name == "localhost" {
		return true
	}
	_, err = netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil
}

// sameOrigin reports whether a request comes from the console's own pages, or is one that
// opens them. Browsers say where a request comes from in Origin or Sec-Fetch-Site.
func (c *Console) sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err == nil && u.Host == r.Host && u.Scheme == "http"
	}
	if r.Method != http.MethodGet {
		return false
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "none", "same-origin":
		return true
	default:
		// A link from another page may lead to the first page, which does nothing.
		return r.URL.Path == c.path && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	}
}

// cookieName holds the port: cookies are those of a host, not of a port, and there may be
// several clouds.
func cookieName(r *http.Request) string {
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		port = "80"
	}
	return "bake-console-" + port
}

// secret is what the cookie holds: it follows from the token and does not tell it.
func (c *Console) secret() string {
	sum := sha256.Sum256([]byte("cookie " + c.token))
	return hex.EncodeToString(sum[:])
}

// enter changes the token for a cookie, and leads to an address without the token.
func (c *Console) enter(w http.ResponseWriter, r *http.Request) {
	if !c.admits(r.URL.Query().Get("token")) {
		http.Error(w, "This address is used up, or of an earlier \"bake cloud up\". Open the one that the last printed.", http.StatusUnauthorized)
		return
	}
	http.SetCookie(w, &http.Cookie{ // there is no TLS on the loopback
		Name: cookieName(r), Value: c.secret(), Path: c.path, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	http.Redirect(w, r, c.path, http.StatusSeeOther)
}

// known reports whether a request has the cookie.
func (c *Console) known(r *http.Request) bool {
	cookie, err := r.Cookie(cookieName(r))
	return err == nil && subtle.ConstantTimeCompare([]byte(cookie.Value), []byte(c.secret())) == 1
}

func (c *Console) index(w http.ResponseWriter, r *http.Request) {
	serve(w, r, "index.html")
}

func (c *Console) file(w http.ResponseWriter, r *http.Request) {
	serve(w, r, strings.TrimPrefix(r.URL.Path, c.path+"static/"))
}

// serve answers with a file of the console. Large ones are kept compressed.
func serve(w http.ResponseWriter, r *http.Request, name string) {
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	content, err := fs.ReadFile(static, path.Join("static", name))
	if errors.Is(err, fs.ErrNotExist) {
		if content, err = fs.ReadFile(static, path.Join("static", name+".gz")); err == nil {
			w.Header().Set("Content-Encoding", "gzip") // which every browser takes
		}
	}
	if err != nil {
		w.Header().Del("Content-Type")
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(content) // the browser may have gone
}

// session tells the pages what there is.
func (c *Console) session(w http.ResponseWriter, _ *http.Request) {
	type account struct {
		ID      string `json:"id"`
		Profile string `json:"profile"`
	}
	accounts := make([]account, 0, len(c.opts.Accounts))
	for _, a := range c.opts.Accounts {
		accounts = append(accounts, account{a.ID, a.Profile})
	}
	writeJSON(w, struct {
		Endpoint string    `json:"endpoint"`
		Region   string    `json:"region"`
		Accounts []account `json:"accounts"`
		Version  string    `json:"version"`

		Ports map[int]int `json:"ports"`
	}{c.opts.Endpoint, c.opts.Region, accounts, c.opts.Version, c.opts.Ports})
}
