#!/usr/bin/env bash
# Builds PostgreSQL 18 from the source package of Debian's unstable suite, for the end-to-end tests, and prints the folder of its programs.
# Does nothing when it is there already. Usage: scripts/postgres-18.sh
#
# The suite is asked through a list file of its own, so that the machine's own package sources stay as they are; apt checks the signatures.
# The mirror is the one that the machine has its packages from.
set -eu

say() { printf '==> %s\n' "$*" >&2; }
. "$(dirname "$0")/postgres-18-folder.sh"
bin=$postgres_18/bin
if [ -x "$bin/postgres" ]; then
    echo "$bin"
    exit 0
fi
command -v apt-get >/dev/null 2>&1 || { echo "postgres-18: there is no apt-get here" >&2; exit 1; }

# A package of each is asked for by name: the source package's own list of build dependencies is of unstable, and much longer.
missing=()
for package in bison flex gcc make perl pkg-config dpkg-dev xz-utils bzip2 libicu-dev liblz4-dev libreadline-dev libssl-dev zlib1g-dev; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
root=()
[ "$(id -u)" = 0 ] || root=(sudo)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    "${root[@]}" apt-get update -qq
    "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

mkdir -p "$(dirname "$postgres_18")"
work=$(mktemp -d "$(dirname "$postgres_18")/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian \(.*\)$/\1/p' | head -1)
[ -n "$mirror" ] || { echo "postgres-18: apt knows no mirror of Debian" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb-src [signed-by=$keyring] $mirror unstable main" >"$work/sources.list"
apt_options=(-q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache")
[ "$(id -u)" != 0 ] || apt_options+=(-o APT::Sandbox::User=root)
say "fetching the source package postgresql-18 of Debian unstable"
apt-get "${apt_options[@]}" update >&2
(cd "$work" && apt-get "${apt_options[@]}" source postgresql-18 >&2)
source=$(ls -d "$work"/postgresql-18-*/)

say "building it in $work (about ten minutes on two cores)"
(
    cd "$source"
    ./configure --quiet --prefix="$postgres_18" --with-lz4 --with-ssl=openssl CFLAGS=-O2
    unset MAKELEVEL MAKEFLAGS MFLAGS # its makefiles take a first level for granted
    make -s -j"$(nproc)"
    make -s install DESTDIR="$work/installed"
    make -s -C contrib/pgcrypto install DESTDIR="$work/installed"
    make -s -C contrib/btree_gist install DESTDIR="$work/installed"
    make -s -C contrib/hstore install DESTDIR="$work/installed"
) >"$work/log" 2>&1 || { tail -30 "$work/log" >&2; exit 1; }
chmod 755 "$work/installed$postgres_18"
mv "$work/installed$postgres_18" "$postgres_18" # one step, so that what is there is whole
say "$("$bin/postgres" --version) is in $postgres_18"
echo "$bin"
