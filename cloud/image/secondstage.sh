# Second stage of a base that is made of a container image: installs what a cloud machine
# has and a container has not, with the image's own package manager, and gives the system
# its login user. Runs once, as root, with no init.
set -eu
user=$1

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8
umask 022

if ! command -v dnf >/dev/null; then
	echo "the image has no dnf to install packages with"
	exit 1
fi
# What container images leave out of what is installed.
if [ -f /etc/dnf/dnf.conf ]; then
	sed -i '/^tsflags=/d; /^override_install_langs=/d; /^clean_requirements_on_remove=/d' /etc/dnf/dnf.conf
fi
if rpm -q coreutils-single >/dev/null 2>&1; then
	dnf -y --allowerasing install coreutils
fi
dnf -y --setopt=install_weak_deps=False install systemd openssh-server sudo cloud-init
# Not every release has all of these.
dnf -y --setopt=install_weak_deps=False --setopt=strict=0 install \
	systemd-udev openssh-clients passwd shadow-utils iproute iputils procps-ng hostname findutils tar gzip which less \
	vim-minimal util-linux cronie dbus-broker glibc-langpack-en python3 dnf-plugins-core ca-certificates

for unit in sshd cloud-init-main cloud-init-local cloud-init cloud-init-network cloud-config cloud-final; do
	if [ -e "/usr/lib/systemd/system/$unit.service" ]; then
		systemctl enable "$unit.service"
	fi
done
for unit in NetworkManager NetworkManager-wait-online systemd-networkd systemd-resolved amazon-ssm-agent; do
	if [ -e "/usr/lib/systemd/system/$unit.service" ]; then
		systemctl disable "$unit.service"
	fi
done
systemctl set-default multi-user.target

groups=
for group in adm wheel systemd-journal; do
	if grep -q "^$group:" /etc/group; then
		groups="$groups${groups:+,}$group"
	fi
done
if ! grep -q "^$user:" /etc/passwd; then
	useradd --uid 1000 --create-home --shell /bin/bash ${groups:+--groups "$groups"} "$user"
fi
mkdir -p /etc/cloud/cloud.cfg.d /etc/sudoers.d
echo "$user ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/90-cloud-init-users
chmod 440 /etc/sudoers.d/90-cloud-init-users
cat >/etc/cloud/cloud.cfg.d/90_bake.cfg <<END
datasource_list: [Ec2]
datasource:
  Ec2:
    strict_id: false
    timeout: 5
    max_wait: 20
network:
  config: disabled
ssh_pwauth: false
disable_root: true
resize_rootfs: false
growpart:
  mode: "off"
system_info:
  default_user:
    name: $user
END
if [ -f /etc/ssh/sshd_config ]; then
	sed -i -E 's/^#?PasswordAuthentication .*/PasswordAuthentication no/' /etc/ssh/sshd_config
	# As cloud-init would, which then has no reason to restart the server.
	if grep -q '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then
		(umask 077 && echo 'PasswordAuthentication no' >/etc/ssh/sshd_config.d/50-cloud-init.conf)
	fi
fi
# No kernel of its own, and so no SELinux.
if [ -f /etc/selinux/config ]; then
	sed -i 's/^SELINUX=.*/SELINUX=disabled/' /etc/selinux/config
fi

# Nothing that tells one machine from another stays, nor what can be made again.
dnf clean all
rm -rf /etc/ssh/ssh_host_* /.dockerenv /var/cache/dnf/*
: >/etc/machine-id
