# shellcheck shell=sh
# PAM and passwords. On Debian and Ubuntu, /etc/pam.d/common-* are made by pam-auth-update
# out of profiles, and options that were changed there are kept; on RHEL and Amazon Linux
# the stack belongs to authselect, and is never written here.

# learn_pam keeps "FILE:LINE" of the lines that count of all stacks, without comments, with lines
# joined and with one blank between words.
learn_pam() {
	pam=''
	wanted pam- "$@" || wanted su-wheel "$@" || return 0
	set --
	for f in /etc/pam.d/*; do
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	pam=$(awk '
		FNR == 1 { line = "" }
		{ sub(/#.*/, ""); line = line $0 }
		sub(/\\$/, " ", line) { next }
		{ gsub(/[ \t]+/, " ", line); sub(/^ ?-?/, "", line); if (line ~ /[^ ]/) print FILENAME ":" line; line = "" }' "$@" </dev/null 2>/dev/null) || pam=''
}
pam_known() {
	[ -d /etc/pam.d ] || na "there is no PAM on this machine"
	[ -n "$pam" ] || error "cannot read /etc/pam.d"
}
# stacks KIND MODULE COMPLAINT sets list to the lines with a module of the stacks that all services
# share, and fails if one of the stacks is without it. On RHEL, system-auth is what the console
# goes by, and password-auth what SSH does.
stacks() {
	pam_known
	stacks=common-$1 stack_lines=''
	[ "$family" = deb ] || stacks='system-auth password-auth'
	for f in $stacks; do
		values_of "/etc/pam.d/$f:" "$pam" || true
		lines_with "$1 *$2*" "$list"
		[ -n "$list" ] || fail "$3: /etc/pam.d/$f"
		stack_lines="$stack_lines${stack_lines:+
}$list"
	done
	list=$stack_lines
}
# option_of NAME LINE sets v to the value that a line gives to an option of its module.
option_of() {
	v=''
	set -f
	for word in $2; do
		case $word in "$1"=*) v=${word#*=} ;; esac
	done
	set +f
}

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

# nullok sets list to the files whose pam_unix takes empty passwords.
nullok() {
	pam_known
	lines_with '*pam_unix.so*[[:space:]]nullok*' "$pam"
	nullok=$list list=
	while IFS=: read -r f _; do
		case "
$list
" in *"
$f
"*) ;; *) list="$list${list:+
}$f" ;; esac
	done <<X
$nullok
X
}
check_pam_nullok() {
	nullok
	some_of "$list"
	verdict "${list:+nullok in $list}"
}
fix_pam_nullok() {
	if [ "$family" = rpm ]; then
		authselect_feature without-nullok
		return
	fi
	nullok
	for f in $list; do
		replace "$f" "$(sed -E '/pam_unix\.so/s/[[:space:]]+nullok(_secure)?([[:space:]]|$)/\2/' "$f"; echo .)" || return 1
	done
}

check_pam_faillock() {
	stacks auth 'pam_faillock.so*authfail' "pam_faillock does not count failed logins"
	setting /etc/security/faillock.conf deny || fail "/etc/security/faillock.conf sets deny more than once"
	deny=${v:-3}
	case $deny in *[!0-9]*) error "/etc/security/faillock.conf: deny = $deny" ;; esac
	stacks auth pam_faillock.so "there is no pam_faillock"
	while IFS= read -r line; do # of which those before and after the password count
		option_of conf "$line"
		[ -z "$v" ] || error "pam_faillock reads $v"
		option_of deny "$line"
		case $v in *[!0-9]*) error "/etc/pam.d: deny=$v" ;; esac
		where=/etc/security/faillock.conf
		if [ -n "$v" ]; then where="/etc/pam.d: $line"; else v=$deny; fi
		{ [ "$v" -ge 1 ] && [ "$v" -le 5 ]; } || complain "deny = $v in $where"
	done <<X
$list
X
	none "$bad"
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
	stacks=$(awk '{ sub(/#.*/, ""); print }' /etc/pam.d/common-auth)
	case $stacks in *pam_faillock.so*authfail*) ;; *) pam-auth-update --enable bake-faillock bake-faillock-notify ;; esac
}

# learn_settings keeps "FILE:KEY VALUE" of the settings that rules ask about.
learn_settings() {
	settings='' settings_error=''
	wanted pam- "$@" || wanted pw-aging "$@" || wanted umask- "$@" || return 0
	set --
	for f in /etc/login.defs /etc/security/faillock.conf /etc/security/pwquality.conf /etc/security/pwquality.conf.d/*.conf; do
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	[ $# = 0 ] || settings=$(settings_in "$@" 2>&1) || settings_error="awk fails: $settings"
}
# setting FILE KEY sets v to the value of a key, to the last if there is more than
# one, which is a failure, or to nothing.
setting() {
	[ -z "$settings_error" ] || error "$settings_error"
	values_of "$1:$2 " "$settings" || return 0
	case $list in *"
"*) return 1 ;; esac
}

check_pam_pwquality() {
	stacks password pam_pwquality.so "pam_pwquality does not look at new passwords"
	lines=$list minlen=''
	for f in /etc/security/pwquality.conf.d/*.conf /etc/security/pwquality.conf; do # the main file is read last
		setting "$f" minlen || true
		minlen=${v:-$minlen}
	done
	while IFS= read -r line; do # whose options come before those of files
		option_of minlen "$line"
		v=${v:-${minlen:-8}}
		case $v in *[!0-9]*) error "minlen = $v in pwquality.conf or /etc/pam.d" ;; esac
		[ "$v" -ge 14 ] || complain "minlen = $v"
	done <<X
$lines
X
	none "$bad"
}
fix_pam_pwquality() {
	if [ "$family" = deb ]; then
		# Without a dictionary every new password would be refused.
		install libpam-pwquality cracklib-runtime wamerican || return 1
		[ -e /var/cache/cracklib/cracklib_dict.pwd ] || update-cracklib >/dev/null || return 1
	else
		install libpwquality || return 1
	fi
	setting /etc/security/pwquality.conf minlen || true
	[ -z "$v" ] || set_key /etc/security/pwquality.conf minlen 14 ' = ' || return 1
	put /etc/security/pwquality.conf.d/99-zz-bake-baseline.conf 644 <<'X'
# Written by bake:baseline.
minlen = 14
minclass = 1
maxrepeat = 3
dictcheck = 1
X
}

# login_defs KEY sets v to the value of the only line for a key.
login_defs() {
	[ -f /etc/login.defs ] || na "there is no /etc/login.defs"
	setting /etc/login.defs "$1" || fail "/etc/login.defs has $1 more than once"
}
set_login_defs() { set_key /etc/login.defs "$1" "$2" "$(printf '\t')"; }

# A hash of DES has 13 characters and no mark.
awk_pam_hash='
file == "shadow" { h = $2; sub(/^!/, "", h) }
file == "shadow" && (h ~ /^\$(1|2|5|md5)[$,]/ || length(h) == 13 && h ~ /^[a-zA-Z0-9.\/]+$/) { say("hash", $1) }'
check_pam_hash() {
	stacks password pam_unix.so "pam_unix does not change passwords"
	while IFS= read -r line; do
		case "$line " in *' yescrypt '* | *' sha512 '*) ;; *) fail "pam_unix makes neither yescrypt nor sha512 hashes: $line" ;; esac
	done <<X
$list
X
	login_defs ENCRYPT_METHOD
	case $v in YESCRYPT | SHA512) ;; *) fail "ENCRYPT_METHOD ${v:-is not set} in /etc/login.defs" ;; esac
	shadow_known
	accounts_of hash
	some_of "$list"
	verdict "${list:+weak hashes: $list}"
}
fix_pam_hash() {
	if [ "$family" = rpm ]; then set_login_defs ENCRYPT_METHOD SHA512; else set_login_defs ENCRYPT_METHOD YESCRYPT; fi
}

check_pam_pwhistory() {
	stacks password pam_pwhistory.so "pam_pwhistory does not look at new passwords"
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
	grep -q '^[^#].*pam_pwhistory\.so' /etc/pam.d/common-password || pam-auth-update --enable bake-pwhistory
}

check_pw_aging() {
	login_defs PASS_MAX_DAYS
	case $v in '' | *[!0-9]*) fail "PASS_MAX_DAYS ${v:-is not set} in /etc/login.defs" ;; esac
	{ [ "$v" -ge 1 ] && [ "$v" -le 365 ]; } || fail "PASS_MAX_DAYS $v in /etc/login.defs"
	pass
}
fix_pw_aging() { set_login_defs PASS_MAX_DAYS 365 && set_login_defs PASS_WARN_AGE 7; }

check_umask_default() {
	login_defs UMASK
	case $v in 027 | 077 | 0027 | 0077) pass ;; esac
	fail "UMASK ${v:-is not set} in /etc/login.defs"
}
fix_umask_default() { set_login_defs UMASK 027; }

check_su_wheel() {
	[ -f /etc/pam.d/su ] || na "there is no su"
	values_of /etc/pam.d/su: "$pam" || error "cannot read /etc/pam.d/su"
	while read -r kind control module; do
		case $kind:$control:$module in auth:required:pam_wheel.so*use_uid*) pass ;; esac
	done <<X
$list
X
	fail "everyone may use su"
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
