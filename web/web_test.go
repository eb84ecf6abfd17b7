package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"bake/internal/local"
	"bake/run"
	"bake/step"
	"bake/ui"
)

// runs are a run that has ended, and a log that cannot be read.
func runs(t *testing.T) *run.Follower {
	t.Helper()
	state := run.State(t.TempDir())
	if err := os.MkdirAll(state.Runs(), 0o700); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	out := &ui.JSON{Out: &log}
	for i, e := range []step.Event{{Kind: step.RunStarted}, {Kind: step.Say, Text: "<script>alert(1)</script>"}, {Kind: step.RunFinished}} {
		e.Time = time.Unix(int64(i), 0)
		out.Handle(e)
	}
	for name, text := range map[string]string{"run1": log.String(), "broken": "{\"kind\":\"run-started\"\n"} {
		if err := os.WriteFile(state.Log(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &run.Follower{State: state}
}

// open serves a console for a cloud that answers with the request it got. It returns the console,
// the address with a ticket, and a client that has used it.
func open(t *testing.T, changes <-chan struct{}) (*Console, *httptest.Server, *http.Client) {
	t.Helper()
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+" "+r.Header.Get("X-Looks")+" "+r.Header.Get("X-Amz-Target")+" "+r.Header.Get("Cookie")+" "+string(body))
	}))
	t.Cleanup(cloud.Close)
	c := New(Options{
		Endpoint: cloud.URL, Accounts: []Account{{ID: "111111111111", Profile: "default", AccessKey: "AKIDDEFAULT", SecretKey: "s3cret"}}, Region: "us-east-1",
		Changes: func(context.Context) <-chan struct{} { return changes }, Calls: func() []local.Call { return nil }, Version: "1.2.3",
		Uses: func(_ context.Context, a Account, region, image string) ([]string, error) {
			if image == "ami-00000000" {
				return nil, nil
			}
			return []string{"instance i-1 of " + a.ID + " in " + region + " <b>"}, nil
		},
		Looks: http.Header{"X-Looks": {"the secret of who looks"}},
		Runs:  runs(t),
	})
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	resp, err := client.Get(server.URL + c.path + "?token=" + c.token)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK || resp.Request.URL.RawQuery != "" || !strings.Contains(string(text), `id="main"`) {
		t.Fatalf("%v %s at %s: %s", err, resp.Status, resp.Request.URL, text)
	}
	return c, server, client
}

// ask makes a request, with headers in turn name and value; "Host" is the host.
func ask(t *testing.T, client *http.Client, method, url, body string, headers ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// TestIntruders: other users, and other pages of the user, get nothing.
func TestIntruders(t *testing.T) {
	c, server, client := open(t, nil)
	stranger := &http.Client{}
	api := c.path + "api/111111111111/us-east-1/ec2"
	for name, try := range map[string]struct {
		client       *http.Client
		method, path string
		headers      []string
		want         int
	}{
		"no cookie":                             {stranger, "GET", c.path, nil, http.StatusUnauthorized},
		"no cookie, a file":                     {stranger, "GET", c.path + "static/app.js", nil, http.StatusUnauthorized},
		"no cookie, the API":                    {stranger, "POST", api, []string{"Origin", server.URL}, http.StatusUnauthorized},
		"no cookie, the bakes":                  {stranger, "GET", c.path + "bakes", nil, http.StatusUnauthorized},
		"another path":                          {client, "GET", prefix, nil, http.StatusUnauthorized},
		"a wrong token":                         {stranger, "GET", c.path + "?token=AAAA", nil, http.StatusUnauthorized},
		"a wrong cookie":                        {stranger, "GET", c.path, []string{"Cookie", "bake-console-" + server.URL[strings.LastIndex(server.URL, ":")+1:] + "=1234"}, http.StatusUnauthorized},
		"another name, which DNS points here":   {client, "GET", c.path, []string{"Host", "evil.example"}, http.StatusMisdirectedRequest},
		"another name with the port":            {client, "POST", api, []string{"Host", "evil.example:80", "Origin", "http://evil.example:80"}, http.StatusMisdirectedRequest},
		"a form of another site":                {client, "POST", api, []string{"Origin", "http://evil.example"}, http.StatusForbidden},
		"a fetch of another port":               {client, "POST", api, []string{"Origin", "http://127.0.0.1:1"}, http.StatusForbidden},
		"a form without an origin":              {client, "POST", api, nil, http.StatusForbidden},
		"a form of an opaque origin":            {client, "POST", api, []string{"Origin", "null"}, http.StatusForbidden},
		"an image of another site":              {client, "GET", c.path + "bakes", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, http.StatusForbidden},
		"a script of another port of this host": {client, "GET", c.path + "session", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, http.StatusForbidden},
		"a frame of another site":               {client, "GET", c.path, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, http.StatusForbidden},
		"a link of another site":                {client, "GET", c.path, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, http.StatusOK},
		"its own page":                          {client, "POST", api, []string{"Origin", server.URL, "Sec-Fetch-Site", "same-origin"}, http.StatusTeapot},
		"another account":                       {client, "POST", c.path + "api/222222222222/us-east-1/ec2", []string{"Origin", server.URL}, http.StatusNotFound},
		"another service":                       {client, "POST", c.path + "api/111111111111/us-east-1/kms", []string{"Origin", server.URL}, http.StatusNotFound},
		"no region":                             {client, "POST", c.path + "api/111111111111/..%2f/ec2", []string{"Origin", server.URL}, http.StatusNotFound},
		"no run":                                {client, "GET", c.path + "bakes/run2?after=0-0", nil, http.StatusNotFound},
		"another file":                          {client, "GET", c.path + "bakes/..%2frun1?after=0-0", nil, http.StatusNotFound},
		"what is not the console's":             {client, "GET", c.path + "static/..%2fweb.go", nil, http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			code, text, header := ask(t, try.client, try.method, server.URL+try.path, "", try.headers...)
			if code != try.want {
				t.Errorf("%d, want %d: %s", code, try.want, text)
			}
			if !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("the policy is %q", header.Get("Content-Security-Policy"))
			}
		})
	}
}

func TestCookie(t *testing.T) {
	c, server, _ := open(t, nil)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	code, _, header := ask(t, client, "GET", server.URL+c.path+"?token="+c.token, "")
	cookie := header.Get("Set-Cookie")
	if code != http.StatusSeeOther || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") || !strings.Contains(cookie, "Path="+c.path) || strings.Contains(cookie, c.token) {
		t.Errorf("%d %s", code, cookie)
	}
}

// TestTicket: an address for the arguments of a program lets in once.
func TestTicket(t *testing.T) {
	c, server, _ := open(t, nil)
	ticket := strings.TrimPrefix(c.Ticket(), c.opts.Endpoint)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, want := range []int{http.StatusSeeOther, http.StatusUnauthorized} {
		if code, text, _ := ask(t, client, "GET", server.URL+ticket, ""); code != want {
			t.Errorf("%d, want %d: %s", code, want, text)
		}
	}
}

// TestAPI: a call is signed with the account's key, and the cookie is not forwarded.
func TestAPI(t *testing.T) {
	c, server, client := open(t, nil)
	code, text, header := ask(t, client, "POST", server.URL+c.path+"api/111111111111/eu-west-1/ssm", `{"Name":"x"}`, "Origin", server.URL, "X-Amz-Target", "AmazonSSM.GetParameter", "Content-Type", "application/x-amz-json-1.1")
	if code != http.StatusTeapot || header.Get("Content-Type") != "text/xml" {
		t.Errorf("%d %v", code, header)
	}
	if !strings.Contains(text, "Credential=AKIDDEFAULT/") || !strings.Contains(text, "/eu-west-1/ssm/aws4_request") || !strings.HasSuffix(text, ` the secret of who looks AmazonSSM.GetParameter  {"Name":"x"}`) || strings.Contains(text, "s3cret") {
		t.Errorf("the service received %q, want the caller's request, signed with the key of the region", text)
	}
}

func TestUses(t *testing.T) {
	c, server, client := open(t, nil)
	for path, want := range map[string]string{
		"111111111111/eu-west-1/ami-0123456789abcdef0": `["instance i-1 of 111111111111 in eu-west-1 \u003cb\u003e"]` + "\n", "111111111111/eu-west-1/ami-00000000": "[]\n",
		"222222222222/eu-west-1/ami-0123456789abcdef0": "404 page not found\n", "111111111111/eu-west-1/..%2fami": "404 page not found\n",
	} {
		if _, text, _ := ask(t, client, "GET", server.URL+c.path+"uses/"+path, ""); text != want {
			t.Errorf("%s: %s", path, text)
		}
	}
}

func TestBakes(t *testing.T) {
	c, server, client := open(t, nil)
	get := func(path string, into any) {
		t.Helper()
		code, text, _ := ask(t, client, "GET", server.URL+c.path+path, "")
		if err := json.Unmarshal([]byte(text), into); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %v %d %s", path, err, code, text)
		}
	}
	var all struct {
		Runs  []run.Past
		Error string
	}
	if get("bakes", &all); len(all.Runs) != 1 || all.Runs[0].State != run.Succeeded || !strings.Contains(all.Error, "broken") {
		t.Errorf("%+v", all)
	}
	after := "0-0"
	for _, want := range []int{3, 0} {
		var got struct {
			Events []step.Event
			Next   string
			More   bool
			Past   run.Past
		}
		if get("bakes/run1?after="+after, &got); len(got.Events) != want || got.More || got.Past.State != run.Succeeded {
			t.Errorf("after %s: %+v", after, got)
		}
		after = got.Next
	}
	for _, wrong := range []string{"", "3", "0-0x", "-1-0", "0--1"} {
		if code, text, _ := ask(t, client, "GET", server.URL+c.path+"bakes/run1?after="+wrong, ""); code != http.StatusNotFound {
			t.Errorf("after %s: %d %s", wrong, code, text)
		}
	}
	if code, text, _ := ask(t, client, "GET", server.URL+c.path+"bakes/gone/report", ""); code != http.StatusNotFound {
		t.Errorf("%d %s", code, text)
	}
	code, text, header := ask(t, client, "GET", server.URL+c.path+"bakes/run1/report", "")
	if code != http.StatusOK || strings.Contains(text, "<script>alert") || !strings.HasPrefix(header.Get("Content-Security-Policy"), "sandbox allow-scripts;") {
		t.Errorf("%d %v\n%s", code, header, text)
	}
}

// TestChanges: simultaneous changes are reported once, and the end of the cloud ends the stream.
func TestChanges(t *testing.T) {
	changes := make(chan struct{}, 1)
	c, server, client := open(t, changes)
	resp, err := client.Get(server.URL + c.path + "changes")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	changes <- struct{}{}
	close(changes)
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != ": hello\n\nevent: changed\ndata: {}\n\n" {
		t.Errorf("%q %v", text, err)
	}
}

// TestTerminals: only the console's pages can open a WebSocket, and their number is limited.
func TestTerminals(t *testing.T) {
	c, server, client := open(t, nil)
	url := server.URL + c.path + "terminal/111111111111/us-east-1/i-0123456789abcdef0?user=admin"
	for name, origin := range map[string]string{"another site": "http://evil.example", "nobody": ""} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		_, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: client, HTTPHeader: header})
		if err == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, wrong := range []string{"terminal/111111111111/us-east-1/i-1?user=admin", "terminal/111111111111/us-east-1/i-0123456789abcdef0?user=-oProxyCommand", "terminal/111111111111/us-east-1/i-0123456789abcdef0"} {
		if code, _, _ := ask(t, client, "GET", server.URL+c.path+wrong, ""); code != http.StatusNotFound {
			t.Errorf("%s: %d", wrong, code)
		}
	}
	header := http.Header{"Origin": {server.URL}}
	ws, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: client, HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"key":""}`)); err != nil {
		t.Fatal(err)
	}
	_, text, err := ws.Read(t.Context()) // the cloud of this test refuses every call
	if err != nil || !strings.Contains(string(text), `{"end":"418`) {
		t.Errorf("%s %v", text, err)
	}
}

// TestManyTerminals: of a hundred simultaneous terminals, twenty are accepted and the others
// refused; closing one makes room, whether or not it had started.
func TestManyTerminals(t *testing.T) {
	c, server, client := open(t, nil)
	url := server.URL + c.path + "terminal/111111111111/us-east-1/i-0123456789abcdef0?user=admin"
	dial := func() (*websocket.Conn, int) {
		ws, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"Origin": {server.URL}}})
		if err != nil && resp == nil {
			t.Error(err)
			return nil, 0
		}
		return ws, resp.StatusCode
	}
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		open   []*websocket.Conn
		counts = map[int]int{}
	)
	for range 100 {
		all.Go(func() {
			ws, code := dial()
			mu.Lock()
			defer mu.Unlock()
			if counts[code]++; ws != nil && code == http.StatusSwitchingProtocols {
				open = append(open, ws)
			}
		})
	}
	all.Wait()
	if counts[http.StatusSwitchingProtocols] != maxTerminals || counts[http.StatusServiceUnavailable] != 100-maxTerminals {
		t.Errorf("%v", counts)
	}
	for _, ws := range open {
		if err := ws.CloseNow(); err != nil {
			t.Error(err)
		}
	}
	for len(c.terminals) > 0 { // the server has not noticed yet that they are closed
		if t.Context().Err() != nil {
			t.Fatal("those that are closed count")
		}
		time.Sleep(time.Millisecond)
	}
	ws, code := dial()
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("after they are closed: %d", code)
	}
	if err := ws.CloseNow(); err != nil {
		t.Error(err)
	}
}

// TestFiles: every file that a page loads exists, none is from another site, and no page makes
// HTML from text.
func TestFiles(t *testing.T) {
	asked := regexp.MustCompile(`(?:from |import\()"\./([^"]+)"|(?:src|href)[=:] ?"(static/[^"]+)"`)
	unsafe := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "static/vendor/") {
			return err
		}
		text, err := fs.ReadFile(static, name)
		if err != nil {
			return err
		}
		if m := unsafe.Find(text); m != nil {
			t.Errorf("%s: %s", name, m)
		}
		for _, m := range asked.FindAllSubmatch(text, -1) {
			file := path.Join("static", string(m[1]))
			if len(m[2]) > 0 {
				file = string(m[2])
			}
			_, plain := fs.Stat(static, file)
			if _, zipped := fs.Stat(static, file+".gz"); plain != nil && zipped != nil {
				t.Errorf("%s asks for %s", name, file)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
