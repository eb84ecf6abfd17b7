//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/crypto/ssh"
)

// checks measures how long it takes to check a machine over SSH, from the start of the program to
// its report, and how many processes that takes on the machine: with all rules of the profile, and
// with as many checks in goss's format. Rules query a mirror for updates unless the machine has
// recent package lists, for example because the build has installed something; both cases are
// measured.
func (b *bench) checks(ctx context.Context) error {
	if err := b.startCloud(ctx); err != nil {
		return err
	}
	in, err := b.runInstance(ctx)
	if err != nil {
		return err
	}
	defer b.terminate(ctx, in)
	host := aws.ToString(in.PublicIpAddress)
	if _, err := b.on(host, "cloud-init status --wait >/dev/null 2>&1; exit 0"); err != nil {
		return err
	}
	file := filepath.Join(b.dir, "goss.yaml")
	text, n := gossChecks()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	for _, m := range []struct{ what, ready, file, goal string }{
		{"110 rules over SSH, without lists of packages", "sudo rm -rf /var/lib/apt/lists/*", "bake:baseline/level2", ""},
		{"110 rules over SSH", "sudo apt-get -qq update", "bake:baseline/level2", "goal: at most 3 s"},
		{fmt.Sprintf("%d checks of goss's format over SSH", n), "true", file, "goal: at most 3 s"},
	} {
		if _, err := b.on(host, m.ready); err != nil {
			return err
		}
		var walls []time.Duration
		processes := 0
		for range 5 {
			before, err := b.lastPID(host)
			if err != nil {
				return err
			}
			start := time.Now()
			cmd := b.command("checks", "run", "-host", "ssh://admin@"+host, "-identity", b.keyPEM, "-host-key-check", "off", m.file)
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			err = cmd.Run()
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 2) { // 2: some fail
				return fmt.Errorf("%w: %s", err, said.Bytes())
			}
			walls = append(walls, time.Since(start))
			after, err := b.lastPID(host)
			if err != nil {
				return err
			}
			processes = after - before
		}
		report(m.what+", median of 5", round(median(walls)), m.goal)
		report("  processes on the machine, with those of two logins", strconv.Itoa(processes), "")
	}
	return nil
}

// lastPID returns the number of the newest process of a machine.
func (b *bench) lastPID(host string) (int, error) {
	out, err := b.on(host, "echo $$")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

// on runs a command on a machine.
func (b *bench) on(host, command string) (string, error) {
	client, err := ssh.Dial("tcp", host+":22", &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(b.key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), // made a moment ago, on this host
	})
	if err != nil {
		return "", err
	}
	defer client.Close()
	s, err := client.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	out, err := s.Output(command)
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return string(out), nil
}

// gossChecks returns a file with checks of every kind that queries a machine, and their
// number.
func gossChecks() (text string, n int) {
	var t strings.Builder
	section := func(kind, attributes string, names ...string) {
		fmt.Fprintf(&t, "%s:\n", kind)
		for _, name := range names {
			fmt.Fprintf(&t, "  %q: {%s}\n", name, attributes)
			n++
		}
	}
	section("file", "exists: true, owner: root, filetype: file", strings.Fields("/etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/fstab /etc/hosts /etc/login.defs /etc/sudoers "+
		"/etc/ssh/sshd_config /etc/pam.d/common-auth /etc/pam.d/common-password /etc/pam.d/sshd /etc/pam.d/su /etc/issue /etc/issue.net /etc/nsswitch.conf /etc/profile /etc/crontab "+
		"/etc/security/limits.conf /etc/systemd/journald.conf /etc/cloud/cloud.cfg /usr/bin/sudo /usr/bin/passwd /usr/sbin/sshd /bin/dash")...)
	t.WriteString("  \"/etc/debian_version\": {exists: true, contents: [\"12\"]}\n  \"/etc/os-release\": {exists: true, contents: [\"bookworm\"]}\n")
	n += 2
	section("package", "installed: true", strings.Fields("adduser apt bash cloud-init coreutils cron dash dbus dpkg findutils grep gzip hostname iproute2 login mawk mount openssh-server passwd procps sed sudo systemd tar util-linux")...)
	section("service", "enabled: true, running: true", strings.Fields("ssh cron systemd-journald dbus systemd-logind cloud-final cloud-config cloud-init cloud-init-local systemd-tmpfiles-setup")...)
	section("user", "exists: true", strings.Fields("root daemon bin sys sync games man mail admin nobody")...)
	section("group", "exists: true", strings.Fields("root daemon sudo adm shadow")...)
	section("kernel-param", "value: {match-regexp: .}", strings.Fields("kernel.ostype net.ipv4.ip_forward net.ipv4.tcp_syncookies net.ipv4.conf.all.rp_filter net.ipv4.conf.all.accept_redirects "+
		"net.ipv4.conf.default.accept_redirects net.ipv4.conf.all.log_martians net.ipv4.icmp_echo_ignore_broadcasts vm.swappiness fs.file-max")...)
	section("port", "listening: true", "tcp:22", "tcp6:22")
	section("process", "running: true", "sshd", "systemd", "cron")
	section("mount", "exists: true", "/", "/proc", "/dev/shm")
	section("interface", "exists: true", "lo")
	section("command", "exit-status: 0", "true", "sshd -T", "id -u", "test -d /etc/ssh", "grep -q root /etc/passwd", "uname -r", "date", "hostname", "locale", "ls /", "getent passwd root", "umask", "df /", "free", "uptime", "ps", "env")
	return t.String(), n
}
