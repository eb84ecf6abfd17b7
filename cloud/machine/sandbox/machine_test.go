package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bake/cloud/image/imagetest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
	"bake/cloud/network"
	"bake/internal/turns"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) {
	if ran, code := Child(os.Args); ran {
		os.Exit(code)
	}
	if spec := os.Getenv(victimSpec); spec != "" {
		victim(spec)
	}
	if dir := os.Getenv(spareDir); dir != "" {
		keepSpare(dir)
	}
	os.Exit(m.Run())
}

// bench is a driver with a base to boot machines from.
type bench struct {
	t      *testing.T
	driver *Driver
	dir    string
	layers []string
	key    ssh.Signer
	next   *atomic.Int32
}

// newBench returns a driver for machines from the Debian base that all tests share, or from the
// root file system in the tar file named by BAKE_TEST_ROOTFS. Tests with real machines only run if
// they are enabled.
func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	if os.Getenv("BAKE_TEST_MACHINES") != "1" {
		t.Skip("set BAKE_TEST_MACHINES=1 to boot machines")
	}
	if t.Name() != "TestBoot" {
		turns.Skip(t, 6)
	}
	dir, err := os.MkdirTemp(os.Getenv("BAKE_TEST_DIR"), "bake-machines-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	if os.Getenv("BAKE_TEST_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		began := time.Now()
		if err := d.Remove(context.Background(), dir); err != nil {
			t.Error(err)
		}
		t.Logf("removed in %v", time.Since(began).Round(time.Millisecond))
	})
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, driver: d, dir: dir, key: key, next: new(atomic.Int32)}
	if rootfs := os.Getenv("BAKE_TEST_ROOTFS"); rootfs != "" {
		b.layers = []string{b.unpack(rootfs)}
		return b
	}
	store, base, err := imagetest.Debian(t.Context(), d, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if b.layers, err = store.Paths(base.Layers); err != nil {
		t.Fatal(err)
	}
	return b
}

// unpack makes a layer from a root file system in a tar file.
func (b *bench) unpack(rootfs string) string {
	b.t.Helper()
	f, err := os.Open(rootfs)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	layer := filepath.Join(b.dir, "base")
	if err := b.driver.Unpack(b.t.Context(), f, layer); err != nil {
		b.t.Fatal(err)
	}
	return layer
}

// spec returns the spec of a new instance.
func (b *bench) spec() machine.Spec {
	n := b.next.Add(1)
	id := fmt.Sprintf("i-%d%04d", n, os.Getpid()%10000)
	return machine.Spec{
		ID: id, Dir: filepath.Join(b.dir, id), Layers: b.layers, Hostname: fmt.Sprintf("ip-172-31-0-%d", 10+n),
		First: true, User: "admin", AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(b.key.PublicKey())))},
		Console: filepath.Join(b.dir, id+".console"),
		Network: network.Config{
			Private: netip.AddrFrom4([4]byte{172, 31, 0, byte(10 + n)}), Subnet: netip.MustParsePrefix("172.31.0.0/20"),
			Public: netip.AddrFrom4([4]byte{127, 11, byte(os.Getpid() % 250), byte(10 + n)}),
		},
	}
}

func (b *bench) start(spec machine.Spec) machine.Machine {
	b.t.Helper()
	m, err := b.driver.Start(b.t.Context(), spec)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, readText(spec.Console))
	}
	b.t.Cleanup(func() {
		m.Kill()
		if b.t.Failed() {
			b.t.Logf("console of %s:\n%s", spec.ID, readText(spec.Console))
		}
	})
	return m
}

// login connects to the machine's public address as soon as the SSH server accepts the login.
func (b *bench) login(spec machine.Spec) *ssh.Client {
	b.t.Helper()
	config := &ssh.ClientConfig{User: spec.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.key)}, HostKeyCallback: consoleKeys(spec.Console), Timeout: 10 * time.Second}
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		c, err := ssh.Dial("tcp", net.JoinHostPort(spec.Network.Public.String(), publicPort(22)), config)
		if err == nil {
			b.t.Cleanup(func() { c.Close() })
			return c
		}
		last = err
	}
	b.t.Fatalf("ssh: %v\n%s", last, readText(spec.Console))
	return nil
}

// consoleKeys accepts the host keys that the machine printed on its console.
func consoleKeys(console string) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		_, block, _ := strings.Cut(readText(console), "-----BEGIN SSH HOST KEY KEYS-----\n")
		block, _, _ = strings.Cut(block, "-----END SSH HOST KEY KEYS-----")
		for line := range strings.Lines(block) {
			known, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
			if err == nil && bytes.Equal(known.Marshal(), key.Marshal()) {
				return nil
			}
		}
		return errors.New("the host key was not on the console")
	}
}

func (b *bench) run(c *ssh.Client, command string) string {
	b.t.Helper()
	out, err := try(c, command)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func try(c *ssh.Client, command string) (string, error) {
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	return strings.TrimSpace(string(out)), err
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestConformance(t *testing.T) {
	b := newBench(t, Options{})
	machinetest.TestDriver(t, func(t *testing.T) machinetest.Fixture {
		dir := filepath.Join(b.dir, strings.ReplaceAll(filepath.Base(t.Name()), " ", "-"))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return machinetest.Fixture{Driver: b.driver, Dir: dir, Layers: b.layers}
	})
}

// TestBoot measures the time from Start to the first complete command, and checks the machine.
func TestBoot(t *testing.T) {
	b := newBench(t, Options{})
	for _, imds := range []string{"without a metadata service", "with one", "with one, of one processor"} {
		t.Run(imds, func(t *testing.T) {
			b := b.with(t)
			spec := b.spec()
			if imds != "without a metadata service" {
				spec.Network.Metadata = metadataService(spec)
			}
			if strings.HasSuffix(imds, "processor") {
				spec.Limits.CPUs = 1
			}
			began := time.Now()
			m := b.start(spec)
			up := time.Since(began)
			c := b.login(spec)
			in := time.Since(began)
			b.run(c, "true")
			t.Logf("started %v, logged in %v, first command %v", round(up), round(in), round(time.Since(began)))

			user := "admin"
			if b.driver.ids.mode == ModeSingle { // there is no other user
				user = "root"
			}
			if got := b.run(c, "hostname; id -un; sudo id -u; cat /etc/machine-id | wc -c; stat -c %s /etc/ssh/ssh_host_rsa_key 2>/dev/null; true"); got != spec.Hostname+"\n"+user+"\n0\n33" {
				t.Errorf("the machine says %q", got)
			}
			if got := b.run(c, "ip -4 -o addr show eth0; cat /sys/class/net/eth0/mtu; getent hosts $(hostname)"); !strings.Contains(got, spec.Network.Private.String()+"/20") || !strings.Contains(got, "9001") {
				t.Errorf("the network is %q", got)
			}
			if imds != "without a metadata service" {
				keys := b.run(c, "cat /etc/ssh/ssh_host_*.pub")
				t.Log(b.run(c, "cloud-init status --wait; cloud-init analyze blame | head -5; systemctl is-system-running --wait; systemctl --failed --no-legend; id"))
				t.Logf("cloud-init ended %v", round(time.Since(began)))
				if got := b.run(c, "cat /etc/ssh/ssh_host_*.pub"); got != keys {
					t.Errorf("cloud-init changed the host keys from %s to %s", keys, got)
				}
				if strings.Contains(b.run(c, "ps -p 1 -o comm="), "systemd") && b.run(c, "ls /usr/lib/systemd/system/cloud-init-main.service 2>/dev/null; true") == "" {
					const stages = "journalctl -b -u cloud-init-local -u cloud-init -u cloud-config -u cloud-final -o json | sed -n 's/.*MESSAGE\\\":\\\"Cloud-init v.*running .\\([a-z:-]*\\). at.*/\\1/p'"
					if got := b.run(c, "sudo sh -c \""+stages+"\"; systemctl is-active cloud-init-local cloud-init cloud-config cloud-final; pgrep -fc '^[^ ]*python3? .*/run/bake/cloud-init'; true"); got != "init-local\ninit\nmodules:config\nmodules:final\nactive\nactive\nactive\nactive\n0" {
						t.Errorf("the stages of cloud-init: %s", got)
					}
					ahead := b.run(c, "systemctl show --property=ExecMainStartTimestamp --value bake-cloud-init") != ""
					if want := b.run(c, "nproc") != "1"; ahead != want {
						t.Errorf("cloud-init is loaded ahead: %t, want %t", ahead, want)
					}
					const mounts = "sudo readlink /proc/1/ns/mnt /proc/$(systemctl show -p MainPID --value systemd-logind)/ns/mnt | uniq | wc -l"
					if got := b.run(c, mounts); got != "1" {
						t.Errorf("the login manager has mounts of its own: %q", got)
					}
				}
				if got := b.run(c, "cloud-init query instance_id"); got != spec.ID {
					t.Errorf("cloud-init knows the instance as %q", got)
				}
				if got := b.run(c, "sudo grep 'WARNING.*cloud-config' /var/log/cloud-init.log; true"); got != "" {
					t.Errorf("cloud-init warns: %s", got)
				}
			}
			began = time.Now()
			if err := m.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			t.Logf("stopped in %v", round(time.Since(began)))
			if e := m.Exit(); e.Reason != machine.Stopped || e.Err != nil {
				t.Errorf("exit is %+v", e)
			}
			if left := mountsBelow(b.dir); left != "" {
				t.Errorf("still mounted: %s", left)
			}
		})
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// with returns the bench for a subtest.
func (b *bench) with(t *testing.T) *bench {
	return &bench{t: t, driver: b.driver, dir: b.dir, layers: b.layers, key: b.key, next: b.next}
}

// eachInit runs a subtest for each kind of init.
func (b *bench) eachInit(t *testing.T, test func(t *testing.T, b *bench, init Init)) {
	for _, init := range []Init{InitSystemd, InitBuiltin} {
		t.Run(string(init), func(t *testing.T) {
			d, err := New(Options{Dir: b.dir, Init: init})
			if err != nil {
				t.Fatal(err)
			}
			b := b.with(t)
			b.driver = d
			test(t, b, init)
		})
	}
}

func mountsBelow(dir string) string {
	var found []string
	for line := range strings.Lines(readText("/proc/self/mountinfo")) {
		if strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// metadataService serves the metadata that cloud-init requests on EC2.
func metadataService(spec machine.Spec) http.Handler {
	answers := map[string]string{
		"meta-data/":                            "ami-id\nhostname\ninstance-id\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nplacement/\npublic-keys/",
		"meta-data/ami-id":                      "ami-0123456789abcdef0",
		"meta-data/hostname":                    spec.Hostname,
		"meta-data/instance-id":                 spec.ID,
		"meta-data/instance-type":               "t3.micro",
		"meta-data/local-hostname":              spec.Hostname,
		"meta-data/local-ipv4":                  spec.Network.Private.String(),
		"meta-data/mac":                         network.HardwareAddr(spec.Network.Private).String(),
		"meta-data/placement/":                  "availability-zone",
		"meta-data/placement/availability-zone": "us-east-1a",
		"meta-data/public-keys/":                "0=key",
		"meta-data/public-keys/0/openssh-key":   spec.AuthorizedKeys[0],
		"dynamic/":                              "instance-identity/",
		"dynamic/instance-identity/":            "document",
		"dynamic/instance-identity/document":    `{"region":"us-east-1","instanceId":"` + spec.ID + `"}`,
		"":                                      "meta-data",
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			fmt.Fprint(w, "token")
			return
		}
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		answer, ok := answers[path]
		if !ok {
			answer, ok = answers[path+"/"] // a directory with or without the slash
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, answer)
	})
}

// TestEnds ends a machine in every possible way.
func TestEnds(t *testing.T) {
	b := newBench(t, Options{})
	for command, want := range map[string]machine.Reason{"sudo reboot": machine.Reboot, "sudo poweroff": machine.PowerOff} {
		t.Run(command, func(t *testing.T) {
			b := b.with(t)
			spec := b.spec()
			m := b.start(spec)
			try(b.login(spec), command)
			b.waitEnd(m)
			if got := m.Exit(); got.Reason != want || got.Err != nil {
				t.Errorf("exit is %+v", got)
			}
		})
	}
	t.Run("kill", func(t *testing.T) {
		b := b.with(t)
		m := b.start(b.spec())
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
		if got := m.Exit(); got.Reason != machine.Stopped {
			t.Errorf("exit is %+v", got)
		}
	})
	t.Run("command", func(t *testing.T) {
		b := b.with(t)
		for code, failed := range map[string]bool{"exit 0": false, "exit 3": true} {
			spec := b.spec()
			spec.Command = []string{"/bin/sh", "-c", "echo hello from $$; ip addr; " + code}
			spec.Network = network.Config{}
			m := b.start(spec)
			b.waitEnd(m)
			if got := m.Exit(); got.Reason != machine.PowerOff || (got.Err != nil) != failed {
				t.Errorf("%s: exit is %+v", code, got)
			}
			if text := readText(spec.Console); !strings.HasPrefix(text, "hello from ") || strings.Contains(text, "eth0") {
				t.Errorf("console: %q", text)
			}
		}
	})
	t.Run("no such command", func(t *testing.T) {
		b := b.with(t)
		spec := b.spec()
		spec.Command = []string{"/no/such/thing"}
		if _, err := b.driver.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "/no/such/thing") {
			t.Errorf("error is %v", err)
		}
	})
}

func (b *bench) clone(src, dst string) error {
	b.t.Helper()
	from, err := os.Open(src)
	if err != nil {
		b.t.Fatal(err)
	}
	defer from.Close()
	return b.driver.Clone(b.t.Context(), from, dst)
}

func (b *bench) waitEnd(m machine.Machine) {
	b.t.Helper()
	select {
	case <-m.Done():
	case <-time.After(30 * time.Second):
		b.t.Fatal("the machine does not end")
	}
}

// TestImage makes an image of a machine that has a web server, and boots another
// machine of it.
func TestImage(t *testing.T) {
	b := newBench(t, Options{})
	spec := b.spec()
	m := b.start(spec)
	c := b.login(spec)
	const page = "[Unit]\nDescription=A page\n[Service]\nExecStart=/usr/bin/python3 -m http.server --directory /srv 80\n[Install]\nWantedBy=multi-user.target\n"
	b.run(c, "echo '<h1>Hello</h1>' | sudo tee /srv/index.html; printf '"+strings.ReplaceAll(page, "\n", "\\n")+"' | sudo tee /etc/systemd/system/page.service")
	b.run(c, "sudo systemctl enable page; sudo systemctl start page; sudo systemctl is-active page")
	if got := b.get(spec); got != "<h1>Hello</h1>\n" {
		t.Errorf("the page is %q", got)
	}
	ctx := t.Context()
	began := time.Now()
	if err := m.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(b.dir, "copied")
	if err := b.clone(filepath.Join(spec.Dir, "upper"), copied); err != nil {
		t.Error(err)
	}
	if err := m.Thaw(); err != nil {
		t.Error(err)
	}
	t.Logf("frozen and copied in %v", round(time.Since(began)))
	b.run(c, "true")
	if err := m.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	layer := filepath.Join(b.dir, "layer")
	if err := os.Rename(filepath.Join(spec.Dir, "upper"), layer); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{layer, copied} {
		next := b.spec()
		next.Layers = append([]string{image}, b.layers...)
		began = time.Now()
		m := b.start(next)
		if got := b.get(next); got != "<h1>Hello</h1>\n" {
			t.Errorf("the page of the new machine is %q", got)
		}
		t.Logf("page of a new machine after %v", round(time.Since(began)))
		if b.run(b.login(next), "cat /etc/machine-id") == "" {
			t.Error("no machine id")
		}
		m.Stop(ctx)
	}
	var one, two bytes.Buffer
	began = time.Now()
	if err := b.driver.Pack(ctx, layer, &one); err != nil {
		t.Fatal(err)
	}
	t.Logf("packed %d MB in %v", one.Len()>>20, round(time.Since(began)))
	again := filepath.Join(b.dir, "again")
	if err := b.driver.Unpack(ctx, bytes.NewReader(one.Bytes()), again); err != nil {
		t.Fatal(err)
	}
	if err := b.driver.Pack(ctx, again, &two); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("an unpacked layer packs to other bytes")
	}
}

// get fetches a page from the machine's web server.
func (b *bench) get(spec machine.Spec) string {
	b.t.Helper()
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		r, err := http.Get("http://" + net.JoinHostPort(spec.Network.Public.String(), publicPort(80)) + "/")
		if err != nil {
			last = err
			continue
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err == nil {
			return string(text)
		}
		last = err
	}
	b.t.Fatalf("no page: %v", last)
	return ""
}

// publicPort returns the number under which a machine's port is available.
func publicPort(port int) string {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.255.71.5:%d", port))
	if err != nil {
		return fmt.Sprint(port + 20000)
	}
	l.Close()
	return fmt.Sprint(port)
}

const victimSpec = "BAKE_TEST_VICTIM"

// victimOf is the part of a spec that is passed to a victim.
type victimOf struct {
	ID, Dir  string
	Layers   []string
	Hostname string
	Keys     []string
	Console  string
	Private  netip.Addr
	Subnet   netip.Prefix
	Public   netip.Addr
}

// victim is the main function of a process that runs a machine until it is killed: see
// TestKilledParent.
func victim(text string) {
	var v victimOf
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		log.Fatal(err)
	}
	spec := machine.Spec{
		ID: v.ID, Dir: v.Dir, Layers: v.Layers, Hostname: v.Hostname, First: true, User: "admin", AuthorizedKeys: v.Keys, Console: v.Console,
		Network: network.Config{Private: v.Private, Subnet: v.Subnet, Public: v.Public},
	}
	d, err := New(Options{Dir: filepath.Dir(spec.Dir)})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := d.Start(context.Background(), spec); err != nil {
		log.Fatal(err)
	}
	fmt.Println("up")
	select {}
}

// TestKilledParent kills the process that started a machine: nothing of the machine remains, and
// the next driver removes its control group.
func TestKilledParent(t *testing.T) {
	b := newBench(t, Options{})
	spec := b.spec()
	net := spec.Network
	spec.Network = network.Config{}
	text, err := json.Marshal(victimOf{spec.ID, spec.Dir, spec.Layers, spec.Hostname, spec.AuthorizedKeys, spec.Console, net.Private, net.Subnet, net.Public})
	if err != nil {
		t.Fatal(err)
	}
	spec.Network = net
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimSpec+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("%q, %v", line, err)
	}
	b.run(b.login(spec), "true")
	family := descendants(cmd.Process.Pid)
	if len(family) < 3 {
		t.Errorf("the machine has only the processes %v", family)
	}
	cmd.Process.Kill()
	cmd.Wait()
	err = eventually(t.Context(), 10*time.Second, func() (bool, error) {
		for _, pid := range family {
			if _, err := startTime(pid); err == nil {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Errorf("some of %v are alive: %v", family, err)
	}
	d, err := New(Options{Dir: b.dir})
	if err != nil {
		t.Fatal(err)
	}
	if d.groups.parent != "" {
		if left, _ := filepath.Glob(filepath.Join(d.groups.parent, fmt.Sprintf("%s%d-*", groupPrefix, cmd.Process.Pid))); len(left) > 0 {
			t.Errorf("control groups remain: %v", left)
		}
	}
	if left := mountsBelow(b.dir); left != "" {
		t.Errorf("still mounted: %s", left)
	}
	// The disk is intact.
	spec.First = false
	m, err := d.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	m.Kill()
}

// TestCancelledStart cancels a start at several moments.
func TestCancelledStart(t *testing.T) {
	b := newBench(t, Options{})
	b.start(b.spec()).Kill() // fills caches
	for _, after := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		spec := b.spec()
		m, err := b.driver.Start(ctx, spec)
		cancel()
		if err == nil {
			m.Kill()
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", after, err)
		}
		if children := descendants(os.Getpid()); len(children) > 0 {
			t.Errorf("after %v: processes %v remain", after, children)
		}
	}
}

// TestNetwork tests the network from inside two machines.
func TestNetwork(t *testing.T) {
	b := newBench(t, Options{})
	one, two := b.spec(), b.spec()
	two.Network.Policy = only80{}
	peers := make(map[netip.Addr]machine.Machine)
	one.Network.Peer = func(a netip.Addr) network.Peer {
		if m := peers[a]; m != nil {
			return neighbour{m}
		}
		return nil
	}
	peers[two.Network.Private] = b.start(two)
	m := b.start(one)
	c := b.login(one)
	for command, want := range map[string]string{
		"timeout 5 bash -c 'exec 3<>/dev/tcp/" + two.Network.Private.String() + "/22; head -c 4 <&3'":              "SSH-",
		"timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.2/81' 2>&1 | grep -o refused | head -1":                       "refused",
		"timeout 5 bash -c 'exec 3<>/dev/tcp/172.31.0.1/81' 2>&1 | grep -o refused | head -1":                      "refused",
		"timeout 1 bash -c 'exec 3<>/dev/tcp/172.31.9.9/81' 2>&1; echo $?":                                         "124",
		"sudo sh -c 'echo core > /proc/sys/kernel/core_pattern' 2>&1 | grep -o 'Read-only\\|nonexistent\\|denied'": "Read-only",
	} {
		if got, _ := try(c, command); got != want {
			t.Errorf("%s: %q", command, got)
		}
	}
	if _, err := net.DialTimeout("tcp4", net.JoinHostPort(two.Network.Public.String(), publicPort(22)), time.Second); err == nil {
		t.Error("a port that no group opens is open")
	}

	// Many concurrent connections.
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			conn, err := m.Dial(t.Context(), 22)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			b := make([]byte, 4)
			if _, err := io.ReadFull(conn, b); err != nil { // sshd sends its version or an error
				t.Error(err)
			}
		})
	}
	all.Wait()

	// A server that starts later, on a port in a wide range.
	b.run(c, "echo served > /tmp/index.html; cd /tmp; nohup python3 -m http.server 8123 >/dev/null 2>&1 & sleep 0.1")
	err := eventually(t.Context(), 10*time.Second, func() (bool, error) {
		r, err := http.Get("http://" + one.Network.Public.String() + ":8123/")
		if err != nil {
			return false, nil
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return string(text) == "served\n", err
	})
	if err != nil {
		t.Errorf("port 8123: %v", err)
	}
}

// neighbour is a machine that its neighbours can reach on all ports.
type neighbour struct{ machine.Machine }

func (n neighbour) Dial(ctx context.Context, _ netip.Addr, port uint16) (net.Conn, error) {
	return n.Machine.Dial(ctx, port)
}

type only80 struct{}

func (only80) Ingress(_ network.Proto, _ netip.Addr, port uint16) bool { return port == 80 }
func (only80) Egress(network.Proto, netip.Addr, uint16) bool           { return true }
func (only80) Open() []network.PortRange                               { return []network.PortRange{{From: 80, To: 80}} }

// TestBuiltin boots with the builtin init and SSH server, like images without systemd and sshd.
func TestBuiltin(t *testing.T) {
	b := newBench(t, Options{Init: InitBuiltin, Link: LinkPacket, OldMount: true})
	spec := b.spec()
	m := b.start(spec)
	c := b.login(spec)
	if got := b.run(c, "echo out; pwd; echo $HOME"); got != "out\n/home/admin\n/home/admin" {
		t.Errorf("command: %q", got)
	}
	for command, want := range map[string]int{"exit 7": 7, "kill -9 $$": 137, "nosuchcommand": 127} {
		_, err := try(c, command)
		var exit *ssh.ExitError
		if !errors.As(err, &exit) || exit.ExitStatus() != want && exit.Signal() == "" {
			t.Errorf("%s: %v", command, err)
		}
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 33, 99, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("stty size; tty >/dev/null && echo terminal"); err != nil || strings.Join(strings.Fields(string(out)), " ") != "33 99 terminal" {
		t.Errorf("terminal: %q, %v", out, err)
	}
	files, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	f, err := files.Create("/home/admin/uploaded")
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789"), 1<<20)
	if _, err := f.ReadFrom(bytes.NewReader(content)); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got := b.run(c, "wc -c < uploaded; stat -c %U uploaded"); !strings.HasPrefix(got, fmt.Sprint(len(content))) {
		t.Errorf("upload: %q", got)
	}
	through, err := c.Dial("tcp", "127.0.0.1:22")
	if err != nil {
		t.Fatalf("forwarding: %v", err)
	}
	through.Close()
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSSHUnit checks that the SSH server is a unit under both inits, also for users, and that
// sessions survive its restart.
func TestSSHUnit(t *testing.T) {
	newBench(t, Options{}).eachInit(t, func(t *testing.T, b *bench, _ Init) {
		spec := b.spec()
		m := b.start(spec)
		c := b.login(spec)
		const look = "systemctl is-active ssh; systemctl show -p MainPID --value ssh.service | xargs -I{} cat /proc/{}/comm; systemctl list-units --type=service --state=running | grep -c '^ *ssh.service'"
		if got := b.run(c, look); got != "active\nsshd\n1" {
			t.Errorf("the server is %q", got)
		}
		b.run(c, "sudo systemctl reload ssh")
		b.run(c, "sudo systemctl restart ssh")
		b.run(b.login(spec), "systemctl is-active --quiet ssh")
		if _, err := try(c, "sudo systemctl stop ssh; systemctl is-active --quiet ssh"); err == nil {
			t.Error("it does not stop")
		}
		if conn, err := m.Dial(t.Context(), 22); err == nil {
			conn.Close()
			t.Error("what has stopped answers")
		}
		b.run(c, "sudo systemctl start ssh && systemctl is-active --quiet ssh")
		b.run(b.login(spec), "true")
		if _, err := try(c, "echo Nonsense yes | sudo tee /etc/ssh/sshd_config.d/x.conf; sudo systemctl restart ssh"); err == nil {
			t.Error("it begins with a configuration that is wrong")
		}
	})
}
