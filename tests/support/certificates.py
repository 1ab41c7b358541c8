"""Certificates for tests, made with openssl: an authority, a server's and a client's."""

from __future__ import annotations

import subprocess
from pathlib import Path


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def make_certificates(directory: Path) -> Path:
    """Create NAME.pem and NAME.key: ca, other (an authority, too), server and client."""
    new = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    )
    for authority in ("ca", "other"):
        _openssl(
            directory, *new, "-keyout", f"{authority}.key", "-out", f"{authority}.pem",
            "-subj", f"/CN={authority}",
        )  # fmt: skip
    for name in ("server", "client"):
        _openssl(
            directory, *new, "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
            "-CA", "ca.pem", "-CAkey", "ca.key",
        )  # fmt: skip
    return directory
