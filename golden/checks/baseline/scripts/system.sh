# shellcheck shell=sh
# Boot, access control, core dumps, banners and TLS.

check_boot_cmdline() {
	own_kernel "the command line of the kernel"
	[ -r /proc/cmdline ] || error "cannot read /proc/cmdline"
	read -r line </proc/cmdline || true
	for word in $line; do
		key=${word#\"} value=''
		key=${key%\"}
		case $key in *=*) value=${key#*=} key=${key%%=*} ;; esac
		while :; do # "-" and "_" are one to the kernel
			case $key in *-*) key=${key%%-*}_${key#*-} ;; *) break ;; esac
		done
		case $key=$value in
		mitigations=off* | nopti= | nospectre* | no_stf_barrier= | nospec* | pti=off | kpti=[0nNfo]* | nosmep= | nosmap= | nokaslr= | norandmaps= | noexec*=off | \
			spectre_v2=off | spectre_v2_user=off | spectre_bhi=off | spec_store_bypass_disable=off | spec_rstack_overflow=off | ssbd=force_off | ssbd=force-off | \
			l1tf=off | mds=off | tsx_async_abort=off | mmio_stale_data=off | srbds=off | retbleed=off | gather_data_sampling=off | \
			reg_file_data_sampling=off | indirect_target_selection=off | tsa=off | vmscape=off | \
			selinux=0 | enforcing=0 | apparmor=0 | security=none | audit=0 | audit=off | module.sig_enforce=[0nN]* | \
			init=*sh | rdinit=*sh | single= | emergency= | [sS1]= | rescue= | rd.break=* | rd.emergency=* | \
			systemd.unit=rescue* | systemd.unit=emergency* | rd.systemd.unit=rescue* | rd.systemd.unit=emergency*) complain "$word" ;;
		systemd.debug_shell=[0nNfF]* | systemd.debug_shell=off | rd.systemd.debug_shell=[0nNfF]* | rd.systemd.debug_shell=off) ;;
		systemd.debug_shell=* | rd.systemd.debug_shell=*) complain "$word" ;;
		esac
	done
	none "$bad"
}

# grub_files sets list to the menus of GRUB; on FAT the mount decides about modes.
grub_files() {
	list=
	for f in /boot/grub/grub.cfg /boot/grub2/grub.cfg; do
		[ ! -e "$f" ] || [ "$(stat -fc %T "$f")" = msdos ] || list="$list $f"
	done
}
grub_known() {
	grub_files
	[ -n "$list" ] || na "there is no GRUB on this machine"
}
modes_boot_grub_mode() {
	grub_files
	# shellcheck disable=SC2086 # a list
	"$1" 600 root root $list
}
check_boot_grub_mode() {
	grub_known
	modes_boot_grub_mode at_most
	verdict "$bad"
}
fix_boot_grub_mode() { modes_boot_grub_mode limit; }

check_boot_grub_password() {
	grub_known
	# On RHEL the menu always has a password_pbkdf2, of what user.cfg sets.
	grep -qsE '^[[:space:]]*password_pbkdf2[[:space:]]+[^[:space:]]+[[:space:]]+["'\'']?grub\.pbkdf2\.|^GRUB2_PASSWORD=["'\'']?grub\.pbkdf2\.' \
		/boot/grub/grub.cfg /boot/grub2/grub.cfg /boot/grub2/user.cfg || fail "there is no password_pbkdf2 with a password"
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
	for f in /etc/security/limits.conf /etc/security/limits.d/*.conf; do
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	v=$(awk '$1 == "*" && ($2 == "hard" || $2 == "-") && $3 == "core" { v = $4 } END { print v }' "$@" </dev/null)
	[ "$v" = 0 ] || fail "the hard limit of core in /etc/security is ${v:-not set}"
	packages_known
	if has_package systemd-coredump || [ -x /usr/lib/systemd/systemd-coredump ]; then
		systemd_value Storage "$(systemd-analyze cat-config systemd/coredump.conf 2>/dev/null)"
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

modes_banner_mode() { "$1" 644 root root /etc/issue /etc/issue.net /etc/motd; }
check_banner_mode() { modes_banner_mode at_most; verdict "$bad"; }
fix_banner_mode() { modes_banner_mode limit; }

telling='\\[mrsv]|Debian|Ubuntu|Rocky|Alma|Red Hat|Amazon'
check_banner_os_info() {
	search "$telling" /etc/issue /etc/issue.net
	files=''
	while IFS=: read -r f _; do
		case " $files " in *" $f "*) ;; *) files="${files:+$files }$f" ;; esac
	done <<X
$list
X
	verdict "${files:+$files tell what runs here}"
}
fix_banner_os_info() {
	for f in $(grep -lsiE "$telling" /etc/issue /etc/issue.net); do replace "$f" "$(printf 'Authorized use only.\n.')" || return 1; done
}

check_crypto_policy() {
	if [ "$family" = rpm ]; then
		need update-crypto-policies
		v=$(update-crypto-policies --show) || error "update-crypto-policies fails"
		case $v in LEGACY* | *:SHA1*) fail "the policy is $v" ;; esac
		pass
	fi
	[ -f /etc/ssl/openssl.cnf ] || na "there is no /etc/ssl/openssl.cnf"
	search '^[[:space:]]*(MinProtocol[[:space:]]*=[[:space:]]*(None|TLSv1(\.[01])?[[:space:]]*$|SSLv3)|CipherString[[:space:]]*=.*SECLEVEL=[01])' /etc/ssl/openssl.cnf
	none "$list"
}
fix_crypto_policy() {
	[ "$family" = rpm ] || {
		echo "change /etc/ssl/openssl.cnf yourself: a program may need it so"
		return 1
	}
	update-crypto-policies --set DEFAULT >/dev/null
}
