#!/usr/bin/env bash
# Runs fuzz targets for so many seconds each: scripts/fuzz.sh SECONDS [TARGET...]. Needs a nightly compiler, and no cargo-fuzz.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${1:?seconds for each target}
shift
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/strandline/target}
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1"
cargo +nightly build --release --target "$host" --bins
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | grep -v strandline-fuzz)
for target in "$@"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    echo "==> $target"
    "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -rss_limit_mb=1024 -malloc_limit_mb=512 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=1 -verbosity=0 "corpus/$target"
done
