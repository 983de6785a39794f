#!/bin/bash
# Publishes from a real /dev/video0: boots Debian's own kernel with its virtual camera (vivid) in QEMU,
# runs `astral publish --camera --tee` there, unplugs the camera under it, and looks at what came out.
#
# Usage: tests/camera/run.sh [PROGRAM]     PROGRAM: an astral binary [default: builds target/debug/astral]
# Environment: CAMERA_DIR    where to work and to keep the downloaded kernel [default: target/camera]
#              CAMERA_ACCEL  QEMU's accelerator, tcg or kvm [default: tcg, which runs everywhere]
#
# Needs no root except to install missing packages (tests/camera/debian.txt).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${CAMERA_DIR:-$root/target/camera}
accel=${CAMERA_ACCEL:-tcg}
boot_seconds_max=240
disk_bytes=$((32 * 1024 * 1024))

# What the guest needs: the pipeline of capture/v4l2.launch, the trial of an encoder, and devices.
plugins="coreelements app typefindfunctions playback video4linux2 videotestsrc videoconvertscale
    videorate x264 videoparsersbad flv jpeg audioparsers"
modules="vivid virtio_pci virtio_blk"

say() { echo "camera: $*"; }
die() { echo "camera: $*" >&2; exit 1; }

main() {
    "$root/tests/install-packages.sh" "$root/pipelines/debian-run.txt" "$here/debian.txt"
    mkdir -p "$work"
    local program=${1:-}
    if [ -z "$program" ]; then
        cargo build --locked --manifest-path "$root/Cargo.toml" --bin astral
        program=${CARGO_TARGET_DIR:-$root/target}/debug/astral
    fi
    [ -x "$program" ] || die "no program $program"
    unpack_kernel
    build_initramfs "$program"
    boot
    judge
}

# Leaves $kernel (the image) and $module_dir.
unpack_kernel() {
    local package
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *\(linux-image-.*-amd64\)$/\1/p' | head -n 1)
    [ -n "$package" ] || die "apt knows no linux-image-amd64; run apt-get update"
    if [ ! -d "$work/$package" ]; then
        say "downloading $package (about 70 MB, once)"
        (cd "$work" && rm -f linux-image-*.deb && apt-get download -qq "$package")
        rm -rf "$work/unpacking"
        dpkg-deb -x "$work"/linux-image-*.deb "$work/unpacking"
        mv "$work/unpacking" "$work/$package"
        rm -f "$work"/linux-image-*.deb
    fi
    kernel=$(echo "$work/$package"/boot/vmlinuz-*)
    module_dir=$(echo "$work/$package"/lib/modules/*)
}

build_initramfs() {
    local program=$1 tree=$work/tree plugin name
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,dev,proc,sys,tmp,out,modules,lib/plugins,lib/libs,etc}
    cp /bin/busybox "$tree/bin/busybox"
    cp "$here/init" "$tree/init"
    chmod 755 "$tree/init"
    strip -o "$tree/bin/astral" "$program" 2>/dev/null || cp "$program" "$tree/bin/astral"
    add_libraries "$program"
    for name in $plugins; do
        plugin=$(echo /usr/lib/*/gstreamer-1.0/libgst"$name".so)
        [ -f "$plugin" ] || die "the GStreamer plugin $name is not installed"
        cp "$plugin" "$tree/lib/plugins/"
        add_libraries "$plugin"
    done
    : > "$tree/modules/order"
    for name in $modules; do
        add_module "$name"
    done
    (cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 > "$work/initrd.gz"
    say "initramfs of $(stat -c %s "$work/initrd.gz") bytes, modules $(tr '\n' ' ' < "$tree/modules/order")"
}

# Every shared library that a file is linked to, and the loader at the path that is built into programs.
add_libraries() {
    local library loader
    for library in $(ldd "$1" | awk '/=> \//{print $3}'); do
        cp -Ln "$library" "$work/tree/lib/libs/"
    done
    loader=$(ldd "$1" | awk '$1 ~ /^\/.*ld-linux/{print $1}')
    if [ -n "$loader" ] && [ ! -e "$work/tree/$loader" ]; then
        mkdir -p "$work/tree/$(dirname "$loader")"
        cp -L "$loader" "$work/tree/$loader"
    fi
}

# A kernel module after those it depends on; the unpacked package has no modules.dep.
add_module() {
    local name=${1//-/_} file needed
    ! grep -qx "$name" "$work/tree/modules/order" || return 0
    file=$(find "$module_dir" -name "${name//_/[-_]}.ko" | head -n 1)
    # Built into the kernel: nothing to load.
    [ -n "$file" ] || return 0
    for needed in $(tr '\0' '\n' < "$file" | sed -n 's/^depends=//p' | tr ',' ' '); do
        add_module "$needed"
    done
    cp "$file" "$work/tree/modules/$name.ko"
    echo "$name" >> "$work/tree/modules/order"
}

boot() {
    say "booting $(basename "$kernel") with accelerator $accel"
    rm -rf "$work/out"
    mkdir "$work/out"
    rm -f "$work/disk.img"
    truncate -s "$disk_bytes" "$work/disk.img"
    local began=$SECONDS
    timeout "$boot_seconds_max" qemu-system-x86_64 \
        -accel "$accel" -cpu max -smp 2 -m 1536 -nographic -no-reboot -nic none \
        -kernel "$kernel" -initrd "$work/initrd.gz" -append "console=ttyS0 quiet panic=-1" \
        -drive "file=$work/disk.img,format=raw,if=virtio" \
        < /dev/null > "$work/console.txt" 2>&1 \
        || die "the guest didn't come to its end in $boot_seconds_max s; see $work/console.txt"
    say "the guest ran for $((SECONDS - began)) s"
    tar -x -f "$work/disk.img" -C "$work/out" 2> /dev/null \
        || die "the guest left nothing behind; see $work/console.txt"
}

# What must hold. Every line that fails is printed, then the script fails.
judge() {
    local out=$work/out failed=0 probe width frames
    expect() {
        if eval "$2"; then say "ok    $1"; else say "FAIL  $1"; failed=1; fi
    }
    probe=$(ffprobe -v error -select_streams v:0 -count_frames \
        -show_entries stream=codec_name,width,nb_read_frames -of csv=p=0 "$out/camera.flv" \
        2> "$out/decoding.txt" || true)
    IFS=, read -r codec width frames <<< "$probe" || true
    say "camera.flv: ${codec:-nothing}, ${width:-?} wide, ${frames:-0} frames; $(stat -c %s "$out/camera.flv" 2> /dev/null || echo 0) bytes"
    expect "the camera is listed" "grep -q /dev/video0 '$out/devices.txt'"
    expect "it was published as H.264" "[ '${codec:-}' = h264 ]"
    expect "in the size asked for" "[ '${width:-}' = 320 ]"
    expect "at least 30 frames decode" "[ '${frames:-0}' -ge 30 ]"
    expect "all of them without an error" "[ ! -s '$out/decoding.txt' ]"
    expect "unplugging is told as the device's loss" "grep -q '\"device_lost\"' '$out/events.txt'"
    expect "plugged in again, it goes on" "grep -q '\"device_back\"' '$out/events.txt'"
    expect "with more pictures" "[ $(cat "$out/size-back.txt") -gt $(cat "$out/size-unplugged.txt") ]"
    expect "and stopping it is exit code 0" "grep -qx 0 '$out/exit-unplugged.txt'"
    expect "without a camera the error says what to do" "grep -q 'plug one in' '$out/missing.txt'"
    expect "and the exit code is 1" "grep -qx 1 '$out/exit-missing.txt'"
    ffmpeg -v error -y -ss 1 -i "$out/camera.flv" -frames:v 1 "$out/camera.png" || true
    if [ "$failed" -ne 0 ]; then
        tail -n 20 "$out/log.txt" "$out/events.txt" >&2 || true
        die "failed; everything is in $work"
    fi
    say "passed; a frame of it is $out/camera.png"
}

main "$@"
