#!/usr/bin/env bash
# Writes every captured message of replication/tests/golden as a file of its own into fuzz/corpus/pgoutput.
set -eu
cd "$(dirname "$0")/.."
mkdir -p fuzz/corpus/pgoutput
# Of messages of one kind and size, one is enough.
cat replication/tests/golden/*.hex | awk 'NF && !seen[substr($1, 1, 2) length($1)]++' | while read -r hex; do
    printf '%s' "$hex" | sed 's/../\\x&/g' | xargs -0 printf '%b' > "fuzz/corpus/pgoutput/${hex:0:2}-$(printf '%s' "$hex" | cksum | cut -d' ' -f1)"
done
