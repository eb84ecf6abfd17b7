package ansible_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"bake/builder"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/internal/relay"
	"bake/provisioner/ansible"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// TestMain is also the program that Ansible's SSH clients connect with.
func TestMain(m *testing.M) {
	if args := os.Args; len(args) == 6 && args[1] == "nc" && args[4] == "-through" {
		if err := join(args[5], net.JoinHostPort(args[2], args[3])); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// join is what bake nc does.
func join(socket, addr string) error {
	conn, err := relay.Connect(context.Background(), socket, addr)
	if err != nil {
		return err
	}
	return relay.Join(conn, os.Stdin, os.Stdout)
}

// Ansible itself logs in: with a password, through a bastion host that wants another
// one, and through the SSH server in bake.
func TestAnsible(t *testing.T) {
	if _, err := exec.LookPath("ansible-playbook"); err != nil && os.Getenv("BAKE_TEST_MACHINES") != "1" {
		t.Skip("no ansible-playbook here; install ansible-core")
	}
	inner, outer := login(t, "inner secret"), login(t, "outer secret")
	home := t.TempDir()
	machine, bastion := commtest.Serve(t, home, inner), commtest.Serve(t, t.TempDir(), outer)
	dir := t.TempDir()
	play := filepath.Join(dir, "play.yml")
	err := os.WriteFile(play, []byte(`
- hosts: all
  gather_facts: false
  vars: { ansible_python_interpreter: /usr/bin/python3 }
  tasks:
    - copy: { src: play.yml, dest: "{{ name }}", mode: "0640" }
    - command: echo $HOME
      args: { chdir: / }
      register: out
    - debug: { msg: "port {{ ansible_port }}, {{ out.stdout }}" }
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", t.TempDir())
	for _, way := range []string{"password", "bastion", "proxy"} {
		o := ssh.Defaults()
		o.Host, o.Port, o.Username, o.Password = machine.Host, machine.Port, machine.User, inner.Password
		options := ""
		if way == "bastion" {
			o.BastionHost, o.BastionPort, o.BastionUsername, o.BastionPassword = bastion.Host, bastion.Port, bastion.User, outer.Password
		}
		if way == "proxy" {
			options = "use_proxy = true\nuse_sftp = true"
		}
		s, log := provisionertest.Scope(t)
		conn, err := ssh.Connect(t.Context(), s, &o, ssh.Target{})
		if err != nil {
			t.Fatal(err)
		}
		m := builder.Machine{Communicator: conn, Data: builder.MachineData(conn, builder.Facts{RunID: "run", ID: "i-1", Communicator: "ssh"})}
		body := fmt.Sprintf("playbook_file = %q\nextra_arguments = [\"-e\", \"name=%s\"]\n%s", play, filepath.Join(home, way), options)
		before := bastion.Connections()
		err = provisionertest.New(t, ansible.Factory([]string{os.Args[0], "nc", "%h", "%p"}), body).Provision(t.Context(), s, m)
		if err != nil {
			t.Errorf("%s: %v\n%s\n%s", way, err, strings.Join(log.Texts(step.Output), "\n"), strings.Join(log.Texts(step.ErrOutput), "\n"))
		}
		if info, err := os.Stat(filepath.Join(home, way)); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: copied %v, %v", way, info, err)
		}
		out := strings.Join(log.Texts(step.Output), "\n")
		if direct := strings.Contains(out, fmt.Sprintf("port %d", machine.Port)); direct == (way == "proxy") {
			t.Errorf("%s: %s", way, out)
		}
		// All use one connection: a second one could start while the first ends, and be lost with
		// it.
		if n, want := bastion.Connections()-before, map[string]int{"bastion": 1}[way]; n != want {
			t.Errorf("%s: Ansible has made %d connections to the bastion host", way, n)
		}
		for _, text := range append(log.Texts(step.Say), out) {
			if strings.Contains(text, "inner secret") {
				t.Errorf("%s: %s", way, text)
			}
		}
		conn.Close()
	}
}

func login(t *testing.T, password string) commtest.Login {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return commtest.Login{User: "me", Password: password, HostKey: signer}
}
