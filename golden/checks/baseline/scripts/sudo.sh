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
	sudo_lines=$(for f in /etc/sudoers /etc/sudoers.d/*; do
		case ${f##*/} in *.* | *~) continue ;; esac
		[ ! -f "$f" ] || cat "$f"
	done | sed -e ':a' -e '/\\$/{N;s/\\\n//;ta' -e '}' -e 's/#[^0-9i].*//' -e '/^#$/d')
}
# sudo_grep ARG... looks for lines of it with grep.
sudo_grep() {
	grep "$@" <<X
$sudo_lines
X
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
	bad=$(sudo_grep -E '^[[:space:]]*Defaults.*!use_pty' | some)
	[ -z "$bad" ] || fail "$bad"
	sudo_grep -qE '^[[:space:]]*Defaults[[:space:]](.*,)?[[:space:]]*use_pty' || fail "no Defaults use_pty"
	pass
}
fix_sudo_use_pty() { set_sudo 'Defaults use_pty'; }

check_sudo_authenticate() {
	sudo_known
	none "$(sudo_grep '!authenticate')"
}

check_sudo_env() {
	sudo_known
	bad=$(sudo_grep '!env_reset' | some)
	[ -z "$bad" ] || fail "$bad"
	sudo_grep -qE '^[[:space:]]*Defaults.*secure_path' || fail "no Defaults secure_path"
	pass
}
fix_sudo_env() { set_sudo 'Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"'; }

# sudo_modes COMMAND looks at or changes the modes of all files.
sudo_modes() {
	"$1" 440 root root /etc/sudoers /etc/sudoers.d/* && "$1" 750 root root /etc/sudoers.d
}
check_sudo_files_mode() {
	sudo_known
	sudo_modes at_most
	verdict "$bad"
}
fix_sudo_files_mode() { sudo_modes limit; }

check_sudo_logfile() {
	sudo_known
	sudo_grep -qE '^[[:space:]]*Defaults.*logfile' || fail "no Defaults logfile"
	pass
}
fix_sudo_logfile() { set_sudo 'Defaults logfile="/var/log/sudo.log"'; }

check_sudo_nopasswd() {
	sudo_known
	bad=$(sudo_grep NOPASSWD | awk '{ print $1 }' | sort -u | some)
	verdict "${bad:+NOPASSWD for $bad}"
}
