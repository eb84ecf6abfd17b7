# shellcheck shell=sh
# Files. One walk over the file systems of the image finds what four rules look for.

# local_mounts prints where the file systems are mounted that end up in an image.
local_mounts() {
	echo /
	while read -r _ dir type _; do
		case $type in ext[234] | xfs | btrfs | zfs | f2fs) ;; *) continue ;; esac
		case $dir in
		/ | /proc* | /sys* | /dev* | /run* | /var/lib/docker* | /var/lib/containerd* | /var/lib/containers* | /var/lib/kubelet*) ;;
		*)
			start='' mark='\' # of three octal digits, of which printf asks for four
			while :; do
				case $dir in *"$mark"*) start="$start${dir%%"$mark"*}${mark}0" dir=${dir#*"$mark"} ;; *) break ;; esac
			done
			printf '%b\n' "$start$dir"
			;;
		esac
	done </proc/self/mounts
}

# walk FIND... finds in the file systems of the image; the layers of containers have IDs
# and modes of their own. It fails if a find ends early; that files went away is no reason to.
walk() {
	local_mounts | sort -u | while IFS= read -r root; do
		[ ! -d "$root" ] || find "$root" -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run \
			-o -path /var/lib/docker -o -path /var/lib/containerd -o -path /var/lib/containers -o -path /var/lib/kubelet \) -prune -o "$@" 2>/dev/null || [ $? = 1 ] || exit 2
	done
}

# learn_find finds out whether find works, of which no output is good news.
learn_find() {
	find_works=
	wanted file- "$@" || wanted account- "$@" || return 0
	find_works=$(find / -maxdepth 0 -printf 'yes\n' | bounded)
}
find_known() { [ "$find_works" = yes ] || error "find fails"; }

# learn_files keeps "KIND PATH" lines in found, between begin and end.
learn_files() {
	found=
	if wanted file-world "$@" || wanted file-sticky "$@" || wanted file-unowned "$@" || wanted file-suid "$@"; then
		found=$({ walk \( \( -path / -printf 'begin\0' \) , \( -type f -perm -0002 -printf 'W %p\0' \) , \( -type d -perm -0002 ! -perm -1000 -printf 'D %p\0' \) , \
			\( \( -nouser -o -nogroup \) -printf 'U %p\0' \) , \( -type f -perm /6000 -printf 'S %p\0' \) \) && printf 'end\0'; } | tr '\n\0' '?\n' | bounded)
	fi
}
# files_known KIND: of a list that is cut, what is not on it is not known.
files_known() {
	case $found in begin*) ;; *) error "find fails" ;; esac
	case $found in *"
end") return 0 ;; esac
	[ ${#found} -ge $((bound - 1)) ] || error "find fails"
	case "
$found" in *"
$1 "*) ;; *) error "there are more files with wrong modes and owners than are looked at" ;; esac
}
# paths_of KIND sets list to the paths of a kind.
paths_of() {
	list=''
	case "
$found" in *"
$1 "*) ;; *) return 0 ;; esac
	list=$(sed -n "s/^$1 //p" <<X
$found
X
) && [ -n "$list" ] || error "sed fails"
}

modes_file_passwd_mode() {
	"$1" 644 root root /etc/passwd /etc/passwd- /etc/group /etc/group- /etc/shells && "$1" 600 root root /etc/security/opasswd
}
check_file_passwd_mode() { modes_file_passwd_mode at_most; verdict "$bad"; }
fix_file_passwd_mode() { modes_file_passwd_mode limit; }

modes_file_shadow_mode() {
	readers=root
	[ "$family" = rpm ] || readers='shadow root'
	"$1" 640 root "$readers" /etc/shadow /etc/shadow- /etc/gshadow /etc/gshadow-
}
check_file_shadow_mode() { modes_file_shadow_mode at_most; verdict "$bad"; }
fix_file_shadow_mode() { modes_file_shadow_mode limit; }

check_file_world_writable() { files_known W; paths_of W; none "$list"; }
fix_file_world_writable() { walk -type f -perm -0002 -exec chmod o-w {} +; }

check_file_sticky_dirs() { files_known D; paths_of D; none "$list"; }
fix_file_sticky_dirs() { walk -type d -perm -0002 ! -perm -1000 -exec chmod +t {} +; }

check_file_unowned() { files_known U; paths_of U; none "$list"; }

# A path may be in a package with or without /usr, from before the two became one.
check_file_suid() {
	files_known S
	paths_of S
	[ -n "$list" ] || pass
	if [ "$family" = deb ]; then
		list=$(printf '%s\n' "$list" | awk '
			NR == FNR { order[n++] = $0; next }
			{ owned[$0] = 1 }
			END {
				for (i = 0; i < n; i++) {
					other = order[i] ~ /^\/usr\// ? substr(order[i], 5) : "/usr" order[i]
					if (!(order[i] in owned) && !(other in owned)) print order[i] " belongs to no package"
				}
			}' - /var/lib/dpkg/info/*.list) || error "awk fails"
		none "$list"
	fi
	none "$(printf '%s\n' "$list" | while IFS= read -r f; do
		rpm -qf "$f" >/dev/null 2>&1 || echo "$f belongs to no package"
	done)"
}

# system_dirs FIND... Only files and directories: units that are masked are links to
# /dev/null, which is writable and has to stay so.
system_dirs() {
	dirs=
	for dir in /bin /sbin /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin /usr/lib/systemd /etc/systemd /etc/ssh /etc/pam.d /etc/cron*; do
		{ [ ! -e "$dir" ] || [ -L "$dir" ]; } || dirs="$dirs $dir"
	done
	# shellcheck disable=SC2086 # a list
	find -L $dirs \( -type f -o -type d \) "$@" 2>/dev/null
}
check_file_system_dirs() { find_known; none "$(system_dirs \( -perm /022 -o ! -user root \) \( -type f -o ! -perm -1000 \) | bounded)"; }
fix_file_system_dirs() { system_dirs -perm /022 \( -type f -o ! -perm -1000 \) -exec chmod go-w {} +; }

open_logs() {
	[ ! -d /var/log ] || find /var/log -xdev -type f \( -perm /002 -o \( -perm /004 \( -name 'auth.log*' -o -name 'secure*' -o -name 'syslog*' \
		-o -name 'messages*' -o -name 'cloud-init*.log*' -o -name 'sudo.log*' -o -name 'cron*' \) \) \) "$@" 2>/dev/null
}
check_file_log_mode() { find_known; none "$(open_logs | bounded)"; }
# cloud-init makes its logs anew at the first boot of each machine.
fix_file_log_mode() {
	open_logs -exec chmod o-rwx {} +
	! have cloud-init || put /etc/tmpfiles.d/bake-baseline.conf 644 <<'X'
# Written by bake:baseline.
f /var/log/cloud-init.log 0640 root adm -
f /var/log/cloud-init-output.log 0640 root adm -
X
}

# lacks DIR OPTION... complains of what a mount is without.
lacks() {
	options=$(awk -v dir="$1" '$2 == dir { o = $4 } END { print o }' /proc/self/mounts)
	[ -n "$options" ] || {
		echo "$1 is no file system of its own"
		return
	}
	dir=$1
	shift
	for o; do case ",$options," in *",$o,"*) ;; *) echo "$dir is mounted without $o" ;; esac; done
}
# mount_shm OPTION... adds options to the line of /dev/shm in fstab, which is made if there
# is none.
mount_shm() {
	[ -f /etc/fstab ] || : >/etc/fstab
	replace /etc/fstab "$(awk -v options="$*" '
		BEGIN { n = split(options, want, " ") }
		/^[^#]/ && $2 == "/dev/shm" {
			for (i = 1; i <= n; i++) if (("," $4 ",") !~ ("," want[i] ",")) $4 = $4 "," want[i]
			done = 1
		}
		{ print }
		END {
			gsub(" ", ",", options)
			if (!done) print "tmpfs /dev/shm tmpfs defaults," options " 0 0"
		}' /etc/fstab; echo .)" && mount -o "remount,$(echo "$*" | tr ' ' ,)" /dev/shm
}

check_mount_dev_shm() {
	own_kernel /dev/shm
	verdict "$(lacks /dev/shm nodev nosuid)"
}
fix_mount_dev_shm() { mount_shm nodev nosuid; }

check_mount_dev_shm_noexec() {
	own_kernel /dev/shm
	verdict "$(lacks /dev/shm noexec)"
}
fix_mount_dev_shm_noexec() { mount_shm noexec; }

check_mount_tmp() {
	bad=$(lacks /tmp nodev nosuid)
	[ -n "$bad" ] || pass
	units_known
	state_of tmp.mount
	case $v in
	enabled | static | generated) reboot_needed "$bad before a reboot" ;;
	esac
	fail "$bad"
}
fix_mount_tmp() {
	if [ ! -e /etc/systemd/system/tmp.mount ] && [ ! -e /usr/lib/systemd/system/tmp.mount ]; then
		[ -e /usr/share/systemd/tmp.mount ] || {
			echo "there is no tmp.mount on this machine"
			return 1
		}
		put /etc/systemd/system/tmp.mount 644 </usr/share/systemd/tmp.mount || return 1
		systemctl daemon-reload
	fi
	systemctl -q enable tmp.mount && return 4
}
