#!/usr/bin/env bash
# The main job on a real primary: a shop, its transactions as commits, a mistake found and looked at.
# Usage: scripts/demo.sh STRANDLINE   (KEEP=1 leaves both servers running)
set -eu
cd "$(dirname "$0")/.."
strandline=$1
. scripts/postgres.sh

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/strandline-demo.XXXXXX")
chmod 755 "$folder"
mkdir "$folder/primary" "$folder/replica"
[ "$(id -u)" = 0 ] && chown postgres "$folder/primary"
replica_pid=
done_well=
finish() {
    if [ -n "$done_well" ] && [ "${KEEP:-}" = 1 ]; then
        return
    fi
    [ -n "$replica_pid" ] && kill "$replica_pid" 2>/dev/null && wait "$replica_pid" 2>/dev/null
    stop_postgres "$folder/primary"
    if [ -z "$done_well" ]; then
        echo "demo: failed; the server's log ends:" >&2
        tail -n 20 "$folder/replica/log" >&2 || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

primary_port=$(free_port)
replica_port=$(free_port)
primary() { "$PGBIN/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$primary_port" -U postgres postgres "$@"; }
replica() { PGPASSWORD=password "$PGBIN/psql" -X -q -v ON_ERROR_STOP=1 -P pager=off -h 127.0.0.1 -p "$replica_port" -U postgres postgres "$@"; }
show() { # SQL: prints it and its result, as psql shows it
    printf '\nreplica=# %s\n' "$1"
    replica -c "$1"
}
catch_up() { # waits until the replica has confirmed all that the primary has written
    local lsn tries=0
    lsn=$(primary -At -c "SELECT pg_current_wal_insert_lsn()")
    until [ "$(primary -At -c "SELECT coalesce(bool_or(confirmed_flush_lsn >= '$lsn'), false) FROM pg_replication_slots WHERE slot_name = 'shop'")" = t ]; do
        kill -0 "$replica_pid"
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { echo "demo: the replica does not catch up" >&2; exit 1; }
        sleep 0.1
    done
}

say "starting a throw-away PostgreSQL primary on port $primary_port"
start_postgres "$folder/primary" "$primary_port"

say "a small shop on the primary, and a publication"
primary <<'SQL'
CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL, city text);
CREATE TABLE product (id serial PRIMARY KEY, name text NOT NULL, price numeric(8,2) NOT NULL, stock int NOT NULL);
CREATE TABLE orders (id serial PRIMARY KEY, customer int NOT NULL, product int NOT NULL, amount int NOT NULL, placed timestamptz DEFAULT now());
INSERT INTO customer (name, city) VALUES ('Ada', 'London'), ('Grace', 'New York'), ('Linus', 'Helsinki');
INSERT INTO product (name, price, stock) VALUES ('Lamp', 49.90, 12), ('Chair', 120.00, 4), ('Desk', 349.00, 2), ('Clock', 19.95, 30);
CREATE PUBLICATION shop FOR ALL TABLES;
SQL
echo "tables customer, product, orders; publication shop"

say "starting Strandline on port $replica_port with this config.yaml"
cat >"$folder/replica/config.yaml" <<YAML
data_dir: $folder/replica/data
listener:
  port: $replica_port
postgres_replication:
  postgres_server_address: 127.0.0.1
  postgres_port: $primary_port
  postgres_user: postgres
  postgres_database: postgres
  slot_name: shop
YAML
cat "$folder/replica/config.yaml"
mkdir -p "$folder/replica/data"
"$strandline" --config "$folder/replica/config.yaml" >"$folder/replica/log" 2>&1 &
replica_pid=$!
tries=0
until replica -At -c "SELECT 1" >/dev/null 2>&1; do
    kill -0 "$replica_pid"
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "demo: the replica does not answer" >&2; exit 1; }
    sleep 0.1
done
# The slot appears when the replicator has made it and copied the tables.
tries=0
until [ "$(primary -At -c "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'shop' AND active")" = 1 ]; do
    kill -0 "$replica_pid"
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || { echo "demo: the replicator does not start" >&2; exit 1; }
    sleep 0.1
done
catch_up
echo "the published tables were created and copied into one base commit"

say "some business on the primary: orders, a price change, and a mistake (an UPDATE without its WHERE)"
primary <<'SQL'
BEGIN;
INSERT INTO orders (customer, product, amount) VALUES (1, 1, 2);
UPDATE product SET stock = stock - 2 WHERE id = 1;
COMMIT;
BEGIN;
INSERT INTO orders (customer, product, amount) VALUES (3, 4, 1);
UPDATE product SET stock = stock - 1 WHERE id = 4;
COMMIT;
UPDATE product SET price = 44.90 WHERE name = 'Lamp';
UPDATE product SET price = 9.99;
INSERT INTO customer (name, city) VALUES ('Edsger', 'Rotterdam');
SQL
catch_up

say "every transaction of the primary is one commit here"
show "SELECT left(commit_hash, 10) AS commit, message, source_xid, source_lsn, date_trunc('second', source_commit_time) AS at FROM dolt_log LIMIT 6"

mistake=$(replica -At -c "SELECT commit_hash FROM dolt_diff WHERE table_name = 'public.product' LIMIT 1")
say "what did the latest change of product do? (commit ${mistake:0:10})"
show "SELECT diff_type, from_name AS name, from_price, to_price FROM dolt_diff('$mistake~1', '$mistake', 'product') ORDER BY from_name"

say "the history of one row"
show "SELECT name, price, stock, left(commit_hash, 10) AS commit, source_lsn FROM dolt_history_product WHERE id = 1 LIMIT 6"

say "the table as it was before the mistake"
show "SELECT * FROM product AS OF '$mistake~1' ORDER BY id"

say "and ordinary SQL beside it: what the mistake would have cost"
show "SELECT p.name, p.stock, was.price - p.price AS loss_each, p.stock * (was.price - p.price) AS loss FROM product p JOIN product AS OF '$mistake~1' AS was ON was.id = p.id ORDER BY loss DESC"

done_well=1
say "to follow your own primary"
cat <<TEXT
  1. on the primary: wal_level = logical, a user with REPLICATION and SELECT, and
       CREATE PUBLICATION strandline FOR ALL TABLES;
  2. cp config.yaml.example config.yaml, and set postgres_server_address, postgres_port, postgres_user,
     postgres_password and postgres_database in it (slot_name: strandline is there);
  3. make build && bin/strandline --config config.yaml
  4. psql -h 127.0.0.1 -U postgres postgres   (the password is user.password of config.yaml)
TEXT
if [ "${KEEP:-}" = 1 ]; then
    cat <<TEXT

Both servers stay up:
  primary  psql -h 127.0.0.1 -p $primary_port -U postgres postgres
  replica  PGPASSWORD=password psql -h 127.0.0.1 -p $replica_port -U postgres postgres
Stop them with
  kill $replica_pid; $([ "$(id -u)" = 0 ] && echo "runuser -u postgres -- ")$PGBIN/pg_ctl -D $folder/primary/data stop; rm -rf $folder
TEXT
    trap - EXIT
    disown "$replica_pid"
fi
