#!/bin/sh
# Installs the updates of the distribution.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get dist-upgrade -q -y
apt-get clean
