#!/bin/sh
# Installs a web server that serves $PAGE.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends nginx-light
apt-get clean
printf '%s\n' "$PAGE" >/var/www/html/index.html
systemctl enable --now nginx
