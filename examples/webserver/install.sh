#!/bin/sh
# Installs the distribution's web server and makes it serve $PAGE.
set -eu

if command -v dnf >/dev/null || command -v yum >/dev/null; then
	"$(command -v dnf || command -v yum)" install -y httpd
	service=httpd
elif command -v apt-get >/dev/null; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	apt-get install -q -y --no-install-recommends apache2
	service=apache2
else
	echo "neither dnf, yum nor apt-get is here: do not know how to install a web server" >&2
	exit 1
fi

printf '%s\n' "$PAGE" >/var/www/html/index.html
systemctl enable --now "$service"
