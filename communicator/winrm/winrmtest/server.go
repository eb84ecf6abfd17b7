// Package winrmtest is a WinRM service for tests, with a machine behind it.
package winrmtest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"bake/internal/powershelltest"
	"bake/internal/procgroup"
)

// Server is a WinRM service on a loopback port. Windows, if set, runs its commands;
// otherwise sh does. The server itself implements the communicator's own PowerShell
// scripts, and passes others to PowerShell.
type Server struct {
	Host           string
	Port           int
	User, Password string

	// PowerShell runs a script, and returns its exit status. nil: it fails.
	PowerShell func(script string, stdin io.Reader, stdout, stderr io.Writer) int

	// Windows runs the commands, and says where files are. nil: sh does, and the files are
	// those of this host.
	Windows *Windows

	// NoPowerShell is how many of the first PowerShells end with status 1.
	NoPowerShell int

	home   string
	server *httptest.Server

	mu       sync.Mutex
	fault    func(n int, action string) Fault
	next     int
	down     bool
	requests int
	shells   map[string]*remoteCommand // by id; nil until one runs
	conns    map[net.Conn]bool
	lines    []string
	schemes  []string // of the logins
}

// SetFault makes f be asked before each request: it may spoil the answer. n counts from 0; the
// action is "Create", "Command", "Send", "Receive", "Signal" or "Delete". Requests that are
// being answered are not asked about.
func (s *Server) SetFault(f func(n int, action string) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Serve starts a WinRM service for one user, over HTTPS if tls. Commands
// start in home.
func Serve(t testing.TB, home string, tls bool) *Server {
	t.Helper()
	s := &Server{User: "Administrator", Password: "a secret & more", home: home, shells: map[string]*remoteCommand{}, conns: map[net.Conn]bool{}}
	s.server = httptest.NewUnstartedServer(s)
	s.server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch state {
		case http.StateNew:
			if s.conns[c] = true; s.down {
				c.Close()
			}
		case http.StateClosed, http.StateHijacked:
			delete(s.conns, c)
		}
	}
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // cut connections are no news
	if tls {
		s.server.StartTLS()
	} else {
		s.server.Start()
	}
	addr := s.server.Listener.Addr().(*net.TCPAddr)
	s.Host, s.Port = addr.IP.String(), addr.Port
	t.Cleanup(func() {
		s.Cut()
		s.server.Close()
	})
	return s
}

// Cut ends every connection and every command, as a machine does that reboots.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	for id, cmd := range s.shells {
		if cmd != nil {
			cmd.kill()
		}
		delete(s.shells, id)
	}
}

// Down makes the machine unreachable until Up is called.
func (s *Server) Down() {
	s.mu.Lock()
	s.down = true
	s.mu.Unlock()
	s.Cut()
}

// Up makes the machine reachable again.
func (s *Server) Up() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

// Lines returns the command lines that were run, PowerShell's decoded.
func (s *Server) Lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...)
}

// Shells returns how many shells have not been deleted.
func (s *Server) Shells() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.shells)
}

// Schemes returns the schemes of the logins, such as "Basic".
func (s *Server) Schemes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.schemes...)
}

// envelope is what of a request matters.
type envelope struct {
	Action   string `xml:"Header>Action"`
	Selector string `xml:"Header>SelectorSet>Selector"`
	Command  string `xml:"Body>CommandLine>Command"`
	Stream   struct {
		End     bool   `xml:"End,attr"`
		Content string `xml:",chardata"`
	} `xml:"Body>Send>Stream"`
}

const (
	shellSpace = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	transfer   = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
	// How long a request for output waits, so that tests see that time out.
	patience = 200 * time.Millisecond
)

// ServeHTTP implements [http.Handler], for tests that bring requests without the loopback port.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	scheme, ok := s.login(w, r)
	if !ok {
		return
	}
	var e envelope
	if err := xml.NewDecoder(r.Body).Decode(&e); err != nil {
		reply(w, http.StatusBadRequest, fault("0", err.Error()))
		return
	}
	s.mu.Lock()
	s.schemes = append(s.schemes, scheme)
	cmd, known := s.shells[e.Selector]
	n, action := s.requests, e.Action[strings.LastIndex(e.Action, "/")+1:]
	s.requests++
	spoils := s.fault
	s.mu.Unlock()
	if spoils != nil {
		if spoil := spoils(n, action); spoil != nil {
			if w = spoil(s, w); w == nil {
				return
			}
		}
	}
	if e.Action != transfer+"/Create" && !known {
		reply(w, http.StatusInternalServerError, fault("2150858843", "The request for the Windows Remote Shell with ShellId "+e.Selector+" failed because the shell was not found on the server."))
		return
	}
	s.answer(w, r, e, cmd)
}

// answer does what a request asks for. cmd is the command of its shell, or nil.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, e envelope, cmd *remoteCommand) {
	switch strings.TrimPrefix(strings.TrimPrefix(e.Action, shellSpace), transfer) {
	case "/Create":
		s.mu.Lock()
		s.next++
		id := fmt.Sprintf("SHELL-%d", s.next)
		s.shells[id] = nil
		s.mu.Unlock()
		reply(w, http.StatusOK, body(transfer+"/CreateResponse", "<rsp:Shell><rsp:ShellId>"+id+"</rsp:ShellId></rsp:Shell>"))
	case "/Command":
		cmd := s.start(e.Command)
		s.mu.Lock()
		s.shells[e.Selector] = cmd
		s.mu.Unlock()
		reply(w, http.StatusOK, body(shellSpace+"/CommandResponse", "<rsp:CommandResponse><rsp:CommandId>C-1</rsp:CommandId></rsp:CommandResponse>"))
	case "/Receive":
		s.receive(w, r, cmd)
	case "/Send":
		data, err := base64.StdEncoding.DecodeString(e.Stream.Content)
		if err == nil {
			_, err = cmd.stdin.Write(data)
		}
		if err != nil {
			reply(w, http.StatusInternalServerError, fault("2150859072", err.Error()))
			return
		}
		if e.Stream.End {
			cmd.stdin.Close()
		}
		reply(w, http.StatusOK, body(shellSpace+"/SendResponse", "<rsp:SendResponse/>"))
	case "/Signal":
		cmd.kill()
		reply(w, http.StatusOK, body(shellSpace+"/SignalResponse", "<rsp:SignalResponse/>"))
	case "/Delete":
		if cmd != nil {
			cmd.kill()
		}
		s.mu.Lock()
		delete(s.shells, e.Selector)
		s.mu.Unlock()
		reply(w, http.StatusOK, body(transfer+"/DeleteResponse", ""))
	}
}

// login checks the credentials of a request: by Basic authentication, or by the steps of
// NTLM without checking its proof.
func (s *Server) login(w http.ResponseWriter, r *http.Request) (scheme string, ok bool) {
	user, password, basic := r.BasicAuth()
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	raw, _ := base64.StdEncoding.DecodeString(token)
	switch {
	case basic && user == s.User && password == s.Password:
		return scheme, true
	case bytes.HasPrefix(raw, []byte("NTLMSSP\x00\x01")):
		challenge := make([]byte, 48)
		copy(challenge, "NTLMSSP\x00\x02")
		binary.LittleEndian.PutUint32(challenge[16:], 48)
		binary.LittleEndian.PutUint32(challenge[20:], 0xa2898205&^0x00800000) // what Windows offers, without target information
		binary.LittleEndian.PutUint32(challenge[44:], 48)
		w.Header().Set("WWW-Authenticate", scheme+" "+base64.StdEncoding.EncodeToString(challenge))
	case bytes.HasPrefix(raw, []byte("NTLMSSP\x00\x03")) && bytes.Contains(raw, utf16le(s.User)):
		return scheme, true
	default:
		w.Header().Add("WWW-Authenticate", "Negotiate")
		w.Header().Add("WWW-Authenticate", `Basic realm="WSMAN"`)
	}
	w.WriteHeader(http.StatusUnauthorized)
	return "", false
}

func utf16le(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func (s *Server) receive(w http.ResponseWriter, r *http.Request, cmd *remoteCommand) {
	stdout, stderr, done, code, ok := cmd.take(r.Context())
	if !ok {
		reply(w, http.StatusInternalServerError, fault("2150858793", "The WS-Management service cannot complete the operation within the time specified in OperationTimeout."))
		return
	}
	var b strings.Builder
	b.WriteString("<rsp:ReceiveResponse>")
	for name, data := range map[string][]byte{"stdout": stdout, "stderr": stderr} {
		fmt.Fprintf(&b, `<rsp:Stream Name="%s" CommandId="C-1">%s</rsp:Stream>`, name, base64.StdEncoding.EncodeToString(data))
	}
	state := "Running"
	if done {
		state = "Done"
	}
	fmt.Fprintf(&b, `<rsp:CommandState CommandId="C-1" State="%s/CommandState/%s">`, shellSpace, state)
	if done {
		fmt.Fprintf(&b, "<rsp:ExitCode>%d</rsp:ExitCode>", code)
	}
	b.WriteString("</rsp:CommandState></rsp:ReceiveResponse>")
	reply(w, http.StatusOK, body(shellSpace+"/ReceiveResponse", b.String()))
}

func body(action, content string) string {
	return `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:rsp="` + shellSpace + `"><s:Header><a:Action>` +
		action + `</a:Action></s:Header><s:Body>` + content + `</s:Body></s:Envelope>`
}

func fault(code, message string) string {
	var text bytes.Buffer
	_ = xml.EscapeText(&text, []byte(message))
	return body("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault",
		`<s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Reason><s:Text xml:lang="">`+text.String()+`</s:Text></s:Reason><s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="`+
			code+`"><f:Message>`+text.String()+`</f:Message></f:WSManFault></s:Detail></s:Fault>`)
}

func reply(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/soap+xml;charset=UTF-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// remoteCommand is a command that runs. It stops while maxPending bytes of its
// output have not been fetched.
type remoteCommand struct {
	stdin io.WriteCloser
	kill  func()

	mu             sync.Mutex
	changed        chan struct{} // closed at the next change
	stdout, stderr []byte
	done           bool
	code           int
	dead           chan struct{}
}

const maxPending = 96 << 10

// take waits for output or the end, for as long as patience lasts, and returns it.
func (c *remoteCommand) take(ctx context.Context) (stdout, stderr []byte, done bool, code int, ok bool) {
	if c == nil {
		return nil, nil, false, 0, false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		if len(c.stdout)+len(c.stderr) > 0 || c.done {
			stdout, stderr, done, code = c.stdout, c.stderr, c.done, c.code
			c.stdout, c.stderr = nil, nil
			c.change()
			c.mu.Unlock()
			return stdout, stderr, done, code, true
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return nil, nil, false, 0, false
		case <-ctx.Done():
			return nil, nil, false, 0, false
		}
	}
}

func (c *remoteCommand) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// outputWriter is one stream of a command's output.
type outputWriter struct {
	c   *remoteCommand
	buf *[]byte
}

func (w outputWriter) Write(b []byte) (int, error) {
	for written := 0; ; {
		w.c.mu.Lock()
		n := min(max(0, maxPending-len(*w.buf)), len(b)-written)
		if n > 0 {
			*w.buf = append(*w.buf, b[written:written+n]...)
			written += n
			w.c.change()
		}
		changed := w.c.changed
		w.c.mu.Unlock()
		if written == len(b) {
			return written, nil
		}
		select {
		case <-changed:
		case <-w.c.dead:
			return written, io.ErrClosedPipe
		}
	}
}

func (c *remoteCommand) finish(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done, c.code = true, code
	c.change()
}

var encoded = regexp.MustCompile(`(?i)^powershell(?:\.exe)? .*-EncodedCommand ([A-Za-z0-9+/=]+)$`)

// start runs a command line.
func (s *Server) start(line string) *remoteCommand {
	c := &remoteCommand{changed: make(chan struct{}), dead: make(chan struct{})}
	c.kill = sync.OnceFunc(func() { close(c.dead) })
	script, isPowerShell := "", false
	if m := encoded.FindStringSubmatch(line); m != nil {
		script, isPowerShell = powershelltest.Decode(m[1]), true
	}
	s.mu.Lock()
	s.lines = append(s.lines, cmp.Or(script, line))
	s.mu.Unlock()
	if isPowerShell {
		s.startScript(c, script)
	} else if s.Windows != nil {
		s.startWindows(c, line)
	} else {
		s.startShell(c, line)
	}
	return c
}

func (s *Server) startShell(c *remoteCommand, line string) {
	ctx, kill := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = s.home, append(os.Environ(), "HOME="+s.home)
	cmd.Stdout, cmd.Stderr = outputWriter{c, &c.stdout}, outputWriter{c, &c.stderr}
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = procgroup.Start(cmd)
	}
	if err != nil {
		kill()
		c.stderr, c.done, c.code = []byte(err.Error()), true, 1
		return
	}
	c.stdin = stdin
	go func() {
		<-c.dead
		kill()
	}()
	go func() {
		err := cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			code = 128 + int(status.Signal())
		} else if err != nil && code == 0 {
			code = 1
		}
		c.finish(code)
		c.kill()
	}()
}

func (s *Server) startWindows(c *remoteCommand, line string) {
	in, stdin := io.Pipe()
	c.stdin = stdin
	ctx, kill := context.WithCancel(context.Background())
	go func() {
		<-c.dead
		kill()
		in.CloseWithError(io.ErrClosedPipe)
	}()
	go func() {
		c.finish(s.Windows.run(ctx, line, in, outputWriter{c, &c.stdout}, outputWriter{c, &c.stderr}))
		c.kill()
	}()
}

func (s *Server) startScript(c *remoteCommand, script string) {
	in, stdin := io.Pipe()
	c.stdin = stdin
	go func() {
		<-c.dead
		in.CloseWithError(io.ErrClosedPipe)
	}()
	go func() {
		code := s.script(script, in, outputWriter{c, &c.stdout}, outputWriter{c, &c.stderr})
		c.finish(code)
		c.kill()
	}()
}

var rootOf = regexp.MustCompile(`Text '([A-Za-z0-9+/=]*)'`)

// script has the effect that a script would have on Windows.
func (s *Server) script(script string, stdin io.Reader, stdout, stderr io.Writer) int {
	name, _, _ := strings.Cut(script, "\n")
	root := ""
	if m := rootOf.FindStringSubmatch(script); m != nil {
		b, _ := base64.StdEncoding.DecodeString(m[1])
		root = s.full(string(b))
	}
	switch name {
	case "# bake: hello":
		s.mu.Lock()
		down := s.NoPowerShell > 0
		s.NoPowerShell--
		s.mu.Unlock()
		if down {
			return 1
		}
		fmt.Fprint(stdout, "WinRM connected.\r\n")
		return 0
	case "# bake: put":
		return told(putScript(root, stdin), stderr)
	case "# bake: get":
		return told(getScript(stdout, root, strings.Contains(script, "'yes' -eq 'yes'")), stderr)
	}
	if s.PowerShell == nil && s.Windows != nil {
		return s.Windows.powerShell(context.Background(), []string{"-command", script}, s.Windows.environment(), stdin, stdout, stderr)
	}
	if s.PowerShell == nil {
		fmt.Fprintf(stderr, "no PowerShell for %q", script)
		return 1
	}
	return s.PowerShell(script, stdin, stdout, stderr)
}

func (s *Server) full(name string) string {
	if s.Windows != nil {
		return s.Windows.Path(name)
	}
	if name == "~" || strings.HasPrefix(name, "~/") {
		return s.home + name[1:]
	}
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.home, name)
}

// told turns an error into the exit status that the scripts have for it.
func told(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 3
	case errors.Is(err, syscall.ENOSPC):
		return 4
	}
	return 1
}

// putScript has the effect of the script put.
func putScript(root string, in io.Reader) error {
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return fmt.Errorf("%s: %w", root, fs.ErrNotExist)
	}
	lines := bufio.NewReader(in)
	var file *os.File
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		kind, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		data, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return err
		}
		switch kind {
		case "d":
			err = os.MkdirAll(filepath.Join(root, string(data)), 0o755)
		case "f":
			file, err = os.Create(filepath.Join(root, string(data)))
		case "c":
			_, err = file.Write(data)
		case "e":
			err = file.Close()
		}
		if err != nil {
			return err
		}
	}
}

// getScript has the effect of the script get.
func getScript(w io.Writer, root string, contents bool) error {
	base := filepath.Base(root)
	b64 := base64.StdEncoding.EncodeToString
	var each func(path, name string) error
	each = func(path, name string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if name != "" {
				fmt.Fprintf(w, "d %s\r\n", b64([]byte(name)))
			}
			entries, err := os.ReadDir(path)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err := each(filepath.Join(path, e.Name()), strings.TrimPrefix(name+"/"+e.Name(), "/")); err != nil {
					return err
				}
			}
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "f %s\r\n", b64([]byte(name)))
		for len(data) > 0 {
			n := min(len(data), 73728)
			fmt.Fprintf(w, "c %s\r\n", b64(data[:n]))
			data = data[n:]
		}
		_, err = fmt.Fprint(w, "e\r\n")
		return err
	}
	if contents {
		base = ""
	}
	return each(root, base)
}
