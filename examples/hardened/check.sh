#!/bin/sh
# Checks the baseline, says every rule that does not hold, and fails if there is one.
set -u
failed=0

rule() { # rule "text" command...
	text=$1
	shift
	if "$@" >/dev/null 2>&1; then
		echo "ok      $text"
	else
		echo "FAILED  $text" >&2
		failed=$((failed + 1))
	fi
}
sshd_says() { sshd -T 2>/dev/null | grep -qix "$1"; }
absent() { ! dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
set_in() { grep -qE "^$2\$" "$1"; }
no_empty_passwords() { ! awk -F: '$2 == ""' /etc/shadow | grep -q .; }
no_world_writable() { ! find /etc /usr /bin /sbin -xdev -type f -perm -0002 2>/dev/null | grep -q .; }
locked() { passwd -S "$1" | grep -qE "^$1 L"; }

rule "root cannot log in over SSH" sshd_says "permitrootlogin no"
rule "SSH takes no passwords" sshd_says "passwordauthentication no"
rule "SSH asks no questions" sshd_says "kbdinteractiveauthentication no"
rule "SSH takes no empty passwords" sshd_says "permitemptypasswords no"
rule "SSH forwards no X11" sshd_says "x11forwarding no"
rule "SSH gives three tries" sshd_says "maxauthtries 3"
for p in telnet rsh-client nis talk rpcbind avahi-daemon; do
	rule "$p is not installed" absent "$p"
done
rule "ICMP redirects are ignored" set_in /etc/sysctl.d/60-baseline.conf "net.ipv4.conf.all.accept_redirects = 0"
rule "kernel pointers are hidden" set_in /etc/sysctl.d/60-baseline.conf "kernel.kptr_restrict = 2"
rule "set-uid programs dump no core" set_in /etc/sysctl.d/60-baseline.conf "fs.suid_dumpable = 0"
rule "security updates install themselves" systemctl is-enabled unattended-upgrades
rule "package lists are refreshed daily" set_in /etc/apt/apt.conf.d/20auto-upgrades 'APT::Periodic::Update-Package-Lists "1";'
rule "root has no usable password" locked root
rule "no account has an empty password" no_empty_passwords
rule "new files are private" set_in /etc/login.defs "UMASK.*027"
rule "no system file is writable by everyone" no_world_writable
rule "only root reads the password hashes" test "$(stat -c %a /etc/shadow)" = 600

if [ "$failed" -gt 0 ]; then
	echo "$failed rules of the baseline do not hold" >&2
	exit 1
fi
echo "the baseline holds"
