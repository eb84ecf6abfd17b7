# Looks at the machine with OpenSCAP, and leaves nothing there. Where the machine has no
# oscap, the packages that it would take are fetched and unpacked into a directory that is
# deleted afterwards: nothing is installed, and the machine is judged as it is.
# PROFILE, TAILORED and the functions content and tailoring, which write the files packed,
# stand before this.
LC_ALL=C
export LC_ALL
umask 022
say() { printf '\n\001bake %s\n' "$*"; }
fail() {
	printf '%s\n' "$*" >&2
	exit 1
}
for c in base64 gzip mktemp find sed sort cksum; do
	command -v "$c" >/dev/null || fail "the machine has no $c, which a scan needs"
done
rm -rf /var/lib/bake-scan.*
cut=''
trap 'cut=yes' HUP INT TERM PIPE # until it is known what to delete
d=$(mktemp -d /var/lib/bake-scan.XXXXXX) || fail "there is no room for the scan in /var/lib"
trap 'rm -rf "$d"' EXIT
trap 'exit 1' HUP INT TERM PIPE
[ -z "$cut" ] || exit 1
chmod 755 "$d"

# state is all that package managers know of the machine.
state() {
	{
		cat /var/lib/dpkg/status /var/lib/apt/extended_states 2>/dev/null
		find /var/lib/dpkg /var/lib/apt /var/cache/apt /var/lib/dnf /var/lib/yum /var/cache/dnf /var/cache/yum -type f ! -name '*lock*' 2>/dev/null | sort
		if command -v rpm >/dev/null; then rpm -qa 2>/dev/null | sort; fi
	} | cksum
}

with_apt() {
	mkdir -p "$d/lists/partial" "$d/cache" "$d/packages/partial" "$d/log"
	cat >"$d/apt.conf" <<-END
		#clear APT::Update;
		#clear DPkg::Pre-Install-Pkgs;
		Dir::State::lists "$d/lists";
		Dir::Cache "$d/cache";
		Dir::Cache::archives "$d/packages";
		Dir::Log "$d/log";
		APT::Sandbox::User "root";
		APT::Install-Recommends "false";
		Acquire::Retries "3";
		Debug::NoLocking "true";
	END
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -c "$d/apt.conf" update >"$d/said" 2>&1 </dev/null || fail "apt-get update failed: $(tail -n 5 "$d/said")"
	for p in openscap-scanner libopenscap8; do
		apt-get -qq -y -c "$d/apt.conf" install --download-only "$p" >"$d/said" 2>&1 </dev/null && break
		p=
	done
	[ "$p" ] || fail "the package openscap-scanner cannot be fetched: $(tail -n 5 "$d/said")"
	for f in "$d"/packages/*.deb; do
		dpkg-deb -x "$f" "$d/root" </dev/null || fail "$f cannot be unpacked"
	done
}

with_dnf() {
	mkdir -p "$d/packages" "$d/root"
	to=--downloaddir
	case $("$1" --version 2>/dev/null </dev/null) in *dnf5*) to=--destdir ;; esac
	"$1" -q -y --setopt=cachedir="$d/cache" --setopt=logdir="$d/log" --setopt=install_weak_deps=0 \
		install --downloadonly $to="$d/packages" openscap-scanner >"$d/said" 2>&1 </dev/null ||
		fail "the package openscap-scanner cannot be fetched: $(tail -n 5 "$d/said")"
	command -v cpio >/dev/null || fail "the machine has no cpio, which unpacks packages; install it, or openscap-scanner, with a provisioner"
	for f in "$d"/packages/*.rpm; do
		rpm2cpio "$f" </dev/null | (cd "$d/root" && cpio -idm --quiet) || fail "$f cannot be unpacked"
	done
}

before=$(state)
content | base64 -d | gzip -dc >"$d/content.xml" || fail "the content did not arrive"
set -- --profile "$PROFILE"
if [ "$STREAM" ]; then set -- "$@" --datastream-id "$STREAM"; fi
if [ "$TAILORED" ]; then
	tailoring | base64 -d | gzip -dc >"$d/tailoring.xml" || fail "the tailoring did not arrive"
	set -- "$@" --tailoring-file "$d/tailoring.xml"
fi
if ! oscap=$(command -v oscap); then
	if command -v apt-get >/dev/null; then
		with_apt
	elif command -v dnf >/dev/null; then
		with_dnf dnf
	elif command -v yum >/dev/null; then
		with_dnf yum
	else
		fail "the machine has no oscap, and neither apt-get, dnf nor yum to fetch it with; install it with a provisioner"
	fi
	oscap=$d/root/usr/bin/oscap
	[ -x "$oscap" ] || fail "the packages hold no oscap"
	LD_LIBRARY_PATH=$(find "$d/root" -name '*.so.*' | sed 's|/[^/]*$||' | sort -u | tr '\n' ':')
	OSCAP_SCHEMA_PATH=$d/root/usr/share/openscap/schemas
	OSCAP_XSLT_PATH=$d/root/usr/share/openscap/xsl
	OSCAP_CPE_PATH=$d/root/usr/share/openscap/cpe
	export OSCAP_SCHEMA_PATH OSCAP_XSLT_PATH OSCAP_CPE_PATH
fi
cd "$d" || exit 1
env LD_LIBRARY_PATH="${LD_LIBRARY_PATH-}" "$oscap" xccdf eval "$@" --results "$d/results.xml" "$d/content.xml" >"$d/said" 2>&1 </dev/null
printf '\n%s\n' "$?" >>"$d/said"
say status
tail -c 4000 "$d/said" | base64
if [ -f "$d/results.xml" ]; then
	say results
	gzip -c "$d/results.xml" | base64
fi
[ "$(state)" = "$before" ] || fail "what package managers know of the machine has changed while it was scanned"
say end
exit 0
