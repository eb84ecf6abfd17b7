# What a machine is asked with: POSIX sh, with what coreutils and busybox have in common.
# Nothing of it stays: the directory T is in memory where that can be, and deleted.

# In front of this there are LIMIT, the most bytes of one output, and NONCE.

has() { command -v "$1" >/dev/null 2>&1; }

# fact ID COMMAND... runs a function and sends what it puts out.
fact() {
	fact_id=$1
	shift
	"$@" >"$T/o" 2>"$T/e" </dev/null
	fact_status=$?
	look_at_room
	reply "$fact_id" "$fact_status" o e
}

# say ID COMMAND... is fact for what puts out little and no NUL: it takes no programs, and
# sends the first line of errors alone.
say() {
	say_id=$1
	shift
	out=$(
		"$@" 2>"$T/e" </dev/null
		printf '.%s' $?
	)
	err=
	if [ -s "$T/e" ]; then IFS= read -r err <"$T/e"; fi
	status=${out##*.}
	out=${out%.*}
	printf '%s %s %s %s\n%s%s\n' "$say_id" "$status" "${#out}" "${#err}" "$out" "$err"
}

# reply ID STATUS OUT ERR sends two files: "ID STATUS LENGTH LENGTH", the first LIMIT bytes
# of each, and a newline.
reply() {
	if [ ! -s "$T/$3" ] && [ ! -s "$T/$4" ]; then
		printf '%s %s 0 0\n\n' "$1" "$2"
		return
	fi
	# shellcheck disable=SC2046 # lengths and names
	set -- "$1" "$2" $(wc -c "$T/$3" "$T/$4")
	printf '%s %s %s %s\n' "$1" "$2" "$3" "$5"
	[ "$3" = 0 ] || head -c "$LIMIT" "$4"
	[ "$5" = 0 ] || head -c "$LIMIT" "$6"
	echo
}

# within SECONDS COMMAND... ends a program that takes too long.
within() {
	if has timeout; then
		timeout -s KILL "$@"
	else
		shift
		"$@"
	fi
}

# path P sets P to a path that does not begin with a dash, and has no ~.
path() {
	P=$1
	case $P in
	/*) ;;
	'~' | '~/'*) P=$HOME${P#'~'} ;;
	'~'*)
		path_user=${P#'~'}
		path_rest=
		case $path_user in
		*/*)
			path_rest=/${path_user#*/}
			path_user=${path_user%%/*}
			;;
		esac
		while IFS=: read -r name _ _ _ _ home _; do
			if [ "$name" = "$path_user" ]; then
				P=$home$path_rest
				return 0
			fi
		done </etc/passwd
		echo "the machine has no user $path_user" >&2
		return 1
		;;
	*) P=./$P ;;
	esac
}

# regular P sets P, and fails for what cannot be read to its end.
regular() {
	path "$1" || return 1
	if [ -e "$P" ] && [ ! -f "$P" ]; then
		echo "$P is not a regular file" >&2
		return 1
	fi
}

slurp() { head -c "$LIMIT" "$1"; }

p_file() {
	path "$1" || return 1
	stat -c '%u
%g
%s
%f
%U
%G' "$P" || return 1
	if [ -L "$P" ]; then readlink -n "$P"; fi
}

# Each process costs a machine some milliseconds: files, parameters and units answer many
# questions with one, as p_file, p_text, p_enabled and p_running answer each. What they are not
# sure of is asked by itself. Their arguments are ID WORD ID WORD...

# files answers for all files that are there and are no links.
files() {
	args=''
	id=''
	for word; do
		if [ -z "$id" ]; then
			id=$word
			continue
		fi
		eval "file_$id="
		if path "$word" 2>/dev/null && [ -e "$P" ] && [ ! -L "$P" ]; then
			eval "file_$id=\$P"
			args="$args \"\$file_$id\""
		fi
		id=''
	done
	: >"$T/o"
	[ -z "$args" ] || eval "stat -c '%u
%g
%s
%f
%U
%G' $args" >"$T/o" 2>"$T/e" </dev/null || : >"$T/o"
	look_at_room
	while [ $# -gt 0 ]; do
		eval "P=\$file_$1"
		if [ -n "$P" ] && IFS= read -r u <&3 && IFS= read -r g <&3 && IFS= read -r s <&3 && IFS= read -r f <&3 && IFS= read -r U <&3 && IFS= read -r G <&3; then
			answer "$1" 0 "$u
$g
$s
$f
$U
$G
"
		else
			say "$1" p_file "$2"
		fi
		shift 2
	done 3<"$T/o"
}

# answer ID STATUS OUT sends a reply without errors.
answer() { printf '%s %s %s 0\n%s\n' "$1" "$2" "${#3}" "$3"; }

# parameters answers for files of /proc/sys that can be read, which are short and have no NUL. The
# shell itself would read them byte by byte, and get the first alone.
parameters() {
	args=''
	id=''
	for word; do
		if [ -z "$id" ]; then
			id=$word
			continue
		fi
		eval "file_$id=\$word"
		[ ! -f "$word" ] || [ ! -r "$word" ] || args="$args \"\$file_$id\""
		id=''
	done
	: >"$T/o"
	[ -z "$args" ] || eval "grep -aH '' $args" >"$T/o" 2>"$T/e" </dev/null || true
	look_at_room
	{
		line=''
		IFS= read -r line <&3 || line=''
		while [ $# -gt 0 ]; do
			out=''
			while :; do
				case $line in
				"$2:"*)
					out="$out${line#"$2:"}
"
					;;
				*) break ;;
				esac
				IFS= read -r line <&3 || line=''
			done
			if [ -n "$out" ]; then answer "$1" 0 "$out"; else say "$1" p_text "$2"; fi
			shift 2
		done
	} 3<"$T/o"
}

enabled() { units p_enabled is-enabled "$@"; }
running() { units p_running is-active "$@"; }

# units PROBE VERB ID NAME... answers for units of systemd. It says nothing of a unit that is not
# there, and may say nothing of those after it.
units() {
	probe=$1
	verb=$2
	shift 2
	has systemctl || verb=''
	while [ $# -gt 0 ]; do
		args=''
		i=2
		while [ -n "$verb" ] && [ "$i" -le $# ]; do
			args="$args \"\${$i}\""
			i=$((i + 2))
		done
		: >"$T/o"
		: >"$T/e"
		[ -z "$args" ] || eval "within 60 systemctl $verb -- $args" >"$T/o" 2>"$T/e" </dev/null || true
		look_at_room
		err=''
		IFS= read -r err <"$T/e" || true
		lines=0
		while read -r state; do lines=$((lines + 1)); done <"$T/o"
		# Of whom else it complains, or what is too much, is not understood.
		if [ $((2 * lines)) -gt $# ]; then verb=''; fi
		if [ -n "$verb" ] && [ -n "$err" ]; then
			eval "name=\${$((2 * lines + 2))-}"
			case $name/$err in /* | *[!a-zA-Z0-9:_.@-]*/*) verb='' ;; "$name/"*"$name"*) ;; *) verb='' ;; esac
		elif [ $((2 * lines)) -lt $# ]; then
			verb=''
		fi
		[ -n "$verb" ] || : >"$T/o"
		while [ $# -gt 0 ] && IFS= read -r state <&3; do
			case $state in
			enabled | enabled-runtime | static | indirect | generated | active) answer "$1" 0 "$state
" ;;
			disabled | masked | masked-runtime | inactive | failed) answer "$1" 1 "$state
" ;;
			*) say "$1" "$probe" "$2" ;;
			esac
			shift 2
		done 3<"$T/o"
		if [ $# -gt 0 ]; then
			say "$1" "$probe" "$2"
			shift 2
		fi
	done
}

p_text() { regular "$1" && slurp "$P"; }

p_hash() {
	regular "$2" || return 1
	within 120 "$1sum" <"$P"
}

# p_packages says which package manager there is, and lists what it has installed.
p_packages() {
	if grep -q Ubuntu /etc/lsb-release 2>/dev/null; then
		m=dpkg
	elif [ -e /etc/redhat-release ] || [ -e /etc/system-release ]; then
		m=rpm
	elif [ -e /etc/alpine-release ]; then
		m=apk
	elif [ -e /etc/arch-release ]; then
		m=pacman
	elif [ -e /etc/debian_version ]; then
		m=dpkg
	else
		for m in dpkg rpm apk pacman none; do
			if has "$m"; then break; fi
		done
	fi
	echo "$m"
	case $m in
	dpkg) dpkg-query -W -f '${Package}\t${Architecture}\t${Version}\t${Status}\n' ;;
	rpm) rpm -qa --nosignature --nodigest --qf '%{NAME}\t%{ARCH}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n' ;;
	apk) apk info -v ;;
	pacman) pacman -Q --color never ;;
	none)
		echo "the machine has none of dpkg, rpm, apk and pacman" >&2
		return 1
		;;
	esac
}

p_system() {
	if has systemctl; then
		echo systemd
	elif [ -e /etc/alpine-release ] || has openrc; then
		echo openrc
	else
		echo sysv
	fi
}

p_enabled() {
	if has systemctl; then
		within 30 systemctl is-enabled -- "$1"
		return
	fi
	for link in /etc/runlevels/*/"$1" /etc/rc*.d/S[0-9][0-9]"$1"; do
		if [ -e "$link" ] || [ -L "$link" ]; then echo "$link"; fi
	done
}

p_running() {
	if has systemctl; then
		within 30 systemctl is-active -- "$1"
	elif has service; then
		within 30 service "$1" status
	elif has rc-service; then
		within 30 rc-service "$1" status
	else
		echo "the machine has neither systemctl nor service" >&2
		return 127
	fi
}

# p_processes begins with this shell's own, so that its session can be left out.
p_processes() {
	for stat in "/proc/$$/stat" /proc/[0-9]*/stat; do
		# Without a program, which would be seen.
		if IFS= read -r line <"$stat"; then printf '%s\n' "$line"; fi
	done 2>/dev/null
	return 0
}

p_ports() {
	for p in tcp tcp6 udp udp6; do
		if [ -r "/proc/net/$p" ]; then
			echo "$p"
			cat "/proc/net/$p" || return 1
		fi
	done
}

p_usage() {
	path "$2" || return 1
	within "$1" stat -f -c '%b %f' "$P"
}

p_interface() {
	if [ ! -d "/sys/class/net" ]; then
		echo "the machine has no /sys/class/net" >&2
		return 1
	fi
	[ -d "/sys/class/net/$1" ] || return 0
	echo there
	cat "/sys/class/net/$1/mtu"
	[ -z "$2" ] || ip -o addr show dev "$1"
}

p_dns() {
	if has getent; then
		within "$1" getent ahosts "$2"
		dns=$?
		within "$1" getent hosts "$2"
		return "$dns"
	elif has nslookup; then
		within "$1" nslookup "$2" | awk '/^Name:/ { n = 1 } n && /^Address/ { print $NF; f = 1 } END { exit f ? 0 : 2 }'
	else
		echo "the machine has neither getent nor nslookup" >&2
		return 127
	fi
}

# p_dig SECONDS SERVER PORT TYPE NAME asks a DNS server.
p_dig() {
	if ! has dig; then
		echo "the machine does not forward connections (AllowTcpForwarding), and has no dig" >&2
		return 127
	fi
	dig +noall +comments +answer +tcp +tries=1 "+time=$1" -p "$3" "@$2" -t "$4" -q "$5"
}

# p_connect SECONDS HOST PORT FROM ends with 0 if the port can be connected to, with 1 if not.
p_connect() {
	if [ -n "$4" ]; then
		if has nc; then
			within "$1" nc -z -w "$1" -s "$4" "$2" "$3" && return 0
		elif has python3; then
			within "$1" python3 -c 'import socket, sys
socket.create_connection((sys.argv[2], int(sys.argv[3])), float(sys.argv[1]), (sys.argv[4], 0))' "$@" 2>/dev/null && return 0
		else
			echo "the machine has neither nc nor python3, which connect from an address of its own" >&2
			return 127
		fi
	elif has nc; then
		within "$1" nc -z -w "$1" "$2" "$3" && return 0
	elif has bash; then
		# shellcheck disable=SC2016 # for bash
		within "$1" bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$2" "$3" && return 0
	else
		echo "the machine does not forward connections, and has neither nc nor bash" >&2
		return 127
	fi
	return 1
}

# p_http CONFIG asks with curl, whose options are its configuration: no secret is an argument.
p_http() {
	if ! has curl; then
		echo "the machine does not forward connections (AllowTcpForwarding), and has no curl" >&2
		return 127
	fi
	printf '%s' "$1" | curl -q -sS -D - -K -
}

# run ID SECONDS LINE runs a user's command in a session of its own, all of which ends
# with it. A command that writes more than 1 GiB into a file is ended. The line is in a file
# that only its user can read, and no argument, which all users of the machine can see.
run() {
	: >"$T/$1.o"
	: >"$T/$1.e"
	printf '%s\n' "$3" >"$T/$1.c"
	# shellcheck disable=SC2016 # for the shell within
	setsid timeout -s KILL "$2" sh -c '
		ulimit -f 2097152 2>/dev/null
		sh "$1.c" >"$1.o" 2>"$1.e" </dev/null
		echo $? >"$1.s"' sh "$T/$1" >/dev/null 2>&1 </dev/null &
	pid=$!
	wait "$pid"
	kill -9 "-$pid" 2>/dev/null
}

# work takes commands that nobody has taken yet.
work() {
	set -C
	for n; do
		if { true >"$T/$n.taken"; } 2>/dev/null; then job "$n"; fi
	done
}

# settle FILE COPY copies what a command has put out. A program that it has left behind may
# go on writing, or empty the file, which its length must not depend on.
settle() {
	: >"$T/$2"
	[ -s "$T/$1" ] || return 0
	head -c "$LIMIT" "$T/$1" >"$T/$2" 2>/dev/null || full=yes
}

# commands WORKERS ID... runs them and sends what became of them.
commands() {
	workers=$1
	shift
	if ! has setsid || ! has timeout; then
		echo "the machine lacks setsid or timeout, which commands are run with" >"$T/e"
		: >"$T/o"
		for n; do reply "$n" missing o e; done
		return
	fi
	(
		umask "$USERS_UMASK"
		if [ -n "$USERS_LOCALE" ]; then LC_ALL=$USERS_LOCALE; else unset LC_ALL; fi
		while [ "$workers" -gt 0 ]; do
			workers=$((workers - 1))
			work "$@" 2>/dev/null &
		done
		wait
	)
	for n; do
		status=
		if [ -s "$T/$n.s" ]; then read -r status <"$T/$n.s"; fi
		settle "$n.o" o
		settle "$n.e" e
		look_at_room
		reply "$n" "${status:-late}" o e
	done
}

# look_at_room sets full when the machine can keep no more for us, so that what was kept last
# may not be whole. It is asked while that is still there: without it there is room again. The
# file is emptied, so that it never has a place of its own.
look_at_room() {
	if ! echo enough >"$T/room" 2>/dev/null; then full=yes; fi
	: >"$T/room"
}

# room says whether there was room for everything.
room() {
	if [ -n "$full" ]; then echo full; fi
}

begin() {
	USERS_LOCALE=${LC_ALL-}
	export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin"
	USERS_UMASK=$(umask)
	umask 077
	full='' cut=''
	trap 'cut=yes' HUP INT TERM PIPE # until it is known what to delete
	for dir in /dev/shm /run /tmp /var/tmp; do
		T=$(mktemp -d "$dir/bake.XXXXXX" 2>/dev/null) || continue
		if echo enough >"$T/room" 2>/dev/null; then
			: >"$T/room"
			break
		fi
		rm -rf "$T"
		T=
	done
	if [ -z "${T-}" ]; then
		echo "there is no room in /dev/shm, /run, /tmp and /var/tmp for what is learned" >&2
		exit 1
	fi
	trap 'rm -rf "$T"' EXIT
	trap 'exit 1' HUP INT TERM PIPE
	[ -z "$cut" ] || exit 1
	printf '\nbake facts %s\n' "$NONCE"
	facts | base64
	printf '\nbake end %s\n' "$NONCE"
}
