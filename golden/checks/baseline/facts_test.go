package baseline

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"bake/golden/findings"
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

// TestFacts: what a rule makes of the facts of a machine.
func TestFacts(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the scripts are for Linux")
	}
	t.Parallel()
	sshd := func(match, program string) map[string]string {
		return map[string]string{"etc/passwd": passwd, "etc/group": "root:x:0:\n", "etc/ssh/sshd_config": match, "bin/sshd": program}
	}
	const askAnn = "case $* in *user=ann,*) echo passwordauthentication yes; echo clientaliveinterval 900; echo clientalivecountmax 3 ;; *) echo passwordauthentication no; echo clientaliveinterval 300; echo clientalivecountmax 3 ;; esac\n"
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
