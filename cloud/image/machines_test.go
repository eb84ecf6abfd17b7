package image_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"bake/cloud/image"
	"bake/cloud/machine"
	"bake/cloud/machine/sandbox"
	"bake/cloud/network"
)

func TestMain(m *testing.M) {
	if ran, code := sandbox.Child(os.Args); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// TestBootstrap makes the Debian base from the host's mirror.
func TestBootstrap(t *testing.T) {
	if os.Getenv("BAKE_TEST_MACHINES") == "" {
		t.Skip("set BAKE_TEST_MACHINES=1 to bootstrap a base from the host's Debian mirror")
	}
	dir := os.Getenv("BAKE_TEST_STORE")
	if dir == "" {
		dir = t.TempDir()
		// A machine's own root must be able to reach the layers.
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	driver, err := sandbox.New(sandbox.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(dir, driver)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	phase := ""
	base, err := store.Ensure(t.Context(), "debian-12", image.EnsureOptions{Progress: func(p image.Progress) {
		if p.Note != "" {
			t.Log(p.Note)
		} else if p.Phase != phase {
			phase = p.Phase
			t.Logf("%6.2fs %s", time.Since(begin).Seconds(), phase)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%6.2fs done", time.Since(begin).Seconds())
	for _, id := range base.Layers {
		size, err := store.Size(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("layer %s: %d bytes", id, size)
	}
	layers, err := store.Paths(base.Layers)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("package database", func(t *testing.T) { checkDatabase(t, driver, layers) })
	t.Run("boot", func(t *testing.T) { checkBoot(t, driver, layers) })
}

// checkDatabase lets dpkg and apt judge the system that they did not install.
func checkDatabase(t *testing.T, driver machine.Driver, layers []string) {
	const script = `set -eu
exec 2>&1
fail() { echo "FAIL: $*"; failed=1; }
failed=
[ -z "$(dpkg --audit)" ] || fail "audit: $(dpkg --audit)"
dpkg --verify | grep -v ' c /etc/' && fail "dpkg --verify"
apt-get check || fail "apt-get check"
apt-get --simulate --fix-broken install | grep '^Inst\|^Remv' && fail "something is broken"
[ "$(dpkg-query -f '${db:Status-Abbrev}\n' -W | sort -u)" = "ii " ] || fail "not everything is installed"
[ ! -s /etc/machine-id ] || fail "it has a machine id"
ls /etc/ssh/ssh_host_* && fail "it has host keys"
[ "$(id -un 1000) $(id -Gn admin | tr ' ' '\n' | sort | tr '\n' ' ')" = "admin adm admin audio cdrom dialout dip floppy plugdev sudo video " ] || fail "$(id admin)"
passwd --status root admin | grep -v ' L ' && fail "a password is not locked"
sshd_config=$(grep '^PasswordAuthentication' /etc/ssh/sshd_config)
[ "$sshd_config" = "PasswordAuthentication no" ] || fail "sshd: $sshd_config"
[ -s /etc/ssl/certs/ca-certificates.crt ] || fail "no certificates"
[ -n "$(find /usr/lib/python3/dist-packages -name '*.pyc' -print -quit)" ] || fail "Python is not compiled"
[ "$(readlink /bin /sbin /lib | tr '\n' ' ')" = "usr/bin usr/sbin usr/lib " ] || fail "/usr is not merged"
[ ! -e /usr/sbin/policy-rc.d ] || fail "services cannot start"
[ -z "$(ls /var/cache/apt/archives/*.deb /tmp/* 2>/dev/null)" ] || fail "something was left behind"
locale -a | grep -qx C.utf8 || fail "no UTF-8 locale"
[ -z "$failed" ]
`
	console := filepath.Join(t.TempDir(), "console")
	m, err := driver.Start(t.Context(), machine.Spec{
		ID: "check", Dir: machineDir(t, driver), Layers: layers, Hostname: "check", Console: console,
		Command: []string{"/bin/bash", "-c", script}, Network: testNetwork(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if exit := m.Exit(); exit.Err != nil || exit.Reason != machine.PowerOff {
		b, _ := os.ReadFile(console)
		t.Errorf("%v, %v:\n%s", exit.Reason, exit.Err, b)
	}
}

// checkBoot boots the base as the cloud does, logs in and looks around.
func checkBoot(t *testing.T, driver machine.Driver, layers []string) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	authorized := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshKey)))
	console := filepath.Join(t.TempDir(), "console")
	begin := time.Now()
	m, err := driver.Start(t.Context(), machine.Spec{
		ID: "boot", Dir: machineDir(t, driver), Layers: layers, Hostname: "ip-10-0-0-5", Console: console,
		First: true, User: "admin", AuthorizedKeys: []string{authorized}, HasUserData: true,
		Network: testNetwork(metadata(authorized)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill() // it may have ended
		<-m.Done()
		if t.Failed() {
			b, _ := os.ReadFile(console)
			t.Logf("console:\n%s", b)
		}
	})
	config := &ssh.ClientConfig{User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var client *ssh.Client
	for client == nil {
		conn, err := m.Dial(ctx, 22)
		if err == nil {
			var c ssh.Conn
			var channels <-chan ssh.NewChannel
			var requests <-chan *ssh.Request
			if c, channels, requests, err = ssh.NewClientConn(conn, "boot:22", config); err == nil {
				client = ssh.NewClient(c, channels, requests)
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("no SSH after %v: %v", time.Since(begin), err)
		}
		if err != nil {
			time.Sleep(20 * time.Millisecond) // until the next try at a real machine
		}
	}
	defer client.Close()
	t.Logf("SSH login after %v", time.Since(begin).Round(time.Millisecond))
	// What user data run last, runs beside the logins: it is waited for first.
	for _, check := range [][2]string{
		{"cloud-init status --wait | tail -1", "status: done"},
		{"cat /run/user-data-was-here", "yes"},
		{"systemctl is-system-running --wait", "running"},
		{"systemctl --failed --no-legend --plain", ""},
		{"sudo -n id -u", "0"},
		{"id -un", "admin"},
		{"hostname", "ip-10-0-0-5"},
		{"cat /etc/timezone; date +%Z", "Etc/UTC\nUTC"},
		{"echo $LANG", "C.UTF-8"},
		// It warns of a script as user data, and of this test's metadata without network cards.
		{`sudo -n grep WARNING /var/log/cloud-init.log | grep -v "schema.py\|'network' key"`, ""},
		{"sudo -n grep -c 'Traceback' /var/log/cloud-init.log", "0"},
		{"curl --version >/dev/null && python3 -c 'print(1)' && gpg --version >/dev/null", "1"},
	} {
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		command, want := check[0], check[1]
		out, err := session.CombinedOutput(command)
		if got := strings.TrimSpace(string(out)); got != want {
			t.Errorf("%s: got %q (%v), want %q", command, got, err, want)
		}
	}
}

// machineDir makes a directory for a machine, which the driver deletes: not all
// in it belongs to this process's user.
func machineDir(t *testing.T, driver machine.Driver) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("BAKE_TEST_STORE"), "machine-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Remove(context.WithoutCancel(t.Context()), dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func testNetwork(metadata http.Handler) network.Config {
	return network.Config{
		Private:  netip.MustParseAddr("10.0.0.5"),
		Subnet:   netip.MustParsePrefix("10.0.0.0/24"),
		Metadata: metadata,
	}
}

// metadata answers as much of the instance metadata service as cloud-init asks.
func metadata(key string) http.Handler {
	values := map[string]string{
		"ami-id": "ami-1", "instance-id": "i-1", "instance-type": "t3.micro", "hostname": "ip-10-0-0-5", "local-hostname": "ip-10-0-0-5",
		"local-ipv4": "10.0.0.5", "placement/availability-zone": "us-east-1a", "public-keys/0/openssh-key": key,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch {
		case path == "api/token":
			fmt.Fprint(w, "token")
		case path == "user-data":
			fmt.Fprint(w, "#!/bin/sh\necho yes >/run/user-data-was-here\n")
		case path == "dynamic/instance-identity/document":
			fmt.Fprint(w, `{"region": "us-east-1", "instanceId": "i-1"}`)
		case path == "dynamic/instance-identity", path == "dynamic/instance-identity/":
			fmt.Fprint(w, "document")
		case path == "meta-data/public-keys/":
			fmt.Fprint(w, "0=test")
		case strings.HasPrefix(path, "meta-data/"):
			name := strings.TrimPrefix(path, "meta-data/")
			if v, ok := values[name]; ok {
				fmt.Fprint(w, v)
				return
			}
			children := map[string]bool{}
			for v := range values {
				if rest, ok := strings.CutPrefix(v, name); ok && (name == "" || strings.HasSuffix(name, "/")) {
					child, below, _ := strings.Cut(rest, "/")
					if below != "" {
						child += "/"
					}
					children[child] = true
				}
			}
			if len(children) == 0 {
				http.NotFound(w, r)
				return
			}
			fmt.Fprint(w, strings.Join(slices.Sorted(maps.Keys(children)), "\n"))
		default:
			http.NotFound(w, r)
		}
	})
}
