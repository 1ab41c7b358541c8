#!/bin/sh
# Install or uninstall sessiond as a service from this checkout; as root.
#
#   sh packaging/install.sh           install or upgrade
#   sh packaging/install.sh remove    uninstall; configuration, events and user stay
#
# A virtual environment in /opt/sessiond, `sessiond` in /usr/local/bin, the unit and the user's
# declaration below /usr/local/lib, and /etc/sessiond.yml, unless it exists.
set -eu
cd "$(dirname "$0")/.."

home=/opt/sessiond
units=/usr/local/lib/systemd/system
user=/usr/local/lib/sysusers.d/sessiond.conf

if [ "$(id -u)" != 0 ]; then
    echo "install: needs root" >&2
    exit 1
fi

# systemctl works only if systemd is pid 1, which is not the case in a container build.
manager() {
    if [ -d /run/systemd/system ]; then
        systemctl "$@"
    fi
}

case "${1:-install}" in
    install) ;;
    remove)
        manager disable --now sessiond-metrics.timer sessiond.service || :
        rm -rf "$home" /var/cache/sessiond
        rm -f "$units/sessiond.service" "$units"/sessiond-metrics.* "$user" /usr/local/bin/sessiond
        manager daemon-reload
        echo "install: removed; /etc/sessiond.yml, /var/lib/sessiond and /var/log/sessiond are left"
        exit 0
        ;;
    *)
        echo "usage: sh packaging/install.sh [remove]" >&2
        exit 2
        ;;
esac

sh packaging/setup.sh packages

missing=""
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
command -v systemd-sysusers >/dev/null || missing="$missing systemd-standalone-sysusers"
if [ -n "$missing" ]; then
    echo "install: install first, as Debian calls them:$missing" >&2
    exit 1
fi

# Install exactly the files whose hashes are in the lists, and use wheels if there are any.
wheels=--only-binary=:all:
case "$(uname -m)" in
    x86_64 | aarch64) ;;
    *) wheels=--prefer-binary ;;
esac
# Only this checkout is built, in a temporary environment.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
/usr/bin/python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes $wheels \
    -r packaging/compile-requirements.txt -r packaging/requirements.txt
build() {
    "$work/venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
        --no-build-isolation --wheel-dir "$work" .
}
# Compiling takes a minute and saves a third per event. SESSIOND_COMPILE=0 disables it.
headers=$(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
if [ -z "${SESSIOND_COMPILE:-}" ] && command -v cc >/dev/null && [ -e "$headers/Python.h" ]; then
    SESSIOND_COMPILE=1
fi
export SESSIOND_COMPILE="${SESSIOND_COMPILE:-0}"
if ! build; then
    [ "$SESSIOND_COMPILE" = 1 ] || exit 1
    echo "install: compiling failed, see above; installing without it" >&2
    SESSIOND_COMPILE=0
    build
fi

if ! [ -x "$home/bin/python" ]; then
    /usr/bin/python3 -m venv --system-site-packages "$home"
fi
"$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes $wheels \
    -r packaging/requirements.txt
"$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
    --force-reinstall "$work"/sessiond-*.whl
ln -sf "$home/bin/sessiond" /usr/local/bin/sessiond
install -d "$home/share/doc/sessiond/docs"
install -m 644 README.md CHANGELOG.md LICENSE "$home/share/doc/sessiond"
install -m 644 docs/*.md "$home/share/doc/sessiond/docs"

install -D -m 644 packaging/systemd/sessiond.sysusers "$user"
systemd-sysusers "$user"
# The daemon refuses a configuration that users other than root can write.
if ! [ -e /etc/sessiond.yml ]; then
    install -m 640 -o root -g sessiond etc/sessiond.yml /etc/sessiond.yml
fi

install -d "$units"
install -m 644 packaging/systemd/*.service packaging/systemd/*.timer "$units"
manager daemon-reload
manager try-restart sessiond.service

echo "install: done; begin with 'systemctl enable --now sessiond'"
if found=$("$home/bin/sessiond" check | grep '^ *\(warn\|fail\) '); then
    printf "install: what 'sessiond check' finds on this host:\n%s\n" "$found"
fi
