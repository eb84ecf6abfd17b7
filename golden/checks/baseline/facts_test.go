package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bake/golden/findings"
	"bake/internal/turns"
)

// facts is a machine whose configuration is below a directory of this host, and whose programs
// are those of the host and, before these, those in "bin" of the directory.
type facts struct{ dir, family, more string }

func (f facts) Run(ctx context.Context, script string, out io.Writer) error {
	at := strings.LastIndex(strings.TrimSuffix(script, "\nexit\n"), "\n")
	script = strings.NewReplacer("/etc/", f.dir+"/etc/", "/boot/", f.dir+"/boot/", "/proc/cmdline", f.dir+"/cmdline",
		"/run/systemd/", f.dir+"/none/", "/usr/lib/systemd/", f.dir+"/none/", " /lib/systemd/", " "+f.dir+"/none/",
		"/var/lib/apt/", f.dir+"/apt/", "/var/lib/dpkg/", f.dir+"/dpkg/").Replace(script[:at+1]) +
		"learn_system() { family=" + f.family + " virtual=none distribution='Amazon Linux 2023.6'; }\nPATH='" + f.dir + "/bin':$PATH\n" + f.more + "\n" + script[at+1:]
	cmd := exec.CommandContext(ctx, "sh", "-s")
	cmd.Stdin, cmd.Stdout = strings.NewReader(script), out
	return cmd.Run()
}

func (facts) LogIn(context.Context) error { return nil }

// machineOf writes files, and programs as shell scripts; MACHINE in them is the directory.
func machineOf(t *testing.T, family string, files map[string]string) facts {
	t.Helper()
	f := facts{dir: t.TempDir(), family: family}
	for path, text := range files {
		path = filepath.Join(f.dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o666)
		if filepath.Dir(path) == filepath.Join(f.dir, "bin") {
			mode = 0o755
			if !strings.HasPrefix(text, "#!") {
				text = "#!/bin/sh\n" + text
			}
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "MACHINE", f.dir)), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

const passwd = "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\n"

// goodUnits is a systemctl that knows of some units.
const goodUnits = "case $1 in list-unit-files) echo 'multi-user.target static'; echo 'snmpd.service generated' ;; is-enabled|-q) exit 0 ;; esac\n"

// TestFacts: the results of rules for given facts of a machine.
func TestFacts(t *testing.T) {
	onLinux(t)
	t.Parallel()
	sshd := func(match, program string) map[string]string {
		return map[string]string{"etc/passwd": passwd, "etc/group": "root:x:0:\n", "etc/ssh/sshd_config": match, "bin/sshd": program}
	}
	const askAnn = "case $* in *user=ann,*) echo passwordauthentication yes; echo clientaliveinterval 900; echo clientalivecountmax 3 ;; *) echo passwordauthentication no; echo clientaliveinterval 300; echo clientalivecountmax 3 ;; esac\n"
	askAt := func(connection string) string { // passwords are accepted there
		return "case $* in *,\"" + connection + "\"*) echo passwordauthentication yes ;; *) echo passwordauthentication no ;; esac\n"
	}
	included := func(line string) map[string]string {
		files := sshd(line, askAt("addr=10.0.0.7,"))
		files["etc/ssh/more/a.conf"] = "Include more/b\n"
		files["etc/ssh/more/b"] = "Match Address 10.0.0.7\nInclude more/a.conf\n"
		return files
	}
	addresses := ""
	for i := range 200 {
		addresses += fmt.Sprintf("10.1.0.%d,", i)
	}
	addresses += "10.2.0.0/16"
	pam := func(files ...string) map[string]string {
		all := map[string]string{"etc/passwd": passwd, "etc/group": "root:x:0:\n"}
		for i := 0; i < len(files); i += 2 {
			all["etc/"+files[i]] = files[i+1]
		}
		return all
	}
	const quality = "password requisite pam_pwquality.so retry=3\n"
	const lock = "auth required pam_faillock.so preauth\nauth [default=die] pam_faillock.so authfail\n"
	sudo := func(text string) map[string]string {
		return map[string]string{"etc/sudoers": text, "bin/sudo": ""}
	}
	many := passwd
	for i := range 101 {
		many += fmt.Sprintf("u%d:x:%d:100::/home/u:/bin/sh\n", i, 2000+i)
	}
	repo := func(conf, repo string) map[string]string {
		return map[string]string{"etc/dnf/dnf.conf": conf, "etc/yum.repos.d/a.repo": repo}
	}
	apt := func(list string) map[string]string {
		return map[string]string{"etc/apt/sources.list.d/a.list": list, "etc/apt/sources.list.d/a.sources": list, "bin/apt-config": ""}
	}
	cloud := func(list string) map[string]string {
		return map[string]string{"bin/cloud-init": "#!MACHINE/bin/python\n", "bin/python": "echo \"datasource_list " + list + "\"\n"}
	}
	getty := func(line string) map[string]string {
		return map[string]string{"etc/systemd/system/serial-getty@hvc0.service.d/x.conf": "[Service]\nExecStart=\n" + line + "\n"}
	}
	for i, test := range []struct {
		rule, family string
		files        map[string]string
		want         findings.Result
		text         string
	}{
		{"service-ports", "deb", map[string]string{"bin/ss": "exit 1"}, findings.Error, "ss fails"},
		{"service-mta-local", "deb", map[string]string{"bin/ss": "exit 1"}, findings.Error, "ss fails"},
		{"service-mta-local", "deb", map[string]string{"bin/ss": "echo 'tcp LISTEN 0 9 127.0.0.1:25 0.0.0.0:*'"}, findings.Pass, ""},
		{"service-mta-local", "deb", map[string]string{"bin/ss": "echo 'tcp LISTEN 0 9 0.0.0.0:25 0.0.0.0:*'"}, findings.Fail, "tcp/0.0.0.0:25"},
		{"service-unneeded", "deb", map[string]string{"bin/systemctl": goodUnits}, findings.Fail, "snmpd.service"},
		{"service-unneeded", "deb", map[string]string{"bin/systemctl": strings.Replace(goodUnits, "-q) exit 0", "-q) exit 1", 1)}, findings.Pass, ""},

		{"ssh-password-auth", "deb", sshd("Port 22\n", askAnn), findings.Pass, ""},
		{"ssh-password-auth", "deb", sshd("Match User ann\n", askAnn), findings.Fail, "for ann"},
		{"ssh-password-auth", "deb", sshd("\"Match\" User ann\n", askAnn), findings.Fail, "for ann"},
		{"ssh-password-auth", "deb", map[string]string{"etc/ssh/sshd_config": "Match User ann\n", "bin/sshd": askAnn}, findings.Error, "cannot read"},
		{"ssh-password-auth", "deb", map[string]string{"etc/passwd": many, "etc/group": "", "etc/ssh/sshd_config": "Match User u\n", "bin/sshd": askAnn}, findings.Error, "102 users"},
		{"ssh-password-auth", "deb", sshd("Match Address 10.0.0.0/8\n", askAt("addr=10.0.0.0,")), findings.Fail, "for root at addr=10.0.0.0; passwordauthentication yes for others at addr=10.0.0.0; "},
		{"ssh-password-auth", "deb", sshd("Match Address=\"*,!10.1.0.0/16\" # not ours\n", askAt("addr=198.51.100.1,")), findings.Fail, "for ann at addr=198.51.100.1"},
		{"ssh-password-auth", "deb", sshd("Match Address *,!10.1.0.0/16\n", askAt("addr=10.1.0.0,")), findings.Fail, "for ann at addr=10.1.0.0"},
		{"ssh-password-auth", "deb", sshd("match address 192.168.7*,fd00:1:*\n", askAt("addr=192.168.71.1,")), findings.Fail, "for ann at addr=192.168.71.1"},
		{"ssh-password-auth", "deb", sshd("match address 192.168.7*,fd00:1:*\n", askAt("addr=fd00:1::1,")), findings.Fail, "for ann at addr=fd00:1::1"},
		{"ssh-password-auth", "deb", sshd("Match User bob LocalPort 2222 Host *.example.com\n", askAt("host=x.example.com,addr=192.0.2.1,laddr=192.0.2.2,lport=2222")), findings.Fail, "for ann at lport=2222,host=x.example.com"},
		{"ssh-password-auth", "deb", sshd("Match LocalAddress 10.0.0.?\n", askAt("laddr=10.0.0.1,")), findings.Fail, "for ann at laddr=10.0.0.1"},
		{"ssh-password-auth", "deb", included("Include more/*.conf\n"), findings.Fail, "for ann at addr=10.0.0.7"},
		{"ssh-password-auth", "deb", included("Include \"MACHINE/etc/ssh/more/a.conf\" /etc/ssh/none\n"), findings.Fail, "for ann at addr=10.0.0.7"},
		{"ssh-password-auth", "deb", sshd("Match RDomain vrf1\n", askAt("lport=22,rdomain=vrf1")), findings.Fail, "for ann at rdomain=vrf1"},
		{"ssh-password-auth", "deb", sshd("Match Address 10.0.0.1 User bob\nMatch all\n", askAt("addr=10.0.0.2,")), findings.Pass, ""},
		{"ssh-password-auth", "deb", sshd("Match Weather rain\n", askAt("x")), findings.Error, "a Match block with weather, which the check does not know"},
		{"ssh-password-auth", "deb", sshd("Match Address "+strings.Repeat("10.0.0.1,", 200)+"10.0.0.2 LocalPort 1\nMatch Address "+addresses+"\n", askAt("x")), findings.Error, "combinations of users and connections"},
		{"ssh-root-login", "deb", sshd("Match Address 10.0.0.1\n", "case $* in *addr=10.0.0.1,*) echo permitrootlogin yes ;; *) echo permitrootlogin no ;; esac"), findings.Fail, "for root at addr=10.0.0.1"},
		{"ssh-access-list", "deb", sshd("Match LocalPort 2\n", "case $* in *lport=2) echo port 22 ;; *) echo allowusers bob ;; esac"), findings.Fail, "at lport=2"},
		{"ssh-idle", "deb", sshd("Match Address 10.0.0.1\n", "case $* in *addr=10.0.0.1,*) echo clientaliveinterval 900 ;; *) echo clientaliveinterval 300 ;; esac; echo clientalivecountmax 3"), findings.Fail, "more than 900 for others at addr=10.0.0.1"},
		{"ssh-idle", "deb", sshd("Match User ann\n", askAnn), findings.Fail, "for ann"},
		{"ssh-access-list", "deb", sshd("Match User ann\n", "case $* in *user=ann,*) echo allowusers ann ;; *) echo port 22 ;; esac"), findings.Fail, "no AllowUsers"},
		{"ssh-access-list", "deb", sshd("Match User ann\n", "case $* in *user=ann,*) echo port 22 ;; *) echo allowusers bob ;; esac"), findings.Fail, "for ann"},
		{"ssh-access-list", "deb", sshd("AllowUsers ann\n", "echo allowusers ann"), findings.Pass, ""},

		{"pam-pwquality", "deb", pam("pam.d/common-password", quality, "security/pwquality.conf", "minlen = 14\n"), findings.Pass, ""},
		{"pam-pwquality", "deb", pam("pam.d/common-password", quality, "security/pwquality.conf", "minlen = 8\n", "security/pwquality.conf.d/a.conf", "minlen = 14\n"), findings.Fail, "minlen = 8"},
		{"pam-pwquality", "deb", pam("pam.d/common-password", quality, "security/pwquality.conf", "", "security/pwquality.conf.d/a.conf", "minlen = 14\n"), findings.Pass, ""},
		{"pam-pwquality", "deb", pam("pam.d/common-password", "password requisite pam_pwquality.so minlen=6\n", "security/pwquality.conf", "minlen = 14\n"), findings.Fail, "minlen = 6"},
		{"pam-pwquality", "deb", pam("pam.d/common-password", "password required pam_unix.so # pam_pwquality.so\n", "security/pwquality.conf", "minlen = 14\n"), findings.Fail, "common-password"},
		{"pam-pwquality", "rpm", pam("pam.d/system-auth", quality, "pam.d/password-auth", quality, "security/pwquality.conf", "minlen = 14\n"), findings.Pass, ""},
		{"pam-pwquality", "rpm", pam("pam.d/system-auth", quality, "pam.d/password-auth", "", "security/pwquality.conf", "minlen = 14\n"), findings.Fail, "password-auth"},
		{"pam-faillock", "deb", pam("pam.d/common-auth", lock), findings.Pass, ""},
		{"pam-faillock", "deb", pam("pam.d/common-auth", strings.Replace(lock, "authfail", "authfail deny=1000", 1)), findings.Fail, "deny = 1000"},
		{"pam-faillock", "deb", pam("pam.d/common-auth", strings.Replace(lock, "preauth", "preauth deny=0", 1)), findings.Fail, "deny = 0"},
		{"pam-faillock", "deb", pam("pam.d/common-auth", strings.Replace(lock, "authfail", "authfail conf=/tmp/x", 1)), findings.Error, "/tmp/x"},
		{"pam-faillock", "deb", pam("pam.d/common-auth", "auth required pam_unix.so # pam_faillock.so authfail\n"), findings.Fail, "common-auth"},
		{"pam-faillock", "deb", pam("pam.d/common-auth", "auth required pam_unix.so pam_faillock.so\nauth required pam_x.so authfail\n"), findings.Fail, "common-auth"},
		{"pam-faillock", "deb", pam("pam.d/common-auth", "auth required \\\n pam_faillock.so \\\n authfail deny=4\n"), findings.Pass, ""},
		{"pam-faillock", "rpm", pam("pam.d/system-auth", lock, "pam.d/password-auth", "auth required pam_unix.so\n"), findings.Fail, "password-auth"},
		{"pam-nullok", "deb", pam("pam.d/common-auth", "auth required pam_unix.so try_first_pass # nullok\n"), findings.Pass, ""},
		{"pam-nullok", "deb", pam("pam.d/common-auth", "auth required pam_unix.so \\\n\tnullok\n"), findings.Fail, "common-auth"},
		{"pam-pwhistory", "deb", pam("pam.d/common-password", "password required pam_unix.so #pam_pwhistory.so\n"), findings.Fail, "common-password"},
		{"su-wheel", "deb", pam("pam.d/su", "auth required pam_wheel.so # use_uid\n"), findings.Fail, "everyone"},

		{"sudo-use-pty", "deb", sudo("Defaults\tenv_reset, use_pty # x\n"), findings.Pass, ""},
		{"sudo-use-pty", "deb", sudo("Defaults use_pty\nDefaults  ! use_pty\n"), findings.Fail, "!use_pty"},
		{"sudo-use-pty", "deb", sudo("Defaults:ann use_pty\n"), findings.Fail, "no Defaults"},
		{"sudo-use-pty", "deb", sudo("Defaults badpass_message=\"a, use_pty, b\"\n"), findings.Fail, "no Defaults"},
		{"sudo-authenticate", "deb", sudo("Defaults ! authenticate\n"), findings.Fail, "!authenticate"},
		{"sudo-authenticate", "deb", sudo("Defaults env_reset # !authenticate\n"), findings.Pass, ""},
		{"sudo-authenticate", "deb", sudo("# a comment \\\nDefaults !authenticate\n"), findings.Fail, "!authenticate"},
		{"sudo-authenticate", "deb", sudo("Defaults env_reset, \\\n  !authenticate\n"), findings.Fail, "!authenticate"},
		{"sudo-authenticate", "deb", sudo("Defaults env_reset\n@include /opt/sudoers\n"), findings.Error, "/opt/sudoers"},
		{"sudo-authenticate", "deb", sudo("Defaults env_reset\n#includedir /opt/sudoers.d\n"), findings.Error, "/opt/sudoers.d"},
		{"sudo-authenticate", "deb", map[string]string{"etc/sudoers": "Defaults env_reset\n@includedir MACHINE/etc/sudoers.d\n", "etc/sudoers.d/x": "Defaults !authenticate\n", "bin/sudo": ""}, findings.Fail, "!authenticate"},
		{"sudo-env", "deb", sudo("Defaults secure_path = \"/bin\"\n"), findings.Pass, ""},
		{"sudo-env", "deb", sudo("Defaults secure_path=/bin\nDefaults !secure_path\n"), findings.Fail, "!secure_path"},
		{"sudo-env", "deb", sudo("Defaults:ann secure_path=/bin\n"), findings.Fail, "no Defaults"},
		{"sudo-logfile", "deb", sudo("Defaults logfile=/x\nDefaults !logfile\n"), findings.Fail, "!logfile"},
		{"sudo-nopasswd", "deb", sudo("#1000 ALL=(ALL) NOPASSWD: ALL\n"), findings.Fail, "#1000"},

		{"pkg-signed", "rpm", repo("[main]\ngpgcheck=1\n", "[a]\nname=a\n"), findings.Pass, ""},
		{"pkg-signed", "rpm", repo("[main]\ngpgcheck = True\n", "[a]\ngpgcheck=off\n"), findings.Fail, "a in"},
		{"pkg-signed", "rpm", repo("[main]\n", "[a]\nname=a\n"), findings.Fail, "a in"},
		{"pkg-signed", "rpm", repo("[main]\n", "[a]\ngpgcheck=yes\n[b]\nenabled=0\n"), findings.Pass, ""},
		{"pkg-signed", "deb", apt("deb [signed-by=/x] https://example.com a b\n"), findings.Pass, ""},
		{"pkg-signed", "deb", apt("deb [ arch=amd64 allow-downgrade-to-insecure=yes ] https://example.com a b\n"), findings.Fail, "downgrade"},
		{"pkg-signed", "deb", apt("Types: deb\nTrusted:\tyes\n"), findings.Fail, "Trusted"},
		{"pkg-signed", "deb", apt("deb [trusted=on] https://example.com a b\n"), findings.Fail, "trusted"},
		{"pkg-signed", "deb", apt("deb [trusted=with] https://example.com a b\n"), findings.Fail, "trusted"},
		{"pkg-signed", "deb", apt("deb [trusted=enable] https://example.com a b\n"), findings.Fail, "trusted"},
		{"pkg-valid-until", "deb", apt("deb [check-valid-until=off] https://example.com a b\n"), findings.Fail, "valid"},
		{"pkg-updates", "rpm", map[string]string{"bin/dnf": "case $* in *--releasever=latest*) echo 'kernel 6.1 amazonlinux'; exit 100 ;; esac\n"}, findings.Fail, "kernel"},

		{"log-persistent", "deb", map[string]string{"bin/systemd-analyze": "echo '[Journal]'; echo ' Storage = none '", "bin/dpkg-query": "echo installed dpkg"}, findings.Fail, "Storage=none"},
		{"log-persistent", "deb", map[string]string{"bin/systemd-analyze": "echo 'Storage=none'; echo 'Storage = persistent'"}, findings.Pass, ""},

		{"boot-grub-password", "rpm", map[string]string{"boot/grub2/grub.cfg": "  password_pbkdf2 root ${GRUB2_PASSWORD}\n"}, findings.Fail, "password"},
		{"boot-grub-password", "rpm", map[string]string{"boot/grub2/grub.cfg": "  password_pbkdf2 root ${GRUB2_PASSWORD}\n", "boot/grub2/user.cfg": "GRUB2_PASSWORD=grub.pbkdf2.sha512.1.a\n"}, findings.Pass, ""},
		{"boot-grub-password", "deb", map[string]string{"boot/grub/grub.cfg": "password_pbkdf2 root grub.pbkdf2.sha512.1.a\n"}, findings.Pass, ""},
		{"boot-cmdline", "deb", map[string]string{"cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/a-b ro quiet systemd.debug-shell=0 init=/sbin/init\n"}, findings.Pass, ""},
		{"boot-cmdline", "deb", map[string]string{"cmdline": "ro systemd.debug_shell\n"}, findings.Fail, "debug_shell"},
		{"boot-cmdline", "deb", map[string]string{"cmdline": "ro systemd.debug-shell=1\n"}, findings.Fail, "debug-shell"},
		{"boot-cmdline", "deb", map[string]string{"cmdline": "ro rd.break\n"}, findings.Fail, "rd.break"},
		{"boot-cmdline", "deb", map[string]string{"cmdline": "ro pti=off\n"}, findings.Fail, "pti=off"},
		{"boot-cmdline", "deb", map[string]string{"cmdline": "ro \"security=none\"\n"}, findings.Fail, "security=none"},
		{"boot-cmdline", "deb", map[string]string{"cmdline": "ro init=/bin/bash\n"}, findings.Fail, "init=/bin/bash"},

		{"cloud-init-datasource", "deb", cloud("['Ec2', 'None']"), findings.Pass, ""},
		{"cloud-init-datasource", "deb", cloud("['ConfigDrive']"), findings.Fail, "ConfigDrive"},
		{"cloud-init-datasource", "deb", cloud("['Ec2', 'ConfigDrive', 'None']"), findings.Fail, "ConfigDrive"},
		{"cloud-init-datasource", "deb", cloud("unset"), findings.Fail, "unset"},
		{"cloud-serial-root", "deb", getty("ExecStart=-/sbin/agetty -o '-p -- \\\\u' --keep-baud 115200,9600 - $TERM"), findings.Pass, ""},
		{"cloud-serial-root", "deb", getty("ExecStart=-/sbin/agetty -a root - $TERM"), findings.Fail, "agetty"},
		{"cloud-serial-root", "deb", getty("ExecStart=-/sbin/agetty --noclear --autologin root - $TERM"), findings.Fail, "autologin"},
		{"cloud-serial-root", "deb", nil, findings.Error, "no units"},
	} {
		report, err := Check(t.Context(), machineOf(t, test.family, test.files), Selection{Only: []string{test.rule}})
		if err != nil {
			t.Errorf("%d: %s: %v", i, test.rule, err)
			continue
		}
		if f := report.Findings[0]; f.Result != test.want || !strings.Contains(f.Evidence, test.text) {
			t.Errorf("%d: %s on %v:\ngot %s %s, want %s with %q", i, test.rule, test.files, f.Result, f.Evidence, test.want, test.text)
		}
	}
}

// brokenMachine violates almost every rule.
var brokenMachine = map[string]string{
	"etc/passwd": "root::0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\ngames:x:5:5::/:/bin/sh\nann:x:1000:1000::/home:/bin/sh\nbob:x:1000:1000::/missing:/bin/sh\n",
	"etc/shadow": "root:$1$x$y:::::::\nann::::::::\n", "etc/group": "shadow:x:42:ann\na:x:42:\n", "etc/gshadow": "",
	"etc/ssh/sshd_config": "Match User ann\n", "etc/ssh/ssh_host_rsa_key": "",
	"etc/pam.d/common-auth": "auth required pam_unix.so nullok\n", "etc/pam.d/common-password": "password required pam_unix.so md5\n", "etc/pam.d/su": "auth sufficient pam_rootok.so\n",
	"etc/pam.d/system-auth": "auth required pam_unix.so nullok\npassword required pam_unix.so md5\n", "etc/pam.d/password-auth": "auth required pam_unix.so nullok\npassword required pam_unix.so md5\n",
	"etc/login.defs": "PASS_MAX_DAYS 99999\nUMASK 022\nENCRYPT_METHOD MD5\n",
	"etc/sudoers":    "Defaults !use_pty, !env_reset\nann ALL=NOPASSWD: ALL\nDefaults !authenticate\n",
	"etc/issue":      "Debian \\r\n", "etc/ssl/openssl.cnf": "MinProtocol = TLSv1\n", "etc/crontab": "", "etc/rsyslog.conf": "$FileCreateMode 0666\n", "etc/motd": "",
	"etc/apt/sources.list": "deb [trusted=yes check-valid-until=no] https://example.com a b\n", "etc/yum.repos.d/a.repo": "[a]\ngpgcheck=0\n",
	"etc/systemd/system/getty@.service": "ExecStart=agetty --autologin root\n", "etc/systemd/journald.conf": "Storage=none\n",
	"cmdline": "mitigations=off\n", "boot/grub/grub.cfg": "", "boot/vmlinuz-9.9": "", "dpkg/status": "", "dpkg/info/a.list": "/a\n",
	"bin/ss":                     "echo 'tcp LISTEN 0 9 0.0.0.0:25 0.0.0.0:*'\n",
	"bin/systemctl":              "case $1 in list-unit-files) echo 'ctrl-alt-del.target enabled'; echo 'snmpd.service enabled' ;; --failed) echo 'bad.service loaded failed failed' ;; *) exit 1 ;; esac\n",
	"bin/systemd-analyze":        "echo Storage=none\n",
	"bin/systemd-detect-virt":    "echo none\n",
	"bin/dpkg-query":             "echo 'installed dpkg'; echo 'installed telnetd'; echo 'installed rsyslog'\n",
	"bin/rpm":                    "echo 'installed rpm'; echo 'installed telnet-server'; echo 'installed rsyslog'; exit 1\n",
	"bin/apt-config":             "echo 'APT::Get::AllowUnauthenticated \"1\";'; echo 'Acquire::Check-Valid-Until \"0\";'\n",
	"bin/apt-get":                "echo 'Inst libc6 [1]'; echo '1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.'\n",
	"bin/apt-mark":               "",
	"bin/dnf":                    "echo 'kernel 1 x'; exit 100\n",
	"bin/nft":                    "echo 'table inet x'\n",
	"bin/auditctl":               "echo 'enabled 0'\n",
	"bin/lsmod":                  "for m in cramfs dccp usb_storage; do echo \"$m 1 0\"; done\n",
	"bin/modprobe":               "echo 'install /bin/false'\n",
	"bin/cloud-init":             "#!MACHINE/bin/python3\n",
	"bin/python3":                "echo 'ssh_pwauth True'; echo 'disable_root False'; echo 'ssh_deletekeys False'; echo \"datasource_list ['NoCloud']\"\n",
	"bin/curl":                   "printf 200\n",
	"bin/getenforce":             "echo Permissive\n",
	"bin/aa-status":              "exit 1\n",
	"bin/update-crypto-policies": "echo LEGACY\n",
	"bin/date":                   "echo CET\n", "bin/uname": "echo 1.0\n", "bin/crontab": "", "bin/sudo": "",
	"bin/bash": "echo; echo bake-timeout=0; echo bake-path=.:\n",
	"bin/find": `case "$*" in
*begin*) printf 'begin\0W /w\0D /d\0U /u\0S /s\0' ;;
*'/ -maxdepth 0 -printf'*) echo yes ;;
*) echo /bad ;;
esac
`,
	"bin/sshd": `for u in "permitrootlogin yes" "passwordauthentication yes" "kbdinteractiveauthentication yes" "permitemptypasswords yes" "hostbasedauthentication yes" "ignorerhosts no" \
	"permituserenvironment yes" "strictmodes no" "maxauthtries 99" "logingracetime 0" "maxstartups 99:30:100" "clientaliveinterval 0" "clientalivecountmax 0" "x11forwarding yes" \
	"usepam no" "loglevel QUIET" "ciphers aes128-cbc" "macs hmac-md5" "kexalgorithms diffie-hellman-group14-sha1" "disableforwarding no" "port 22"; do echo "$u"; done
`,
}

// bodies returns the bodies of the functions in the scripts, by name.
func bodies() map[string]string {
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)\(\) (?:\{ (.*)|\{\n((?s:.*?)\n)\})$`).FindAllStringSubmatch(scripts(), -1) {
		all[m[1]] = m[2] + m[3]
	}
	return all
}

// called matches names in a function that may be those of functions that it calls.
var called = regexp.MustCompile(`(?m)(?:^|[;&|(){!]|\b(?:then|do|else|if|while|until|of_rule|in_apt_sources))[ \t]*(\w+)`)

// shell runs a script, and returns its output.
func shell(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-s")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// reached returns for each rule the text of all functions that its check calls, and of those that
// collect the facts for these.
func reached() map[string]string {
	bodies := bodies()
	var walk func(name string, seen map[string]bool) string
	walk = func(name string, seen map[string]bool) string {
		body, is := bodies[name]
		if !is || seen[name] {
			return ""
		}
		seen[name] = true
		all := body + "\n"
		for _, m := range called.FindAllStringSubmatch(body, -1) {
			all += walk(m[1], seen)
		}
		return all
	}
	texts := map[string]string{}
	for _, r := range table {
		seen := map[string]bool{}
		text := walk(function("check", r.ID), seen)
		for _, learner := range slices.Sorted(maps.Keys(bodies)) {
			first, _, _ := strings.Cut(bodies[learner], "\n")
			if !strings.HasPrefix(learner, "learn_") {
				continue
			}
			for _, m := range regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(first, -1) {
				if regexp.MustCompile(`\$\{?` + m[1] + `\b`).MatchString(text) {
					text += walk(learner, seen)
				}
			}
		}
		texts[r.ID] = text
	}
	return texts
}

// TestOneProgramBroken: on a machine that violates almost every rule, no rule passes because a
// program fails silently.
func TestOneProgramBroken(t *testing.T) {
	turns.Skip(t, 3)
	onLinux(t)
	t.Parallel()
	results := func(m facts, only []string) map[string]findings.Result {
		t.Helper()
		report, err := Check(t.Context(), m, Selection{Only: only})
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]findings.Result{}
		for _, f := range report.Findings {
			all[f.ID] = f.Result
		}
		return all
	}
	texts := reached()
	for _, family := range []string{"deb", "rpm"} {
		var rules []string
		for _, r := range table {
			if family == "deb" || strings.Contains(texts[r.ID], "rpm") {
				rules = append(rules, r.ID)
			}
		}
		m := machineOf(t, family, brokenMachine)
		m.more = "local_mounts() { echo /; }\nsysctl_file_of() { p=" + m.dir + "/sysctl; }\n"
		if err := os.WriteFile(m.dir+"/sysctl", []byte("77\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		// The host's programs are in "bin" as well, so that each can be replaced there.
		for _, name := range strings.Fields("awk cat cp env grep head mktemp rm sed sort stat tail timeout tr") {
			path, err := exec.LookPath(name)
			if err == nil {
				err = os.Symlink(path, filepath.Join(m.dir, "bin", name))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		before := results(m, rules)
		var not []string
		for id, r := range before {
			if r != findings.Fail {
				not = append(not, id+" "+string(r))
			}
		}
		slices.Sort(not)
		t.Logf("%s: do not fail: %s", family, strings.Join(not, ", "))
		if len(not) > 15 {
			t.Errorf("%s: %d rules do not fail on a machine that is broken", family, len(not))
		}
		entries, err := os.ReadDir(m.dir + "/bin")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			word := regexp.MustCompile(`(?:^|[^\w-])` + regexp.QuoteMeta(e.Name()) + `(?:$|[^\w-])`)
			users := slices.DeleteFunc(slices.Clone(rules), func(id string) bool { return !word.MatchString(texts[id]) })
			if len(users) == 0 || family == "rpm" && regexp.MustCompile(`^(apt|dpkg)-`).MatchString(e.Name()) {
				continue
			}
			path := filepath.Join(m.dir, "bin", e.Name())
			if err := errors.Join(os.Rename(path, path+".works"), os.Symlink("/bin/false", path)); err != nil {
				t.Fatal(err)
			}
			after := results(m, users)
			for _, id := range slices.Sorted(maps.Keys(after)) {
				if after[id] == findings.Pass && before[id] != findings.Pass {
					t.Errorf("%s: %s passes where %s fails in silence", family, id, e.Name())
				}
			}
			if err := os.Rename(path+".works", path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestHomes: the fix of account-home-mode does not change files of other users.
func TestHomes(t *testing.T) {
	onLinux(t)
	dir := t.TempDir()
	for _, name := range []string{"ann", "bob", "roots", "shared", "outer/inner", "theirs"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	logins := []string{"ann:ann", "bob:bob", "carl:roots", "dora:shared", "emil:shared", "fritz:outer", "gus:theirs", "hal:link"}
	script := strings.Replace(scripts(), "/tmp/* | ", "", 1) + `
accounts_error='' modes='' dir='` + dir + `'
at_most() { [ "$2" = bob ] || complain "$4 is open"; }
limit() { echo "limit $1 $2 ${4#"$dir"/}"; }
stat() { case $4 in */roots) echo root ;; */theirs) echo www-data ;; */link) echo root ;; *) IFS=: read -r u _ <<X
$(printf '%s\n' "$logins" | grep ":$4\$")
X
echo "$u" ;; esac; }
`
	all := "home root:/root\nhome inner:" + dir + "/outer/inner\n"
	plain := ""
	for _, l := range logins {
		user, home, _ := strings.Cut(l, ":")
		all += "login " + user + ":" + dir + "/" + home + "\nhome " + user + ":" + dir + "/" + home + "\n"
		plain += user + ":" + dir + "/" + home + "\n"
	}
	for _, home := range []string{"/", "/var", "/etc", "/usr/bin", "/tmp"} {
		all += "login sys:" + home + "\nhome sys:" + home + "\n"
	}
	out := shell(t, "bad=\n"+script+"accounts='"+all+"' logins='"+plain+"'\nfix_account_home_mode || echo refused\n")
	var got []string
	for line := range strings.Lines(strings.ReplaceAll(out, dir+"/", "")) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), ": give")
		got = append(got, line)
	}
	want := []string{
		"limit 750 ann ann", "limit 750 carl roots", "shared, the home of dora, is the home of emil too", "shared, the home of emil, is the home of dora too",
		"outer, the home of fritz, is the home of inner too, or has it in it", "theirs, the home of gus, belongs to www-data", "link, the home of hal, is a directory of the system",
		"/, the home of sys, is a directory of the system", "/var, the home of sys, is a directory of the system", "/etc, the home of sys, is a directory of the system",
		"/usr/bin, the home of sys, is in a directory of the system", "/tmp, the home of sys, is a directory of the system", "refused",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}

// TestUpdates: a package on hold counts as not up to date, and package lists are recent only if
// those of every archive are.
func TestUpdates(t *testing.T) {
	onLinux(t)
	for lists, want := range map[string]string{
		"a_debian_dists_x_InRelease:new a_debian_dists_y_InRelease:old a_debian_dists_x_Packages:old": "fresh",
		"a_debian_dists_x_InRelease:new b_debian_dists_x_InRelease:old a_debian_dists_x_Packages:old": "stale",
		"a_debian_dists_x_InRelease:new flat_Release:new a_debian_dists_x_Packages:old":               "fresh",
		"a_debian_dists_x_InRelease:new flat_Release:old a_debian_dists_x_Packages:old":               "stale",
		"a_debian_dists_x_InRelease:new": "stale",
	} {
		dir := t.TempDir()
		for f := range strings.FieldsSeq(lists) {
			name, age, _ := strings.Cut(f, ":")
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if age == "old" {
				if old := time.Now().Add(-48 * time.Hour); os.Chtimes(filepath.Join(dir, name), old, old) != nil {
					t.Fatal("no times")
				}
			}
		}
		if got := shell(t, scripts()+"fresh_lists '"+dir+"' && echo fresh || echo stale\n"); strings.TrimSpace(got) != want {
			t.Errorf("%s: got %s, want %s", lists, got, want)
		}
	}
	m := machineOf(t, "deb", map[string]string{
		"bin/apt-get":  "case $* in *--ignore-hold*) echo 'Inst openssl [1] (2)'; echo '1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.' ;; *) echo; echo '0 upgraded, 0 newly installed, 0 to remove and 1 not upgraded.' ;; esac",
		"bin/apt-mark": "echo openssl",
	})
	m.more = "fresh_lists() { :; }\nfew_lists() { said=''; return 1; }\n"
	report, err := Check(t.Context(), m, Selection{Only: []string{"pkg-updates"}})
	if err != nil {
		t.Fatal(err)
	}
	if f := report.Findings[0]; f.Result != findings.Fail || f.Evidence != "openssl, held: openssl" {
		t.Errorf("%s %s", f.Result, f.Evidence)
	}
}

// TestWalks: find finds hidden files too, and the result of a killed find is not used.
func TestWalks(t *testing.T) {
	onLinux(t)
	dir := t.TempDir()
	for _, name := range []string{"bin/sticky", "bin/fine", "real/.profile"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Chmod(filepath.Join(dir, "bin/sticky"), 0o777|os.ModeSticky), os.Chmod(filepath.Join(dir, "real/.profile"), 0o666), os.Symlink("real", filepath.Join(dir, "home")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out := shell(t, strings.ReplaceAll(scripts(), "/usr/local/bin ", dir+"/bin ")+`
cd '`+dir+`'
find_works=yes accounts_error='' accounts="login ann:$PWD/home"
bad=; (check_file_system_dirs) | grep -c /bin/sticky
(check_account_dotfiles) | grep -c /home/.profile
printf 'x %s ext4 rw\n' '/a\040b\134c' '/plain' >mounts
eval "$(printf 'mounts'; cat <<'X'
() {`+strings.ReplaceAll(bodies()["local_mounts"], "/proc/self/mounts", "mounts")+`}
X
)"
mounts
local_mounts() { echo /; }
find() { printf 'begin\0'; return "$ends"; }
for ends in 0 1 2 137; do learn_files file-unowned; (check_file_unowned); echo "$ends: $?"; done
modes='f:640:root:domain users'; touch f; bad=; at_most 640 root users f; echo "$bad"; bad=; at_most 640 root 'domain users' f; at_most 640 root any f; echo "[$bad]"
`)
	want := "1\n1\n/\n/a b\\c\n/plain\n0: 0\n1: 0\nfind fails\n2: 2\nfind fails\n137: 2\nf is 640 root:domain users, at most 640 root:users\n[]\n"
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}
