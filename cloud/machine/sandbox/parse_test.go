package sandbox

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

func TestLargestRange(t *testing.T) {
	const file = "# comment\nann:100000:65536\nann:300000:70000\nann:x:99999\n1007:500000:10\nbad:x:y\nbob:1\n"
	for _, c := range []struct {
		name         string
		uid          int
		first, count int
	}{{"ann", 1000, 300000, 70000}, {"eve", 1007, 500000, 10}, {"bad", 1, 0, 0}, {"bob", 1, 0, 0}, {"nobody", 2, 0, 0}} {
		if first, count, err := largestRange(strings.NewReader(file), c.name, c.uid); err != nil || first != c.first || count != c.count {
			t.Errorf("%s: %d, %d, %v", c.name, first, count, err)
		}
	}
}

func TestRangeWithin(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []syscall.SysProcIDMap
	}{
		"host":   {"         0          0 4294967295\n", []syscall.SysProcIDMap{{ContainerID: 0, HostID: rangeBase, Size: rangeSize}}},
		"nested": {"0 1048576 65536\n", []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}},
		"two":    {"0 1000 1\n1 100000 65536\n", []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 1, HostID: 1, Size: 65536}}},
	} {
		path := filepath.Join(t.TempDir(), "uid_map")
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := rangeWithin(path); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestCgroup2Mount(t *testing.T) {
	for want, text := range map[string]string{
		"/sys/fs/cgroup":         "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
		"/sys/fs/cgroup/unified": "39 30 0:36 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
		"/odd name":              "40 30 0:37 / /odd\\040name rw - cgroup2 cgroup2 rw\n",
		"":                       "40 30 0:37 / /cgroup2 rw - tmpfs cgroup2 rw\nshort - cgroup2\n",
	} {
		if got := cgroup2Mount(strings.NewReader(text)); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestStartTime(t *testing.T) {
	own, err := startTime(os.Getpid())
	if err != nil || own == 0 {
		t.Errorf("%d, %v", own, err)
	}
	if _, err := startTime(1 << 30); err == nil {
		t.Error("a process that cannot be has a start time")
	}
}

func TestListedPorts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	loopback := "0100007F"
	if !littleEndian() {
		loopback = "7F000001"
	}
	four := write("tcp", "  sl  local_address rem_address   st\n"+
		"   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n"+
		"   1: "+loopback+":0050 00000000:0000 0A 00000000:00000000\n"+
		"   2: 0500A8C0:01BB 0600A8C0:C350 01 00000000:00000000\n")
	six := write("tcp6", "  sl  local_address\n"+
		"   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0\n"+
		"   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n"+
		"   2: garbage\n")
	got, err := listedPorts(four, six, filepath.Join(dir, "none"))
	if err != nil || !slices.Equal(got, []uint16{22, 8080}) {
		t.Errorf("%v, %v", got, err)
	}
}

// The kernel's two ways to list listening ports agree, and ports of loopback are in neither.
func TestListeningPorts(t *testing.T) {
	open, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	hidden, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hidden.Close()
	for how, ports := range map[string]func() ([]uint16, error){
		"diagnosed": diagnosedPorts,
		"listed": func() ([]uint16, error) {
			return listedPorts("/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6")
		},
		"listening": listeningPorts,
	} {
		got, err := ports()
		if how == "diagnosed" && errors.Is(err, unix.ENOENT) {
			continue // this kernel does not offer it
		}
		if err != nil || !slices.Contains(got, portOf(open)) || slices.Contains(got, portOf(hidden)) {
			t.Errorf("%s: %v, %v, not %d but %d", how, got, err, portOf(hidden), portOf(open))
		}
	}
}

func portOf(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

func TestCommonDir(t *testing.T) {
	for want, paths := range map[string][]string{
		"/a":    {"/a/b", "/a/c"},
		"/a/b":  {"/a/b/c", "/a/b/d/e", "/a/b/f"},
		"/":     {"/a/b", "/c/d"},
		"/x":    {"/x/i", "/x/ii", "/x/i/j"},
		"/long": {"/long/er", "/long/est"},
	} {
		if got := commonDir(paths); got != want {
			t.Errorf("%v: %s, not %s", paths, got, want)
		}
	}
}

func TestWithoutBefore(t *testing.T) {
	const unit = "[Unit]\nBefore=sshd.service network-online.target\n Before=cloud-config.service shutdown.target\nBefore=sysinit.target\nAfter=cloud-init-local.service\n[Service]\nExecStart=/bin/true\n"
	const want = "[Unit]\nBefore=network-online.target\nBefore=cloud-config.service\nBefore=shutdown.target\nAfter=cloud-init-local.service\n[Service]\nExecStart=/bin/true\n"
	if got := withoutBefore(unit); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestWithoutDisks(t *testing.T) {
	const table = "# <file system> <mount point>\nUUID=1-2 / ext4 defaults 0 1\nPARTUUID=3 /boot/efi vfat defaults 0 0\n/dev/vdb /data ext4 nofail 0 2\nnone none swap sw 0 0\ntmpfs /tmp tmpfs nosuid,noexec 0 0"
	if got := withoutDisks(table); got != "tmpfs /tmp tmpfs nosuid,noexec 0 0\n" {
		t.Errorf("got %q", got)
	}
}

func TestUnit(t *testing.T) {
	u := &unit{name: "web@one.service", values: make(map[string][]string)}
	const text = "# comment\n[Unit]\nDescription=Web %i\n[Service]\nExecStart=/bin/a \\\n  --long\nExecStart=\nExecStart=-/bin/b $MAINPID\nEnvironment=\"A=1\" B=2\nnonsense\n"
	if err := u.read(strings.NewReader(text), strings.NewReplacer("%i", "one")); err != nil {
		t.Fatal(err)
	}
	if u.get("Unit.Description") != "Web one" || len(u.values["Service.ExecStart"]) != 1 || u.kind() != "simple" {
		t.Errorf("%+v", u.values)
	}
	cmd, mayFail, err := u.command(u.get("Service.ExecStart"), 42)
	if err != nil || !mayFail || cmd.Args[2] != "exec /bin/b 42" || !slices.Contains(cmd.Env, "A=1") || !slices.Contains(cmd.Env, "B=2") {
		t.Errorf("%v, %v, %v", cmd, mayFail, err)
	}
	for name, want := range map[string][2]string{"a.service": {"a.service", ""}, "getty@tty1.service": {"getty@.service", "tty1"}} {
		if template, instance := splitTemplate(name); template != want[0] || instance != want[1] {
			t.Errorf("%s: %s, %s", name, template, instance)
		}
	}
	// A continued line ends at an empty line or at the end of the file.
	u = &unit{values: make(map[string][]string)}
	if err := u.read(strings.NewReader("[Service]\nExecStart=/bin/a \\\n\nType=forking\nUser=web \\\n"), strings.NewReplacer()); err != nil {
		t.Fatal(err)
	}
	if got := u.get("Service.ExecStart") + "," + u.get("Service.Type") + "," + u.get("Service.User"); got != "/bin/a,forking,web" {
		t.Errorf("unit = %q, want /bin/a,forking,web", got)
	}
}

func TestAppendLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte("one\ntwo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := appendLines(path, []string{"two", " three ", "", "on"}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "one\ntwo\nthree\non\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestHostKeys(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh_host_rsa_key"), []byte("inherited"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := newHostKeys(dir, "ip-10-0-0-5")
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if exists(filepath.Join(dir, "ssh_host_rsa_key")) {
		t.Error("an inherited key is left")
	}
	console := hostKeyLines(keys, "ip-10-0-0-5")
	public, err := os.ReadFile(filepath.Join(dir, "ssh_host_ed25519_key.pub"))
	if err != nil || !strings.Contains(console, "-----BEGIN SSH HOST KEY KEYS-----\n") || !strings.Contains(console, string(public)) {
		t.Errorf("the console shows\n%s", console)
	}
	// At later boots the keys on disk are shown, whatever else the machine has put there.
	for name, text := range map[string]string{
		"ssh_host_dsa_key.pub":   "no key",
		"ssh_host_large_key.pub": strings.Repeat("x", 1<<20),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "ssh_host_fifo_key.pub"), 0o644); err != nil {
		t.Fatal(err)
	}
	if again := hostKeyLines(hostKeysIn(dir), "ip-10-0-0-5"); again != console {
		t.Errorf("at a later boot the console shows\n%s, want\n%s", again, console)
	}
	if none := hostKeyLines(hostKeysIn(t.TempDir()), "ip-10-0-0-5"); none != "" {
		t.Errorf("without keys the console shows %q", none)
	}
}

// TestKeyKind: as ssh-keygen -l prints them.
func TestKeyKind(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, key := range map[string]any{"2048 RSA": &rsaKey.PublicKey, "384 ECDSA": &ecKey.PublicKey, "256 ED25519": edKey} {
		public, err := ssh.NewPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		bits, name := keyKind(public)
		if got := fmt.Sprint(bits, " ", name); got != want {
			t.Errorf("a key of %s is shown as %s", want, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	for want, m := range map[string]*running{
		"stopped":   {stopping: true, ending: &ending{Signal: 9}},
		"reboot":    {ending: &ending{Signal: int(unix.SIGHUP)}},
		"power-off": {ending: &ending{Signal: int(unix.SIGINT)}},
		"crashed":   {ending: &ending{Signal: int(unix.SIGSEGV)}},
	} {
		if got := m.verdict(); string(got.Reason) != want || (got.Err != nil) != (want == "crashed") {
			t.Errorf("%s: %+v", want, got)
		}
	}
	if got := (&running{}).verdict(); string(got.Reason) != "crashed" {
		t.Errorf("a machine whose shim died: %+v", got)
	}
}

func TestCheck(t *testing.T) {
	d, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range d.Check(t.Context()) {
		t.Logf("%-22s ok=%v fatal=%v %s; %s", f.Name, f.OK, f.Fatal, f.Detail, f.Remedy)
		if f.Name == "" || f.Detail == "" || f.OK != (f.Remedy == "") {
			t.Errorf("finding %+v", f)
		}
	}
}

// TestCheckInterrupted checks that the finding of an interrupted check has no remedy and does not
// count as a reason why machines cannot start.
func TestCheckInterrupted(t *testing.T) {
	d, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	for _, f := range d.Check(ctx) {
		if f.Name == "user namespaces" && (f.OK || f.Fatal || f.Detail != "the check was interrupted: enough" || f.Remedy != "") {
			t.Errorf("%+v", f)
		}
	}
	failed := errors.New("no room")
	for name, ctx := range map[string]context.Context{"before": ctx, "during": &endsLater{Context: ctx, looks: 1}} {
		err := d.explain(ctx, failed)
		if !errors.Is(err, failed) || strings.Contains(err.Error(), "this host") || name == "during" && !errors.Is(err, enough) {
			t.Errorf("a start that is cancelled %s the search for a reason: %v", name, err)
		}
	}
}

// endsLater is a context that has ended when its error is queried for the second time.
type endsLater struct {
	context.Context
	looks int
}

func (c *endsLater) Err() error {
	if c.looks > 0 {
		c.looks--
		return nil
	}
	return c.Context.Err()
}

// TestCheckClosedHome checks a state directory that does not exist yet, below a home directory that
// the machines' root cannot enter, as is common for root's.
func TestCheckClosedHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's machines have a root to whom the home is closed")
	}
	open, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if f := open.checkOverlay(t.Context()); !f.OK {
		t.Skip("no overlay works here: ", f.Detail)
	}
	home := t.TempDir()
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	closed, err := New(Options{Dir: filepath.Join(home, "share", "cloud")})
	if err != nil {
		t.Fatal(err)
	}
	if f := closed.checkOverlay(t.Context()); !f.OK {
		t.Errorf("%+v", f)
	}
}

// TestFuseRemedies checks the remedies for hosts with and without FUSE. This host must either show
// machines their own size or have one of the remedies.
func TestFuseRemedies(t *testing.T) {
	without, with := fuseRemedy("nodev\tproc\n\text4\n"), fuseRemedy("nodev\tproc\n\tfuseblk\nnodev\tfuse\n")
	if fuseRemedy("\tfuseblk\n") != without || !strings.HasPrefix(without, "modprobe fuse") || !strings.HasPrefix(with, "chmod 0666 /dev/fuse") {
		t.Errorf("%s; %s", without, with)
	}
	d, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	f := d.checkFuse(t.Context())
	if f.Fatal || !strings.Contains(f.Detail, "/proc/meminfo") || !f.OK && f.Remedy != with && f.Remedy != without {
		t.Errorf("%+v", f)
	}
	if left, _ := os.ReadDir(d.options.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestForcedModes(t *testing.T) {
	if _, err := New(Options{Mode: "other"}); err == nil {
		t.Error("an unknown mode is accepted")
	}
	if os.Geteuid() != 0 {
		if _, err := New(Options{Mode: ModeRange}); err == nil {
			t.Error("a user may take a range")
		}
	}
}
