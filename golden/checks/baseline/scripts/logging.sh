# shellcheck shell=sh
# Logs, audit, time and cron.

# learn_journald keeps what counts of the configuration of journald.
learn_journald() {
	journald='' journald_error=''
	wanted log- "$@" || return 0
	set --
	for f in /etc/systemd/journald.conf /usr/lib/systemd/journald.conf.d/*.conf /etc/systemd/journald.conf.d/*.conf; do
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	all=$(systemd-analyze cat-config systemd/journald.conf 2>/dev/null || cat "$@" </dev/null 2>&1) || journald_error="cannot read journald.conf: $all"
	lines_with '*[A-Z]*=*' "$all"
	journald=$list
}
# journald KEY sets v to the value that holds.
journald() {
	[ -z "$journald_error" ] || error "$journald_error"
	systemd_value "$1" "$journald"
}
set_journald() {
	printf '# Written by bake:baseline.\n[Journal]\n%s\n' "$2" | put "/etc/systemd/journald.conf.d/99-zz-bake-baseline-$1.conf" 644 &&
		systemctl restart systemd-journald
}
check_log_persistent() {
	journald Storage
	case ${v:-auto} in
	persistent) pass ;;
	auto)
		[ -d /var/log/journal ] || packages_known
		[ -d /var/log/journal ] || has_package rsyslog || fail "the journal is kept in memory, and there is no rsyslog"
		pass
		;;
	esac
	packages_known
	! has_package rsyslog || pass
	fail "Storage=$v in journald.conf"
}
fix_log_persistent() { set_journald storage Storage=persistent; }

check_log_limit() {
	journald SystemMaxUse
	[ -n "$v" ] || fail "SystemMaxUse is not set in journald.conf"
	pass
}
fix_log_limit() { set_journald limit SystemMaxUse=500M; }

check_log_rsyslog_mode() {
	packages_known
	has_package rsyslog || na "there is no rsyslog on this machine"
	v=$(cat /etc/rsyslog.conf /etc/rsyslog.d/*.conf 2>/dev/null | sed -nE 's/^[^#]*FileCreateMode[ ="]+0?([0-7]+).*/\1/p' | tail -n 1)
	[ -n "$v" ] || fail "FileCreateMode is not set"
	[ $((0$v & 0137)) -eq 0 ] || fail "FileCreateMode is $v"
	pass
}
# shellcheck disable=SC2016 # a word of rsyslog's
fix_log_rsyslog_mode() { echo '$FileCreateMode 0640' | put /etc/rsyslog.d/00-bake-baseline.conf 644 && systemctl restart rsyslog; }

check_audit_enabled() {
	own_kernel "the audit log of the kernel"
	have auditctl || fail "there is no auditd"
	enabled auditd.service
	[ -n "$list" ] || fail "auditd is not enabled"
	v=$(auditctl -s 2>&1 | awk '$1 == "enabled" { print $2 }')
	case $v in 1 | 2) pass ;; esac
	fail "the audit log of the kernel is off"
}
fix_audit_enabled() {
	if [ "$family" = deb ]; then install auditd; else install audit; fi || return 1
	systemctl -q enable --now auditd
}

check_audit_rules() {
	own_kernel "the audit log of the kernel"
	have auditctl || fail "there is no auditd"
	rules=$(auditctl -l 2>&1) || error "auditctl fails: $rules"
	case $rules in *never,task* | *task,never*) fail "a rule silences all others: -a task,never" ;; esac
	none "$(for f in /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/sudoers /etc/sudoers.d /etc/ssh/sshd_config.d; do
		printf '%s\n' "$rules" | grep -qF -- "$f " || echo "$f is not watched"
	done)"
}
fix_audit_rules() {
	put /etc/audit/rules.d/50-bake-baseline.rules 640 <<'X' || return 1
# Written by bake:baseline.
-w /etc/passwd -p wa -k identity
-w /etc/shadow -p wa -k identity
-w /etc/group -p wa -k identity
-w /etc/gshadow -p wa -k identity
-w /etc/sudoers -p wa -k scope
-w /etc/sudoers.d -p wa -k scope
-w /etc/ssh/sshd_config.d -p wa -k sshd
X
	augenrules --load >/dev/null
}

check_time_sync() {
	own_kernel "the clock"
	for unit in $clocks; do
		state_of "$unit"
		case $v in enabled | enabled-runtime | static | alias | indirect | generated) ! systemctl -q is-active "$unit" || pass ;; esac
	done
	fail "nothing keeps the clock right"
}
fix_time_sync() {
	install chrony || return 1
	if [ "$family" = deb ]; then systemctl -q enable --now chrony; else systemctl -q enable --now chronyd; fi
}

check_time_zone_utc() {
	v=$(date +%Z)
	[ "$v" = UTC ] || fail "the clock shows $v"
	pass
}
fix_time_zone_utc() { timedatectl set-timezone Etc/UTC; }

modes_cron_mode() {
	"$1" 600 root root /etc/crontab &&
		"$1" 700 root root /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly /etc/cron.yearly /etc/cron.d
}
check_cron_mode() {
	{ [ -e /etc/crontab ] || [ -e /etc/cron.d ] || [ -e /etc/cron.daily ]; } || na "there is no cron on this machine"
	modes_cron_mode at_most
	verdict "$bad"
}
fix_cron_mode() { modes_cron_mode limit; }

check_cron_allow() {
	have crontab || na "there is no cron on this machine"
	[ -e /etc/cron.allow ] || fail "there is no /etc/cron.allow"
	! have at || [ -e /etc/at.allow ] || fail "there is no /etc/at.allow"
	pass
}
fix_cron_allow() {
	[ -e /etc/cron.allow ] || echo root | put /etc/cron.allow 640 || return 1
	! have at || [ -e /etc/at.allow ] || echo root | put /etc/at.allow 640
}
