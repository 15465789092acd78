#!/usr/bin/env bash
# Installs what the build, the tests and the demonstration need and this machine lacks. Says what it does.
# Usage: scripts/setup.sh
set -eu

say() { printf '==> %s\n' "$*"; }

# file that shows that the package is there : package
missing=()
need() { # PACKAGE TEST...
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
have_libclang() { ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*-linux-gnu/libclang*.so* 2>/dev/null | grep -q 'libclang-\?[0-9.]*\.so'; }
have_clang_headers() { ls -d /usr/lib/llvm-*/lib/clang/*/include /usr/lib/clang/*/include 2>/dev/null | grep -q .; }

codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
case "$codename" in
bookworm) postgres=postgresql-15 clang=libclang1-14 headers=libclang-common-14-dev ;;
*) postgres=postgresql clang=libclang1 headers=libclang-dev ;;
esac

need "$postgres" sh -c 'ls /usr/lib/postgresql/*/bin/postgres'

need gcc command -v cc
need "$clang" have_libclang
need "$headers" have_clang_headers

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: Rust is missing: install the toolchain that rust-toolchain.toml names first" >&2
    exit 1
fi
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: please install: ${missing[*]} (no apt-get here)" >&2
    exit 1
fi
say "installing Debian packages: ${missing[*]}"
root=()
[ "$(id -u)" = 0 ] || root=(sudo)
# The package would start a server on port 5432 that nobody asked for.
export DEBIAN_FRONTEND=noninteractive
if [ ! -e /etc/postgresql-common/createcluster.conf ] && ! command -v pg_createcluster >/dev/null 2>&1; then
    "${root[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | "${root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
"${root[@]}" apt-get update -qq
"${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
say "packages are installed"
