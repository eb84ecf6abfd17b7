//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	glssh "github.com/gliderlabs/ssh"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
	"bake/cloud/wire"
)

// world is an embedded cloud behind HTTP, for one case. Its machines boot instantly: each
// is a directory with an SSH server, which really runs its commands.
type world struct {
	dir     string
	cloud   *cloudtest.Server
	server  *httptest.Server
	hostKey ssh.Signer

	mu       sync.Mutex
	changed  *sync.Cond
	underWay int // connections to the cloud, and commands on machines

	// meddle, if not nil, may disturb each call and each command on a machine; do carries
	// it out. For a call, w is the writer for the answer.
	meddle func(what string, w http.ResponseWriter, do func(http.ResponseWriter))
}

// newWorld opens a cloud in dir.
func newWorld(ctx context.Context, dir string) (*world, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir}
	w.changed = sync.NewCond(&w.mu)
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return nil, err
	}
	if w.hostKey, err = ssh.NewSignerFromKey(key); err != nil {
		return nil, err
	}
	driver := &machinetest.Driver{Dial: w.dial}
	w.cloud, err = cloudtest.Open(ctx, func() string { return filepath.Join(dir, "cloud") }, cloud.Options{Driver: driver})
	if err != nil {
		return nil, err
	}
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(w.handle))
	w.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			w.count(1)
		case http.StateClosed, http.StateHijacked:
			w.count(-1)
		}
	}
	w.server.Start()
	return w, nil
}

// command returns a bake command that uses the cloud as AWS, and writes JSON.
func (w *world) command(ctx context.Context, bake string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, bake, append(slices.Clone(args), "-json")...)
	cmd.Dir = w.dir
	who := w.cloud.Credentials()[0]
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "TMPDIR=" + filepath.Join(w.dir, "tmp"), "BAKE_STATE_DIR=" + filepath.Join(w.dir, "state"),
		"AWS_ENDPOINT_URL=" + w.server.URL, "AWS_ACCESS_KEY_ID=" + who.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + who.SecretAccessKey,
		"AWS_EC2_METADATA_DISABLED=true"}
	return cmd
}

func (w *world) close(ctx context.Context) error {
	w.server.Close()
	return w.cloud.Close(ctx)
}

func (w *world) count(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.underWay += n
	w.changed.Broadcast()
}

// settle waits until the cloud has finished the calls of processes that have ended:
// these are still carried out.
func (w *world) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.underWay > 0 {
		w.changed.Wait()
	}
}

// disturb sets the function that interferes with calls from now on; it may be nil. No call
// may be in progress.
func (w *world) disturb(meddle func(string, http.ResponseWriter, func(http.ResponseWriter))) {
	w.settle()
	w.meddle = meddle
}

func (w *world) handle(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		w.cloud.Handler().ServeHTTP(rw, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") == "" {
		form = url.Values{"Action": {r.Header.Get("X-Amz-Target")}}
	}
	do := func(rw http.ResponseWriter) { w.cloud.Handler().ServeHTTP(rw, r) }
	if w.meddle == nil {
		do(rw)
		return
	}
	scope, _ := wire.ParseScope(r) // the cloud reports the error
	w.meddle(form.Get("Action")+"@"+scope.Region, answer{rw, scope.Service}, do)
}

// answer is the writer for the answer of a service.
type answer struct {
	http.ResponseWriter
	service string
}

// refuse answers a call with an error, as its service does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	form := "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>id</RequestId></ErrorResponse>"
	if a, ok := w.(answer); ok && a.service == "ec2" {
		form = "<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>id</RequestID></Response>"
	}
	if a, ok := w.(answer); ok && a.service == "ssm" {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":%q,"message":%q}`, code, message)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, form, code, message)
}

// dial connects to the SSH server of a machine.
func (w *world) dial(_ context.Context, spec machine.Spec, port uint16) (net.Conn, error) {
	if port != 22 {
		return nil, errors.New("connection refused")
	}
	home := filepath.Join(w.dir, "machines", spec.ID)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	server := &glssh.Server{
		ChannelHandlers: map[string]glssh.ChannelHandler{"session": glssh.DefaultSessionHandler},
		Handler: func(s glssh.Session) {
			w.session("command", func() { _ = s.Exit(shell(s, home)) })
		},
		SubsystemHandlers: map[string]glssh.SubsystemHandler{"sftp": func(s glssh.Session) {
			w.session("transfer", func() {
				if files, err := sftp.NewServer(s, sftp.WithServerWorkingDirectory(home)); err == nil {
					_ = files.Serve() // ends with the session
				}
			})
		}},
		PublicKeyHandler: func(ctx glssh.Context, key glssh.PublicKey) bool {
			for _, line := range spec.AuthorizedKeys {
				known, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
				if err == nil && ctx.User() == spec.User && glssh.KeysEqual(key, known) {
					return true
				}
			}
			return false
		},
	}
	server.AddHostKey(w.hostKey)
	client, machine := net.Pipe()
	go server.HandleConn(machine)
	return client, nil
}

// session executes the requests of an SSH session.
func (w *world) session(what string, do func()) {
	w.count(1)
	defer w.count(-1)
	if w.meddle == nil {
		do()
		return
	}
	w.meddle(what, nil, func(http.ResponseWriter) { do() })
}

// shell runs the command of a session in home and returns its exit status.
func shell(s glssh.Session, home string) int {
	cmd := exec.CommandContext(s.Context(), "/bin/sh", "-c", s.RawCommand())
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
	cmd.Stdout, cmd.Stderr = s, s.Stderr()
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(s.Stderr(), err)
		return 127
	}
	go func() {
		_, _ = io.Copy(stdin, s) // ends with the session
		stdin.Close()
	}()
	if err := cmd.Wait(); err != nil {
		return max(1, cmd.ProcessState.ExitCode())
	}
	return 0
}

// provisioned returns how often each provisioner ran to its end, on all machines.
func (w *world) provisioned() (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(w.dir, "machines", "*", "provisioned"))
	times := map[string]int{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for _, line := range bytes.Fields(data) {
			times[string(line)]++
		}
	}
	return times, err
}
