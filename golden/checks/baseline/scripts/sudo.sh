# shellcheck shell=sh
# sudo. The last line that sets something holds; sudo ignores files whose name has a dot.

sudo_file=/etc/sudoers.d/zz-bake-baseline

sudo_known() {
	have sudo || na "there is no sudo on this machine"
	[ -r /etc/sudoers ] || error "cannot read /etc/sudoers"
}

# learn_sudo keeps what sudo reads in sudo_lines, without comments and with lines joined.
learn_sudo() {
	sudo_lines=
	wanted sudo- "$@" || return 0
	set --
	for f in /etc/sudoers /etc/sudoers.d/*; do
		case ${f##*/} in *.* | *~) continue ;; esac
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	[ $# = 0 ] || sudo_lines=$(sed -e ':a' -e '/\\$/{N;s/\\\n//;ta' -e '}' -e 's/#[^0-9i].*//' -e '/^#$/d' -e 's/^[[:space:]]*//' "$@")
}
# sudo_has PATTERN sets list to the lines that match a pattern of the shell.
sudo_has() {
	[ -n "$sudo_lines" ] || error "cannot read /etc/sudoers"
	lines_with "$1" "$sudo_lines"
}

# set_sudo LINE writes a line into bake's file, if sudo will have it.
set_sudo() {
	draft=$(mktemp "$work/sudoers.XXXXXX") || return 1
	{
		echo '# Written by bake:baseline.'
		[ ! -f "$sudo_file" ] || cat "$sudo_file"
		printf '%s\n' "$1"
	} | sort -u >"$draft"
	said=$(visudo -cf "$draft" 2>&1) || {
		echo "sudo refuses $1: $said"
		return 1
	}
	wrong_before=$(visudo -c 2>&1) && wrong_before=
	old=$(cat "$sudo_file" 2>/dev/null)
	put "$sudo_file" 440 <"$draft"
	said=$(visudo -c 2>&1) || [ -n "$wrong_before" ] && return 0
	if [ -n "$old" ]; then printf '%s\n' "$old" | put "$sudo_file" 440; else rm -f "$sudo_file"; fi
	echo "sudo refuses $1: $said"
	return 1
}

check_sudo_use_pty() {
	sudo_known
	sudo_has 'Defaults*!use_pty*'
	[ -z "$list" ] || none "$list"
	sudo_has 'Defaults[[:space:]]*use_pty*'
	while IFS= read -r line; do
		line=,${line#Defaults}
		while :; do # the settings of a line have commas between them
			line=${line#,} v=${line%%,*}
			case ${v#"${v%%[![:space:]]*}"} in use_pty*) pass ;; esac
			case $line in *,*) line=,${line#*,} ;; *) break ;; esac
		done
	done <<X
$list
X
	fail "no Defaults use_pty"
}
fix_sudo_use_pty() { set_sudo 'Defaults use_pty'; }

check_sudo_authenticate() {
	sudo_known
	sudo_has '*!authenticate*'
	none "$list"
}

check_sudo_env() {
	sudo_known
	sudo_has '*!env_reset*'
	[ -z "$list" ] || none "$list"
	sudo_has 'Defaults*secure_path*'
	[ -n "$list" ] || fail "no Defaults secure_path"
	pass
}
fix_sudo_env() { set_sudo 'Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"'; }

modes_sudo_files_mode() {
	"$1" 440 root root /etc/sudoers /etc/sudoers.d/* && "$1" 750 root root /etc/sudoers.d
}
check_sudo_files_mode() {
	sudo_known
	modes_sudo_files_mode at_most
	verdict "$bad"
}
fix_sudo_files_mode() { modes_sudo_files_mode limit; }

check_sudo_logfile() {
	sudo_known
	sudo_has 'Defaults*logfile*'
	[ -n "$list" ] || fail "no Defaults logfile"
	pass
}
fix_sudo_logfile() { set_sudo 'Defaults logfile="/var/log/sudo.log"'; }

check_sudo_nopasswd() {
	sudo_known
	sudo_has '*NOPASSWD*'
	[ -n "$list" ] || pass
	some_of "$(printf '%s\n' "$list" | awk '{ print $1 }' | sort -u)"
	fail "NOPASSWD for $list"
}
