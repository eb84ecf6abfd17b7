# shellcheck shell=sh
# SSH. What counts is what sshd -T says, for root, for everybody else and, where there
# are Match blocks, for each user that people log in as and for a connection of each kind that
# they tell apart. Fixes write a drop-in of their
# own: the first value that sshd reads is the one that holds.

ssh_file=/etc/ssh/sshd_config.d/00-bake-baseline.conf

# learn_sshd keeps "USER VALUE" lines for each key in sshd_KEY, or why there are none in
# sshd_error; in sshd_asked the users; and in sshd_files "KEY FILE" of the files that set it. A
# user is "NAME,CRITERIA" on a connection that a Match block is about.
learn_sshd() {
	sshd_error='' sshd_files='' sshd_asked=''
	wanted ssh- "$@" || wanted service-ports "$@" || wanted firewall "$@" || return 0
	if ! have sshd; then
		sshd_error="there is no sshd on this machine"
		return 0
	fi
	[ -d /run/sshd ] || mkdir -m 755 /run/sshd
	set --
	for f in /etc/ssh/sshd_config.d/*.conf /etc/ssh/sshd_config; do
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	sshd_read "$@"
	sshd_users
	[ -z "$sshd_error" ] || return 0
	sshd_ask "" "$sshd_usual"
	! values_of '+at ' "$sshd_files" || while read -r at connection; do
		sshd_ask ",$at" "$connection"
	done <<X
$list
X
}

# sshd_read FILES reads the files and what they include.
sshd_read() {
	n=0 sshd_files=$(awk -v "usual=$sshd_usual" "$sshd_awk" "$@" </dev/null 2>&1) || {
		sshd_error="cannot read the configuration of sshd: $sshd_files"
		return 0
	}
	values_of '+include ' "$sshd_files" || return 0
	for f in $list; do # the shell expands their patterns
		case $f in /*) ;; *) f=/etc/ssh/$f ;; esac
		for f in $f; do
			[ -f "$f" ] || continue
			for known; do [ "$known" != "$f" ] || continue 2; done
			set -- "$@" "$f"
			n=$((n + 1))
		done
	done
	[ $n -eq 0 ] || sshd_read "$@"
}

# What awk says of the files: "KEY FILE" for each key that is set, "+at CRITERIA CONNECTION" for
# each connection that sshd has to be asked about because of a Match block, the latter as sshd
# wants it, "+include PATTERN", and "+unknown CRITERION". Of a list it takes something that each
# pattern in it is about, with or without a !, so that there are connections inside and outside
# of the block.
sshd_usual=host=localhost,addr=192.0.2.1,laddr=192.0.2.2,lport=22
# shellcheck disable=SC2016 # an awk program
sshd_awk='
	{ l = tolower($0); gsub(/"/, "", l); sub(/^[ \t]+/, "", l); k = l
	  known = k ~ /^include[ \t]+\/etc\/ssh\/sshd_config\.d\/\*\.conf[ \t]*$/; sub(/[ \t=].*/, "", k) }
	k ~ /^[a-z]/ && !known && !seen[k, FILENAME]++ { print k " " FILENAME }
	k == "match" { match_line(l) }
	k == "include" && !known { l = $0; gsub(/"/, "", l); sub(/^[ \t]*[A-Za-z]+[ \t=]+/, "", l); sub(/[ \t]#.*/, "", l); n = split(l, w); for (i = 1; i <= n; i++) print "+include " w[i] }
	function match_line(l,    w, p, n, m, i, j, o, c, old, new, olds, news, v, r) {
		sub(/[ \t]#.*/, "", l); gsub(/[= \t]+/, " ", l)
		n = split(l, w, " "); old[1] = ""; olds = 1
		for (i = 2; i <= n; i++) {
			if (w[i] == "all" || w[i] == "invalid-user") continue
			c = w[i++]
			if (c == "user" || c == "group") continue
			if (!(c in field)) { print "+unknown " c; return }
			if (c == "rdomain") print "+rdomain ?"
			m = split(w[i], p, ","); r = ""
			for (j = 1; j <= m; j++) r = r " " about(field[c], p[j])
			m = split(r, v, " "); news = 0
			for (o = 1; o <= olds; o++)
				for (j = 1; j <= m && news <= 1000; j++) new[++news] = (old[o] == "" ? "" : old[o] ",") field[c] "=" v[j]
			for (o = 1; o <= news; o++) old[o] = new[o]
			olds = news
		}
		for (o = 1; o <= olds; o++) if (old[o] != "" && !seen["at", old[o]]++) print "+at " old[o] " " connection(old[o])
	}
	function about(f, p) {
		sub(/^!/, "", p)
		if (f == "addr" || f == "laddr") {
			sub(/\/.*/, "", p)
			if (p == "*") return "192.0.2.1 198.51.100.1 2001:db8::1"
			if (p ~ /:/) { if (p !~ /::/) sub(/:\*$/, "::1", p) }
			else while (p ~ /\*/ && p !~ /\..*\..*\./) p = p ".1"
			gsub(/[*?]/, "1", p)
			return p
		}
		gsub(/[*?]/, "x", p)
		return p
	}
	function connection(at,    n, i, w, v, r) {
		n = split(usual, w, ","); at = "," at
		for (i = 1; i <= n; i++) {
			v = w[i]; sub(/=.*/, "", v)
			r = r (i == 1 ? "" : ",") (match(at, "," v "=[^,]*") ? substr(at, RSTART + 1, RLENGTH - 1) : w[i])
		}
		return match(at, ",rdomain=[^,]*") ? r substr(at, RSTART, RLENGTH) : r
	}
	BEGIN { field["address"] = "addr"; field["localaddress"] = "laddr"; field["localport"] = "lport"; field["host"] = "host"; field["rdomain"] = "rdomain" }'

# sshd_ask LABEL CONNECTION keeps what sshd says for each of the users, whose names get the label.
sshd_ask() {
	[ -z "$sshd_error" ] || return 0
	connection=$2
	case $2 in *rdomain=*) ;; *) ! values_of '+rdomain ' "$sshd_files" || connection="$2,rdomain=" ;; esac
	for u in $users; do
		said=$(sshd -T -C "user=$u,$connection" 2>&1 </dev/null) || {
			some_of "$said"
			sshd_error="sshd -T fails: $list"
			return 0
		}
		[ "$users" != nobody ] || u='root nobody'
		for who in $u; do sshd_asked="$sshd_asked $who$1"; done
		while read -r key value; do
			case $key in *[!a-z0-9]* | '') continue ;; esac
			for who in $u; do
				eval "sshd_$key=\"\${sshd_$key:-}$who$1 \$value
\""
			done
		done <<X
$said
X
	done
}
# sshd_users sets users to those that sshd has to be asked about. Where nothing but its own
# directory is included and there is no Match block, what holds for one holds for all.
sshd_users() {
	users=nobody
	! values_of 'include ' "$sshd_files" || users='root nobody'
	values_of 'match ' "$sshd_files" || return 0
	users='root nobody' n=0
	if [ -n "$accounts_error" ]; then
		sshd_error="there are Match blocks, and $accounts_error"
		return 0
	fi
	values_of 'login ' "$accounts" || true
	while IFS=: read -r u _; do
		[ -z "$u" ] || users="$users $u" n=$((n + 1))
	done <<X
$list
X
	[ $n -le 100 ] || sshd_error="there are Match blocks, and $n users to ask sshd about, of 100 at most"
	! values_of '+unknown ' "$sshd_files" || sshd_error="there is a Match block with $v, which the check does not know"
	asked=1
	values_of '+at ' "$sshd_files" && while read -r _; do asked=$((asked + 1)); done <<X
$list
X
	asked=$((asked * (n + 2)))
	[ $asked -le 300 ] || sshd_error="there are Match blocks, and $asked combinations of users and connections to ask sshd about, of 300 at most"
}

# sshd_who USER sets who to what a message calls those whom a value is for.
sshd_who() {
	who=$1
	case $1 in nobody | nobody,*) who=others${1#nobody} ;; esac
	case $who in *,*) who="${who%%,*} at ${who#*,}" ;; esac
}

sshd_known() {
	have sshd || na "$sshd_error"
	[ -z "$sshd_error" ] || error "$sshd_error"
}

# sshd_all KEY sets list to the "USER VALUE" lines of a key.
sshd_all() {
	sshd_known
	eval "list=\${sshd_$1:-}"
	[ -n "$list" ] || error "sshd -T does not know $1"
}

# sshd_value KEY sets v to what holds for those who have no Match block of their own.
sshd_value() {
	sshd_all "$1"
	v=${list#*nobody }
	v=${v%%"
"*}
}

# sshd_where KEY sets where to the files that set a key, unless the rule looked for it already.
sshd_where() {
	[ "$looked_for" != "$1" ] || return 0
	looked_for=$1
	values_of "$1 " "$sshd_files" || true
	some_of "$list"
	where=${list:+ (set in $list)}
}

# sshd_is KEY VALUES [USER] complains of users who get none of the values, which a | stands
# between.
sshd_is() {
	sshd_all "$1"
	while read -r user value; do
		[ -n "$user" ] || continue
		[ -z "${3:-}" ] || [ "${user%%,*}" = "$3" ] || continue
		case "|$2|" in *"|$value|"*) continue ;; esac
		sshd_where "$1"
		sshd_who "$user"
		complain "$1 $value for $who$where"
	done <<X
$list
X
}

# sshd_numbers KEY LEAST MOST complains of users who get a number outside these bounds.
sshd_numbers() {
	sshd_all "$1"
	while read -r user value; do
		case $value in
		'') continue ;;
		*[!0-9]*) error "sshd -T gives no number for $1" ;;
		esac
		[ "$value" -lt "$2" ] || [ "$value" -gt "$3" ] || continue
		sshd_where "$1"
		complain "$1 $value$where"
	done <<X
$list
X
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

check_ssh_root_login() { sshd_is permitrootlogin no root; verdict "$bad"; }
fix_ssh_root_login() {
	if [ "$(build_user)" = root ]; then
		echo "this is a login of root, which the fix would lock out"
		return 1
	fi
	set_sshd PermitRootLogin no
}

check_ssh_password_auth() { sshd_is passwordauthentication no; verdict "$bad"; }
fix_ssh_password_auth() { set_sshd PasswordAuthentication no; }

check_ssh_kbdint_auth() { sshd_is kbdinteractiveauthentication no; verdict "$bad"; }
fix_ssh_kbdint_auth() { set_sshd KbdInteractiveAuthentication no; }

check_ssh_empty_passwords() { sshd_is permitemptypasswords no; verdict "$bad"; }
fix_ssh_empty_passwords() { set_sshd PermitEmptyPasswords no; }

check_ssh_hostbased() { sshd_is hostbasedauthentication no; sshd_is ignorerhosts yes; verdict "$bad"; }
fix_ssh_hostbased() { set_sshd HostbasedAuthentication no && set_sshd IgnoreRhosts yes; }

check_ssh_user_environment() { sshd_is permituserenvironment no; verdict "$bad"; }
fix_ssh_user_environment() { set_sshd PermitUserEnvironment no; }

check_ssh_strict_modes() { sshd_is strictmodes yes; verdict "$bad"; }
fix_ssh_strict_modes() { set_sshd StrictModes yes; }

check_ssh_max_auth_tries() { sshd_numbers maxauthtries 1 4; verdict "$bad"; }
fix_ssh_max_auth_tries() { set_sshd MaxAuthTries 4; }

check_ssh_login_grace() { sshd_numbers logingracetime 1 60; verdict "${bad:+$bad; 0 is no limit}"; }
fix_ssh_login_grace() { set_sshd LoginGraceTime 60; }

check_ssh_max_startups() {
	sshd_value maxstartups
	old_ifs=$IFS IFS=:
	# shellcheck disable=SC2086 # three numbers
	set -- $v
	IFS=$old_ifs
	case $#$v in 3*[!0-9:]* | [!3]*) error "sshd -T says maxstartups $v" ;; esac
	if [ "$1" -gt 10 ] || [ "$2" -lt 30 ] || [ "$3" -gt 60 ]; then
		sshd_where maxstartups
		fail "maxstartups $1:$2:$3$where"
	fi
	pass
}
fix_ssh_max_startups() { set_sshd MaxStartups 10:30:60; }

check_ssh_idle() {
	sshd_numbers clientaliveinterval 1 900
	sshd_numbers clientalivecountmax 1 900
	[ -z "$bad" ] || fail "$bad"
	sshd_all clientalivecountmax
	counts=$list
	sshd_all clientaliveinterval
	while read -r user interval; do
		[ -n "$user" ] || continue
		values_of "$user " "$counts" || error "sshd -T does not know clientalivecountmax for $user"
		sshd_who "$user"
		[ $((interval * v)) -le 900 ] || complain "clientaliveinterval $interval times clientalivecountmax $v is more than 900 for $who"
	done <<X
$list
X
	verdict "$bad"
}
fix_ssh_idle() { set_sshd ClientAliveInterval 300 && set_sshd ClientAliveCountMax 3; }

check_ssh_x11() { sshd_is x11forwarding no; verdict "$bad"; }
fix_ssh_x11() { set_sshd X11Forwarding no; }

check_ssh_use_pam() { sshd_is usepam yes; verdict "$bad"; }
fix_ssh_use_pam() { set_sshd UsePAM yes; }

check_ssh_log_level() { sshd_is loglevel 'INFO|VERBOSE'; verdict "$bad"; }
fix_ssh_log_level() { set_sshd LogLevel VERBOSE; }

# weak KEY PATTERNS complains of the algorithms of a key that match one of the patterns.
weak() {
	sshd_value "$1"
	weak_and_strong "$v" "$2"
	some_of "$weak"
	verdict "${list:+$1: $list}"
}
# without KEY PATTERNS sets the key to those that match none.
without() {
	sshd_value "$(printf '%s' "$1" | tr '[:upper:]' '[:lower:]')"
	weak_and_strong "$v" "$2"
	if [ -z "$strong" ]; then
		echo "sshd would be left without any $1"
		return 1
	fi
	set_sshd "$1" "$strong"
}
# weak_and_strong LIST PATTERNS sets weak to the algorithms that match one of the patterns, a
# line each, and strong to the others, with commas as in the list.
weak_and_strong() {
	set -f
	old_ifs=$IFS weak='' strong=''
	IFS=,
	for algorithm in $1; do
		IFS=' '
		good=yes
		for pattern in $2; do
			# shellcheck disable=SC2254 # a pattern
			case $algorithm in $pattern) good= ;; esac
		done
		if [ -n "$good" ]; then
			strong="${strong:+$strong,}$algorithm"
		else
			weak="${weak:+$weak
}$algorithm"
		fi
	done
	IFS=$old_ifs
	set +f
}
weak_ciphers='*cbc* *arcfour* *3des* *blowfish* *cast*'
weak_macs='*md5* *sha1* *umac-64* *ripemd* *-96*'
weak_kex='*sha1 *sha1-*'

check_ssh_ciphers() { weak ciphers "$weak_ciphers"; }
fix_ssh_ciphers() { without Ciphers "$weak_ciphers"; }
check_ssh_macs() { weak macs "$weak_macs"; }
fix_ssh_macs() { without MACs "$weak_macs"; }
check_ssh_kex() { weak kexalgorithms "$weak_kex"; }
fix_ssh_kex() { without KexAlgorithms "$weak_kex"; }

check_ssh_config_mode() {
	[ -e /etc/ssh/sshd_config ] || na "there is no /etc/ssh/sshd_config"
	modes_ssh_config_mode at_most
	verdict "$bad"
}
modes_ssh_config_mode() { "$1" 600 root root /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; }
fix_ssh_config_mode() { modes_ssh_config_mode limit; }

# Red Hat's keys belong to a group that a helper of ssh runs with.
modes_ssh_hostkey_mode() {
	for key in /etc/ssh/ssh_host_*_key; do
		values_of "$key:" "$modes" || true
		case $v in
		*:ssh_keys) "$1" 640 root ssh_keys "$key" || return 1 ;;
		*) "$1" 600 root root "$key" || return 1 ;;
		esac
	done
}
check_ssh_hostkey_mode() {
	set -- /etc/ssh/ssh_host_*_key
	[ -e "$1" ] || na "there are no host keys"
	modes_ssh_hostkey_mode at_most
	verdict "$bad"
}
fix_ssh_hostkey_mode() { modes_ssh_hostkey_mode limit; }

check_ssh_forwarding() { sshd_is disableforwarding yes; verdict "$bad"; }
fix_ssh_forwarding() { set_sshd DisableForwarding yes; }

check_ssh_access_list() {
	sshd_known
	for user in $sshd_asked; do
		values_of "$user " "${sshd_allowusers:-}${sshd_allowgroups:-}${sshd_denyusers:-}${sshd_denygroups:-}" && continue
		[ "$user" != nobody ] || fail "no AllowUsers, AllowGroups, DenyUsers or DenyGroups"
		sshd_who "$user"
		complain "no AllowUsers, AllowGroups, DenyUsers or DenyGroups for $who"
	done
	verdict "$bad"
}
fix_ssh_access_list() {
	user=$(build_user)
	if [ "$user" = root ]; then
		echo "this is a login of root: list the users yourself"
		return 1
	fi
	group=$(id -gn "$user") && set_sshd AllowGroups "$group"
}
