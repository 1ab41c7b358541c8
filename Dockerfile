# sessiond in a container that watches the host it runs on: it shares the host's namespaces of
# processes, network, control groups and (no user remapping) users, for all of these tell what is
# going on there. docs/operations.md has the command that runs it.
FROM debian:12-slim

# As on a host: bcc, systemd's binding and libaudit are Debian's; the rest comes from PyPI.
COPY . /usr/src/sessiond
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libaudit1 python3 python3-bpfcc python3-systemd python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/sessiond \
    && /opt/sessiond/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        /usr/src/sessiond \
    && install -m 644 /usr/src/sessiond/etc/sessiond.yml /etc/sessiond.yml \
    && rm -rf /usr/src/sessiond

ENV PATH=/opt/sessiond/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Events and state outlive the container when these are kept.
VOLUME ["/var/log/sessiond", "/var/lib/sessiond"]
STOPSIGNAL SIGTERM
# "health" of the status is what an orchestrator wants to know; no answer is no health either.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["sessiond", "status"]
ENTRYPOINT ["sessiond"]
CMD ["run", "-c", "/etc/sessiond.yml"]
