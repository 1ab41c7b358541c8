#!/bin/sh
# Build a package of this checkout in dist/, with its checksum.
#
#   sh packaging/build.sh deb     for Debian 12 and 13, Ubuntu 24.04 and their derivatives
#   sh packaging/build.sh rpm     for Fedora and its derivatives
#   sh packaging/build.sh sbom    the software bill of materials, as CycloneDX, in dist/
#
# Needs python3 (3.11 or newer), python3-venv, binutils and PyPI, and names what is missing; it changes
# nothing outside of build/ and dist/.
# It builds the last commit, whose date all files get, so that the same commit yields the same bytes.
#
# A package supports Python 3.11 to 3.14: it contains the libraries and the hot modules for each of
# them. Hot modules are compiled if a C compiler and Python's headers are installed
# (SESSIOND_COMPILE=0 disables that): for this host's Python, and for that of each root directory in
# SESSIOND_ROOTS (a chroot with gcc, python3-dev and python3-venv; needs root). Other Pythons run the
# plain modules, which makes an event half as expensive again.
set -eu
cd "$(dirname "$0")/.."
umask 022

work=build/package
# The distribution's: another one has headers of another version.
python=/usr/bin/python3
pythons="3.11 3.12 3.13 3.14"

say() {
    echo "build: $*" >&2
}

# Compile the hot modules of the source in directory $1, in place, with this system's Python.
compile() {
    headers=$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')
    if ! command -v cc >/dev/null || ! [ -e "$headers/Python.h" ]; then
        say "no C compiler or no Python.h in $headers (gcc, python3-dev): nothing is compiled for" \
            "$($python --version), which makes an event half as expensive again"
        return
    fi
    say "compiling for $($python --version)"
    $python -m venv "$1/venv"
    "$1/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --require-hashes --only-binary=:all: -r "$1/packaging/compile-requirements.txt"
    "$1/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes --only-binary=:all: -r "$1/packaging/package/vendored.txt"
    # No path of the build, no debugging information, symbols stripped: the same bytes anywhere.
    (cd "$1" && SESSIOND_COMPILE=1 PYTHONHASHSEED=0 \
        CFLAGS="-O2 -g0 -fstack-protector-strong -D_FORTIFY_SOURCE=2 -ffile-prefix-map=$1=." \
        LDFLAGS="-Wl,-z,relro,-z,now -Wl,--build-id=none -Wl,-s" \
        venv/bin/python setup.py --quiet build_ext --build-lib compiled >compile.log 2>&1) || {
        tail -20 "$1/compile.log" >&2
        say "compiling failed"
        exit 1
    }
}

missing=""
$python -c "import ensurepip" 2>/dev/null || missing="$missing python3-venv"
command -v strip >/dev/null || missing="$missing binutils"
if [ -n "$missing" ]; then
    say "install first, as Debian calls them:$missing"
    exit 1
fi

case "${1:-}" in
    deb | rpm) ;;
    compile) # what happens within a root directory
        compile "$(pwd)"
        exit 0
        ;;
    sbom)
        version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' sessiond/__init__.py)
        mkdir -p "$work" dist
        $python -m venv "$work/sbom"
        "$work/sbom/bin/python" -m pip --quiet --disable-pip-version-check install \
            --only-binary=:all: cyclonedx-bom==7.5.0
        PYTHONWARNINGS=ignore "$work/sbom/bin/cyclonedx-py" requirements packaging/requirements.txt \
            --pyproject pyproject.toml --output-reproducible --of JSON -o "$work/sbom.json"
        # The version is not in pyproject.toml.
        sed "s/^\( *\)\"name\": \"sessiond\",/&\n\1\"version\": \"$version\",/" "$work/sbom.json" \
            >"dist/sessiond-$version.cdx.json"
        echo "dist/sessiond-$version.cdx.json"
        exit 0
        ;;
    *)
        echo "usage: sh packaging/build.sh deb|rpm|sbom" >&2
        exit 2
        ;;
esac
kind=$1

# --- the source ------------------------------------------------------------------------------------

rm -rf "$work"
mkdir -p "$work/source" "$work/root" dist
if git rev-parse --git-dir >/dev/null 2>&1; then
    [ -z "$(git status --porcelain)" ] || say "what is not committed is not in the package"
    git archive HEAD | tar -x -C "$work/source"
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
else
    tar -c --exclude=./build --exclude=./dist --exclude=./.venv . | tar -x -C "$work/source"
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(stat -c %Y CHANGELOG.md)}
fi
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$work/source/sessiond/__init__.py")
case "$(uname -m)" in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *)
        say "there are no libraries for $(uname -m) on PyPI; packaging/install.sh works everywhere"
        exit 1
        ;;
esac
say "sessiond $version for $arch"

$python -m venv "$work/venv"
pip() {
    "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"
}
pip install --require-hashes --only-binary=:all: \
    -r "$work/source/packaging/package/build-requirements.txt"

# --- the installed files ---------------------------------------------------------------------------

root=$work/root
library=$root/usr/lib/sessiond
documents=$root/usr/share/doc/sessiond
mkdir -p "$library"

for version_of_python in $pythons; do
    abi=cp$(echo "$version_of_python" | tr -d .)
    pip install --no-deps --require-hashes --only-binary=:all: --no-compile --upgrade \
        --target "$work/vendored/$abi" --python-version "$version_of_python" --implementation cp \
        --abi "$abi" --platform "manylinux2014_$(uname -m)" \
        --platform "manylinux_2_17_$(uname -m)" --platform "manylinux_2_28_$(uname -m)" \
        -r "$work/source/packaging/package/vendored.txt"
    # All have the same modules; the names of compiled modules differ.
    cp -r "$work/vendored/$abi/." "$library"
done
mkdir -p "$documents"
if [ "$kind" = rpm ]; then
    for licenses in "$library"/*.dist-info/licenses; do
        name=$(basename "$(dirname "$licenses")" .dist-info)
        mkdir -p "$root/usr/share/licenses/sessiond"
        cp -r "$licenses" "$root/usr/share/licenses/sessiond/$name"
    done
    cp "$work/source/LICENSE" "$root/usr/share/licenses/sessiond"
fi
rm -rf "$library"/bin "$library"/*.dist-info
# None of these files is a program.
find "$library" -name '*.py' -exec sed -i '1{/^#!/d}' {} +
find "$library" -type f -exec chmod 644 {} +

(cd "$work/source" && find sessiond -type f ! -name py.typed) |
    while read -r file; do
        install -D -m 644 "$work/source/$file" "$library/$file"
    done

if [ "${SESSIOND_COMPILE:-1}" = 1 ]; then
    compile "$(pwd)/$work/source"
    for system in ${SESSIOND_ROOTS:-}; do
        there=$(mktemp -d "$system/tmp/sessiond-build.XXXXXX")
        git archive HEAD | tar -x -C "$there"
        cp packaging/build.sh "$there/packaging/build.sh"
        chroot "$system" sh "${there#"$system"}/packaging/build.sh" compile
        cp -r "$there/compiled/." "$work/source/compiled"
        rm -rf "$there"
    done
    if [ -d "$work/source/compiled" ]; then
        cp -r "$work/source/compiled/." "$library"
    fi
fi
find "$library" -name '*.so' -exec strip --strip-unneeded --remove-section=.comment {} +
find "$library" -name '*.so' -exec chmod 644 {} +

mkdir -p "$root/usr/bin"
cat >"$root/usr/bin/sessiond" <<'PROGRAM'
#!/usr/bin/python3 -I
"""Runs sessiond with the libraries that are packaged with it."""

import sys

sys.path.insert(0, "/usr/lib/sessiond")

from sessiond.cli.main import main  # noqa: E402

main()
PROGRAM
chmod 755 "$root/usr/bin/sessiond"

for unit in "$work/source"/packaging/systemd/*.service "$work/source"/packaging/systemd/*.timer; do
    install -D -m 644 "$unit" "$root/usr/lib/systemd/system/$(basename "$unit")"
done
sed -i -e 's#/opt/sessiond/bin/#/usr/bin/#' \
    -e 's#^Documentation=.*#Documentation=man:sessiond(8) man:sessiond.yml(5)#' \
    "$root"/usr/lib/systemd/system/*.service
install -D -m 644 "$work/source/packaging/systemd/sessiond.sysusers" \
    "$root/usr/lib/sysusers.d/sessiond.conf"
install -D -m 640 "$work/source/etc/sessiond.yml" "$work/sessiond.yml"

page() {
    PYTHONPATH=$library PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" -P -m sessiond.cli.pages "$1"
}
# structlog and PyYAML come from the distribution, and are missing in this environment.
pip install --require-hashes --only-binary=:all: -r "$work/source/packaging/requirements.txt"
mkdir -p "$root/usr/share/man/man8" "$root/usr/share/man/man5"
page sessiond.8 | gzip -9n >"$root/usr/share/man/man8/sessiond.8.gz"
page sessiond.yml.5 | gzip -9n >"$root/usr/share/man/man5/sessiond.yml.5.gz"
mkdir -p "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions"
page bash >"$root/usr/share/bash-completion/completions/sessiond"
page zsh >"$root/usr/share/zsh/vendor-completions/_sessiond"
if [ "$kind" = rpm ]; then
    mv "$root/usr/share/zsh/vendor-completions" "$root/usr/share/zsh/site-functions"
fi

cp "$work/source/README.md" "$documents"
for page in "$work/source"/docs/*.md; do
    install -D -m 644 "$page" "$documents/docs/$(basename "$page")"
done
(cd "$work/source" && find integrations -type f) | while read -r file; do
    install -D -m 644 "$work/source/$file" "$documents/$file"
done
mkdir -p "$documents/prometheus" "$documents/examples"
install -m 644 "$work/source"/packaging/prometheus/* "$documents/prometheus"
install -m 644 "$work/source/etc/sessiond.rules" "$work/source/etc/rules.d/elastic.rules" \
    "$documents/examples"
gzip -9nc "$work/source/CHANGELOG.md" >"$documents/changelog.gz"
install -m 644 "$work/source/packaging/package/copyright" "$documents"
{
    printf 'sessiond (%s-1) unstable; urgency=medium\n\n' "$version"
    printf '  * changelog.gz tells what is new in this version.\n\n'
    printf ' -- sessiond maintainers <sessiond@example.org>  %s\n' \
        "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$documents/changelog.Debian.gz"
if [ "$kind" = deb ]; then
    install -D -m 644 "$work/source/packaging/package/deb/lintian-overrides" \
        "$root/usr/share/lintian/overrides/sessiond"
else
    rm "$documents/changelog.Debian.gz"
fi
find "$root" -name __pycache__ -prune -exec rm -rf {} +
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
touch -d "@$SOURCE_DATE_EPOCH" "$work/sessiond.yml"

# --- the package -----------------------------------------------------------------------------------

VERSION=$version ARCH=$arch WORK=$(pwd)/$work
export VERSION ARCH WORK
mkdir "$work/package"
(cd "$work/source" && ../venv/bin/nfpm package --config packaging/package/nfpm.yaml \
    --packager "$kind" --target ../package >../nfpm.log 2>&1) || {
    cat "$work/nfpm.log" >&2
    exit 1
}
package=$(basename "$work"/package/*)
mv "$work/package/$package" dist
(cd dist && sha256sum "$package" >"$package.sha256")
say "made dist/$package"
echo "dist/$package"
