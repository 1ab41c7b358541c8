# sessiond in a container that monitors its host: it shares the host's namespaces of processes,
# network, control groups and users (no user remapping). docs/operations.md has the command to run it.
# The image of 2026-08-24, for all architectures. docs/contributing.md says how to update it.
ARG BASE=debian:12-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM $BASE AS build
COPY . /usr/src/sessiond
WORKDIR /usr/src/sessiond
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv \
    && python3 -m venv /build \
    && /build/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary=:all: -r packaging/compile-requirements.txt \
    && /build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /build .

FROM $BASE

# As on a host, bcc, systemd's binding and libaudit come from Debian, the rest from PyPI.
COPY etc/sessiond.yml /etc/sessiond.yml
COPY packaging /usr/src/packaging
COPY --from=build /build/*.whl /usr/src/
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libaudit1 python3 python3-bpfcc python3-systemd python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/sessiond \
    && /opt/sessiond/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary=:all: -r /usr/src/packaging/requirements.txt \
    && /opt/sessiond/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --no-deps --no-index /usr/src/sessiond-*.whl \
    && chmod 644 /etc/sessiond.yml \
    && rm -rf /usr/src/packaging /usr/src/*.whl

ENV PATH=/opt/sessiond/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The compiled eBPF programs, in a directory of the volume for state.
ENV CACHE_DIRECTORY=/var/lib/sessiond/cache
# These volumes keep events and state beyond the container.
VOLUME ["/var/log/sessiond", "/var/lib/sessiond"]
STOPSIGNAL SIGTERM
# An orchestrator uses "health" of the status; a missing answer counts as unhealthy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["sessiond", "status"]
ENTRYPOINT ["sessiond"]
CMD ["run", "-c", "/etc/sessiond.yml"]
