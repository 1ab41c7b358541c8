#!/bin/sh
# Test the package on a clean system, which mmdebstrap makes.
#
#   sh packaging/trial.sh SUITE [DIRECTORY]          installs, starts, upgrades under load, removes ...
#   sh packaging/trial.sh --pages SUITE [DIRECTORY]  runs the commands of integrations/README.md
#
# SUITE is bookworm or trixie; the pages are for bookworm. Requires root, mmdebstrap, and a machine
# without an audit daemon; the pages also require sshd. The system is created in DIRECTORY
# (/var/tmp/sessiond-trial by default), outside of the checkout, and deleted at the end; a copy of the
# fresh system is kept beside it for the next run. It shares the kernel, the network, /proc, /sys and
# /dev with the host. SESSIOND_PACKAGE names a package that is built already.
set -eu
cd "$(dirname "$0")/.."

trial=trial.py
if [ "${1:-}" = --pages ]; then
    trial="-m support.pages"
    shift
fi
suite=${1:?usage: sh packaging/trial.sh [--pages] bookworm|trixie [DIRECTORY]}
directory=${2:-/var/tmp/sessiond-trial}
system=$directory/$suite
mkdir -p "$directory"

server="" separation=""
clean_up() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || : # a signal to the group has ended it
    [ -z "$separation" ] || rmdir "$separation"
    umount -R "$system/proc" "$system/sys" "$system/dev" "$system/run" 2>/dev/null || :
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

package=${SESSIOND_PACKAGE:-$(sh packaging/build.sh deb)}
mkdir -p "$system/tmp/trial"
if [ "$trial" = trial.py ]; then
    # Two versions of the package, which differ only in their number.
    cp "$package" "$system/tmp/old.deb"
    rm -rf "$directory/new"
    dpkg-deb --raw-extract "$package" "$directory/new"
    version=$(sed -n 's/^Version: \(.*\)-1$/\1/p' "$directory/new/DEBIAN/control")
    sed -i "s/^Version: .*/Version: $version.1-1/" "$directory/new/DEBIAN/control"
    sed -i "s/^__version__ = .*/__version__ = \"$version.1\"/" \
        "$directory/new/usr/lib/sessiond/sessiond/__init__.py"
    dpkg-deb --root-owner-group --build "$directory/new" "$system/tmp/new.deb" >/dev/null
    rm -rf "$directory/new"
    packages="/tmp/old.deb /tmp/new.deb"
else
    cp "$package" "$system/root"
    packages=""
    cp integrations/README.md "$system/tmp/trial"
    # Who logs in comes from outside, because a login server inside would be one of a container. With
    # SHLVL=2 bash reads no start-up files, which differ from host to host.
    mkdir -p "$system/root/.ssh"
    if [ ! -e /run/sshd ]; then
        mkdir /run/sshd
        separation=/run/sshd
    fi
    ssh-keygen -q -t ed25519 -N "" -f "$system/root/.ssh/id_ed25519"
    ssh-keygen -q -t ed25519 -N "" -f "$system/tmp/host-key"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
    printf 'Host localhost\nHostName 127.0.0.1\nPort %s\nStrictHostKeyChecking no\nLogLevel ERROR\n' \
        "$port" >"$system/root/.ssh/config"
    /usr/sbin/sshd -D -e -f /dev/null -o "ListenAddress 127.0.0.1:$port" -o PidFile=none \
        -o "HostKey $system/tmp/host-key" -o StrictModes=no -o PermitRootLogin=yes \
        -o "SetEnv SHLVL=2" \
        -o "AuthorizedKeysFile $system/root/.ssh/id_ed25519.pub" &
    server=$!
fi
cp -r tests/support tests/packaging/trial.py "$system/tmp/trial"
cp /etc/resolv.conf "$system/etc/resolv.conf"
# Certificates of this machine's own authorities.
cp -r /usr/local/share/ca-certificates "$system/usr/local/share"
# As on a real system; elsewhere services with ProtectProc= get an empty /run.
mount -t tmpfs -o mode=755 tmpfs "$system/run"
mkdir "$system/run/lock"
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
    apt-get install -y -q --no-install-recommends python3 openssh-client >/dev/null
    update-ca-certificates >/dev/null 2>&1
    cd /tmp/trial
    exec python3 "$@"
' "$system" $trial $packages
