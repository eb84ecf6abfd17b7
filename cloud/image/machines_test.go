package image_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"bake/cloud/image"
	"bake/cloud/image/debian"
	"bake/cloud/image/debian/debiantest"
	"bake/cloud/machine"
	"bake/cloud/machine/sandbox"
	"bake/cloud/network"
	"bake/internal/turns"
)

func TestMain(m *testing.M) {
	if ran, code := sandbox.Child(os.Args); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// TestBootstrap makes bases from the host's mirror: one of Debian, and one from an archive that is
// laid out and signed like Ubuntu's but contains Debian's packages. They are tested on alternate
// days.
func TestBootstrap(t *testing.T) {
	if os.Getenv("BAKE_TEST_MACHINES") == "" {
		t.Skip("set BAKE_TEST_MACHINES=1 to bootstrap bases from the host's Debian mirror")
	}
	turns.Skip(t, 4) // and so of the three below another one each time
	releases := []struct{ name, user, groups, source string }{
		{"debian-12", "admin", "adm admin audio cdrom dialout dip floppy plugdev sudo video", "Debian 12"},
		{"ubuntu-22.04", "ubuntu", "adm audio cdrom dialout dip floppy plugdev sudo ubuntu video", "Ubuntu 22.04 jammy"},
		{"debian-13", "admin", "adm admin audio cdrom dialout dip floppy plugdev sudo video", "Debian 13"},
	}
	dir := os.Getenv("BAKE_TEST_STORE")
	if dir == "" {
		dir = t.TempDir()
		// The machines' root must be able to reach the layers.
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
	for _, r := range turns.One(t, releases) {
		t.Run(r.name, func(t *testing.T) {
			o := image.EnsureOptions{}
			if r.user == "ubuntu" {
				url, keyring := ubuntuArchive(t)
				o.Mirrors, o.Keyring = image.Mirrors{"ubuntu": url}, keyring
			}
			base := ensure(t, store, r.name, o)
			if base.User != r.user || !strings.HasPrefix(base.Source, r.source) {
				t.Errorf("base %s of %s", base.User, base.Source)
			}
			layers, err := store.Paths(base.Layers)
			if err != nil {
				t.Fatal(err)
			}
			t.Run("package database", func(t *testing.T) { checkDatabase(t, driver, layers, r.user, r.groups) })
			t.Run("boot", func(t *testing.T) { checkBoot(t, driver, layers, r.name, r.user) })
			if r.name == "debian-12" {
				t.Run("second stage", func(t *testing.T) { checkSecondStage(t, store, driver, base) })
			}
		})
	}
}

// ensure makes a base and logs its progress.
func ensure(t *testing.T, store *image.Store, name string, o image.EnsureOptions) image.Base {
	t.Helper()
	begin := time.Now()
	phase := ""
	o.Progress = func(p image.Progress) {
		if p.Note != "" {
			t.Log(p.Note)
		} else if p.Phase != phase {
			phase = p.Phase
			t.Logf("%6.2fs %s", time.Since(begin).Seconds(), phase)
		}
	}
	base, err := store.Ensure(t.Context(), name, o)
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
	return base
}

// ubuntuArchive serves an archive of the suite jammy: a single tree with main and universe, signed
// with its own key. Its packages are those of Debian 12 on the host's mirror.
func ubuntuArchive(t *testing.T) (url, keyring string) {
	t.Helper()
	mirror := debian.HostMirrors(os.DirFS("/"))[0]
	ask, err := http.NewRequestWithContext(t.Context(), http.MethodGet, mirror+"/dists/bookworm/main/binary-"+runtime.GOARCH+"/Packages.gz", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	packages, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", mirror, answer.Status, err)
	}
	m := debiantest.NewMirror(t)
	files := map[string][]byte{"main": packages, "universe": debiantest.Compress(t, "gz", nil)}
	text := "Origin: Ubuntu\nSuite: jammy\nCodename: jammy\nVersion: 22.04\nDate: " + time.Now().Add(-time.Hour).UTC().Format(time.RFC1123) + "\nSHA256:\n"
	for component, content := range files {
		text += fmt.Sprintf(" %x %d %s/binary-%s/Packages.gz\n", sha256.Sum256(content), len(content), component, runtime.GOARCH)
	}
	release := debiantest.Sign(t, m.Key, time.Now().Add(-time.Hour), text)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/ubuntu/")
		component, _, _ := strings.Cut(strings.TrimPrefix(path, "dists/jammy/"), "/")
		switch {
		case strings.HasPrefix(path, "pool/"):
			http.Redirect(w, r, mirror+"/"+path, http.StatusFound)
		case path == "dists/jammy/InRelease":
			_, _ = w.Write(release) // fails only if the client has closed the connection
		case strings.HasPrefix(path, "dists/jammy/") && files[component] != nil:
			_, _ = w.Write(files[component])
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/ubuntu", m.Keyring
}

// checkDatabase checks the system with dpkg and apt, which have not installed it.
func checkDatabase(t *testing.T, driver machine.Driver, layers []string, user, groups string) {
	const script = `set -eu
user=$1
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
[ "$(id -un 1000) $(id -Gn $user | tr ' ' '\n' | sort | tr '\n' ' ')" = "$user $2 " ] || fail "$(id $user)"
passwd --status root $user | grep -v ' L ' && fail "a password is not locked"
sshd_config=$(grep '^PasswordAuthentication' /etc/ssh/sshd_config)
[ "$sshd_config" = "PasswordAuthentication no" ] || fail "sshd: $sshd_config"
python3 -c 'import sys; from cloudinit.ssh_util import update_ssh_config as update; sys.exit(update({"PasswordAuthentication": "no"}))' ||
	fail "cloud-init would change the SSH server's configuration, and restart it"
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
		Command: []string{"/bin/bash", "-c", script, "check", user, groups}, Network: testNetwork(nil),
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

// checkBoot boots the base as the cloud does, logs in and checks the system.
func checkBoot(t *testing.T, driver machine.Driver, layers []string, release, user string) {
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
		First: true, User: user, Limits: machine.Limits{Memory: 1 << 30}, AuthorizedKeys: []string{authorized}, HasUserData: true,
		Network: testNetwork(metadata(authorized)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill() // fails if it has already ended
		<-m.Done()
		if t.Failed() {
			b, _ := os.ReadFile(console)
			t.Logf("console:\n%s", b)
		}
	})
	config := &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second}
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
			time.Sleep(20 * time.Millisecond) // until the next attempt
		}
	}
	defer client.Close()
	t.Logf("SSH login after %v", time.Since(begin).Round(time.Millisecond))
	tmp := "" // on the disk
	if release == "debian-13" {
		tmp = "524288" // half of the memory, in KiB
	}
	// User data runs last and in parallel with logins: wait for it first.
	for _, check := range [][2]string{
		{"cloud-init status --wait | tail -1", "status: done"},
		{"cat /run/user-data-was-here", "yes"},
		{"systemctl is-system-running --wait", "running"},
		{"systemctl --failed --no-legend --plain", ""},
		{"[ $(stat -f -c %T /tmp) != tmpfs ] || df --output=size /tmp | tail -1", tmp},
		{"sudo -n id -u", "0"},
		{"id -un", user},
		{"hostname", "ip-10-0-0-5"},
		{"cat /etc/timezone; date +%Z", "Etc/UTC\nUTC"},
		{"echo $LANG", "C.UTF-8"},
		// cloud-init warns about user data that is a script, and about this test's metadata without
		// network cards.
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

// machineDir creates a directory for a machine. The driver deletes it, because some of the files
// belong to other users.
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

// metadata serves the part of the instance metadata that cloud-init requests.
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
