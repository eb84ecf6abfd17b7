# shellcheck shell=sh
# sudo. The last line that sets something holds; sudo ignores files whose name has a dot.

sudo_file=/etc/sudoers.d/zz-bake-baseline

sudo_known() {
	have sudo || na "there is no sudo on this machine"
	[ -r /etc/sudoers ] || error "cannot read /etc/sudoers"
}

# learn_sudo keeps what sudo reads in sudo_lines, without comments, with lines joined and with one
# blank between words; what holds for all of them as "Defaults SETTING", a line each.
learn_sudo() {
	sudo_lines=
	wanted sudo- "$@" || return 0
	set --
	for f in /etc/sudoers /etc/sudoers.d/*; do
		case ${f##*/} in *.* | *~) continue ;; esac
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	[ $# = 0 ] || sudo_lines=$(awk '
		function quoted(s) { return gsub(/"/, "", s) % 2 }
		FNR == 1 { line = "" }
		FILENAME != "/etc/sudoers" && !directory { next } # which sudo does not read
		line == "" && /^[ \t]*[@#]include(dir)?[ \t]/ {
			kind = $1; sub(/./, "@", kind)
			path = $0; sub(/^[ \t]*[^ \t]+[ \t]+/, "", path); gsub(/"|[ \t]+$/, "", path); sub(/\/$/, "", path)
			if (kind == "@includedir" && path == "/etc/sudoers.d") directory = 1
			else print kind " " path
			next
		}
		{
			text = $0 # "#" begins a comment, but not in quotes, nor before an ID
			for (at = 1; match(substr(text, at), /#/); at += RSTART) {
				before = substr(text, 1, at + RSTART - 2)
				if (before !~ /\\$/ && substr(text, at + RSTART) !~ /^-?[0-9]/ && !quoted(line before)) { text = before; break }
			}
			line = line text
		}
		sub(/\\$/, "", line) { next }
		{
			gsub(/[ \t]+/, " ", line); sub(/^ /, "", line); sub(/ $/, "", line); gsub(/! /, "!", line)
			if (line !~ /^Defaults /) {
				if (line != "") print line
				line = ""
				next
			}
			n = split(substr(line, 10), part, ",")
			setting = ""
			for (i = 1; i <= n; i++) {
				setting = setting (setting == "" ? "" : ",") part[i]
				if (quoted(setting) && i < n) continue
				sub(/^ /, "", setting); sub(/ $/, "", setting); gsub(/ ?= ?/, "=", setting)
				print "Defaults " setting
				setting = ""
			}
			line = ""
		}' "$@" 2>/dev/null) || sudo_lines=''
}
# sudo_has PATTERN sets list to the lines that match a pattern of the shell.
sudo_has() {
	[ -n "$sudo_lines" ] || error "cannot read /etc/sudoers"
	lines_with '@include*' "$sudo_lines"
	[ -z "$list" ] || error "what sudo reads elsewhere is not known: $list"
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

# sudo_default NAME [VALUE] fails unless a default is set for all and taken off for nobody.
sudo_default() {
	sudo_has "Defaults*!$1*"
	[ -z "$list" ] || none "$list"
	sudo_has "Defaults $1${2:-}"
	[ -n "$list" ] || fail "no Defaults $1"
}

check_sudo_use_pty() {
	sudo_known
	sudo_default use_pty
	pass
}
fix_sudo_use_pty() { set_sudo 'Defaults use_pty'; }

check_sudo_authenticate() {
	sudo_known
	sudo_has '*!authenticate*'
	none "$list"
}

check_sudo_env() {
	sudo_known
	sudo_has 'Defaults*!env_reset*'
	[ -z "$list" ] || none "$list"
	sudo_default secure_path '=?*'
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
	sudo_default logfile '=?*'
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
