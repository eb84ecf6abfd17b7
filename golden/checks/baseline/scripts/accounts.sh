# shellcheck shell=sh
# Accounts. What people log in as is never removed, renamed or expired here.

shadow_known() { { [ -r /etc/shadow ] && [ -s /etc/shadow ]; } || error "cannot read /etc/shadow"; }

check_account_uid0() { none "$(awk -F: '$3 == 0 && $1 != "root" { print $1 }' /etc/passwd)"; }

check_account_empty_password() {
	shadow_known
	none "$({
		awk -F: '$2 == "" { print $1 " has an empty password" }' /etc/shadow
		awk -F: '$2 != "x" { print $1 " has its password in /etc/passwd" }' /etc/passwd
	})"
}
fix_account_empty_password() {
	for u in $(awk -F: '$2 == "" { print $1 }' /etc/shadow); do
		passwd -l "$u" >/dev/null 2>&1 || usermod -p '!' "$u" || return 1
	done
}

check_account_root_locked() {
	shadow_known
	case $(awk -F: '$1 == "root" { print $2 }' /etc/shadow) in '!'* | '*'*) pass ;; esac
	fail "root has a password"
}
fix_account_root_locked() { usermod -L root; }

system_shells() { awk -F: '$3 > 0 && $3 < 1000 && $1 !~ /^(sync|shutdown|halt)$/ && $7 !~ /(nologin|false)$/ { print $1 }' /etc/passwd; }
check_account_system_shell() {
	shadow_known
	none "$({
		system_shells | sed 's/$/ has a shell/'
		awk -F: 'NR == FNR { if ($3 > 0 && $3 < 1000) system_[$1] = 1; next }
			system_[$1] && $2 !~ /^[!*]/ { print $1 " has a password" }' /etc/passwd /etc/shadow
	})"
}
fix_account_system_shell() {
	for u in $(system_shells); do usermod -s "$(command -v nologin)" "$u" || return 1; done
}

check_account_unique_ids() {
	none "$(awk -F: '
		{ file = substr(FILENAME, 6) }
		seen[file, "name", $1]++ == 1 { print "name in " file ": " $1 }
		seen[file, "ID", $3]++ == 1 { print "ID in " file ": " $3 }' /etc/passwd /etc/group)"
}

check_account_home_mode() {
	while IFS=: read -r user home; do
		if [ -d "$home" ]; then
			at_most 750 "$user" "$(stat -Lc %G "$home")" "$home"
		elif [ -n "$user" ]; then
			complain "$user has no $home"
		fi
	done <<X
$(login_users)
X
	verdict "$bad"
}
fix_account_home_mode() {
	login_users | while IFS=: read -r user home; do
		[ ! -d "$home" ] || limit 750 "$user" "$(stat -Lc %G "$home")" "$home" || echo "cannot change $home"
	done
}

# dot_files prints what others can write to of the files that run at a login.
dot_files() {
	{
		login_users
		echo root:/root
	} | while IFS=: read -r _ home; do
		[ ! -d "$home" ] || find "$home" -xdev -mindepth 1 -maxdepth 2 ! -type l \( -name '.*' -o -path '*/.ssh/*' \) -perm /022 "$@" 2>/dev/null
	done
}
check_account_dotfiles() {
	none "$({
		{
			login_users
			echo root:/root
		} | while IFS=: read -r _ home; do
			for f in "$home/.rhosts" "$home/.shosts" "$home/.netrc" "$home/.forward"; do [ ! -e "$f" ] || echo "$f"; done
		done
		dot_files | sed 's/$/ is writable by others/'
	} | bounded)"
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
	open=$(find -L "$@" -maxdepth 0 \( -perm /022 -o ! -user root \) | some)
	[ -z "$open" ] || complain "not root's alone: $open"
	verdict "$bad"
}

check_account_shadow_group() { verdict "$(awk -F: '$1 == "shadow" && $4 != "" { print "members: " $4 }' /etc/group)"; }
