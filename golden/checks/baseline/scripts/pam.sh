# shellcheck shell=sh
# PAM and passwords. On Debian and Ubuntu, /etc/pam.d/common-* are made by pam-auth-update
# out of profiles, and options that were changed there are kept; on RHEL and Amazon Linux
# the stack belongs to authselect, and is never written here.

# stack FILES prints the lines that count of the stacks that all services share.
stack() {
	for f in "/etc/pam.d/common-$1" /etc/pam.d/system-auth; do
		[ ! -f "$f" ] || grep -E '^[^#]' "$f"
	done
}

pam_known() { [ -d /etc/pam.d ] || na "there is no PAM on this machine"; }

# authselect_feature NAME enables a feature of the profile in use.
authselect_feature() {
	have authselect || {
		echo "there is no authselect on this machine: enable $1 yourself"
		return 1
	}
	authselect current >/dev/null 2>&1 || {
		echo "no profile of authselect is selected: select one first, such as minimal"
		return 1
	}
	authselect enable-feature "$1" >/dev/null
}

nullok() { grep -lE '^[^#]*pam_unix\.so.*[[:space:]]nullok' /etc/pam.d/* 2>/dev/null; }
check_pam_nullok() {
	pam_known
	bad=$(nullok | some)
	verdict "${bad:+nullok in $bad}"
}
fix_pam_nullok() {
	if [ "$family" = rpm ]; then
		authselect_feature without-nullok
		return
	fi
	for f in $(nullok); do
		replace "$f" "$(sed -E '/pam_unix\.so/s/[[:space:]]+nullok(_secure)?([[:space:]]|$)/\2/' "$f"; echo .)" || return 1
	done
}

check_pam_faillock() {
	pam_known
	stack auth | grep -qE 'pam_faillock\.so.*authfail' || fail "pam_faillock does not count failed logins"
	deny=3
	if [ -f /etc/security/faillock.conf ]; then
		[ "$(key_values /etc/security/faillock.conf deny | wc -l)" -le 1 ] || fail "/etc/security/faillock.conf sets deny more than once"
		v=$(key_values /etc/security/faillock.conf deny)
		deny=${v:-$deny}
	fi
	case $deny in *[!0-9]*) error "/etc/security/faillock.conf: deny = $deny" ;; esac
	{ [ "$deny" -ge 1 ] && [ "$deny" -le 5 ]; } || fail "deny = $deny in /etc/security/faillock.conf"
	pass
}
fix_pam_faillock() {
	set_key /etc/security/faillock.conf deny 5 ' = ' && set_key /etc/security/faillock.conf unlock_time 900 ' = ' || return 1
	if [ "$family" = rpm ]; then
		authselect_feature with-faillock
		return
	fi
	put /usr/share/pam-configs/bake-faillock 644 <<'X' || return 1
Name: Count failed logins (bake:baseline)
Default: yes
Priority: 0
Auth-Type: Primary
Auth:
	[default=die]	pam_faillock.so authfail
X
	put /usr/share/pam-configs/bake-faillock-notify 644 <<'X' || return 1
Name: Refuse accounts that are locked, and start to count again (bake:baseline)
Default: yes
Priority: 1024
Auth-Type: Primary
Auth:
	requisite	pam_faillock.so preauth
Account-Type: Primary
Account:
	required	pam_faillock.so
X
	stack auth | grep -q 'pam_faillock\.so authfail' || pam-auth-update --enable bake-faillock bake-faillock-notify
}

# pwquality prints the value that holds for a key: the main file is read first.
pwquality() {
	for f in /etc/security/pwquality.conf /etc/security/pwquality.conf.d/*.conf; do
		[ ! -f "$f" ] || key_values "$f" "$1"
	done | tail -n 1
}
check_pam_pwquality() {
	pam_known
	stack password | grep -q 'pam_pwquality\.so' || fail "pam_pwquality does not look at new passwords"
	v=$(pwquality minlen)
	case ${v:-8} in *[!0-9]*) error "minlen = $v in pwquality.conf" ;; esac
	[ "${v:-8}" -ge 14 ] || fail "minlen = ${v:-8}"
	pass
}
fix_pam_pwquality() {
	if [ "$family" = deb ]; then
		# Without a dictionary every new password would be refused.
		install libpam-pwquality cracklib-runtime wamerican || return 1
		[ -e /var/cache/cracklib/cracklib_dict.pwd ] || update-cracklib >/dev/null || return 1
	else
		install libpwquality || return 1
	fi
	put /etc/security/pwquality.conf.d/99-zz-bake-baseline.conf 644 <<'X'
# Written by bake:baseline.
minlen = 14
minclass = 1
maxrepeat = 3
dictcheck = 1
X
}

# login_defs KEY is the value of the only active line for a key.
login_defs() {
	[ -f /etc/login.defs ] || na "there is no /etc/login.defs"
	[ "$(key_values /etc/login.defs "$1" | wc -l)" -le 1 ] || fail "/etc/login.defs has $1 more than once"
	key_values /etc/login.defs "$1"
}
set_login_defs() { set_key /etc/login.defs "$1" "$2" "$(printf '\t')"; }

check_pam_hash() {
	pam_known
	need awk
	stack password | grep 'pam_unix\.so' | grep -qE 'yescrypt|sha512' || fail "pam_unix makes neither yescrypt nor sha512 hashes"
	v=$(login_defs ENCRYPT_METHOD) || fail "$v"
	case $v in YESCRYPT | SHA512) ;; *) fail "ENCRYPT_METHOD ${v:-is not set} in /etc/login.defs" ;; esac
	[ -r /etc/shadow ] || error "cannot read /etc/shadow"
	bad=$(awk -F: '$2 ~ /^!?\$(1|2|5|md5)[$,]/ || $2 ~ /^!?[a-zA-Z0-9.\/]{13}$/ { print $1 }' /etc/shadow | some)
	verdict "${bad:+weak hashes: $bad}"
}
fix_pam_hash() {
	if [ "$family" = rpm ]; then set_login_defs ENCRYPT_METHOD SHA512; else set_login_defs ENCRYPT_METHOD YESCRYPT; fi
}

check_pam_pwhistory() {
	pam_known
	stack password | grep -q 'pam_pwhistory\.so' || fail "pam_pwhistory does not look at new passwords"
	pass
}
fix_pam_pwhistory() {
	if [ "$family" = rpm ]; then
		authselect_feature with-pwhistory
		return
	fi
	put /usr/share/pam-configs/bake-pwhistory 644 <<'X' || return 1
Name: Refuse old passwords (bake:baseline)
Default: yes
Priority: 1023
Password-Type: Primary
Password:
	requisite	pam_pwhistory.so remember=24 enforce_for_root use_authtok
X
	stack password | grep -q 'pam_pwhistory\.so' || pam-auth-update --enable bake-pwhistory
}

check_pw_aging() {
	v=$(login_defs PASS_MAX_DAYS) || fail "$v"
	case $v in '' | *[!0-9]*) fail "PASS_MAX_DAYS ${v:-is not set} in /etc/login.defs" ;; esac
	{ [ "$v" -ge 1 ] && [ "$v" -le 365 ]; } || fail "PASS_MAX_DAYS $v in /etc/login.defs"
	pass
}
fix_pw_aging() { set_login_defs PASS_MAX_DAYS 365 && set_login_defs PASS_WARN_AGE 7; }

check_umask_default() {
	v=$(login_defs UMASK) || fail "$v"
	case $v in 027 | 077 | 0027 | 0077) pass ;; esac
	fail "UMASK ${v:-is not set} in /etc/login.defs"
}
fix_umask_default() { set_login_defs UMASK 027; }

check_su_wheel() {
	[ -f /etc/pam.d/su ] || na "there is no su"
	grep -qE '^auth[[:space:]]+required[[:space:]]+pam_wheel\.so.*use_uid' /etc/pam.d/su || fail "everyone may use su"
	pass
}
fix_su_wheel() {
	group=sudo
	[ "$family" = deb ] || group=wheel
	grep -qE '^auth.*pam_rootok\.so' /etc/pam.d/su || {
		echo "/etc/pam.d/su has no pam_rootok: change it yourself"
		return 1
	}
	replace /etc/pam.d/su "$(awk -v line="auth       required   pam_wheel.so use_uid group=$group" '
		{ print }
		/^auth.*pam_rootok\.so/ && !done { print line; done = 1 }' /etc/pam.d/su; echo .)"
}

# learn_login_shell keeps what root's login shell sets, which may hang, in login_timeout and
# login_path.
learn_login_shell() {
	login_error='' login_timeout='' login_path=''
	wanted shell-timeout "$@" || wanted account-root-path "$@" || return 0
	login_shell=bash
	have bash || login_shell="sh"
	# shellcheck disable=SC2016 # for the other shell
	said=$(timeout 20 env -i HOME=/root USER=root LOGNAME=root "$login_shell" -lc 'printf "\nbake-timeout=%s\nbake-path=%s\n" "${TMOUT:-0}" "$PATH"' </dev/null 2>/dev/null) || login_error="the login shell fails"
	while IFS= read -r line; do
		case $line in
		bake-timeout=*) login_timeout=${line#*=} ;;
		bake-path=*) login_path=${line#*=} ;;
		esac
	done <<X
$said
X
}
login_known() { [ -z "$login_error" ] || error "$login_error"; }
check_shell_timeout() {
	login_known
	v=$login_timeout
	case $v in '' | *[!0-9]*) fail "TMOUT is $v" ;; esac
	{ [ "$v" -gt 0 ] && [ "$v" -le 900 ]; } || fail "TMOUT is $v"
	pass
}
fix_shell_timeout() {
	put /etc/profile.d/zz-bake-baseline-tmout.sh 644 <<'X'
# Written by bake:baseline.
TMOUT=900
export TMOUT
X
}
