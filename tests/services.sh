#!/bin/bash
# Ceph's object gateway, the AWS command line, PostgreSQL and Chromium, which the tests speak to:
# installed where they are missing and this is root on Debian.  Elsewhere the tests that need them say
# so and are skipped.
set -euo pipefail
packages=()
for needed in radosgw:radosgw ceph-mon:ceph-mon ceph-osd:ceph-osd ceph:ceph-common aws:awscli \
	chromium:chromium; do
	command -v "${needed%:*}" >/dev/null || packages+=("${needed#*:}")
done
# Its programs are in no PATH.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages+=(postgresql)
[ ${#packages[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || [ ! -e /etc/debian_version ]; then
	echo "no ${packages[*]}: as root on Debian they would be installed; tests that need them are skipped"
	exit 0
fi
echo "== installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
install=(apt-get -qq install -y --no-install-recommends "${packages[@]}")
# A new machine has no lists of packages, or old ones.
"${install[@]}" >/dev/null 2>&1 || { apt-get -qq update && "${install[@]}" >/dev/null; }
