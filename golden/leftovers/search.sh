# homes prints the home directories; those of system accounts may be parts of the system,
# such as /dev, whose files do not end.
homes() {
	{ cut -d: -f6 /etc/passwd; echo /root; } | sort -u | while read -r h; do
		case $h/ in //|/bin/*|/boot/*|/dev/*|/lib*|/proc/*|/run/*|/sbin/*|/sys/*|/usr/*|/var/run/*) continue;; esac
		if [ -d "$h" ]; then printf '%s\n' "$h"; fi
	done
}

# The keys that the build was logged in to with: those of bake, and those that the
# instance was launched with. Keys that the user data brings are not among them.
logins() {
	printf '%s\n' "$KEYS"
	f=/run/cloud-init/instance-data.json
	if [ -f "$f" ]; then
		awk '/^[ \t]*"public_ssh_keys": *\[/ { on = 1 } on { print } /\]/ { on = 0 }' "$f" | grep -o 'AAAA[A-Za-z0-9+/=]\{40,\}'
	fi
}

# others prints how many lines of a file of authorized keys let somebody else in.
others() { grep -v -e '^[[:space:]]*#' -e '^[[:space:]]*$' -- "$1" | grep -vcF -e "$(logins)"; }

authorized() { homes | while read -r h; do for f in "$h/.ssh/authorized_keys" "$h/.ssh/authorized_keys2"; do if [ -f "$f" ]; then printf '%s\n' "$f"; fi; done; done; }

authorized | while read -r f; do
	n=$(others "$f")
	if [ "${n:-0}" -gt 0 ]; then say found authorized-keys "$f"; fi
done

homes | while read -r h; do
	for f in .aws/credentials .config/gcloud/credentials.db .config/gcloud/application_default_credentials.json .azure/accessTokens.json \
		.azure/msal_token_cache.json .azure/msal_token_cache.bin .netrc .git-credentials .kube/config .config/gh/hosts.yml .pypirc; do
		if [ -s "$h/$f" ]; then say found credentials "$h/$f"; fi
	done
	if [ -f "$h/.docker/config.json" ] && grep -q '"auth"' "$h/.docker/config.json"; then say found credentials "$h/.docker/config.json"; fi
	if [ -f "$h/.npmrc" ] && grep -q '_auth' "$h/.npmrc"; then say found credentials "$h/.npmrc"; fi
done

{ homes; for d in /etc /opt /srv /tmp /var/tmp /usr/local; do if [ -d "$d" ]; then printf '%s\n' "$d"; fi; done; } | while read -r d; do
	find "$d" -xdev -type f -size -512 ! -path '/etc/ssh/ssh_host_*' -exec grep -lE -e '^-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY' -- {} + 2>/dev/null
done | sort -u | head -n 200 | while read -r f; do say found private-keys "$f"; done

{ homes; for d in /etc /opt /srv /tmp /var/tmp /usr/local /var/log; do if [ -d "$d" ]; then printf '%s\n' "$d"; fi; done; } | while read -r d; do
	find "$d" -xdev -type f -size -2048 -exec grep -liE -e '(aws_secret_access_key|secretaccesskey)["'\'']?[[:space:]]*[=:]' -- {} + 2>/dev/null
done | sort -u | head -n 200 | while read -r f; do say found credentials "$f"; done
