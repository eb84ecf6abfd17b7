# gone KIND PATH... removes what is there; with DRY, it only says what would go.
gone() {
	kind=$1; shift
	for f in "$@"; do
		if allowed "$f" || { [ ! -e "$f" ] && [ ! -L "$f" ]; }; then continue; fi
		if [ -n "$DRY" ]; then say goes "$kind" "$f"
		elif rm -rf -- "$f"; then say removed "$kind" "$f"; else say stuck "$kind" "$f"; fi
	done
}

if [ -z "$DRY" ]; then authorized; fi | while read -r f; do
	if allowed "$f" || ! grep -qF -e "$(logins)" -- "$f"; then continue; fi
	rest=$(grep -vF -e "$(logins)" -- "$f")
	if if [ -n "$rest" ]; then printf '%s\n' "$rest"; fi >"$f"; then say removed authorized-keys "$f"; else say stuck authorized-keys "$f"; fi
done

homes | while read -r h; do
	for f in .bash_history .zsh_history .ash_history .sh_history .python_history .node_repl_history .mysql_history .psql_history .sqlite_history .lesshst .viminfo .wget-hsts; do
		gone histories "$h/$f"
	done
	gone caches "$h/.cache/pip"
done

gone scripts /tmp/script_*.sh /tmp/packer-* /tmp/bake-*
gone caches /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/* /var/cache/apt/*.bin /var/cache/yum/* /var/cache/dnf/* /var/cache/libdnf5/* /var/cache/zypp/packages/*
if [ ! -L /var/cache/apk ]; then gone caches /var/cache/apk/*; fi
gone instance-data /var/lib/cloud/instance /var/lib/cloud/instances/* /var/lib/cloud/data/* /var/log/cloud-init.log /var/log/cloud-init-output.log
gone random-seed /var/lib/systemd/random-seed

# What the first start makes anew. Without the host keys nobody can log in any more, so
# that this is last.
if [ -z "$DRY" ] && [ -s /etc/machine-id ] && ! allowed /etc/machine-id && command -v systemctl >/dev/null; then
	if [ ! -L /var/lib/dbus/machine-id ]; then gone machine-id /var/lib/dbus/machine-id; fi
	if : >/etc/machine-id; then say removed machine-id /etc/machine-id; else say stuck machine-id /etc/machine-id; fi
fi
if makes_host_keys; then gone host-keys /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub; fi
