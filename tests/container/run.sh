#!/bin/sh
# Builds the Containerfile with a container engine (buildah), starts the image with its own entry
# point and command, and asks its own health check: before the node runs, while it does, and after.
#
# Images are stored below target/container and taken away at the end; cargo's build directory stays.
# Where the base images cannot be pulled, stand-ins with the same names are made of Debian's own packages
# (debootstrap) and of the Rust toolchain here; they hold less than the real ones, so that nothing is found
# in them that the Containerfile forgot. Needs root and about 8 GB.
set -eu
cd "$(dirname "$0")/../.."

if [ "$(id -u)" -ne 0 ]; then
    echo "test-container: a clean root needs root: sudo make test-container" >&2
    exit 1
fi
tests/install-packages.sh tests/container/debian.txt
out=$PWD/target/container
certs=/etc/ssl/certs/ca-certificates.crt
mirror=$(sed -n 's/^deb \(\[[^]]*\] \)*\([^ ]*\) bookworm main.*/\2/p; s/^URIs: *\([^ ]*\).*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -1)
node=
buildah() {
    command buildah --root "$out/images" --runroot "$out/run" "$@"
}
finish() {
    if [ -n "$node" ]; then
        kill "$node" 2>/dev/null || true
        wait "$node" || true
    fi
    buildah rm --all >/dev/null 2>&1 || true
    umount "$out/images/overlay" 2>/dev/null || true
    rm -rf --one-file-system "$out/images" "$out/run" "$out/standin"
}
trap finish EXIT
mkdir -p "$out/build"

# Runs a command in the container named first, as root.
inside() {
    container=$1
    shift
    buildah run --isolation chroot --user 0 "$container" -- env DEBIAN_FRONTEND=noninteractive "$@"
}

# A stand-in of the image named first, with the packages named behind it.
stand_in() {
    image=$1
    shift
    [ -e "$out/standin/usr" ] || {
        echo "test-container: $image cannot be pulled, Debian's own packages stand in"
        debootstrap --variant=minbase bookworm "$out/standin" "${mirror:-http://deb.debian.org/debian}" >"$out/debootstrap.log"
        # Where a proxy or a mirror is needed here, it is needed there.
        cp -r /etc/apt/apt.conf.d "$out/standin/etc/apt/" 2>/dev/null || true
        rm -rf "$out/standin/var/cache/apt"
    }
    made=$(buildah from scratch)
    buildah add -q "$made" "$out/standin" / >/dev/null
    if [ $# -gt 0 ]; then
        inside "$made" apt-get update -qq
        inside "$made" apt-get install -y -qq --no-install-recommends "$@" >"$out/stand-in.log" 2>&1
    fi
    if [ -e "$certs" ]; then
        buildah add -q "$made" "$certs" "$certs" >/dev/null
        buildah config --env SSL_CERT_FILE="$certs" --env NODE_EXTRA_CA_CERTS="$certs" "$made"
    fi
    case $image in
    */rust:*)
        toolchain=$(rustc --print sysroot)
        for part in bin lib; do
            buildah add -q "$made" "$toolchain/$part" "/usr/local/$part" >/dev/null
        done
        # As in the real one, so that the crates lie where they are lent to.
        buildah config --env CARGO_HOME=/usr/local/cargo "$made"
        ;;
    esac
    buildah config --cmd /bin/sh "$made"
    buildah commit -q "$made" "$image" >/dev/null
    buildah rm "$made" >/dev/null
}

for image in $(sed -n 's/^FROM \([^ ]*\).*/\1/p' Containerfile | sort -u); do
    # What a run that was killed left behind is good.
    buildah inspect --type image "$image" >/dev/null 2>&1 && continue
    timeout 300 buildah --root "$out/images" --runroot "$out/run" pull -q "$image" >"$out/pull.log" 2>&1 && continue
    case $image in
    */node:*) stand_in "$image" nodejs npm ;;
    */rust:*) stand_in "$image" gcc libc6-dev ;;
    */debian:*) stand_in "$image" ;;
    *) echo "test-container: nothing stands in for $image" >&2 && exit 1 ;;
    esac
done
rm -rf --one-file-system "$out/standin"

# The steps as they are; what cargo has fetched and built before is lent to it.
registry=${CARGO_HOME:-$HOME/.cargo}/registry
mkdir -p "$registry"
printf '[build]\nbuild-dir = "/var/cache/build"\n' >"$out/cargo.toml"
buildah build --isolation chroot --format docker --volume "$out/cargo.toml:/.cargo/config.toml:ro" \
    --volume "$out/build:/var/cache/build" --volume "$registry:/usr/local/cargo/registry" \
    --tag astral --file Containerfile . >"$out/build.log" 2>&1 || {
    tail -40 "$out/build.log" >&2
    exit 1
}

words() {
    buildah inspect --type image --format "{{range $1}}{{.}} {{end}}" astral
}
user=$(buildah inspect --type image --format '{{.Docker.Config.User}}' astral)
command=$(words .Docker.Config.Entrypoint)$(words .Docker.Config.Cmd)
check=$(words .Docker.Config.Healthcheck.Test)
check=${check#CMD }
echo "test-container: as $user: $command"
echo "test-container: asked by: $check"
[ -n "$user" ] && [ "$user" != root ] && [ -n "$check" ]

container=$(buildah from astral)
# Namespaces where this machine lets an engine make them.
isolation=oci
buildah run --isolation oci "$container" -- true >"$out/oci.log" 2>&1 || {
    isolation=chroot
    echo "test-container: no namespaces here, so it runs in its root alone: $(head -1 "$out/oci.log")"
}
healthy() {
    # shellcheck disable=SC2086 # it is meant to be split
    timeout 60 buildah --root "$out/images" --runroot "$out/run" run --isolation $isolation "$container" -- $check \
        >"$out/health.log" 2>&1
}
if healthy; then
    echo "test-container: the health check passes although nothing runs" >&2
    exit 1
fi
# shellcheck disable=SC2086 # it is meant to be split
command buildah --root "$out/images" --runroot "$out/run" run --isolation $isolation "$container" -- $command >"$out/node.log" 2>&1 &
node=$!
# Twelve times what HEALTHCHECK leaves it for its start.
deadline=$(($(date +%s) + 120))
until healthy; do
    if [ "$(date +%s)" -ge "$deadline" ] || ! kill -0 "$node" 2>/dev/null; then
        echo "test-container: the node does not answer its health check" >&2
        cat "$out/node.log" "$out/health.log" >&2
        exit 1
    fi
done
cat "$out/health.log"
grep -qi supernode "$out/health.log"
buildah run --isolation $isolation "$container" -- astral ctl shutdown --data-dir /data
wait "$node"
node=
if healthy; then
    echo "test-container: the health check passes although nothing runs any more" >&2
    exit 1
fi
size=$(buildah images --format '{{.Size}}' astral)
echo "test-container: built, ran as a supernode, answered its health check, and left; $size"
