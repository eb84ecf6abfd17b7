#!/bin/sh
# Installs a release of bake: the program, its completions and its manual pages.
#
#   install.sh [-prefix DIRECTORY] RELEASE
#
# RELEASE is where the files of a release are: the address of a directory or a directory
# on disk, with SHA256SUMS and an archive for this system, as scripts/release makes them.
# They go below /usr/local for root and below ~/.local for others, or below -prefix.
# Nothing is installed unless the archive has the checksum that SHA256SUMS states.
set -eu
umask 022

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=${HOME:-}/.local; fi
while [ $# -gt 0 ]; do
	case $1 in
	-prefix | --prefix)
		[ $# -gt 1 ] || fail "-prefix needs a directory"
		prefix=$2
		shift 2
		;;
	-*) fail "there is no option $1; usage: install.sh [-prefix DIRECTORY] RELEASE" ;;
	*) break ;;
	esac
done
[ $# = 1 ] || fail "usage: install.sh [-prefix DIRECTORY] RELEASE"
release=${1%/}

case $(uname -s) in
Linux) system=linux ;;
Darwin) system=darwin ;;
FreeBSD) system=freebsd ;;
*) fail "no archive for $(uname -s) is installed by this script; unpack the one for your system yourself" ;;
esac
case $(uname -m) in
x86_64 | amd64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) fail "bake is not released for $(uname -m)" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

get() { # FILE of the release, into $work
	case $release in
	http://* | https://*)
		if command -v curl >/dev/null; then
			curl -fsSL --retry 3 -o "$work/$1" "$release/$1" || fail "cannot download $release/$1"
		elif command -v wget >/dev/null; then
			wget -q -O "$work/$1" "$release/$1" || fail "cannot download $release/$1"
		else
			fail "curl or wget is needed to download $release/$1"
		fi
		;;
	*) cp "$release/$1" "$work/$1" || fail "cannot read $release/$1" ;;
	esac
}

sum() {
	if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

get SHA256SUMS
archive=$(sed -n "s/^[0-9a-f]\{64\}  \(bake_[0-9A-Za-z.+-]*_${system}_$arch\.tar\.gz\)\$/\1/p" "$work/SHA256SUMS")
case $archive in
'') fail "$release/SHA256SUMS names no archive for $system/$arch" ;;
*'
'*) fail "$release/SHA256SUMS names more than one archive for $system/$arch" ;;
esac
want=$(sed -n "s/^\([0-9a-f]\{64\}\)  $archive\$/\1/p" "$work/SHA256SUMS")
get "$archive"
have=$(sum "$work/$archive")
[ "$have" = "$want" ] || fail "$archive has the SHA-256 checksum $have, and SHA256SUMS states $want: nothing was installed"

root=$work/${archive%.tar.gz}
tar -xzf "$work/$archive" -C "$work"
[ -x "$root/bake" ] || fail "$archive holds no program at ${archive%.tar.gz}/bake"

put() { # FILE DIRECTORY NAME MODE: by a rename, so that a program that runs is no obstacle
	mkdir -p "$prefix/$2"
	cp "$1" "$prefix/$2/.$3.new"
	chmod "$4" "$prefix/$2/.$3.new"
	mv -f "$prefix/$2/.$3.new" "$prefix/$2/$3"
}
put "$root/bake" bin bake 755
put "$root/completion/bake.bash" share/bash-completion/completions bake 644
put "$root/completion/_bake" share/zsh/site-functions _bake 644
put "$root/completion/bake.fish" share/fish/vendor_completions.d bake.fish 644
for page in "$root"/man/*.1; do
	[ ! -e "$page" ] || put "$page" share/man/man1 "${page##*/}" 644
done
"$prefix/bin/bake" version || fail "$prefix/bin/bake was installed and does not run"
case :${PATH:-}: in
*":$prefix/bin:"*) ;;
*) echo "install.sh: $prefix/bin is not in PATH" >&2 ;;
esac
