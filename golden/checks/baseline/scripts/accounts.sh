# shellcheck shell=sh disable=SC2016
# Accounts. What people log in as is never removed, renamed or expired here.

# What rules look for among the accounts are awk_RULE: parts of one awk program, which reads
# passwd, shadow and group once, with file the name of one of them, and says what it finds by
# say(KIND, TEXT).

# learn_accounts keeps "KIND TEXT" lines in accounts.
learn_accounts() {
	accounts='' accounts_error='' program=''
	wanted account- "$@" || wanted pam-hash "$@" || wanted ssh- "$@" || wanted service-ports "$@" || wanted firewall "$@" || return 0
	for rule; do
		function_of awk "$rule"
		eval "program=\"\$program
\${$name-}\""
	done
	set -- /etc/passwd /etc/group
	[ ! -r /etc/shadow ] || set -- /etc/passwd /etc/shadow /etc/group
	accounts=$(awk -F: "
function say(kind, text) { print kind \" \" text }
FNR == 1 { file = FILENAME; sub(/.*\\//, \"\", file) }
$awk_login_users$program" "$@" 2>&1) || accounts_error="cannot read /etc/passwd and /etc/group: $accounts"
}
shadow_known() { { [ -r /etc/shadow ] && [ -s /etc/shadow ]; } || error "cannot read /etc/shadow"; }
# accounts_of KIND sets list to what was found of a kind.
accounts_of() {
	[ -z "$accounts_error" ] || error "$accounts_error"
	values_of "$1 " "$accounts" || true
}

# login_users sets list to NAME:HOME of those that people log in as.
awk_login_users='
file == "passwd" && $3 >= 1000 && $3 < 60000 && $7 !~ /(nologin|false)$/ { say("login", $1 ":" $6) }'
login_users() { accounts_of login; }

awk_account_uid0='
file == "passwd" && $3 == 0 && $1 != "root" { say("uid0", $1) }'
check_account_uid0() {
	accounts_of uid0
	none "$list"
}

awk_account_empty_password='
file == "shadow" && $2 == "" { say("empty", $1 " has an empty password") }
file == "passwd" && $2 != "x" { say("in-passwd", $1 " has its password in /etc/passwd") }'
check_account_empty_password() {
	shadow_known
	accounts_of empty
	bad=$list
	accounts_of in-passwd
	none "${bad:+$bad
}$list"
}
fix_account_empty_password() {
	for u in $(awk -F: '$2 == "" { print $1 }' /etc/shadow); do
		passwd -l "$u" >/dev/null 2>&1 || usermod -p '!' "$u" || return 1
	done
}

awk_account_root_locked='
file == "shadow" && $1 == "root" { say("root", $2) }'
check_account_root_locked() {
	shadow_known
	accounts_of root
	case $v in '!'* | '*'*) pass ;; esac
	fail "root has a password"
}
fix_account_root_locked() { usermod -L root; }

awk_account_system_shell='
file == "passwd" && $3 > 0 && $3 < 1000 { system_[$1] = 1 }
file == "passwd" && $3 > 0 && $3 < 1000 && $1 !~ /^(sync|shutdown|halt)$/ && $7 !~ /(nologin|false)$/ { say("shell", $1) }
file == "shadow" && system_[$1] && $2 !~ /^[!*]/ { say("password", $1 " has a password") }'
check_account_system_shell() {
	shadow_known
	accounts_of shell
	for u in $list; do complain "$u has a shell"; done
	accounts_of password
	[ -z "$list" ] || complain "$list"
	none "$bad"
}
fix_account_system_shell() {
	accounts_of shell
	for u in $list; do usermod -s "$(command -v nologin)" "$u" || return 1; done
}

awk_account_unique_ids='
file != "shadow" && seen[file, "name", $1]++ == 1 { say("twice", "name in " file ": " $1) }
file != "shadow" && seen[file, "ID", $3]++ == 1 { say("twice", "ID in " file ": " $3) }'
check_account_unique_ids() {
	accounts_of twice
	none "$list"
}

awk_account_home_mode='
file == "passwd" { say("home", $1 ":" $6) }'
modes_account_home_mode() {
	values_of 'login ' "$accounts" || return 0
	while IFS=: read -r user home; do
		[ ! -d "$home" ] || "$1" 750 "$user" any "$home" || return 1
	done <<X
$list
X
}
check_account_home_mode() {
	login_users
	while IFS=: read -r user home; do
		if [ -d "$home" ]; then
			at_most 750 "$user" any "$home"
		elif [ -n "$user" ]; then
			complain "$user has no $home"
		fi
	done <<X
$list
X
	verdict "$bad"
}
# A home may be any directory: what others need as well is left as it is.
fix_account_home_mode() {
	login_users
	logins=$list refused=0
	accounts_of home
	all_homes=$list
	while IFS=: read -r user home; do
		[ -d "$home" ] || continue
		bad=''
		at_most 750 "$user" any "$home"
		[ -n "$bad" ] || continue
		why_shared "$user" "$home"
		if [ -n "$why" ]; then
			echo "$home, the home of $user, $why: give $user a home of its own"
			refused=1
		else
			limit 750 "$user" any "$home" || return 1
		fi
	done <<X
$logins
X
	return $refused
}
# why_shared USER HOME sets why to the reason for which a home is not the user's alone, if any.
why_shared() {
	why=''
	real=$(cd -P -- "$2" && pwd) || real=''
	case $real in
	/var/home/*) ;;
	/bin/* | /boot/* | /dev/* | /etc/* | /lib*/* | /proc/* | /root/* | /run/* | /sbin/* | /sys/* | /tmp/* | /usr/* | /var/*) why="is in a directory of the system" ;;
	/*/*) ;;
	*) why="is a directory of the system" ;;
	esac
	[ -z "$why" ] || return 0
	holder=$(stat -Lc %U -- "$2") || holder='nobody known'
	case $holder in
	"$1" | root) ;;
	*) why="belongs to $holder" ;;
	esac
	while IFS=: read -r other there; do
		[ "$other" != "$1" ] && [ -n "$there" ] || continue
		case $there/ in "$2"/* | "$real"/*) why="is the home of $other too, or has it in it" ;; esac
		[ ! "$there" -ef "$2" ] || why="is the home of $other too"
	done <<X
$all_homes
X
}

# homes sets list to the homes of those that people log in as, and root's.
homes() {
	login_users
	old_list=$list list=
	while IFS=: read -r _ home; do
		case $home in /*) [ ! -d "$home" ] || list="$list$home
" ;; esac
	done <<X
$old_list
root:/root
X
}
# dot_files FIND... finds what others can write to of the files that run at a login.
dot_files() {
	homes
	set -f
	old_ifs=$IFS
	IFS='
'
	# shellcheck disable=SC2086 # a list, a line each
	find -H $list -xdev -mindepth 1 -maxdepth 2 ! -type l \( -name '.*' -o -path '*/.ssh/*' \) -perm /022 "$@" 2>/dev/null
	IFS=$old_ifs
	set +f
}
check_account_dotfiles() {
	find_known
	homes
	while IFS= read -r home; do
		for f in "$home/.rhosts" "$home/.shosts" "$home/.netrc" "$home/.forward"; do
			[ -z "$home" ] || [ ! -e "$f" ] || complain "$f"
		done
	done <<X
$list
X
	open=$(dot_files -printf '%p is writable by others\n' | bounded)
	[ -z "$open" ] || complain "$open"
	none "$bad"
}
fix_account_dotfiles() { dot_files -exec chmod go-w {} +; }

check_account_root_path() {
	login_known
	path=$login_path
	[ -n "$path" ] || error "the login shell has no PATH"
	set -f
	old_ifs=$IFS IFS=:
	# shellcheck disable=SC2086 # the entries
	set -- $path
	IFS=$old_ifs
	set +f
	case :$path: in *::*) complain "PATH has an empty entry" ;; esac
	for dir; do
		case $dir in
		/*) [ ! -d "$dir" ] || set -- "$@" "$dir" ;;
		?*) complain "PATH has $dir" ;;
		esac
		shift
	done
	[ $# -gt 0 ] || fail "PATH is $path"
	find_known
	some_of "$(find -L "$@" -maxdepth 0 \( -perm /022 -o ! -user root \))"
	[ -z "$list" ] || complain "not root's alone: $list"
	verdict "$bad"
}

awk_account_shadow_group='
file == "group" && $1 == "shadow" && $4 != "" { say("shadow-group", "members: " $4) }'
check_account_shadow_group() {
	accounts_of shadow-group
	verdict "$list"
}
