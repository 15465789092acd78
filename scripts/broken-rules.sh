#!/usr/bin/env bash
# Finds rules of replication that are not tested: each patch of tests/broken-rules breaks one on purpose, in a checkout of its own, and the tests
# that it names must fail. scripts/broken-rules.sh [NAME...]; takes about half a minute for each.
set -eu
cd "$(dirname "$0")/.."
source=$PWD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/strandline/target}/broken-rules
mkdir -p "$CARGO_TARGET_DIR"
checkout=$(mktemp -d)
trap 'git -C "$source" worktree remove --force "$checkout"' EXIT
git worktree add --quiet --detach "$checkout" HEAD
cd "$checkout"
[ $# -gt 0 ] || set -- $(cd "$source/tests/broken-rules" && printf '%s\n' *.patch | sed 's/\.patch$//' | sort -n)

# What it prints is shown where it was not what was expected.
test_with() {
    timeout 600 cargo test -q $1 > "$CARGO_TARGET_DIR/output" 2>&1
}

# Tests that fail by themselves would notice everything.
for name in "$@"; do
    sed -n 's/^Tests: //p' "$source/tests/broken-rules/$name.patch"
done | sort -u > "$CARGO_TARGET_DIR/tests"
while read -r tests; do
    if ! test_with "$tests" < /dev/null; then
        tail -n 40 "$CARGO_TARGET_DIR/output"
        echo "fails with nothing broken: cargo test $tests"
        exit 1
    fi
done < "$CARGO_TARGET_DIR/tests"

survived=0
for name in "$@"; do
    patch=$source/tests/broken-rules/$name.patch
    rule=$(sed -n 1p "$patch")
    tests=$(sed -n 's/^Tests: //p' "$patch")
    git apply "$patch"
    if test_with "$tests"; then
        echo "NOT NOTICED  $name ($rule)"
        survived=$((survived + 1))
    elif [ $? -eq 124 ] || grep -q '^test result: FAILED' "$CARGO_TARGET_DIR/output"; then
        echo "noticed      $name: $(grep -m1 -oE '^test [^ ]+ |^---- [^ ]+' "$CARGO_TARGET_DIR/output" | sed "s/^[^ ]* //" || true)"
    else
        tail -n 40 "$CARGO_TARGET_DIR/output"
        echo "DID NOT RUN  $name ($rule)"
        survived=$((survived + 1))
    fi
    git apply --reverse "$patch"
done
echo "$# rules broken, $survived not noticed"
[ "$survived" -eq 0 ]
