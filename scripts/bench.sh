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
tiny) profile=dev transactions=400 scale=1 rounds=1 rows=2000 big_rows=3000 full_rows=500 full_transactions=40 ;;
full) profile=release transactions=60000 scale=10 rounds=3 rows= big_rows=1000000 full_rows=100000 full_transactions=6000 ;;
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
native() { "$PGBIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$n_port" -U postgres "${DB:-postgres}" "$@"; }
replica() { PGPASSWORD=password "$PGBIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$r_port" -U postgres postgres "$@"; }
now() { date +%s.%N; }
# CPU seconds (user and system) of a process, and of a backend of the primary that serves a slot
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15) / hz }' "/proc/$1/stat"; }
wait_confirmed() { # SLOT LSN
    until [ "$(primary -c "SELECT confirmed_flush_lsn >= '$2' FROM pg_replication_slots WHERE slot_name = '$1'")" = t ]; do sleep 0.05; done
}

echo "==> a primary and a native subscriber"
settings=("shared_buffers = 256MB" "max_wal_size = 8GB" "checkpoint_timeout = 1h" "autovacuum = off" "max_wal_senders = 10" "wal_sender_timeout = 10min" "max_replication_slots = 10" "wal_retrieve_retry_interval = 100ms")
start_postgres "$folder/primary" "$p_port" "${settings[@]}" "synchronous_commit = off" "full_page_writes = off"
start_postgres "$folder/native" "$n_port" "${settings[@]}" "synchronous_commit = off" "max_logical_replication_workers = 4"
"$PGBIN/pgbench" -h 127.0.0.1 -p "$p_port" -U postgres -i -q -s "$scale" postgres >/dev/null 2>&1
primary -c "ALTER TABLE pgbench_history REPLICA IDENTITY FULL;
    CREATE TABLE big (id int PRIMARY KEY, n int, t text);
    CREATE TABLE full_row (id int, n int, t text);
    CREATE INDEX ON full_row (id);
    ALTER TABLE full_row REPLICA IDENTITY FULL;
    INSERT INTO full_row SELECT g, 0, md5(g::text) FROM generate_series(1, $full_rows) g;
    CREATE PUBLICATION bench FOR ALL TABLES"

# The native side: the same tables, copied by its own initial copy.
"$PGBIN/pg_dump" -h 127.0.0.1 -p "$p_port" -U postgres -s --no-publications postgres | native >/dev/null
# PostgreSQL 15 uses no index but the replica identity's; 16 and later would.
native -c "DROP INDEX full_row_id_idx"
native -c "CREATE SUBSCRIPTION native CONNECTION 'host=127.0.0.1 port=$p_port user=postgres dbname=postgres' PUBLICATION bench WITH (streaming = on)"
until [ "$(native -c "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")" = t ]; do sleep 0.1; done

configure_replica() { # FOLDER SLOT PUBLICATION
    mkdir -p "$1/data"
    cat >"$1/config.yaml" <<YAML
log_level: warning
data_dir: $1/data
listener:
  port: $r_port
postgres_replication:
  postgres_server_address: 127.0.0.1
  postgres_port: $p_port
  slot_name: $2
  publication_names: $3
YAML
}
configure_replica "$folder/replica" ours bench
start_replica() { # [FOLDER]
    local home=${1:-$folder/replica}
    "$strandline" --config "$home/config.yaml" >>"$home/log" 2>&1 &
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

# stop_both: neither side may take anything while a backlog is written.
stop_both() {
    native -c "ALTER SUBSCRIPTION native DISABLE"
    [ -z "$replica_pid" ] || stop_replica
    until [ "$(primary -c "SELECT count(*) FROM pg_replication_slots WHERE active")" = 0 ]; do sleep 0.05; done
}

# drain WORKLOAD ROUND COUNT LSN: both sides take the backlog up to LSN, COUNT transactions or rows, one after the other, in turns.
drain() {
    local workload=$1 round=$2 count=$3 lsn=$4 side sides="native ours"
    [ $((round % 2)) = 0 ] && sides="ours native"
    for side in $sides; do
        if [ "$side" = native ]; then
            begun=$(now)
            native -c "ALTER SUBSCRIPTION native ENABLE"
            wait_confirmed native "$lsn"
            ended=$(now)
            worker=$(native -c "SELECT pid FROM pg_stat_subscription WHERE subname = 'native' AND pid IS NOT NULL LIMIT 1")
            applier=$(cpu "$worker")
            memory=$(peak_memory "$worker")
        else
            size_before=$(du -sb "$folder/replica/data" | cut -f1)
            start_replica
            # From the moment the walsender runs: our process starts here, native's is running already.
            begun=$(now)
            at_start=$(cpu "$replica_pid")
            wait_confirmed ours "$lsn"
            ended=$(now)
            applier=$(awk -v a="$(cpu "$replica_pid")" -v b="$at_start" 'BEGIN { print a - b }')
            memory=$(peak_memory "$replica_pid")
            size_after=$(du -sb "$folder/replica/data" | cut -f1)
        fi
        sender=$(primary -c "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$side'")
        sender_cpu=$([ -n "$sender" ] && cpu "$sender" || echo 0)
        awk -v workload="$workload" -v side="$side" -v round="$round" -v n="$count" -v t0="$begun" -v t1="$ended" -v a="$applier" -v s="$sender_cpu" -v m="$memory" \
            'BEGIN { printf "%s\t%s\t%d\t%.0f\t%.1f\t%.1f\t%d\n", workload, side, round, n / (t1 - t0), a / n * 1e6, s / n * 1e6, m / 1024 }' | tee -a "$results"
    done
}
peak_memory() { awk '$1 == "VmHWM:" { print $2 }' "/proc/$1/status"; } # KiB
load() { "$PGBIN/pgbench" -h 127.0.0.1 -p "$p_port" -U postgres -n -c 2 -j 2 -M prepared "$@" postgres >/dev/null 2>&1; }
current_lsn() { primary -c "SELECT pg_current_wal_insert_lsn()"; }

for round in $(seq "$rounds"); do
    stop_both
    before=$(current_lsn)
    load -t $((transactions / 2))
    primary -c "CHECKPOINT"
    lsn=$(current_lsn)
    wal=$(primary -c "SELECT '$lsn'::pg_lsn - '$before'::pg_lsn")
    drain pgbench "$round" "$transactions" "$lsn"
    awk -v b="$size_before" -v a="$size_after" -v w="$wal" -v n="$transactions" 'BEGIN { printf "bytes\t%.0f\t%.0f\n", (a - b) / n, w / n }' >>"$results"
done

# What was there before the transactions is part of it: the copied tables.
echo "the store after $rounds rounds, by kind, divided by their $((rounds * transactions)) transactions (the copied tables included)"
stop_both
STRANDLINE_BENCH_STORE=$folder/replica/data STRANDLINE_BENCH_TRANSACTIONS=$((rounds * transactions)) \
    $cargo bench -q --profile "$profile" -p strandline-storage --bench sizes

# Other loads than pgbench's own: a row a transaction; all rows in one transaction; rows that are found by all of their values.
cat >"$folder/one_row.sql" <<SQL
\set aid random(1, 100000 * $scale)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
SQL
cat >"$folder/full_row.sql" <<SQL
\set id random(1, $full_rows)
UPDATE full_row SET n = n + 1 WHERE id = :id;
SQL
chmod 644 "$folder"/*.sql
for round in $(seq "$rounds"); do
    stop_both
    load -t $((transactions / 2)) -f "$folder/one_row.sql"
    drain "one row" "$round" "$transactions" "$(current_lsn)"
done
for round in $(seq "$rounds"); do
    stop_both
    primary -c "INSERT INTO big SELECT g, g % 1000, md5(g::text) FROM generate_series($big_rows * ($round - 1) + 1, $big_rows * $round) g"
    drain "insert of $big_rows" "$round" "$big_rows" "$(current_lsn)"
    stop_both
    primary -c "UPDATE big SET n = n + 1 WHERE id > $big_rows * ($round - 1)"
    drain "update of $big_rows" "$round" "$big_rows" "$(current_lsn)"
done
for round in $(seq "$rounds"); do
    stop_both
    load -t $((full_transactions / 2)) -f "$folder/full_row.sql"
    drain "FULL identity" "$round" "$full_transactions" "$(current_lsn)"
done

# The initial copy of one table with a primary key, from CREATE SUBSCRIPTION or our start until all rows are there. CPU: of the worker that copies, of our process.
copied=$((scale * 100000))
primary -c "CREATE PUBLICATION bench_copy FOR TABLE pgbench_accounts"
for round in $(seq "$rounds"); do
    stop_both
    sides="native ours"
    [ $((round % 2)) = 0 ] && sides="ours native"
    for side in $sides; do
        if [ "$side" = native ]; then
            native -c "CREATE DATABASE copy"
            "$PGBIN/pg_dump" -h 127.0.0.1 -p "$p_port" -U postgres -s --no-publications -t pgbench_accounts postgres | DB=copy native >/dev/null
            begun=$(now)
            DB=copy native -c "CREATE SUBSCRIPTION copy CONNECTION 'host=127.0.0.1 port=$p_port user=postgres dbname=postgres' PUBLICATION bench_copy"
            used=0
            while :; do
                # Whether it is complete, and which process copies: that one ends with the copy, so the last look counts.
                state=$(DB=copy native -F ' ' -c "SELECT coalesce(bool_and(srsubstate IN ('s', 'r')), false), (SELECT max(pid) FROM pg_stat_subscription WHERE relid IS NOT NULL) FROM pg_subscription_rel")
                case $state in t*) break ;; esac
                used=$(cpu "${state#f }" 2>/dev/null || echo "$used")
                sleep 0.02
            done
            ended=$(now)
            DB=copy native -c "DROP SUBSCRIPTION copy"
            native -c "DROP DATABASE copy"
        else
            configure_replica "$folder/copy" copy_ours bench_copy
            begun=$(now)
            start_replica "$folder/copy"
            # All rows come in one commit: one is as good as all to wait for, and costs nothing.
            until [ "$(replica -c "SELECT aid FROM pgbench_accounts WHERE aid = $copied" 2>/dev/null)" = "$copied" ]; do kill -0 "$replica_pid"; sleep 0.02; done
            ended=$(now)
            used=$(cpu "$replica_pid")
            [ "$(replica -c "SELECT count(*) FROM pgbench_accounts")" = "$copied" ]
            stop_replica
            until [ "$(primary -c "SELECT bool_or(active) FROM pg_replication_slots")" = f ]; do sleep 0.05; done
            primary -c "SELECT pg_drop_replication_slot('copy_ours')" >/dev/null
            rm -rf "$folder/copy"
        fi
        awk -v side="$side" -v round="$round" -v n="$copied" -v t0="$begun" -v t1="$ended" -v used="$used" \
            'BEGIN { printf "initial copy\t%s\t%d\t%.0f\t%.2f\t\t\n", side, round, n / (t1 - t0), used / n * 1e6 }' | tee -a "$results"
    done
done
start_replica
native -c "ALTER SUBSCRIPTION native ENABLE"

# Equal at the end, or the rates mean nothing.
for table in pgbench_accounts pgbench_branches pgbench_tellers pgbench_history; do
    column=$([ $table = pgbench_history ] && echo delta || echo "$(echo "${table#pgbench_}" | cut -c1)balance")
    a=$(primary -c "SELECT count(*), sum($column) FROM $table")
    b=$(replica -c "SELECT count(*), sum($column) FROM $table")
    [ "$a" = "$b" ] || { echo "bench: $table differs: $a, $b" >&2; exit 1; }
done
for query in "SELECT count(*), sum(n), sum(id::bigint) FROM big" "SELECT count(*), sum(n), sum(id * n::bigint) FROM full_row"; do
    [ "$(primary -c "$query")" = "$(replica -c "$query")" ] || { echo "bench: $query differs" >&2; exit 1; }
done

echo
echo "backlogs drained: transactions (of the two large transactions: rows) per second, medians of $rounds rounds; durable commits here, native with synchronous_commit = off"
awk -F'\t' '
    function median(name, count,   i, j, t) {
        for (i = 1; i <= count; i++) for (j = i + 1; j <= count; j++) if (v[name, j] < v[name, i]) { t = v[name, i]; v[name, i] = v[name, j]; v[name, j] = t }
        return v[name, int((count + 1) / 2)]
    }
    $1 == "bytes" { b++; v["bytes", b] = $2; v["wal", b] = $3; next }
    !($1 in seen) { seen[$1] = 1; order[++workloads] = $1 }
    { k = $1 " " $2; n[k]++; v[k "rate", n[k]] = $4; v[k "apply", n[k]] = $5; v[k "send", n[k]] = $6; v[k "memory", n[k]] = $7 }
    END {
        printf "%-20s %-7s %12s %20s %20s %14s %8s\n", "backlog", "side", "a second", "applier CPU us", "walsender CPU us", "peak RSS MiB", "ratio"
        for (w = 1; w <= workloads; w++) {
            split("native ours", sides, " ")
            for (i = 1; i <= 2; i++) {
                k = order[w] " " sides[i]
                r[i] = median(k "rate", n[k])
                printf "%-20s %-7s %12.0f %20.1f %20.1f %14.0f %8s\n", order[w], sides[i], r[i], median(k "apply", n[k]), median(k "send", n[k]), \
                    median(k "memory", n[k]), i == 2 ? sprintf("%.2f", r[2] / r[1]) : ""
            }
        }
        bytes = median("bytes", b); wal = median("wal", b)
        printf "bytes on disk per pgbench transaction: ours %.0f, the primary'"'"'s WAL %.0f, ratio %.2f\n", bytes, wal, bytes / wal
    }' "$results"

echo
echo "==> benchmarks of the crates"
for bench in storage/benches/*.rs; do
    [ "$(basename "$bench")" = sizes.rs ] && continue
    $cargo bench -q --profile "$profile" -p strandline-storage --bench "$(basename "$bench" .rs)"
done

echo
echo "==> questions about the past, in SQL"
STRANDLINE_TEST_BIN=$strandline $cargo bench -q --profile "$profile" -p strandline-tests --bench history

echo
echo "==> latency of replication"
STRANDLINE_TEST_BIN=$strandline $cargo bench -q --profile "$profile" -p strandline-tests --bench replication_latency
