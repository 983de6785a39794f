#!/bin/sh
# Builds target/dist: the optimised program with its manual and completions as an archive, and a
# Debian package of the same. Needs nothing but the toolchain; cargo-deb is built once into target/.
set -eu
cd "$(dirname "$0")/.."

CARGO_DEB_VERSION=3.8.0

cargo build --release --locked --bin astral
program=target/release/astral
out=target/dist
rm -rf "$out"
mkdir -p "$out/man"
"$program" man "$out/man"
"$program" completions bash > "$out/astral.bash"
"$program" completions zsh > "$out/_astral"
"$program" completions fish > "$out/astral.fish"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
machine=$(uname -m)
name=astral-$version-linux-$machine
mkdir -p "$out/$name"
cp "$program" README.md LICENSE-MIT LICENSE-APACHE contrib/astral.service "$out/$name/"
cp -r "$out/man" "$out/$name/man"
mkdir "$out/$name/completions"
cp "$out/astral.bash" "$out/_astral" "$out/astral.fish" "$out/$name/completions/"
tar -C "$out" -czf "$out/$name.tar.gz" "$name"
rm -rf "${out:?}/$name"

deb=target/tools/bin/cargo-deb
if ! "$deb" --version 2>/dev/null | grep -qx "$CARGO_DEB_VERSION"; then
    cargo install cargo-deb --version "$CARGO_DEB_VERSION" --locked --root target/tools
fi
"$deb" --no-build --no-strip --output "$out/"

ls -l "$out"/*.tar.gz "$out"/*.deb
