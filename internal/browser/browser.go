// Package browser lets tests examine pages in Chromium: their content at any width, in
// light and dark mode, in print and for a screen reader, and the errors that the browser
// reports. It uses the DevTools protocol over a pair of pipes.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// limit is how long the browser may take for one call. A busy machine starts it slowly.
const limit = 2 * time.Minute

// Browser is a running Chromium.
type Browser struct {
	writing sync.Mutex
	to      *os.File

	mu    sync.Mutex
	next  int
	calls map[int]chan message // pending calls, by number
	pages map[string]*Page     // by session
	err   error                // why there are no further answers
}

// message is a message of the protocol, in either direction.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// event is an unsolicited message of the browser.
type event struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// Start starts Chromium for a test, which is skipped if there is none, or if
// BAKE_TEST_BROWSER is not 1: it takes a while. It ends with the test.
func Start(t testing.TB) *Browser {
	t.Helper()
	if os.Getenv("BAKE_TEST_BROWSER") != "1" {
		t.Skip("BAKE_TEST_BROWSER is not 1; scripts/browser sets it")
	}
	program, err := find()
	if err != nil {
		t.Fatal(err)
	}
	in, to := pipe(t)
	from, out := pipe(t)
	args := []string{"--headless", "--remote-debugging-pipe", "--user-data-dir=" + t.TempDir(), "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox") // it refuses to run otherwise
	}
	cmd := exec.CommandContext(context.Background(), program, append(args, "about:blank")...) // a browser of this host
	cmd.ExtraFiles = []*os.File{in, out}
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = in.Close(), out.Close()
	b := &Browser{to: to, calls: map[int]chan message{}, pages: map[string]*Page{}}
	go b.listen(from)
	t.Cleanup(func() {
		_ = b.call("", "Browser.close", nil, nil)
		end := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		end.Stop()
		if t.Failed() {
			t.Logf("Chromium said:\n%s", said.String())
		}
	})
	return b
}

func find() (string, error) {
	for _, name := range []string{"chromium", "chromium-headless-shell", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no Chromium: install the package chromium")
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// listen dispatches the browser's messages until it ends.
func (b *Browser) listen(from *os.File) {
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			b.err = fmt.Errorf("the browser has ended: %w", err)
			for id, c := range b.calls {
				close(c)
				delete(b.calls, id)
			}
			b.mu.Unlock()
			return
		}
		var m message
		var e event
		text = bytes.TrimSuffix(text, []byte{0})
		if json.Unmarshal(text, &m) != nil || json.Unmarshal(text, &e) != nil {
			continue
		}
		b.mu.Lock()
		if c := b.calls[m.ID]; c != nil && m.ID != 0 {
			c <- m
			delete(b.calls, m.ID)
		} else if p := b.pages[m.Session]; p != nil {
			p.happened(e)
		}
		b.mu.Unlock()
	}
}

// call calls a method of the protocol, and reads its result unless that is nil.
func (b *Browser) call(session, method string, params, result any) error {
	answer := make(chan message, 1)
	b.mu.Lock()
	if b.err != nil {
		b.mu.Unlock()
		return b.err
	}
	b.next++
	id := b.next
	b.calls[id] = answer
	b.mu.Unlock()
	text, err := json.Marshal(message{ID: id, Session: session, Method: method, Params: params})
	if err == nil {
		b.writing.Lock()
		_, err = b.to.Write(append(text, 0))
		b.writing.Unlock()
	}
	if err != nil {
		return err
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return b.err
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-time.After(limit):
		return fmt.Errorf("%s: no answer within %s", method, limit)
	}
}

// Page is a page in a separate tab. Its methods fail the test if the browser does not do
// what is requested.
type Page struct {
	t       testing.TB
	b       *Browser
	session string
	loaded  chan struct{}

	complaints, requests []string // with the browser's lock
}

// Open opens a page and waits until it is loaded.
func (b *Browser) Open(t testing.TB, url string) *Page {
	t.Helper()
	p := &Page{t: t, b: b, loaded: make(chan struct{}, 1)}
	var target struct {
		ID string `json:"targetId"`
	}
	var attached struct {
		Session string `json:"sessionId"`
	}
	p.must(b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target))
	p.must(b.call("", "Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true}, &attached))
	p.session = attached.Session
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "Accessibility"} {
		p.call(domain+".enable", nil, nil)
	}
	var gone struct {
		Error string `json:"errorText"`
	}
	p.call("Page.navigate", map[string]any{"url": url}, &gone)
	if gone.Error != "" {
		t.Fatalf("%s cannot be opened: %s", url, gone.Error)
	}
	select {
	case <-p.loaded:
	case <-time.After(limit):
		t.Fatalf("%s was not loaded within %s", url, limit)
	}
	return p
}

func (p *Page) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *Page) call(method string, params, result any) {
	p.t.Helper()
	p.must(p.b.call(p.session, method, params, result))
}

// happened handles an event of the page. The caller holds the browser's lock.
func (p *Page) happened(e event) {
	switch e.Method {
	case "Page.loadEventFired":
		select {
		case p.loaded <- struct{}{}:
		default:
		}
	case "Network.requestWillBeSent":
		var r struct {
			Request struct {
				URL string `json:"url"`
			} `json:"request"`
		}
		_ = json.Unmarshal(e.Params, &r)
		p.requests = append(p.requests, r.Request.URL)
	case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Page.javascriptDialogOpening":
		p.complaints = append(p.complaints, e.Method+" "+string(e.Params))
	}
}

// Complaints returns all console messages, exceptions, dialogs and messages of the browser
// itself so far.
func (p *Page) Complaints() []string {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	return append([]string(nil), p.complaints...)
}

// Requests returns the URLs of everything that was loaded so far, the page among them.
func (p *Page) Requests() []string {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	return append([]string(nil), p.requests...)
}

// Look sets the size of the window, and whether the user prefers dark mode.
func (p *Page) Look(width, height int, dark bool) {
	p.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	p.call("Emulation.setEmulatedMedia", map[string]any{"media": "", "features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// OnPaper shows the page in its print layout.
func (p *Page) OnPaper() {
	p.t.Helper()
	p.call("Emulation.setEmulatedMedia", map[string]any{"media": "print"}, nil)
}

// Eval computes an expression of JavaScript.
func Eval[T any](p *Page, expression string) (value T) {
	p.t.Helper()
	var r struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text   string `json:"text"`
			Thrown struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	if r.Exception != nil {
		p.t.Fatalf("%s: %s %s", expression, r.Exception.Text, r.Exception.Thrown.Description)
	}
	p.must(json.Unmarshal(r.Result.Value, &value))
	return value
}

// Press presses a key, such as Tab or Enter.
func (p *Page) Press(key string) {
	p.t.Helper()
	code := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}[key]
	down := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code}
	switch key {
	case "Enter":
		down["text"] = "\r"
	case " ":
		down["text"], down["code"] = " ", "Space"
	}
	p.call("Input.dispatchKeyEvent", down, nil)
	p.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": down["code"], "windowsVirtualKeyCode": code}, nil)
}

// Type types a text into the focused element.
func (p *Page) Type(text string) {
	p.t.Helper()
	p.call("Input.insertText", map[string]any{"text": text}, nil)
}

// Node is an element that is visible to a screen reader.
type Node struct{ Role, Name string }

// Spoken returns the elements of the page that are visible to a screen reader, in page
// order.
func (p *Page) Spoken() (all []Node) {
	p.t.Helper()
	type value struct {
		Value any `json:"value"`
	}
	var tree struct {
		Nodes []struct {
			Ignored bool  `json:"ignored"`
			Role    value `json:"role"`
			Name    value `json:"name"`
		} `json:"nodes"`
	}
	p.call("Accessibility.getFullAXTree", nil, &tree)
	for _, n := range tree.Nodes {
		if !n.Ignored {
			role, _ := n.Role.Value.(string)
			name, _ := n.Name.Value.(string)
			all = append(all, Node{role, name})
		}
	}
	return all
}

// Screenshot writes a picture of the whole page, as PNG.
func (p *Page) Screenshot(path string) {
	p.t.Helper()
	p.data("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, path)
}

// Print writes the page as PDF.
func (p *Page) Print(path string) {
	p.t.Helper()
	p.data("Page.printToPDF", map[string]any{"printBackground": false}, path)
}

func (p *Page) data(method string, params any, path string) {
	p.t.Helper()
	var r struct {
		Data string `json:"data"`
	}
	p.call(method, params, &r)
	text, err := base64.StdEncoding.DecodeString(r.Data)
	p.must(err)
	p.must(os.WriteFile(path, text, 0o600))
}
