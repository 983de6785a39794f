#!/bin/sh
# Installs the package of `make dist` into a clean Debian, with nothing but what it declares, and
# plays a stream from one of its nodes to another there. Needs root (debootstrap, chroot) and about
# 1.5 GB under target/; takes its nodes away at the end.
set -eu
cd "$(dirname "$0")/../.."

if [ "$(id -u)" -ne 0 ]; then
    echo "test-dist: a clean root needs root: sudo make test-dist" >&2
    exit 1
fi
command -v debootstrap >/dev/null || tests/install-packages.sh tests/dist/debian.txt
package=$(ls target/dist/*.deb)
root=$PWD/target/dist/root
mirror=$(sed -n 's/^deb \(\[[^]]*\] \)*\([^ ]*\) bookworm main.*/\2/p; s/^URIs: *\([^ ]*\).*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -1)
mounted=
node=
finish() {
    [ -z "$node" ] || kill "$node" 2>/dev/null || true
    [ -z "$mounted" ] || umount "$root/proc" || true
    rm -rf --one-file-system "$root"
}
trap finish EXIT

rm -rf --one-file-system "$root"
debootstrap --variant=minbase bookworm "$root" "${mirror:-http://deb.debian.org/debian}" >target/dist/debootstrap.log
mount -t proc proc "$root/proc"
mounted=yes
cp -r /etc/apt/apt.conf.d "$root/etc/apt/" 2>/dev/null || true
cp /etc/resolv.conf "$root/etc/" 2>/dev/null || true
cp "$package" "$root/tmp/astral.deb"
chroot "$root" apt-get update -qq
DEBIAN_FRONTEND=noninteractive chroot "$root" \
    apt-get install -y -qq --no-install-recommends /tmp/astral.deb >target/dist/install.log

chroot "$root" astral --version
chroot "$root" test -s /usr/share/man/man1/astral.1.gz -o -s /usr/share/man/man1/astral.1
chroot "$root" astral publish garden --test --json --mdns false --data-dir /tmp/source \
    --listen /ip4/127.0.0.1/tcp/0 --api 127.0.0.1:0 --rtmp 127.0.0.1:0 >target/dist/source.json &
node=$!
for _ in $(seq 100); do
    grep -q '"event":"ready"' target/dist/source.json && break
    kill -0 "$node" 2>/dev/null || break
    sleep 0.2
done
if ! grep -q '"event":"ready"' target/dist/source.json; then
    echo "test-dist: the installed program does not publish, see above" >&2
    exit 1
fi
address=$(grep -o '/ip4/127.0.0.1/tcp/[0-9]*/p2p/[A-Za-z0-9]*' target/dist/source.json | head -1)
stream=$(grep -o '"stream":"astral:[^"]*"' target/dist/source.json | head -1 | cut -d'"' -f4)
# 124: it played until the time was over.
timeout 25 chroot "$root" astral play "$stream" --bootstrap "$address" --sink file:/tmp/out.flv --json \
    --mdns false --ephemeral --listen /ip4/127.0.0.1/tcp/0 --api 127.0.0.1:0 --rtmp 127.0.0.1:0 \
    >target/dist/viewer.json || [ $? -eq 124 ]
size=$(stat -c %s "$root/tmp/out.flv")
echo "test-dist: played $size bytes from an installed package"
[ "$size" -gt 500000 ]
