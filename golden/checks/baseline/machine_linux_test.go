package baseline_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gossh "golang.org/x/crypto/ssh"

	"bake/cloud/image/imagetest"
	"bake/cloud/machine"
	"bake/cloud/machine/sandbox"
	"bake/cloud/network"
	"bake/communicator"
	"bake/communicator/ssh"
	"bake/golden/checks/baseline"
	"bake/golden/findings"
	"bake/internal/turns"
	"bake/step"
)

func TestMain(m *testing.M) {
	if ran, code := sandbox.Child(os.Args); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// boot boots the Debian base and logs in.
func boot(t *testing.T) communicator.Communicator {
	t.Helper()
	driver, err := sandbox.New(sandbox.Options{Dir: imagetest.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	store, base, err := imagetest.Debian(t.Context(), driver, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := store.Paths(base.Layers)
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	sshKey, err := gossh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "machine-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // a machine's own root must be able to reach its disk
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Remove(context.WithoutCancel(t.Context()), dir); err != nil {
			t.Error(err)
		}
	})
	m, err := driver.Start(t.Context(), machine.Spec{
		ID: "baseline", Dir: dir, Layers: layers, Hostname: "baseline", Console: filepath.Join(t.TempDir(), "console"),
		First: true, User: "admin", AuthorizedKeys: []string{strings.TrimSpace(string(gossh.MarshalAuthorizedKey(sshKey)))},
		Network: network.Config{Private: netip.MustParseAddr("10.0.0.5"), Subnet: netip.MustParsePrefix("10.0.0.0/24"), Metadata: http.HandlerFunc(noToken)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.Kill() // it may have ended
		<-m.Done()
	})
	c, err := ssh.Connect(t.Context(), step.NewScope(step.Scope{Build: "null.test", SourceType: "null", SourceName: "test", Emit: func(step.Event) {}}), &ssh.Options{
		Username: "admin", Timeout: 3 * time.Minute, HostKeyCheck: ssh.Off,
	}, ssh.Target{
		Addr:    func(context.Context) (string, int, error) { return "10.0.0.5", 22, nil },
		Signers: []gossh.Signer{signer},
		Dial:    func(ctx context.Context, _, _ string) (net.Conn, error) { return m.Dial(ctx, 22) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// noToken is a metadata service that asks for a token and gives none: cloud-init fails.
func noToken(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "token required", http.StatusUnauthorized)
}

func root(t *testing.T, m baseline.Machine, script string) string {
	t.Helper()
	var out bytes.Buffer
	if err := m.Run(t.Context(), script, &out); err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out.String())
	}
	return out.String()
}

// tree lists the files of the machine, but those that change by themselves.
func tree(t *testing.T, m baseline.Machine) map[string]string {
	t.Helper()
	files := map[string]string{}
	for l := range strings.Lines(root(t, m, `find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /dev -o -path /tmp -o -path /var/log/journal -o -path /var/cache \
-o -path /var/lib/systemd -o -path /var/lib/cloud -o -path /var/log/sudo.log -o -path /var/log/wtmp -o -path /var/log/lastlog -o -path '/var/log/cloud-init*' \) -prune -o ! -type d -printf '%p|%y %m %u:%g %s %T@ %l\n'`)) {
		path, rest, _ := strings.Cut(strings.TrimSpace(l), "|")
		files[path] = rest
	}
	return files
}

func changed(before, after map[string]string) []string {
	paths := map[string]bool{}
	for p, v := range before {
		paths[p] = after[p] != v
	}
	for p, v := range after {
		paths[p] = before[p] != v
	}
	maps.DeleteFunc(paths, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(paths))
}

// wrongs are ways to break a rule that holds on the base, what remains to be done after its fix
// ("": nothing), and which files the fix changes. Together they are one script.
var wrongs = []struct{ rule, wrong, left, files string }{
	{"ssh-kbdint-auth", "conf KbdInteractiveAuthentication yes", "", ""},
	{"ssh-empty-passwords", "conf PermitEmptyPasswords yes", "", ""},
	{"ssh-hostbased", "conf HostbasedAuthentication yes", "", ""},
	{"ssh-user-environment", "conf PermitUserEnvironment yes", "", ""},
	{"ssh-strict-modes", "conf StrictModes no", "", ""},
	{"ssh-log-level", "conf LogLevel QUIET", "", ""},
	{"ssh-ciphers", "conf Ciphers aes128-cbc,aes128-ctr", "", ""},
	{"ssh-kex", "conf KexAlgorithms diffie-hellman-group14-sha1,curve25519-sha256", "", ""},
	{"ssh-password-auth", "printf 'Match User admin\\n\\tPasswordAuthentication yes\\n' >/etc/ssh/sshd_config.d/70-match.conf; chmod 600 /etc/ssh/sshd_config.d/*", "for admin (set in", ""},
	{"ssh-hostkey-mode", "chmod 644 /etc/ssh/ssh_host_ed25519_key", "", "/etc/ssh/ssh_host_ed25519_key"},
	{"pam-hash", "sed -i 's/^ENCRYPT_METHOD.*/ENCRYPT_METHOD MD5/' /etc/login.defs", "", "/etc/login.defs"},
	{"sudo-use-pty", "sed -i /use_pty/d /etc/sudoers", "", "/etc/sudoers.d/zz-bake-baseline"},
	{"sudo-env", "sed -i /secure_path/d /etc/sudoers", "", ""},
	{"sudo-authenticate", "echo 'Defaults:nobody !authenticate' >/etc/sudoers.d/x; chmod 440 /etc/sudoers.d/x", "Defaults:nobody !authenticate", ""},
	{"sudo-files-mode", "chmod 644 /etc/sudoers.d/README", "", "/etc/sudoers.d/README"},
	{"account-uid0", "echo 'toor:x:0:0::/:/usr/sbin/nologin' >>/etc/passwd", "toor", ""},
	{"account-empty-password", "useradd -m -s /bin/bash t1; passwd -d t1", "", "/etc/shadow"},
	{"account-root-locked", "usermod -p '$6$x$y' root", "", ""},
	{"account-system-shell", "usermod -s /bin/sh games", "", "/etc/passwd /etc/passwd-"},
	{"account-unique-ids", "echo 'dup:x:1000:' >>/etc/group", "ID in group: 1000", ""},
	{"account-dotfiles", "touch /home/admin/.x; chmod 666 /home/admin/.x; ln -s /etc/issue /home/admin/.link", "", "/home/admin/.x"},
	{"account-root-path", "echo 'PATH=.:$PATH' >/etc/profile.d/zz.sh", "PATH has .", ""},
	{"account-shadow-group", "usermod -aG shadow admin", "members: admin", ""},
	{"file-passwd-mode", "chmod 666 /etc/group", "", "/etc/group"},
	{"file-shadow-mode", "chmod 644 /etc/shadow", "", "/etc/shadow- /etc/gshadow"},
	{"file-world-writable", "touch '/opt/w w'; chmod 666 '/opt/w w'", "", "/opt/w w"},
	{"file-sticky-dirs", "mkdir -m 777 /opt/d", "", ""},
	{"file-unowned", "touch /opt/u; chown 4242:4242 /opt/u", "/opt/u", ""},
	{"file-suid", "cp /bin/true /opt/s; chmod 4755 /opt/s", "/opt/s belongs to no package", ""},
	{"file-system-dirs", "touch /usr/local/bin/g; chmod 775 /usr/local/bin/g", "", "/usr/local/bin/g"},
	{"net-syncookies", "sysctl -qw net.ipv4.tcp_syncookies=0", "", ""},
	{"net-icmp", "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0", "", ""},
	{"net-forwarding", "sysctl -qw net.ipv4.ip_forward=1", "", ""},
	{"service-ports", "printf '[Socket]\\nListenStream=8099\\n' >/etc/systemd/system/lst.socket; cp /etc/systemd/system/lst.socket /etc/systemd/system/mta.socket; sed -i s/8099/25/ /etc/systemd/system/mta.socket; printf '[Service]\\nExecStart=/bin/true\\n' | tee /etc/systemd/system/lst.service >/etc/systemd/system/mta.service; systemctl daemon-reload; systemctl start lst.socket mta.socket", ":8099", ""},
	{"service-mta-local", "true", "bind it to 127.0.0.1 yourself", ""},
	{"service-failed", "systemd-run -q --wait --unit=bad /bin/false || true", ".service", ""},
	{"service-unneeded", "printf '[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/snmpd.service; systemctl -q enable snmpd", "", "/etc/systemd/system/multi-user.target.wants/snmpd.service"},
	{"pkg-signed", `echo 'APT::Get::AllowUnauthenticated "true";' >/etc/apt/apt.conf.d/99x`, "remove the option yourself", ""},
	{"log-persistent", "mkdir -p /etc/systemd/journald.conf.d; printf '[Journal]\\nStorage=volatile\\n' >/etc/systemd/journald.conf.d/10-x.conf", "", "/etc/systemd/journald.conf.d/99-zz-bake-baseline-storage.conf"},
	{"cloud-init-pwauth", "echo 'ssh_pwauth: true' >/etc/cloud/cloud.cfg.d/98-x.cfg", "", "/etc/cloud/cloud.cfg.d/99-zz-bake-baseline-login.cfg"},
	{"cloud-init-data-mode", "mkdir -p /var/lib/cloud/instance; touch /var/lib/cloud/instance/user-data.txt; chmod 644 /var/lib/cloud/instance/user-data.txt", "", ""},
	{"cloud-init-datasource", "echo 'datasource_list: [ NoCloud, Ec2 ]' >/etc/cloud/cloud.cfg.d/98-y.cfg", "", "/etc/cloud/cloud.cfg.d/99-zz-bake-baseline-sources.cfg"},
	{"time-zone-utc", "ln -sf /usr/share/zoneinfo/Europe/Berlin /etc/localtime", "", "/etc/localtime /etc/timezone"},
	{"banner-mode", "chmod 666 /etc/issue", "", "/etc/issue"},
	{"crypto-policy", "echo 'MinProtocol = TLSv1' >>/etc/ssl/openssl.cnf", "change /etc/ssl/openssl.cnf yourself", ""},
	{"core-dumps", "echo '* hard core unlimited' >/etc/security/limits.d/99-x.conf", "", "/etc/security/limits.d/99-zz-bake-baseline.conf"},
}

// broken at first: rules that the base violates, with the files that their fixes change. Fixes
// that download packages are left to the example that bakes a hardened image.
var stock = map[string]string{
	"ssh-root-login": "", "ssh-max-auth-tries": "", "ssh-login-grace": "", "ssh-max-startups": "", "ssh-idle": "", "ssh-x11": "", "ssh-macs": "",
	"ssh-forwarding": "", "ssh-access-list": "/etc/ssh/sshd_config.d/00-bake-baseline.conf",
	"ssh-config-mode": "/etc/ssh/sshd_config",
	"pam-nullok":      "/etc/pam.d/common-auth",
	"pam-faillock":    "/etc/security/faillock.conf /usr/share/pam-configs/bake-faillock /usr/share/pam-configs/bake-faillock-notify /etc/pam.d/common-account /etc/pam.d/common-password /etc/pam.d/common-session /etc/pam.d/common-session-noninteractive /var/lib/pam/account /var/lib/pam/auth /var/lib/pam/password /var/lib/pam/seen /var/lib/pam/session /var/lib/pam/session-noninteractive",
	"pam-pwhistory":   "/usr/share/pam-configs/bake-pwhistory",
	"pw-aging":        "", "umask-default": "", "su-wheel": "/etc/pam.d/su",
	"shell-timeout": "/etc/profile.d/zz-bake-baseline-tmout.sh", "sudo-logfile": "",
	"account-home-mode": "", "net-redirects": "", "net-source-route": "", "net-rp-filter": "", "net-martians": "",
	"net-ipv6-ra":          "/etc/sysctl.d/99-zz-bake-baseline.conf",
	"service-ctrl-alt-del": "/etc/systemd/system/ctrl-alt-del.target",
	"log-limit":            "/etc/systemd/journald.conf.d/99-zz-bake-baseline-limit.conf",
	"cron-mode":            "/etc/crontab", "cron-allow": "/etc/cron.allow",
	"banner-os-info": "/etc/issue.net", "core-dumps": "",
	"mount-tmp": "/etc/systemd/system/tmp.mount /etc/systemd/system/local-fs.target.wants/tmp.mount",
}

// TestOnMachine breaks everything possible on a machine: each of the rules fails, the fixes repair
// what they can and change nothing else, the user can still log in, and the second time nothing
// changes.
func TestOnMachine(t *testing.T) {
	if os.Getenv("BAKE_TEST_MACHINES") != "1" {
		t.Skip("set BAKE_TEST_MACHINES=1 to boot a machine")
	}
	turns.Skip(t, 6)
	m := baseline.On(boot(t))
	all := baseline.Selection{Levels: []int{1, 2}, Except: []string{"pkg-updates", "pkg-auto-updates", "pam-pwquality", "pkg-valid-until", "firewall"}}
	root(t, m, "cloud-init status --wait >/dev/null 2>&1; exit 0")
	before, err := baseline.Check(t.Context(), m, all)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]string{"sudo-nopasswd": "NOPASSWD for admin"}
	may := map[string]bool{}
	allow := func(files string) {
		for f := range strings.FieldsSeq(files) {
			may[f] = true
		}
	}
	failing := slices.Collect(maps.Keys(stock))
	for _, files := range stock {
		allow(files)
	}
	expect(t, "stock", before, func(f findings.Finding) bool {
		_, is := stock[f.ID]
		// A base from before, and what cloud-init, which found no data, has done and not done.
		may := []string{"cloud-init-hostkeys", "file-log-mode", "sudo-files-mode", "service-failed"}
		return is || f.ID == "sudo-nopasswd" || slices.Contains(may, f.ID) && f.Result == findings.Fail
	})

	script := "set -e\nconf() { echo \"$@\" >>/etc/ssh/sshd_config.d/40-wrong.conf; }\n"
	for _, w := range wrongs {
		script += "{ " + w.wrong + "; } >&2\n"
		failing = append(failing, w.rule)
		allow(strings.ReplaceAll(w.files, "/opt/w w", ""))
		may["/opt/w w"] = true
		if w.left != "" {
			left[w.rule] = w.left
		}
	}
	allow("/etc/cloud/cloud.cfg.d/99-zz-bake-baseline-keys.cfg /etc/tmpfiles.d/bake-baseline.conf")
	root(t, m, script)
	files := tree(t, m)
	broken, err := baseline.Check(t.Context(), m, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range broken.Findings {
		if f.Result != findings.Fail && slices.Contains(failing, f.ID) {
			t.Errorf("broken: %s: %s %s", f.ID, f.Result, f.Evidence)
		}
	}

	after, err := baseline.Remediate(t.Context(), m, all, broken)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range after.Findings {
		switch why, stays := left[f.ID]; {
		case stays && (f.Result != findings.Fail || !strings.Contains(f.Evidence, why)):
			t.Errorf("after the fixes: %s: %s %s, want a failure with %q", f.ID, f.Result, f.Evidence, why)
		case !stays && f.Result == findings.Fail || f.Result == findings.Error:
			t.Errorf("after the fixes: %s: %s %s", f.ID, f.Result, f.Evidence)
		case !stays && slices.Contains(failing, f.ID) && f.Result != findings.Fixed:
			t.Errorf("after the fixes: %s: %s", f.ID, f.Result)
		}
	}
	fixed := tree(t, m)
	var more []string
	for _, p := range changed(files, fixed) {
		if !may[p] {
			more = append(more, p)
		}
	}
	if len(more) > 0 {
		t.Errorf("the fixes also changed %s", strings.Join(more, ", "))
	}

	// The same fixes once more, as if nothing had been done.
	if _, err := baseline.Remediate(t.Context(), m, all, broken); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string(nil), changed(fixed, tree(t, m))); d != "" {
		t.Errorf("fixed again: %s", d)
	}
	if got := root(t, m, "readlink /home/admin/.link; stat -Lc %a /dev/null; ls -d /run/bake-* 2>/dev/null; systemctl is-active ssh"); got != "/etc/issue\n666\nactive\n" {
		t.Errorf("got %q", got)
	}

	// Nobody can log in: what decides that is removed again.
	if _, err := baseline.Remediate(t.Context(), &lockedOut{Machine: m}, all, broken); err == nil || !strings.Contains(err.Error(), "locked out") {
		t.Errorf("got %v", err)
	}
	if got := root(t, m, "ls /etc/ssh/sshd_config.d/*bake* /etc/sudoers.d/*bake-baseline* /etc/sysctl.d/*bake* /usr/share/pam-configs/bake* 2>/dev/null; grep -l faillock /etc/pam.d/*; exit 0"); got != "" {
		t.Errorf("left behind: %s", got)
	}
	if err := m.LogIn(t.Context()); err != nil {
		t.Error(err)
	}
}

// lockedOut accepts one login and refuses all later ones.
type lockedOut struct {
	baseline.Machine
	logins int
}

func (l *lockedOut) LogIn(context.Context) error {
	if l.logins++; l.logins == 1 {
		return nil
	}
	return fmt.Errorf("locked out: %w", io.EOF)
}

func expect(t *testing.T, when string, r findings.Report, fails func(findings.Finding) bool) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Result == findings.Error || (f.Result == findings.Fail) != fails(f) {
			t.Errorf("%s: %s: %s %s", when, f.ID, f.Result, f.Evidence)
		}
	}
}
