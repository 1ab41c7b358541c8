#!/bin/sh
# Test the package on a clean system: install, start, upgrade under load, downgrade, remove, purge.
#
#   sh packaging/trial.sh bookworm|trixie [DIRECTORY]
#
# Requires root, mmdebstrap, and a machine without an audit daemon. The system is created in DIRECTORY
# (/var/tmp/sessiond-trial by default), outside of the checkout, and deleted at the end; a copy of the
# fresh system is kept beside it for the next run. It shares the kernel, /proc, /sys and /dev with the
# host.
set -eu
cd "$(dirname "$0")/.."

suite=${1:?usage: sh packaging/trial.sh bookworm|trixie [DIRECTORY]}
directory=${2:-/var/tmp/sessiond-trial}
system=$directory/$suite
mkdir -p "$directory"

clean_up() {
    umount -R "$system/proc" "$system/sys" "$system/dev" "$system/run/lock" 2>/dev/null || :
    mountpoint -q "$system/proc" || rm -rf "$system"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

if ! [ -e "$directory/$suite.tar" ]; then
    echo "trial: making a clean $suite" >&2
    mmdebstrap --quiet --variant=apt --include=systemd,ca-certificates "$suite" \
        "$directory/$suite.new.tar" http://deb.debian.org/debian
    mv "$directory/$suite.new.tar" "$directory/$suite.tar"
fi
clean_up
mkdir "$system"
tar -x -f "$directory/$suite.tar" -C "$system"

# Two versions of the package, which differ only in their number.
old=${SESSIOND_PACKAGE:-$(sh packaging/build.sh deb)}
new=$directory/new.deb
rm -rf "$directory/new"
dpkg-deb --raw-extract "$old" "$directory/new"
version=$(sed -n 's/^Version: \(.*\)-1$/\1/p' "$directory/new/DEBIAN/control")
sed -i "s/^Version: .*/Version: $version.1-1/" "$directory/new/DEBIAN/control"
sed -i "s/^__version__ = .*/__version__ = \"$version.1\"/" \
    "$directory/new/usr/lib/sessiond/sessiond/__init__.py"
dpkg-deb --root-owner-group --build "$directory/new" "$new" >/dev/null
rm -rf "$directory/new"

cp "$old" "$system/tmp/old.deb"
cp "$new" "$system/tmp/new.deb"
mkdir -p "$system/tmp/trial"
cp -r tests/support tests/packaging/trial.py "$system/tmp/trial"
cp /etc/resolv.conf "$system/etc/resolv.conf"
mkdir -p "$system/run/lock"
for shared in proc sys dev run/lock; do
    mount --rbind "/$shared" "$system/$shared"
    mount --make-rslave "$system/$shared"
done

# In a mount namespace with the system as its root, because paths in events are the host's.
unshare --mount --propagation private sh -c '
    mount --rbind "$0" "$0"
    mkdir -p "$0/.old"
    cd "$0"
    pivot_root . .old
    cd /
    umount -l /.old
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
    apt-get update -q >/dev/null
    apt-get install -y -q --no-install-recommends python3 >/dev/null
    cd /tmp/trial
    exec python3 trial.py /tmp/old.deb /tmp/new.deb
' "$system"
