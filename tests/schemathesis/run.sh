#!/bin/sh
# Asks a real node what its OpenAPI document allows and what it does not, for four minutes at most,
# and fails when an answer is not as documented. Part of `make test-long`.
set -eu
cd "$(dirname "$0")/../.."

tool=target/tools/schemathesis
[ -x "$tool/bin/schemathesis" ] || {
    python3 -m venv "$tool"
    "$tool/bin/pip" install --quiet --requirement tests/schemathesis/requirements.txt
}

scratch=$(mktemp -d)
node=
end() {
    [ -z "$node" ] || kill "$node" 2>/dev/null || true
    rm -rf "$scratch"
}
trap end EXIT
trap 'exit 1' INT TERM

mkfifo "$scratch/ready"
"${TEST_ASTRAL_BIN:-target/debug/astral}" run --data-dir "$scratch/node" --api 127.0.0.1:0 \
    --rtmp 127.0.0.1:0 --listen /ip4/127.0.0.1/tcp/0 --mdns false --json >"$scratch/ready" &
node=$!
exec 3<"$scratch/ready"
read -r ready <&3
cat <&3 >/dev/null &
api=$(printf '%s' "$ready" | sed 's/.*"api":"\([^"]*\)".*/\1/')

# Left out: events go on for ever, shutdown ends the test, and the two last are not below /api/v1.
# What is valid by its type may still be refused by its meaning (a taken name, a rate of 0), so
# `positive_data_acceptance` is no rule here.
"$tool/bin/schemathesis" run "$api/api/v1/openapi.json" --origin "$api" \
    --header "Authorization: Bearer $(cat "$scratch/node/api.token")" \
    --exclude-path-regex '^/(events|node/shutdown|healthz|metrics)$' \
    --exclude-checks positive_data_acceptance --generation-with-security-parameters false \
    --phases examples,coverage,fuzzing --max-examples 25 --max-time 240 --rate-limit 100/s \
    --seed "${SEED:-1}" --continue-on-failure --warnings off
