#!/bin/sh
# Installs the Debian packages named in the given lists (one a line, # comments) that are missing:
# as root directly, otherwise through sudo, otherwise it says exactly what to install and fails.
set -eu

wanted=$(sed 's/#.*//' "$@" | tr -s ' \t' '\n' | sort -u)

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "astral: this system has no dpkg; install the equivalents of these Debian packages yourself:" >&2
    echo "$wanted" | tr '\n' ' ' >&2
    echo >&2
    exit 0
fi

missing=
for package in $wanted; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    echo "astral: these packages are missing, and neither root nor sudo is at hand. Run as root:" >&2
    echo "    apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "astral: installing$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086 # the list is meant to be split
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
