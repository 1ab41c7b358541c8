#!/bin/sh
# Prepare this checkout for use, on Debian 12 or a derivative.
#
#   sh packaging/setup.sh run        install the dependencies of sessiond
#   sh packaging/setup.sh test       also those of its tests
#   sh packaging/setup.sh bench      also the programs that bench/run compares with
#   sh packaging/setup.sh packages   only the Debian packages of sessiond's dependencies
#
# Installs missing Debian packages (as root) and creates .venv for the system's Python, because only
# that one can import bcc. A repeated run finishes quickly. Writes only to standard error, so that
# the standard output of a following command stays clean.
set -eu
exec >&2
cd "$(dirname "$0")/.."

# bcc and libbpf for the eBPF source; libaudit to compile rules; systemd's Python binding for notify,
# watchdog and journal, as a package so that no compiler is needed. The rest comes from PyPI.
packages="ca-certificates libaudit1 python3 python3-bpfcc python3-systemd python3-venv"
extra=""
case "${1:-}" in
    run | packages) ;;
    test | bench)
        extra="[dev]"
        # The reference implementation of rules, records and the audit socket.
        packages="$packages auditd python3-audit"
        # For real logins, terminals, services and containers.
        packages="$packages cron openssh-server runc busybox-static screen sudo systemd tmux"
        # promtool checks metrics and alert rules.
        packages="$packages prometheus"
        # A browser for tests of the page, with a font.
        packages="$packages chromium fonts-dejavu-core openssl zstd"
        # Programs that the tests start, and tools that inspect them.
        packages="$packages e2fsprogs gcc groff-base libc6-dev iproute2 kmod make openssl procps strace util-linux"
        ;;
    *)
        echo "usage: sh packaging/setup.sh run|test|bench|packages"
        exit 2
        ;;
esac
if [ "$1" = bench ]; then
    packages="$packages laurel valgrind"
fi

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=""
if command -v dpkg-query >/dev/null; then
    for package in $packages; do
        installed "$package" || missing="$missing $package"
    done
else
    echo "setup: no dpkg here; bring what these Debian packages hold yourself: $packages"
fi

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "setup: as root, first: apt-get install --no-install-recommends$missing"
        exit 1
    fi
    echo "setup: installing$missing"
    # Debian starts services when it installs them. Unwanted audit daemons, sshd and cron must not
    # run: policy-rc.d prevents that now, disabling them prevents it after the next boot.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends $missing; } </dev/null >"$log" 2>&1; then
        cat "$log"
        echo "setup: apt-get failed"
        exit 1
    fi
    rm -f "$log"
    for package in $missing; do
        case $package in
            auditd | cron | prometheus) systemctl --quiet disable "$package.service" ;;
            openssh-server) systemctl --quiet disable ssh.service ;;
        esac
    done
fi

if [ "$1" = packages ]; then
    exit 0
fi

# An unchanged project needs no second pip run; a moved checkout needs a new environment.
state="$PWD $(cat pyproject.toml packaging/setup.sh | cksum)"
if [ "$(cat ".venv/setup-state$extra" 2>/dev/null)" != "$state" ]; then
    echo "setup: preparing .venv"
    if ! grep -qx "command = /usr/bin/python3 -m venv .*--system-site-packages $PWD/.venv" \
        .venv/pyvenv.cfg 2>/dev/null; then
        /usr/bin/python3 -m venv --clear --system-site-packages "$PWD/.venv"
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$extra"
    printf '%s' "$state" >.venv/setup-state
    printf '%s' "$state" >".venv/setup-state$extra"
fi
