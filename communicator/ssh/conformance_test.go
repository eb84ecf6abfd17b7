package ssh_test

import (
	"context"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/step"
)

// scope returns a scope whose events go to emit; nil drops them.
func scope(emit func(step.Event)) *step.Scope {
	if emit == nil {
		emit = func(step.Event) {}
	}
	return step.NewScope(step.Scope{Build: "null.test", SourceType: "null", SourceName: "test", Emit: emit})
}

func newKey(t testing.TB) *commtest.KeyPair {
	t.Helper()
	k, err := commtest.NewKeyPair("ed25519", 0, "test")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// options are those for logging in to srv.
func options(srv *commtest.Server) *ssh.Options {
	o := ssh.Defaults()
	o.Host, o.Port, o.Username = srv.Host, srv.Port, srv.User
	return &o
}

// servers starts one server of each kind for a key.
var servers = map[string]func(t testing.TB, key gossh.PublicKey) *commtest.Server{
	"in-process": func(t testing.TB, key gossh.PublicKey) *commtest.Server {
		return commtest.Serve(t, t.TempDir(), commtest.Login{User: "me", Key: key, HostKey: newKey(t).Signer})
	},
	"OpenSSH": func(t testing.TB, key gossh.PublicKey) *commtest.Server {
		host := newKey(t)
		return commtest.SSHD(t, key, host.PrivateKey, host.Signer.PublicKey())
	},
}

func connect(t testing.TB, ctx context.Context, o *ssh.Options, target ssh.Target) communicator.Communicator {
	t.Helper()
	c, err := ssh.Connect(ctx, scope(nil), o, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestConformance(t *testing.T) {
	for name, start := range servers {
		for _, method := range []ssh.TransferMethod{ssh.Shell, ssh.SFTP} {
			t.Run(name+" "+string(method), func(t *testing.T) {
				key := newKey(t)
				srv := start(t, key.Signer.PublicKey())
				commtest.Run(t, func(t *testing.T) commtest.Subject {
					o := options(srv)
					o.FileTransferMethod = method
					c := connect(t, t.Context(), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
					return commtest.Subject{Communicator: c, Cut: srv.Cut}
				})
			})
		}
	}
}
