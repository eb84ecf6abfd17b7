package host_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/run/host"
	"bake/step"
)

func newKey(t *testing.T) *commtest.KeyPair {
	t.Helper()
	k, err := commtest.NewKeyPair("ed25519", 0, "test")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConnect(t *testing.T) {
	key, dir := newKey(t), t.TempDir()
	t.Setenv("HOME", dir)
	srv := commtest.Serve(t, t.TempDir(), commtest.Login{User: "me", Key: key.Signer.PublicKey(), HostKey: newKey(t).Signer})
	file := write(t, dir, "key", key.PrivateKey)
	addr := net.JoinHostPort(srv.Host, strconv.Itoa(srv.Port))
	o := host.Options{Host: "ssh://me@" + addr, KeyFile: file, Emit: func(step.Event) {}}
	run := func(o host.Options) error {
		c, err := host.Connect(t.Context(), o)
		if err != nil {
			return err
		}
		_, err = c.Run(t.Context(), communicator.Command{Line: "true"})
		return errors.Join(err, c.Close())
	}
	want := func(what string, err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	want("an unknown host key", run(o), "the host key of 127.0.0.1 is not in")
	pinned := o
	pinned.HostKeyCheck = "pin"
	if err := run(pinned); err != nil {
		t.Errorf("pinned: %v", err)
	}
	line := func(k gossh.PublicKey) string { return knownhosts.Line([]string{knownhosts.Normalize(addr)}, k) + "\n" }
	known := o
	known.KnownHosts = write(t, dir, "known", line(srv.HostKey))
	if err := run(known); err != nil {
		t.Errorf("known: %v", err)
	}
	known.KnownHosts = write(t, dir, "other", line(newKey(t).Signer.PublicKey()))
	want("another host key", run(known), "presents the host key")
	pinned.KnownHosts = known.KnownHosts
	want("another host key, pinned", run(pinned), "presents the host key")

	write(t, dir, ".ssh/known_hosts", line(srv.HostKey))
	write(t, dir, ".ssh/id_ed25519", key.PrivateKey)
	own := o
	own.KeyFile = ""
	if err := run(own); err != nil {
		t.Errorf("the user's own files: %v", err)
	}
	before := srv.Connections()
	wrong := o
	wrong.KeyFile = write(t, dir, "wrong", newKey(t).PrivateKey)
	if err := run(wrong); err == nil {
		t.Error("a wrong key lets in")
	}
	if n := srv.Connections() - before; n != 1 {
		t.Errorf("a key that is refused is tried %d times", n)
	}
}

func TestURLs(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	ok := []string{"ssh://me@h", "ssh://me@h:2222", "me@h", "h", "ssh://me@[::1]:22/", "me@h:1"}
	bad := []string{"", "https://h", "ssh://", "ssh://me@h/x", "ssh://h?x=1", "ssh://h:0", "ssh://h:65536", "ssh://h:x", "ssh://me:geheim@h", "ssh://me@h#x"}
	for _, u := range ok {
		if err := (host.Options{Host: u, KeyFile: "k"}).Check(); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
	for _, u := range bad {
		err := (host.Options{Host: u, KeyFile: "k"}).Check()
		if err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", u, err)
		}
		if err := (host.Options{Host: "h", Bastion: u, KeyFile: "k"}).Check(); u != "" && err == nil {
			t.Errorf("bastion %s is taken", u)
		}
	}
	if err := (host.Options{Host: "h"}).Check(); err == nil || !strings.Contains(err.Error(), "no key to log in with") {
		t.Error(err)
	}
	if err := (host.Options{Host: "h", Env: []string{"SSH_AUTH_SOCK=/x"}}).Check(); err != nil {
		t.Error(err)
	}
}
