# shellcheck shell=sh
# SSH. What counts is what sshd -T says, for root, for everybody else and, where there
# are Match blocks, for each user that people log in as. Fixes write a drop-in of their
# own: the first value that sshd reads is the one that holds.

ssh_file=/etc/ssh/sshd_config.d/00-bake-baseline.conf

# learn_sshd keeps "USER KEY VALUE" lines in sshd, or why there are none in sshd_error.
learn_sshd() {
	sshd='' sshd_error=''
	wanted ssh- "$@" || wanted service-ports "$@" || wanted firewall "$@" || return 0
	if ! have sshd; then
		sshd_error="there is no sshd on this machine"
		return 0
	fi
	[ -d /run/sshd ] || mkdir -m 755 /run/sshd
	users='root nobody'
	if grep -qiE '^[[:space:]]*match[[:space:]]' /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf 2>/dev/null; then
		users="$users $(login_users | cut -d : -f 1 | head -n 100 | paste -sd ' ' -)"
	fi
	for u in $users; do
		said=$(sshd -T -C "user=$u,host=localhost,addr=192.0.2.1,laddr=192.0.2.2,lport=22" 2>&1) || {
			sshd_error="sshd -T fails: $(printf '%s' "$said" | some)"
			return 0
		}
		sshd="$sshd
$(printf '%s\n' "$said" | sed "s/^/$u /")"
	done
}

sshd_known() {
	have sshd || na "$sshd_error"
	[ -z "$sshd_error" ] || error "$sshd_error"
}

# sshd_values KEY prints the different values for users, and sshd_value that of nobody.
sshd_values() { printf '%s\n' "$sshd" | awk -v key="$1" '$2 == key { sub(/^[^ ]+ [^ ]+ ?/, ""); print }' | sort -u; }
sshd_value() { printf '%s\n' "$sshd" | awk -v key="$1" '$1 == "nobody" && $2 == key { sub(/^[^ ]+ [^ ]+ ?/, ""); print; exit }'; }

# sshd_where KEY tells which files set a key.
sshd_where() {
	files=$(grep -liE "^[[:space:]]*$1[[:space:]=]" /etc/ssh/sshd_config.d/*.conf /etc/ssh/sshd_config 2>/dev/null | some)
	[ -z "$files" ] || printf ' (set in %s)' "$files"
}

# sshd_is KEY VALUE [USER] complains of each user who gets another value.
sshd_is() {
	sshd_known
	printf '%s\n' "$sshd" | awk -v key="$1" -v want="$2" -v user="${3:-}" '
		$2 == key && (user == "" || $1 == user) {
			seen = 1; who = $1; sub(/^[^ ]+ [^ ]+ ?/, "")
			if ($0 != want) bad[$0] = bad[$0] " " (who == "nobody" ? "others" : who)
		}
		END {
			if (!seen) print "sshd -T does not know " key
			for (v in bad) print key " " v " for" bad[v]
		}' | sed "\$s|\$|$(sshd_where "$1")|"
}

# sshd_number KEY complains unless every value is a number.
sshd_number() {
	sshd_known
	case $(sshd_values "$1" | tr -d '\n') in '' | *[!0-9]*) error "sshd -T gives no number for $1" ;; esac
}

# set_sshd KEY VALUE writes a line into the drop-in, and takes it back if sshd will not
# have it.
set_sshd() {
	first=$(sed -n '/^[[:space:]]*\(#\|$\)/!{p;q;}' /etc/ssh/sshd_config)
	case $(printf '%s' "$first" | tr 'A-Z\t' 'a-z ') in
	*include*/etc/ssh/sshd_config.d/\*.conf*) ;;
	*)
		echo "/etc/ssh/sshd_config does not begin with: Include /etc/ssh/sshd_config.d/*.conf"
		return 1
		;;
	esac
	old=$(cat "$ssh_file" 2>/dev/null)
	keep "$ssh_file" 600 "^$1 " "$1 $2" || return 1
	[ -d /run/sshd ] || mkdir -m 755 /run/sshd
	said=$(sshd -t 2>&1) && return 0
	if [ -n "$old" ]; then printf '%s\n' "$old" | put "$ssh_file" 600; else rm -f "$ssh_file"; fi
	echo "sshd refuses $1 $2: $said"
	return 1
}

reload_sshd() {
	for unit in ssh sshd; do
		if systemctl -q is-active "$unit.service"; then
			systemctl reload "$unit.service"
			return
		fi
	done
}

check_ssh_root_login() { sshd_known; verdict "$(sshd_is permitrootlogin no root)"; }
fix_ssh_root_login() {
	if [ "$(build_user)" = root ]; then
		echo "this is a login of root, which the fix would lock out"
		return 1
	fi
	set_sshd PermitRootLogin no
}

check_ssh_password_auth() { sshd_known; verdict "$(sshd_is passwordauthentication no)"; }
fix_ssh_password_auth() { set_sshd PasswordAuthentication no; }

check_ssh_kbdint_auth() { sshd_known; verdict "$(sshd_is kbdinteractiveauthentication no)"; }
fix_ssh_kbdint_auth() { set_sshd KbdInteractiveAuthentication no; }

check_ssh_empty_passwords() { sshd_known; verdict "$(sshd_is permitemptypasswords no)"; }
fix_ssh_empty_passwords() { set_sshd PermitEmptyPasswords no; }

check_ssh_hostbased() { sshd_known; verdict "$(sshd_is hostbasedauthentication no; sshd_is ignorerhosts yes)"; }
fix_ssh_hostbased() { set_sshd HostbasedAuthentication no && set_sshd IgnoreRhosts yes; }

check_ssh_user_environment() { sshd_known; verdict "$(sshd_is permituserenvironment no)"; }
fix_ssh_user_environment() { set_sshd PermitUserEnvironment no; }

check_ssh_strict_modes() { sshd_known; verdict "$(sshd_is strictmodes yes)"; }
fix_ssh_strict_modes() { set_sshd StrictModes yes; }

check_ssh_max_auth_tries() {
	sshd_number maxauthtries
	v=$(sshd_values maxauthtries | sort -n | tail -n 1)
	[ "$v" -le 4 ] || fail "maxauthtries $v$(sshd_where maxauthtries)"
	pass
}
fix_ssh_max_auth_tries() { set_sshd MaxAuthTries 4; }

check_ssh_login_grace() {
	sshd_number logingracetime
	v=$(sshd_value logingracetime)
	[ "$v" -ne 0 ] || fail "logingracetime 0, which is no limit$(sshd_where logingracetime)"
	[ "$v" -le 60 ] || fail "logingracetime $v$(sshd_where logingracetime)"
	pass
}
fix_ssh_login_grace() { set_sshd LoginGraceTime 60; }

check_ssh_max_startups() {
	sshd_known
	v=$(sshd_value maxstartups)
	printf '%s\n' "$v" | awk -F : 'NF != 3 { exit 1 } { exit !($1 <= 10 && $2 >= 30 && $3 <= 60) }' || fail "maxstartups $v$(sshd_where maxstartups)"
	pass
}
fix_ssh_max_startups() { set_sshd MaxStartups 10:30:60; }

check_ssh_idle() {
	sshd_number clientaliveinterval
	sshd_number clientalivecountmax
	for interval in $(sshd_values clientaliveinterval); do
		for count in $(sshd_values clientalivecountmax); do
			{ [ "$interval" -gt 0 ] && [ "$count" -gt 0 ] && [ $((interval * count)) -le 900 ]; } ||
				fail "clientaliveinterval $interval, clientalivecountmax $count$(sshd_where 'clientalive[a-z]*')"
		done
	done
	pass
}
fix_ssh_idle() { set_sshd ClientAliveInterval 300 && set_sshd ClientAliveCountMax 3; }

check_ssh_x11() { sshd_known; verdict "$(sshd_is x11forwarding no)"; }
fix_ssh_x11() { set_sshd X11Forwarding no; }

check_ssh_use_pam() { sshd_known; verdict "$(sshd_is usepam yes)"; }
fix_ssh_use_pam() { set_sshd UsePAM yes; }

check_ssh_log_level() {
	sshd_known
	bad=$(sshd_values loglevel | grep -vxE 'INFO|VERBOSE' | some)
	verdict "${bad:+loglevel $bad$(sshd_where loglevel)}"
}
fix_ssh_log_level() { set_sshd LogLevel VERBOSE; }

# weak KEY REGEX complains of algorithms, and without KEY REGEX writes a list without them.
weak() {
	sshd_known
	[ -n "$(sshd_value "$1")" ] || error "sshd -T does not know $1"
	bad=$(sshd_value "$1" | tr , '\n' | grep -E "$2" | some)
	verdict "${bad:+$1: $bad}"
}
without() {
	list=$(sshd_value "$(printf '%s' "$1" | tr "[:upper:]" "[:lower:]")" | tr , '\n' | grep -vE "$2" | paste -sd , -)
	if [ -z "$list" ]; then
		echo "sshd would be left without any $1"
		return 1
	fi
	set_sshd "$1" "$list"
}
weak_ciphers='cbc|arcfour|3des|blowfish|cast'
weak_macs='md5|sha1|umac-64|ripemd|-96'
weak_kex='sha1$|sha1-'

check_ssh_ciphers() { weak ciphers "$weak_ciphers"; }
fix_ssh_ciphers() { without Ciphers "$weak_ciphers"; }
check_ssh_macs() { weak macs "$weak_macs"; }
fix_ssh_macs() { without MACs "$weak_macs"; }
check_ssh_kex() { weak kexalgorithms "$weak_kex"; }
fix_ssh_kex() { without KexAlgorithms "$weak_kex"; }

check_ssh_config_mode() {
	[ -e /etc/ssh/sshd_config ] || na "there is no /etc/ssh/sshd_config"
	verdict "$(for f in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; do at_most "$f" 600 root root; done)"
}
fix_ssh_config_mode() { for f in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; do limit "$f" 600 root root || return 1; done; }

# host_key_modes COMMAND: Red Hat's keys belong to a group that a helper of ssh runs with.
host_key_modes() {
	for f in /etc/ssh/ssh_host_*_key; do
		[ -e "$f" ] || continue
		if [ "$(stat -c %G "$f")" = ssh_keys ]; then
			"$1" "$f" 640 root ssh_keys || return 1
		else
			"$1" "$f" 600 root root || return 1
		fi
	done
}
check_ssh_hostkey_mode() {
	[ -n "$(find /etc/ssh -name 'ssh_host_*_key' 2>/dev/null)" ] || na "there are no host keys"
	verdict "$(host_key_modes at_most)"
}
fix_ssh_hostkey_mode() { host_key_modes limit; }

check_ssh_forwarding() { sshd_known; verdict "$(sshd_is disableforwarding yes)"; }
fix_ssh_forwarding() { set_sshd DisableForwarding yes; }

check_ssh_access_list() {
	sshd_known
	printf '%s\n' "$sshd" | grep -qE '^[^ ]+ (allow|deny)(users|groups) ' || fail "no AllowUsers, AllowGroups, DenyUsers or DenyGroups"
	pass
}
fix_ssh_access_list() {
	user=$(build_user)
	if [ "$user" = root ]; then
		echo "this is a login of root: list the users yourself"
		return 1
	fi
	group=$(id -gn "$user") && set_sshd AllowGroups "$group"
}
