# Second stage of a base: configures the packages that are unpacked in /
# and gives the system its login user. Runs once, as root, with no init.
set -eu
arch=$1 user=$2 packages=$3 distribution=$4 wanted_groups=$5

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
umask 022

# No package may start a service here.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

# Work that scripts would do package by package is done once for all of them
# below, or, as with host keys, not at all: these stand in for the real tools.
stand_ins=$(mktemp -d)
for tool in py3compile update-ca-certificates ssh-keygen; do
	ln -s /bin/true "$stand_ins/$tool"
done
real_path=$PATH

# Bytecode of all Python modules, while dpkg goes on with the rest.
ldconfig
compile=
python=$(readlink -f /usr/bin/python3) # which works before its package is configured
if [ -x "$python" ] && [ -d /usr/lib/python3/dist-packages ]; then
	"$python" -m compileall -q /usr/lib/python3/dist-packages &
	compile=$!
fi
export PATH="$stand_ins:$PATH"

# dpkg runs a preinst before it unpacks; here everything is unpacked already.
run_preinst() (
	package=$1 script=$2
	export DPKG_MAINTSCRIPT_PACKAGE="$package" DPKG_MAINTSCRIPT_ARCH="$arch"
	export DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
	export DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_RUNNING_VERSION="$(dpkg-query -f '${Version}' -W dpkg)"
	"$script" install
)
for package in $packages; do
	for script in "/var/lib/dpkg/info/$package.preinst" "/var/lib/dpkg/info/$package:$arch.preinst"; do
		if [ -x "$script" ]; then
			run_preinst "$package" "$script"
		fi
	done
done

# Users and groups and the base directories come first, which the other
# packages' scripts take for granted; dpkg finds the order of the rest.
[ -e /usr/bin/awk ] || ln -s mawk /usr/bin/awk
dpkg --force-unsafe-io --force-depends --configure base-passwd
dpkg --force-unsafe-io --force-depends --configure base-files
dpkg --force-unsafe-io --configure --pending

export PATH="$real_path"
rm -r "$stand_ins"
if [ -x /usr/sbin/update-ca-certificates ]; then
	update-ca-certificates
fi
if [ -n "$compile" ]; then
	wait "$compile"
fi

# The login user of the image. Root and the user have no password.
groups=
for group in $wanted_groups; do
	if getent group "$group" >/dev/null; then
		groups="$groups${groups:+,}$group"
	fi
done
useradd --uid 1000 --create-home --shell /bin/bash --comment "$distribution" --groups "$groups" "$user"
passwd --quiet --lock root
sed -i -E 's/^#?PasswordAuthentication .*/PasswordAuthentication no/' /etc/ssh/sshd_config
# As cloud-init would, which then has no reason to restart the server.
if grep -q '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then
	(umask 077 && echo 'PasswordAuthentication no' >/etc/ssh/sshd_config.d/50-cloud-init.conf)
fi

# Nothing that tells one machine from another stays, nor what can be made again.
rm -f /usr/sbin/policy-rc.d /var/lib/dbus/machine-id /var/lib/systemd/random-seed
: >/etc/machine-id
chmod 444 /etc/machine-id
rm -rf /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/ldconfig/aux-cache
rm -f /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/dpkg.log /var/log/alternatives.log
