#!/usr/bin/env bash
# Measures, in one run on this machine: pgbench transactions drained per second, ours with a durable commit each against
# PostgreSQL's own subscriber (synchronous_commit = off), sides alternated; then the benchmarks of the crates.
# Usage: SIZE=tiny|full scripts/bench.sh
set -eu
cd "$(dirname "$0")/.."
. scripts/postgres.sh
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/strandline/target}"
cargo=${CARGO:-cargo}

case "${SIZE:-full}" in
tiny) profile=dev transactions=400 scale=1 rounds=1 rows=2000 ;;
full) profile=release transactions=60000 scale=10 rounds=3 rows= ;;
*) echo "bench: SIZE is tiny or full" >&2; exit 2 ;;
esac
transactions=${TRANSACTIONS:-$transactions}
rounds=${ROUNDS:-$rounds}
if [ -n "$rows" ]; then
    export STRANDLINE_BENCH_ROWS=$rows STRANDLINE_BENCH_ACCOUNTS=$rows STRANDLINE_BENCH_TRANSACTIONS=$rows STRANDLINE_BENCH_COMMITS=$rows
    export STRANDLINE_BENCH_RATE=1000 STRANDLINE_BENCH_SECONDS=1
fi

echo "==> building ($profile)"
$cargo build -q --profile "$profile" --bin strandline
strandline=$CARGO_TARGET_DIR/$([ "$profile" = dev ] && echo debug || echo release)/strandline

folder=$(mktemp -d "${TMPDIR:-/tmp}/strandline-bench.XXXXXX")
chmod 755 "$folder"
mkdir "$folder/primary" "$folder/native" "$folder/replica"
[ "$(id -u)" = 0 ] && chown postgres "$folder/primary" "$folder/native"
replica_pid=
finish() {
    status=$?
    # Without this the reason of a failure would be deleted with the folder.
    if [ "$status" != 0 ]; then
        for log in "$folder"/*/log; do
            echo "==> the last lines of ${log#"$folder"/}" >&2
            tail -n 30 "$log" >&2
        done
    fi
    [ -n "$replica_pid" ] && kill "$replica_pid" 2>/dev/null && wait "$replica_pid" 2>/dev/null
    stop_postgres "$folder/native"
    stop_postgres "$folder/primary"
    rm -rf "$folder"
}
trap finish EXIT

p_port=$(free_port) n_port=$(free_port) r_port=$(free_port)
primary() { "$PGBIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$p_port" -U postgres "${DB:-postgres}" "$@"; }
native() { "$PGBIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$n_port" -U postgres postgres "$@"; }
replica() { PGPASSWORD=password "$PGBIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$r_port" -U postgres postgres "$@"; }
now() { date +%s.%N; }
# CPU seconds (user and system) of a process, and of a backend of the primary that serves a slot
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15) / hz }' "/proc/$1/stat"; }
wait_confirmed() { # SLOT LSN
    until [ "$(primary -c "SELECT confirmed_flush_lsn >= '$2' FROM pg_replication_slots WHERE slot_name = '$1'")" = t ]; do sleep 0.05; done
}

echo "==> a primary and a native subscriber"
settings=("shared_buffers = 256MB" "max_wal_size = 8GB" "checkpoint_timeout = 1h" "autovacuum = off" "max_wal_senders = 10" "wal_sender_timeout = 10min" "max_replication_slots = 10")
start_postgres "$folder/primary" "$p_port" "${settings[@]}" "synchronous_commit = off" "full_page_writes = off"
start_postgres "$folder/native" "$n_port" "${settings[@]}" "synchronous_commit = off" "max_logical_replication_workers = 4"
"$PGBIN/pgbench" -h 127.0.0.1 -p "$p_port" -U postgres -i -q -s "$scale" postgres >/dev/null 2>&1
primary -c "ALTER TABLE pgbench_history REPLICA IDENTITY FULL; CREATE PUBLICATION bench FOR ALL TABLES"

# The native side: the same tables, copied by its own initial copy.
"$PGBIN/pg_dump" -h 127.0.0.1 -p "$p_port" -U postgres -s --no-publications postgres | native >/dev/null
native -c "CREATE SUBSCRIPTION native CONNECTION 'host=127.0.0.1 port=$p_port user=postgres dbname=postgres' PUBLICATION bench"
until [ "$(native -c "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")" = t ]; do sleep 0.1; done

cat >"$folder/replica/config.yaml" <<YAML
log_level: warning
data_dir: $folder/replica/data
listener:
  port: $r_port
postgres_replication:
  postgres_server_address: 127.0.0.1
  postgres_port: $p_port
  slot_name: ours
  publication_names: bench
YAML
start_replica() {
    mkdir -p "$folder/replica/data"
    "$strandline" --config "$folder/replica/config.yaml" >>"$folder/replica/log" 2>&1 &
    replica_pid=$!
    until replica -c "SELECT 1" >/dev/null 2>&1; do kill -0 "$replica_pid"; sleep 0.05; done
}
stop_replica() {
    kill "$replica_pid"
    wait "$replica_pid" || true
    replica_pid=
}
start_replica
until [ "$(primary -c "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ours' AND active")" = 1 ]; do kill -0 "$replica_pid"; sleep 0.1; done
wait_confirmed ours "$(primary -c "SELECT pg_current_wal_insert_lsn()")"

results=$folder/results
: >"$results"
for round in $(seq "$rounds"); do
    # Both sides are stopped while the backlog is written, then drain it one after the other, in turns.
    native -c "ALTER SUBSCRIPTION native DISABLE"
    stop_replica
    until [ "$(primary -c "SELECT count(*) FROM pg_replication_slots WHERE active")" = 0 ]; do sleep 0.05; done
    before=$(primary -c "SELECT pg_current_wal_insert_lsn()")
    "$PGBIN/pgbench" -h 127.0.0.1 -p "$p_port" -U postgres -n -c 2 -j 2 -t $((transactions / 2)) -M prepared postgres >/dev/null 2>&1
    primary -c "CHECKPOINT"
    lsn=$(primary -c "SELECT pg_current_wal_insert_lsn()")
    wal=$(primary -c "SELECT '$lsn'::pg_lsn - '$before'::pg_lsn")
    sides="native ours"
    [ $((round % 2)) = 0 ] && sides="ours native"
    for side in $sides; do
        if [ "$side" = native ]; then
            begun=$(now)
            native -c "ALTER SUBSCRIPTION native ENABLE"
            wait_confirmed native "$lsn"
            ended=$(now)
            worker=$(native -c "SELECT pid FROM pg_stat_subscription WHERE subname = 'native' AND pid IS NOT NULL LIMIT 1")
            applier=$(cpu "$worker")
        else
            size_before=$(du -sb "$folder/replica/data" | cut -f1)
            start_replica
            # From the moment the walsender runs: our process starts here, native's is running already.
            begun=$(now)
            at_start=$(cpu "$replica_pid")
            wait_confirmed ours "$lsn"
            ended=$(now)
            applier=$(awk -v a="$(cpu "$replica_pid")" -v b="$at_start" 'BEGIN { print a - b }')
            size_after=$(du -sb "$folder/replica/data" | cut -f1)
        fi
        sender=$(primary -c "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$side'")
        sender_cpu=$([ -n "$sender" ] && cpu "$sender" || echo 0)
        awk -v side="$side" -v round="$round" -v n="$transactions" -v t0="$begun" -v t1="$ended" -v a="$applier" -v s="$sender_cpu" \
            'BEGIN { printf "%s %d %.0f %.1f %.1f\n", side, round, n / (t1 - t0), a / n * 1e6, s / n * 1e6 }' | tee -a "$results"
    done
    awk -v b="$size_before" -v a="$size_after" -v w="$wal" -v n="$transactions" 'BEGIN { printf "bytes %.0f %.0f\n", (a - b) / n, w / n }' >>"$results"
done

# Equal at the end, or the rates mean nothing.
for table in pgbench_accounts pgbench_branches pgbench_tellers pgbench_history; do
    column=$([ $table = pgbench_history ] && echo delta || echo "$(echo "${table#pgbench_}" | cut -c1)balance")
    a=$(primary -c "SELECT count(*), sum($column) FROM $table")
    b=$(replica -c "SELECT count(*), sum($column) FROM $table")
    [ "$a" = "$b" ] || { echo "bench: $table differs: $a, $b" >&2; exit 1; }
done

echo
echo "pgbench transactions drained (durable commit each here; native with synchronous_commit = off), $transactions a round"
awk '
    function median(name, count,   i, j, t) {
        for (i = 1; i <= count; i++) for (j = i + 1; j <= count; j++) if (v[name, j] < v[name, i]) { t = v[name, i]; v[name, i] = v[name, j]; v[name, j] = t }
        return v[name, int((count + 1) / 2)]
    }
    $1 == "bytes" { b++; v["bytes", b] = $2; v["wal", b] = $3; next }
    { n[$1]++; v[$1 "rate", n[$1]] = $3; v[$1 "apply", n[$1]] = $4; v[$1 "send", n[$1]] = $5 }
    END {
        printf "%-8s %14s %22s %22s\n", "side", "median txn/s", "applier CPU us/txn", "walsender CPU us/txn"
        for (s in n) { r[s] = median(s "rate", n[s]); printf "%-8s %14.0f %22.1f %22.1f\n", s, r[s], median(s "apply", n[s]), median(s "send", n[s]) }
        printf "ratio ours/native: %.2f\n", r["ours"] / r["native"]
        bytes = median("bytes", b); wal = median("wal", b)
        printf "bytes on disk per transaction: ours %.0f, the primary'"'"'s WAL %.0f, ratio %.2f\n", bytes, wal, bytes / wal
    }' "$results"

# What was there before the transactions is part of it: the copied tables.
echo
echo "the store after $rounds rounds, by kind, divided by their $((rounds * transactions)) transactions (the copied tables included)"
stop_replica
STRANDLINE_BENCH_STORE=$folder/replica/data STRANDLINE_BENCH_TRANSACTIONS=$((rounds * transactions)) \
    $cargo bench -q --profile "$profile" -p strandline-storage --bench sizes

echo
echo "==> benchmarks of the crates"
for bench in storage/benches/*.rs; do
    [ "$(basename "$bench")" = sizes.rs ] && continue
    $cargo bench -q --profile "$profile" -p strandline-storage --bench "$(basename "$bench" .rs)"
done
