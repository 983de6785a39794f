#!/usr/bin/env bash
# Applies each mutation of list.txt to a copy of the tree; the named test and the named scenario must
# fail there, and hold without it. One that hangs for ten minutes has failed. Prints a table; exit code 0 when every mutant was killed twice.
#
#   netsim/mutants/run.sh [NAME...]      all, or those named
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
tree=$root/target/mutants/tree
logs=$root/target/mutants/logs
export CARGO_TARGET_DIR=$root/target/mutants/build
# A mutant runs for seconds and is built once: building is what costs.
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=false CARGO_INCREMENTAL=1
mkdir -p "$tree" "$logs"
(cd "$root" && git ls-files -z --cached --others --exclude-standard |
    xargs -0 cp --parents -u -t "$tree" 2>/dev/null)

# Fills the variables name, file, from, to, package, test, scenario from one block on stdin.
read_block() {
    name='' file='' from='' to='' package=astral-core test='' scenario=''
    local line key value
    while IFS= read -r line; do
        [[ $line == \#* ]] && continue
        if [[ -z $line ]]; then
            [[ -n $name ]] && return 0
            continue
        fi
        key=${line%%: *} value=${line#*: }
        printf -v "$key" '%s' "$value"
    done
    [[ -n $name ]]
}

run_test() {
    local target=(--lib -- --exact)
    [[ $package == astral-netsim ]] && target=(--test rules -- --exact)
    (cd "$tree" && timeout 600 cargo test -q -p "$package" "${target[@]}" "$test") >"$1" 2>&1
    if [[ $? -eq 124 ]]; then echo fails
    elif grep -q '^error' "$1" && ! grep -q 'test result' "$1"; then echo "no build"
    elif grep -q 'test result: FAILED' "$1"; then echo fails
    elif grep -Eq 'test result: ok. [1-9]' "$1"; then echo holds
    else echo "no test"; fi
}

run_scenario() {
    (cd "$tree" && timeout 600 cargo run -q -p astral-netsim -- run "$scenario" --seed 1) >"$1" 2>&1
    if [[ $? -eq 124 ]]; then echo fails
    elif grep -q '^error' "$1"; then echo "no build"
    elif grep -Eq "FAILED|panicked" "$1"; then echo fails
    elif grep -q ': ok' "$1"; then echo holds
    else echo "no run"; fi
}

survivors=0
declare -A sound
printf '| %-34s | %-9s | %-9s | %s |\n' mutant test scenario verdict
printf '|---|---|---|---|\n'
while read_block; do
    if [[ $# -gt 0 && " $* " != *" $name "* ]]; then continue; fi
    source=$tree/$file
    cp "$root/$file" "$source"
    text=$(<"$source")
    if [[ $text != *"$from"* ]]; then
        printf '| %-34s | %-9s | %-9s | %s |\n' "$name" - - "its line is gone from $file"
        survivors=$((survivors + 1))
        continue
    fi
    # What fails without a mutation proves nothing about it.
    if [[ -z ${sound[$test]:-} ]]; then sound[$test]=$(run_test "$logs/$name.test.before"); fi
    if [[ -z ${sound[$scenario]:-} ]]; then
        sound[$scenario]=$(run_scenario "$logs/$name.scenario.before")
    fi
    printf '%s\n' "${text/"$from"/"$to"}" >"$source"
    by_test=$(run_test "$logs/$name.test")
    by_scenario=$(run_scenario "$logs/$name.scenario")
    cp "$root/$file" "$source"
    touch "$source"
    verdict=killed
    [[ $by_test != fails || $by_scenario != fails ]] && verdict=SURVIVES
    [[ ${sound[$test]} != holds || ${sound[$scenario]} != holds ]] &&
        verdict="$verdict (before: test ${sound[$test]}, scenario ${sound[$scenario]})"
    [[ $verdict != killed ]] && survivors=$((survivors + 1))
    printf '| %-34s | %-9s | %-9s | %s |\n' "$name" "$by_test" "$by_scenario" "$verdict"
done <"$here/list.txt"
echo
echo "$survivors not killed twice; logs in target/mutants/logs"
[[ $survivors -eq 0 ]]
