# shellcheck shell=sh
# Boot, access control, core dumps, banners and TLS.

check_boot_cmdline() {
	own_kernel "the command line of the kernel"
	[ -r /proc/cmdline ] || error "cannot read /proc/cmdline"
	none "$(tr ' ' '\n' </proc/cmdline | grep -E '^(mitigations=off|nopti|nospectre.*|spectre_v2=off|selinux=0|enforcing=0|apparmor=0|audit=0|nosmep|nosmap|nokaslr|init=.*sh|systemd\.debug-shell.*)$')"
}

# grub_modes COMMAND; on FAT the mount decides.
grub_files() { for f in /boot/grub/grub.cfg /boot/grub2/grub.cfg; do [ ! -e "$f" ] || [ "$(stat -fc %T "$f")" = msdos ] || echo "$f"; done; }
grub_known() { [ -n "$(grub_files)" ] || na "there is no GRUB on this machine"; }
check_boot_grub_mode() {
	grub_known
	# shellcheck disable=SC2046 # a list
	at_most 600 root root $(grub_files)
	verdict "$bad"
}
# shellcheck disable=SC2046 # a list
fix_boot_grub_mode() { limit 600 root root $(grub_files); }

check_boot_grub_password() {
	grub_known
	grep -qsE '^[[:space:]]*password_pbkdf2|^GRUB2_PASSWORD=' /boot/grub/grub.cfg /boot/grub2/grub.cfg /boot/grub2/user.cfg || fail "there is no password_pbkdf2"
	pass
}

check_mac_enforcing() {
	own_kernel "AppArmor or SELinux"
	if [ "$family" = rpm ]; then
		need getenforce
		v=$(getenforce)
		[ "$v" = Enforcing ] || fail "SELinux is $v"
		pass
	fi
	[ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] || fail "AppArmor is off"
	{ have aa-status && aa-status --enabled; } || fail "AppArmor has no profiles"
	pass
}
fix_mac_enforcing() {
	[ "$family" = deb ] || {
		echo "set SELINUX=enforcing in /etc/selinux/config, create /.autorelabel and reboot"
		return 1
	}
	install apparmor && systemctl -q enable --now apparmor
}

check_core_dumps() {
	v=$(cat /etc/security/limits.conf /etc/security/limits.d/*.conf 2>/dev/null |
		awk '$1 == "*" && ($2 == "hard" || $2 == "-") && $3 == "core" { v = $4 } END { print v }')
	[ "$v" = 0 ] || fail "the hard limit of core in /etc/security is ${v:-not set}"
	if [ -n "$(installed systemd-coredump)" ] || [ -x /usr/lib/systemd/systemd-coredump ]; then
		v=$(systemd-analyze cat-config systemd/coredump.conf 2>/dev/null | sed -n 's/^Storage=//p' | tail -n 1)
		[ "$v" = none ] || fail "Storage=${v:-external} in coredump.conf"
	fi
	if [ "$virtual" = none ]; then
		sysctl_value fs.suid_dumpable || error "there is no fs.suid_dumpable"
		[ "$v" = 0 ] || fail "fs.suid_dumpable = $v"
	fi
	pass
}
fix_core_dumps() {
	put /etc/security/limits.d/99-zz-bake-baseline.conf 644 <<'X' || return 1
# Written by bake:baseline.
* hard core 0
root hard core 0
X
	if [ -n "$(installed systemd-coredump)" ] || [ -x /usr/lib/systemd/systemd-coredump ]; then
		printf '# Written by bake:baseline.\n[Coredump]\nStorage=none\nProcessSizeMax=0\n' | put /etc/systemd/coredump.conf.d/99-zz-bake-baseline.conf 644 || return 1
	fi
	[ "$virtual" != none ] || set_parameters fs.suid_dumpable 0
}

# banner_modes COMMAND
banner_modes() { "$1" 644 root root /etc/issue /etc/issue.net /etc/motd; }
check_banner_mode() { banner_modes at_most; verdict "$bad"; }
fix_banner_mode() { banner_modes limit; }

telling() { grep -lsE '\\[mrsv]|Debian|Ubuntu|Rocky|Alma|Red Hat|Amazon' /etc/issue /etc/issue.net; }
check_banner_os_info() {
	bad=$(telling | some)
	verdict "${bad:+$bad tell what runs here}"
}
fix_banner_os_info() {
	for f in $(telling); do replace "$f" "$(printf 'Authorized use only.\n.')" || return 1; done
}

check_crypto_policy() {
	if [ "$family" = rpm ]; then
		need update-crypto-policies
		v=$(update-crypto-policies --show) || error "update-crypto-policies fails"
		case $v in LEGACY* | *:SHA1*) fail "the policy is $v" ;; esac
		pass
	fi
	[ -f /etc/ssl/openssl.cnf ] || na "there is no /etc/ssl/openssl.cnf"
	none "$(grep -E '^[[:space:]]*(MinProtocol[[:space:]]*=[[:space:]]*(None|TLSv1(\.[01])?[[:space:]]*$|SSLv3)|CipherString[[:space:]]*=.*SECLEVEL=[01])' /etc/ssl/openssl.cnf)"
}
fix_crypto_policy() {
	[ "$family" = rpm ] || {
		echo "change /etc/ssl/openssl.cnf yourself: a program may need it so"
		return 1
	}
	update-crypto-policies --set DEFAULT >/dev/null
}
