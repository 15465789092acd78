# Sourced by the scripts that need a throw-away PostgreSQL. Sets PGBIN; defines as_postgres, start_postgres, stop_postgres, free_port.

PGBIN=${STRANDLINE_TEST_PG_BIN:-}
if [ -z "$PGBIN" ] && [ -n "${STRANDLINE_TEST_PG:-}" ]; then
    . "$(dirname "${BASH_SOURCE[0]}")/postgres-18-folder.sh"
    for candidate in "/usr/lib/postgresql/$STRANDLINE_TEST_PG/bin" "${postgres_18%-18}-$STRANDLINE_TEST_PG/bin"; do
        [ -x "$candidate/postgres" ] && { PGBIN=$candidate; break; }
    done
    [ -n "$PGBIN" ] || { echo "PostgreSQL $STRANDLINE_TEST_PG is not installed (make postgres-$STRANDLINE_TEST_PG fetches or builds it)" >&2; exit 1; }
fi
if [ -z "$PGBIN" ]; then
    for candidate in /usr/lib/postgresql/15/bin $(ls -d /usr/lib/postgresql/*/bin | sort -V); do
        [ -x "$candidate/postgres" ] && { PGBIN=$candidate; break; }
    done
fi
[ -n "$PGBIN" ] || { echo "PostgreSQL is not installed: run make setup" >&2; exit 1; }

# PostgreSQL refuses to run as root: then the package's own user runs it.
if [ "$(id -u)" = 0 ]; then
    as_postgres() { runuser -u postgres -- env LC_ALL=C.UTF-8 "$@"; }
else
    as_postgres() { env LC_ALL=C.UTF-8 "$@"; }
fi

# Below the ports that Linux gives to outgoing connections (from 32768): a client's port cannot be bound until a minute
# after the client left, and nothing listens on it meanwhile, so that asking by connecting would not tell.
free_port() {
    local port
    while :; do
        port=$((10000 + RANDOM % 22000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# start_postgres FOLDER PORT [SETTING...]: makes a cluster in FOLDER (which must be writable for its user) and starts it.
start_postgres() {
    local folder=$1 port=$2
    shift 2
    if [ ! -d "$folder/data" ]; then
        as_postgres "$PGBIN/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
        {
            echo "listen_addresses = '127.0.0.1'"
            echo "port = $port"
            echo "unix_socket_directories = '$folder'"
            echo "wal_level = logical"
            printf '%s\n' "$@"
        } | as_postgres tee -a "$folder/data/postgresql.conf" >/dev/null
    fi
    as_postgres "$PGBIN/pg_ctl" -D "$folder/data" -l "$folder/log" -w start >/dev/null
}

stop_postgres() { # FOLDER
    [ -d "$1/data" ] && as_postgres "$PGBIN/pg_ctl" -D "$1/data" -m immediate -w stop >/dev/null 2>&1 || true
}
