# shellcheck shell=sh
# Packages and where they come from.

# learn_packages keeps in packages those that rules ask about and that are installed, a line
# each; the package manager itself is one of them, or something is wrong.
learn_packages() {
	packages='' packages_error=''
	wanted service-legacy "$@" || wanted log- "$@" || wanted core-dumps "$@" || wanted pkg-auto "$@" || return 0
	manager=dpkg
	[ "$family" = deb ] || manager=rpm
	# shellcheck disable=SC2086 # a list
	values_of 'installed ' "$(states_of_packages $manager rsyslog systemd-coredump unattended-upgrades $legacy)" || true
	packages=$list
	has_package $manager || packages_error="$manager does not say which packages are installed"
}
packages_known() { [ -z "$packages_error" ] || error "$packages_error"; }
# has_package NAME
has_package() {
	case "
$packages
" in *"
$1
"*) ;; *) return 1 ;; esac
}

# in_apt_sources COMMAND... runs a command on the lists of repositories, such as one that looks
# for lines.
in_apt_sources() {
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	"$@"
}
# learn_apt keeps the settings of apt, or why there are none in apt_error.
learn_apt() {
	apt_settings='' apt_error=''
	[ "$family" = deb ] && [ "$*" != pkg-updates ] && wanted pkg- "$@" || return 0
	apt_settings=$(apt-config dump 2>&1) || apt_error="apt-config fails: $apt_settings"
}
# apt_says REGEX sets list to the settings of apt that match.
apt_says() {
	[ -z "$apt_error" ] || error "$apt_error"
	search_text "$1" "$apt_settings"
}

check_pkg_signed() {
	if [ "$family" = rpm ]; then
		[ -d /etc/yum.repos.d ] || error "there is no /etc/yum.repos.d"
		unsigned_repositories
		none "$list"
	fi
	apt_says "(AllowUnauthenticated|AllowInsecureRepositories|AllowWeakRepositories|AllowDowngradeToInsecureRepositories) \"$apt_yes\""
	[ -z "$list" ] || none "$list"
	unsafe='(trusted|allow-insecure|allow-weak|allow-downgrade-to-insecure)'
	in_apt_sources search "^[^#]*\\[[^]]*$unsafe=$apt_yes([^a-z0-9]|\$)|^$unsafe[[:space:]]*:[[:space:]]*$apt_yes([^a-z0-9]|\$)"
	none "$list"
}
# apt takes any number but 0 for yes.
apt_yes='(yes|true|with|on|enable|0*[1-9][0-9]*)'
apt_no='(no|false|without|off|disable|0+)'
# unsigned_repositories sets list to the enabled repositories that dnf asks for no signatures: it
# does so only if it is told to, by gpgcheck in [main] or in the section of the repository.
unsigned_repositories() {
	set --
	for f in /etc/dnf/dnf.conf /etc/yum.repos.d/*.repo /etc/yum/repos.d/*.repo /etc/distro.repos.d/*.repo; do
		[ ! -f "$f" ] || set -- "$@" "$f"
	done
	list=$(awk '
		function value() { v = tolower($0); sub(/^[^=]*=[ \t]*/, "", v); sub(/[ \t\r]+$/, "", v); return v }
		FNR == 1 { section = "" }
		/^\[/ {
			section = $0
			sub(/^\[/, "", section); sub(/\].*/, "", section)
			if (section != "main" && !(section in file)) { order[n++] = section; file[section] = FILENAME }
		}
		/^gpgcheck[ \t]*=/ { check[section] = value() }
		/^enabled[ \t]*=/ { on[section] = value() }
		END {
			for (i = 0; i < n; i++) {
				s = order[i]
				v = s in check ? check[s] : check["main"]
				if (on[s] !~ /^(0|no|false|off)$/ && v !~ /^(1|yes|true|on)$/) print s " in " file[s] " has no gpgcheck"
			}
		}' "$@" </dev/null 2>&1) || error "cannot read the repositories: $list"
}
fix_pkg_signed() {
	[ "$family" = rpm ] || {
		echo "remove the option yourself, and sign the repository"
		return 1
	}
	[ -f /etc/dnf/dnf.conf ] || printf '[main]\n' | put /etc/dnf/dnf.conf 644 || return 1
	replace /etc/dnf/dnf.conf "$(awk '
		/^gpgcheck[ \t]*=/ { next }
		{ print }
		/^\[main\]/ && !done { print "gpgcheck=1"; done = 1 }
		END { if (!done) print "[main]\ngpgcheck=1" }' /etc/dnf/dnf.conf; echo .)" || return 1
	for f in /etc/yum.repos.d/*.repo /etc/yum/repos.d/*.repo /etc/distro.repos.d/*.repo; do
		[ ! -f "$f" ] || replace "$f" "$(sed -E 's/^[[:space:]]*gpgcheck[[:space:]]*=.*/gpgcheck=1/' "$f"; echo .)" || return 1
	done
}

stale="^[^#]*\\[[^]]*check-valid-until=$apt_no|^Check-Valid-Until[[:space:]]*:[[:space:]]*$apt_no"
check_pkg_valid_until() {
	[ "$family" = deb ] || na "only apt knows how long a repository is valid"
	apt_says "Check-Valid-Until(::[^ ]*)? \"$apt_no\""
	[ -z "$list" ] || none "$list"
	in_apt_sources search "$stale"
	none "$list"
}
# Without the option the repositories have to be valid, or nothing could be installed.
fix_pkg_valid_until() {
	changed=$(in_apt_sources grep -liE "$stale" /dev/null)
	[ -n "$changed" ] || {
		echo "it is set in $(grep -rliE 'check-valid-until' /etc/apt/apt.conf /etc/apt/apt.conf.d 2>/dev/null | some): remove it yourself"
		return 1
	}
	mkdir -p "$work/sources"
	for f in $changed; do
		cp -p "$f" "$work/sources/" || return 1
		replace "$f" "$(sed -E -e '/^[[:space:]]*deb/s/[[:space:]]*check-valid-until=[a-z0-9]+//ig; s/\[[[:space:]]*\][[:space:]]*//; s/\[[[:space:]]+/[/' -e '/^Check-Valid-Until[[:space:]]*:/Id' "$f"; echo .)" || return 1
	done
	rm -rf "$work/lists"
	apt check && return 0
	for f in $changed; do cp -p "$work/sources/${f##*/}" "$f"; done
	echo "the option is back: waive the rule, or use a mirror that is kept up to date"
	return 1
}

# releasever sets release to the option that has dnf look beyond the release of Amazon Linux 2023
# that the machine is locked to, where there is nothing to update.
releasever() {
	release=''
	case $distribution in 'Amazon Linux 2023'*) release=--releasever=latest ;; esac
}
# fresh_lists DIR tells whether there are lists of apt, and of each archive, which may have several,
# a Release that is less than a day old. An archive that publishes less often is read each time.
fresh_lists() {
	set -- "$1"/*_Packages*
	[ -e "$1" ] || return 1
	fresh=$(find "${1%/*}" -maxdepth 1 -name '*Release' -mtime -1 -printf '%f\n' 2>/dev/null)
	for f in "${1%/*}"/*Release; do
		f=${f##*/}
		case "
$fresh
" in *"
${f%%_dists_*}_dists_"* | *"
$f
"*) ;; *) return 1 ;; esac
	done
}

# Lists that are a day old show nothing: newer ones are read then, into a place of their
# own.
check_pkg_updates() {
	if [ "$family" = rpm ]; then
		releasever
		# shellcheck disable=SC2086 # an option, or none
		said=$(timeout 240 dnf -q $release check-update --security 2>&1)
		case $? in
		0) pass ;;
		100) fail "$(printf '%s\n' "$said" | awk 'NF == 3 { print $1 }' | some)" ;;
		*) error "dnf fails: $said" ;;
		esac
	fi
	need apt-get
	lists=/var/lib/apt/lists
	hold_signals
	own=$(mktemp -d /run/bake-lists.XXXXXX) || error "cannot write to /run"
	trap 'rm -rf "$own"' EXIT
	take_signals 'exit 2'
	mkdir -p "$own/partial" "$own/few/partial"
	if ! fresh_lists "$lists"; then
		lists=$own
		said=$(apt_with "$own" -q -o APT::Update::Error-Mode=any \
			-o Acquire::Languages=none -o Acquire::IndexTargets::deb-src::Sources::DefaultEnabled=false -o pkgCacheFile::Generate=false \
			-o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 update 2>&1) || {
			error "apt-get update fails: $(printf '%s\n' "$said" | grep -E '^[EW]:' | some)"
		}
	fi
	few_lists "$lists" "$own/few" && upgrade_with "$own/few"
	case $said in *'
0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.'*) pass ;; esac
	upgrade_with "$lists" || error "apt-get fails: $(printf '%s\n' "$said" | grep -E '^E:' | some)"
	case $said in *' upgraded, '*) ;; *) error "apt-get does not say what it would do" ;; esac
	while read -r what package _; do
		[ "$what" != Inst ] || complain "$package"
	done <<X
$said
X
	[ -n "$bad" ] || pass
	held=$(apt-mark showhold 2>/dev/null | some)
	none "$bad${held:+
held: $held}"
}
# few_lists FROM TO writes lists of the packages alone that are installed. If apt has nothing to do
# with these it has nothing to do, and indexing all packages of a distribution takes a second.
few_lists() {
	said=
	set -- "$1" "$2" "$1"/*_Packages*
	for f; do case $f in *_Packages | "$1" | "$2") ;; *) return 1 ;; esac; done # one is compressed
	from=$1 to=$2
	shift 2
	cp "$from"/*Release "$to" && awk -v to="$to/" '
		FNR == 1 { n++; file = FILENAME; sub(/.*\//, "", file) }
		/^Package: / { keep = n > 1 && $2 in there; if (n == 1) there[$2] }
		keep { print >(to file) }' /var/lib/dpkg/status "$@"
}
# upgrade_with LISTS sets said to what apt would do with these lists, were no package held.
upgrade_with() { said=$(apt_with "$1" -s --ignore-hold dist-upgrade 2>&1); }
fix_pkg_updates() {
	if [ "$family" = rpm ]; then
		releasever
		# shellcheck disable=SC2086 # an option, or none
		dnf -yq $release upgrade --security >/dev/null
	else
		apt dist-upgrade
	fi
}

check_pkg_kernel_current() {
	own_kernel "the kernel"
	set -- /boot/vmlinuz-*
	[ -e "$1" ] || na "there is no kernel in /boot"
	newest=$(for k in /boot/vmlinuz-*; do [ ! -e "$k" ] || echo "${k#/boot/vmlinuz-}"; done | grep -v rescue | sort -V | tail -n 1)
	[ -n "$newest" ] || error "sort does not tell the newest kernel in /boot"
	running=$(uname -r)
	[ "$running" = "$newest" ] || fail "$running runs, $newest is installed"
	pass
}

check_pkg_auto_updates() {
	if [ "$family" = rpm ]; then
		enabled dnf-automatic.timer dnf-automatic-install.timer
		[ -n "$list" ] || fail "dnf-automatic is not enabled"
		pass
	fi
	packages_known
	has_package unattended-upgrades || fail "unattended-upgrades is not installed"
	apt_says '^APT::Periodic::Unattended-Upgrade "[1-9]'
	[ -n "$list" ] || fail "APT::Periodic::Unattended-Upgrade is off"
	pass
}
fix_pkg_auto_updates() {
	if [ "$family" = rpm ]; then
		install dnf-automatic && systemctl -q enable dnf-automatic-install.timer
		return
	fi
	install unattended-upgrades || return 1
	put /etc/apt/apt.conf.d/99zz-bake-baseline 644 <<'X'
// Written by bake:baseline.
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
X
}
