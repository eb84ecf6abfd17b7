# shellcheck shell=sh disable=SC3043
# What the checks and fixes of bake:baseline have in common. All of them run as root, each
# in a subshell of its own. A check ends in pass, fail, na, error or verdict, and changes
# nothing; a fix does only what has to be done, says why it cannot, and ends with a status.
set -u
umask 022
LC_ALL=C
PATH=/usr/sbin:/usr/bin:/sbin:/bin
DEBIAN_FRONTEND=noninteractive
NEEDRESTART_MODE=l
export LC_ALL PATH DEBIAN_FRONTEND NEEDRESTART_MODE
unset TZ TMPDIR

pass() { exit 0; }
fail() { printf '%s\n' "$*"; exit 1; }
error() { printf '%s\n' "$*"; exit 2; }
na() { printf '%s\n' "$*"; exit 3; }
reboot_needed() { printf '%s\n' "$*"; exit 4; }

# complain adds to bad, which a check that goes on collects its complaints in.
complain() { bad="${bad:+$bad
}$*"; }

# verdict passes if there is nothing to complain about.
verdict() {
	[ -z "$1" ] || fail "$1"
	pass
}

have() { command -v "$1" >/dev/null 2>&1; }

# bounded passes on the bytes of a list that are looked at: those who own a home can make it as
# long as they like.
bound=200000
bounded() { head -c "$bound"; }

# none LIST passes if there is nothing in it, and fails with its first lines.
none() {
	[ -n "$1" ] || pass
	some_of "$1"
	fail "$list"
}

need() {
	for c; do have "$c" || error "the machine has no $c, which the check needs"; done
}

# Processes are what checks take their time for, some milliseconds each. What rules need to
# know is learned once for all of them (learn_X), with a process for each kind of fact, and
# what the shell itself can do with that, it does. A fact that could not be learned is an error
# of each rule that needs it.

# lines_with PATTERN TEXT sets list to the lines of a text that match a pattern of the shell.
lines_with() {
	set -f
	old_ifs=$IFS list=
	IFS='
'
	for line in $2; do
		# shellcheck disable=SC2254 # a pattern
		case $line in
		$1)
			list="${list:+$list
}$line"
			;;
		esac
	done
	IFS=$old_ifs
	set +f
}

# values_of KEY TEXT sets list to what follows the key in the lines of a text that begin with
# it, and v to the last of them; it fails if there is none.
values_of() {
	set -f
	old_ifs=$IFS list='' v='' none_there=1
	IFS='
'
	for line in $2; do
		case $line in
		"$1"*)
			v=${line#"$1"} none_there=0
			list="${list:+$list
}$v"
			;;
		esac
	done
	IFS=$old_ifs
	set +f
	return $none_there
}

# search REGEX FILE... sets list to "FILE:LINE" of the lines of files that match, whatever their
# case. Nothing found is good news: one more line, which has to be found, shows that grep works.
search() {
	regex=$1
	shift
	list=$(grep -HisE -e "$regex" -e '^bake-end$' -- "$@" - <<X
bake-end
X
)
	found_end
}
# search_text REGEX TEXT sets list to the lines of a text that match.
search_text() {
	list=$(grep -iE -e "$1" -e '^bake-end$' <<X
$2
bake-end
X
)
	found_end
}
found_end() {
	case "
$list" in
	*[:"
"]bake-end) ;;
	*) error "grep fails" ;;
	esac
	case $list in
	*"
"*) list=${list%"
"*} ;;
	*) list='' ;;
	esac
}

# systemd_value KEY TEXT sets v to the last value of a key in a configuration of systemd, which
# may have blanks around its "=".
systemd_value() {
	v=''
	while IFS=' =	' read -r key value; do
		[ "$key" != "$1" ] || v=$value
	done <<X
$2
X
}

# answer ID STATUS TEXT is what goes back: each line of the text has something before it,
# so that it cannot be taken for another answer.
answer() {
	printf '\001bake %s %s\n' "$1" "$2"
	[ -n "$3" ] || return 0
	while IFS= read -r line; do printf '\001bake . %.1500s\n' "$line"; done <<X
$3
X
}

# function_of KIND ID sets name to the function of a rule.
function_of() {
	set -f
	old_ifs=$IFS kind=$1 IFS=-
	# shellcheck disable=SC2086 # the words of an ID
	set -- $2
	IFS=_
	name=${kind}_$*
	IFS=$old_ifs
	set +f
}

os_release=/etc/os-release

# learn_system sets family, distribution and virtual.
learn_system() {
	distribution='' ids='' family=''
	if [ -r "$os_release" ]; then
		while IFS='=' read -r key value || [ -n "$key" ]; do
			value=${value#[\"\']}
			value=${value%[\"\']}
			case $key in
			PRETTY_NAME) distribution=$value ;;
			ID | ID_LIKE) ids="$ids $value" ;;
			esac
		done <"$os_release"
	fi
	case "$ids " in
	*" debian "* | *" ubuntu "*) family=deb ;;
	*" rhel "* | *" fedora "* | *" amzn "*) family=rpm ;;
	esac
	virtual=$(systemd-detect-virt -c 2>/dev/null)
	if [ -z "$family" ]; then
		answer unsupported 0 "${distribution:-an unknown one}"
		exit 0
	fi
}

# try ID sets status and said to what the check of a rule comes to. A check that passes
# says nothing: if it does, some command in it has failed.
try() {
	bad='' looked_for='' where=''
	function_of check "$1"
	said=$("$name" 2>&1; exit 9)
	status=$?
	[ $status != 0 ] || [ -z "$said" ] || status=2
}

# learn ID... finds out what several of the rules need to know, once.
learn() {
	learn_accounts "$@"
	learn_modes "$@"
	learn_packages "$@"
	learn_units "$@"
	learn_parameters "$@"
	learn_pam "$@"
	learn_settings "$@"
	learn_sshd "$@"
	learn_find "$@"
	learn_files "$@"
	learn_cloud_init "$@"
	learn_sudo "$@"
	learn_apt "$@"
	learn_journald "$@"
	learn_ports "$@"
	learn_login_shell "$@"
}

# hold_signals puts off what ends the session until take_signals: some shells would end while
# a file has been made, and before the variable has its name.
hold_signals() {
	cut=''
	trap 'cut=yes' HUP INT PIPE TERM
}

# take_signals ACTION does this when the session ends, or has ended meanwhile.
take_signals() {
	# shellcheck disable=SC2064 # the action, as it is
	trap "$1" HUP INT PIPE TERM
	[ -z "$cut" ] || eval "$1"
}

# check ID... tries rules, and says what came of each. Some are tried aside: those that walk
# over files and homes, which other rules need not wait for, and pkg-updates, which may read
# the lists of a mirror.
check() {
	learn_system
	here='' walkers='' updates=''
	for rule; do
		case $rule in
		pkg-updates) updates=$rule ;;
		file-* | account-* | cloud-* | shell-*) walkers="$walkers $rule" ;;
		*) here="$here $rule" ;;
		esac
	done
	pids='' outputs='' output=''
	trap 'rm -f $outputs $output' EXIT
	trap 'end_aside; exit 1' HUP INT PIPE TERM
	# shellcheck disable=SC2086 # lists of IDs
	try_aside $updates
	# shellcheck disable=SC2086
	try_aside $walkers
	# shellcheck disable=SC2086
	try_all $here
	wait
	# shellcheck disable=SC2086 # a list of files
	[ -z "$outputs" ] || cat $outputs
	printf '\001bake end\n'
}

# try_all ID... tries rules, and says what came of each.
try_all() {
	learn "$@"
	for rule; do
		try "$rule"
		answer "$rule" "$status" "$said"
	done
}

# try_aside ID... does that at the same time as others, if there is a place for what it says.
try_aside() {
	[ $# -gt 0 ] || return 0
	hold_signals
	output=$(mktemp /run/bake-baseline.XXXXXX 2>/dev/null)
	take_signals 'end_aside; exit 1'
	if [ -z "$output" ]; then
		try_all "$@"
		return
	fi
	outputs="$outputs $output"
	try_all "$@" >"$output" &
	pids="$pids $!"
}

# end_aside ends what runs aside, when the session is cut: the shells of the rules, and what
# those wait for. The last one may have begun without being in pids yet.
end_aside() {
	for pid in $pids ${!-}; do
		for child in $(descendants "$pid"); do kill "$child" 2>/dev/null; done
	done
	wait
}

# descendants PID prints a process and those below it.
descendants() {
	echo "$1"
	for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do descendants "$child"; done
}

# fix ID... mends what the rules ask for, unless they are kept: what was learned before may
# be out of date by now, and a fix may also be asked for twice.
fix() {
	learn_system
	learn "$@"
	hold_signals
	work=$(mktemp -d /run/bake-baseline.XXXXXX) || exit 1
	trap 'rm -rf "$work"' EXIT
	take_signals 'exit 1'
	before=$(cat "$ssh_file" 2>/dev/null)
	for rule; do
		learn_modes "$rule" # which the fixes of other rules may have changed
		try "$rule"
		if [ "$status" != 0 ]; then
			function_of fix "$rule"
			said=$("$name" 2>&1)
			status=$?
		fi
		answer "$rule" "$status" "$said"
	done
	[ "$before" = "$(cat "$ssh_file" 2>/dev/null)" ] || reload_sshd
	printf '\001bake end\n'
}

# undo takes away what the fixes wrote and what decides who is let in.
undo() {
	learn_system
	rm -f "$ssh_file" "$sudo_file"
	reload_sshd
	if [ "$family" = deb ] && have pam-auth-update; then
		pam-auth-update --package --remove bake-faillock bake-faillock-notify bake-pwhistory
	fi
	rm -f /usr/share/pam-configs/bake-*
	undo_firewall
	if [ -e "$sysctl_file" ]; then
		rm -f "$sysctl_file"
		sysctl -q --system
	fi
	true
}

# wanted PREFIX ID... tells whether one of the rules begins with the prefix.
wanted() {
	prefix=$1
	shift
	for rule; do
		case $rule in "$prefix"*) return 0 ;; esac
	done
	return 1
}

# own_kernel: what belongs to the host of a container cannot be judged from within.
own_kernel() {
	case $virtual in
	none) ;;
	'') error "systemd-detect-virt does not say whether the kernel is the machine's own" ;;
	*)
		echo "$1 is the host's: this machine has no kernel of its own"
		exit 5
		;;
	esac
}

# put FILE MODE makes standard input the content of a file of bake's own, if it is not
# already.
put() {
	content=$(cat)
	[ -f "$1" ] && [ ! -L "$1" ] && [ "$(cat "$1")" = "$content" ] && [ "$(stat -c '%a %u %g' "$1")" = "$2 0 0" ] && return 0
	dir=${1%/*}
	[ -d "$dir" ] || mkdir -p "$dir" || return 1
	new=$(mktemp "$dir/.bake-XXXXXX") || return 1
	if printf '%s\n' "$content" >"$new" && chmod "$2" "$new" && mv -f "$new" "$1"; then
		! have restorecon || restorecon "$1"
		return 0
	fi
	rm -f "$new"
	return 1
}

# replace FILE CONTENT. gives a file of somebody else's a new content, if it is not that
# already; its mode and owner stay. The dot keeps empty lines at the end.
replace() {
	[ "$(cat "$1"; echo .)" != "$2" ] || return 0
	new=$(mktemp "${1%/*}/.bake-XXXXXX") || return 1
	if cp -p "$1" "$new" && printf '%s' "${2%.}" >"$new" && mv -f "$new" "$1"; then
		! have restorecon || restorecon "$1"
		return 0
	fi
	rm -f "$new"
	return 1
}

# keep FILE MODE REGEX LINE has one line in a file of bake's own, instead of those that
# match.
keep() {
	{
		echo '# Written by bake:baseline.'
		[ ! -f "$1" ] || grep -vE "$3" "$1"
		printf '%s\n' "$4"
	} | sort -u | put "$1" "$2"
}

# set_key FILE KEY VALUE SEPARATOR has one active line for a key in a file of somebody
# else's.
set_key() {
	[ -f "$1" ] || {
		echo "there is no $1"
		return 1
	}
	replace "$1" "$(awk -v key="$2" -v line="$2$4$3" '
		{ k = $0; sub(/^[ \t]+/, "", k); sub(/[ \t=].*/, "", k) }
		k == key { if (!done) print line; done = 1; next }
		{ print }
		END { if (!done) print line }' "$1"; echo .)"
}

# settings_in FILE... prints "FILE:KEY VALUE" of the lines that count in files of settings.
settings_in() {
	awk '
		{ sub(/^[ \t]+/, ""); k = $0; sub(/[ \t=].*/, "", k) }
		k != "" && k !~ /^#/ { sub(/^[^ \t=]+[ \t]*=?[ \t]*/, ""); sub(/[ \t]*(#.*)?$/, ""); print FILENAME ":" k " " $0 }' "$@"
}

# What rules ask of the modes and owners of files is in modes_RULE COMMAND, which gives the
# command MODE OWNER GROUPS FILE..., once or more: note, at_most or limit. A missing file is fine;
# the groups may be "any".

# learn_modes keeps "FILE:MODE:OWNER:GROUP" lines of all files that the rules ask about.
learn_modes() {
	modes='' noted=''
	for rule; do
		case $rule in *-mode) ;; *) continue ;; esac
		function_of modes "$rule"
		! command -v "$name" >/dev/null || "$name" note
	done
	[ -n "$noted" ] || return 0
	set -f
	old_ifs=$IFS
	IFS='
'
	# shellcheck disable=SC2086 # a list, a line each
	modes=$(stat -Lc '%n:%a:%U:%G' -- $noted 2>/dev/null)
	IFS=$old_ifs
	set +f
}
note() {
	shift 3
	for f; do
		[ ! -e "$f" ] || noted="$noted$f
"
	done
}

# exceeds MODE:OWNER:GROUP MODE OWNER GROUPS compares what stat says with what there may be at
# most. It sets m, o and g to what stat says, and allowed to the groups.
exceeds() {
	m=${1%%:*} g=${1##*:} o=${1#*:}
	o=${o%:*} allowed=$4
	[ "$allowed" != any ] || allowed=$g
	case " $allowed " in *" $g "*) [ $((0$m & ~0$2 & 07777)) -ne 0 ] || [ "$o" != "$3" ] ;; esac
}

# at_most complains of each file that has more rights than MODE, or does not belong to the owner
# and to one of the groups.
at_most() {
	mode=$1 owner=$2 groups=$3
	shift 3
	for f; do
		[ -e "$f" ] || continue
		values_of "$f:" "$modes" || v=$(stat -Lc %a:%U:%G -- "$f") || error "cannot look at $f"
		! exceeds "$v" "$mode" "$owner" "$groups" || complain "$f is $m $o:$g, at most $mode $owner:${allowed%% *}"
	done
}

# limit takes from files what at_most complains about.
limit() {
	mode=$1 owner=$2 groups=$3
	shift 3
	for f; do
		[ -e "$f" ] || continue
		v=$(stat -Lc %a:%U:%G -- "$f") || return 1
		exceeds "$v" "$mode" "$owner" "$groups" || continue
		case " $allowed " in
		*" $g "*) [ "$o" = "$owner" ] || chown "$owner" "$f" || return 1 ;;
		*) chown "$owner:${allowed%% *}" "$f" || return 1 ;;
		esac
		chmod "$(printf '%o' $((0$m & 0$mode)))" "$f" || return 1
	done
}

# build_user is who logged in to run this; root if it did so itself.
build_user() { printf '%s\n' "${SUDO_USER:-root}"; }

# some_of LIST sets list to its first lines, on one line.
some_of() {
	set -f
	old_ifs=$IFS list='' n=0
	IFS='
'
	for line in $1; do
		[ $n -lt 8 ] || break
		list="${list:+$list, }$line" n=$((n + 1))
	done
	IFS=$old_ifs
	set +f
}
# some prints the first lines of what it reads, on one line.
some() {
	some_of "$(bounded)"
	[ -z "$list" ] || printf '%s\n' "$list"
}

# installed PACKAGE... prints those that are.
installed() { states_of_packages "$@" | sed -n 's/^installed //p'; }
# states_of_packages PACKAGE... prints a line for each, "installed PACKAGE" if it is.
states_of_packages() {
	if [ "$family" = deb ]; then
		# shellcheck disable=SC2016 # a format of dpkg's
		dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null
	else
		rpm -q --qf 'installed %{NAME}\n' "$@" 2>/dev/null
	fi
}

# apt runs apt-get with package lists of its own, so that none is left behind.
apt() {
	if [ ! -d "$work/lists" ]; then
		mkdir -p "$work/lists/partial"
		apt_lists update >"$work/update" 2>&1 || {
			rm -rf "$work/lists"
			echo "apt-get update fails: $(grep -E '^[EW]:' "$work/update" | some)"
			return 1
		}
	fi
	apt_lists -y -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef "$@" >"$work/apt" 2>&1 || {
		echo "apt-get $* fails: $(grep -E '^E:' "$work/apt" | some)"
		return 1
	}
}
apt_lists() {
	apt_with "$work/lists" -o APT::Keep-Downloaded-Packages=false -o APT::Update::Error-Mode=any -o DPkg::Lock::Timeout=120 "$@"
}
# apt_with LISTS ARGUMENT... runs apt-get with the package lists in a directory, and leaves no cache of them.
apt_with() {
	apt_lists_in=$1
	shift
	apt-get -q -o Dir::State::Lists="$apt_lists_in" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@"
}

# install PACKAGE... installs what is missing, and says so.
install() {
	missing=
	for p; do [ -n "$(installed "$p")" ] || missing="$missing $p"; done
	[ -n "$missing" ] || return 0
	# shellcheck disable=SC2086 # a list of packages
	if [ "$family" = deb ]; then
		apt --no-install-recommends install $missing || return 1
	else
		dnf -yq install $missing >/dev/null || return 1
	fi
	echo "installed$missing"
}
