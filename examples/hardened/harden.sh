#!/bin/sh
# Applies the baseline. The settings are in files/, which the file provisioner
# has put into /tmp/files.
set -eu
export DEBIAN_FRONTEND=noninteractive

apt-get update -q
apt-get install -q -y --no-install-recommends unattended-upgrades
for p in telnet rsh-client nis talk rpcbind avahi-daemon; do
	apt-get purge -q -y "$p" 2>/dev/null || true # a package the mirror does not know is not installed either
done
apt-get autoremove -q -y --purge
apt-get clean

cd /tmp/files
install -m 0644 50-baseline.sshd.conf /etc/ssh/sshd_config.d/50-baseline.conf
install -m 0644 60-baseline.sysctl.conf /etc/sysctl.d/60-baseline.conf
install -m 0644 20auto-upgrades /etc/apt/apt.conf.d/20auto-upgrades
cd / && rm -r /tmp/files

sshd -t
systemctl enable unattended-upgrades

# Accounts: nobody logs in with a password, new files are private.
passwd -l root
sed -i 's/^UMASK.*/UMASK\t\t027/' /etc/login.defs
chmod 0600 /etc/shadow /etc/gshadow
