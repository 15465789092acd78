# Sourced: sets postgres_18, the folder that `make postgres-18` installs into: the user's cache, or, for root (whose home the user that
# runs PostgreSQL may not enter), the machine's.
if [ "$(id -u)" = 0 ]; then
    postgres_18=/var/cache/strandline/postgresql-18
else
    postgres_18=${XDG_CACHE_HOME:-$HOME/.cache}/strandline/postgresql-18
fi
