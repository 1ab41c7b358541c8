"""Errors by cause, each with its exit code; a message is one line that names the remedy."""

import errno

# Resources that a host can run out of, by errno, with the remedy.
SHORTAGES = {
    errno.EMFILE: "raise the limit on open files (LimitNOFILE= of the service, or ulimit -n)",
    errno.ENFILE: "raise the host's limit on open files (sysctl fs.file-max)",
    errno.ENOMEM: "give sessiond more memory (MemoryMax= of the service), or free some",
}

# Libraries by the module that Python imports, with the packages that have them.
LIBRARIES = {
    "structlog": "python3-structlog",
    "systemd": "python3-systemd",
    "yaml": "python3-yaml (Debian) or python3-pyyaml (Fedora)",
    # sessiond's package and packaging/install.sh bring these.
    "msgspec": "sessiond again",
    "orjson": "sessiond again",
    "pyroute2": "sessiond again",
}

# Exit code after writing to a closed pipe: 128 + SIGPIPE.
READER_GONE = 141


class SessiondError(Exception):
    """The base of all errors that the user sees as one line, without a traceback.

    The command line ends with ``exit_code`` when the error reaches it.
    """

    exit_code = 1


class ConfigError(SessiondError):
    """The configuration is invalid: the message names the file, the setting and what is allowed."""

    exit_code = 2


class RuleError(SessiondError):
    """An audit rule is invalid: ``source`` and ``line`` say where, ``reason`` says why."""

    exit_code = 3

    def __init__(self, source: str, line: int, reason: str) -> None:
        """Take the rule file's name, the line's number (from 1) and the reason in words."""
        super().__init__(f"{source}:{line}: {reason}")
        self.source = source
        self.line = line
        self.reason = reason


class AuditUnavailableError(SessiondError):
    """The kernel's audit subsystem is unusable: no permission, in use, locked or not built in."""

    exit_code = 4


class SourceUnavailableError(SessiondError):
    """A source of process events is unavailable on this host; ``fix`` names the remedy."""

    exit_code = 5

    def __init__(self, source: str, reason: str, fix: str) -> None:
        """Take the source's name, why it is unavailable, and what the user can do about it."""
        super().__init__(f"{source}: {reason}; {fix}")
        self.source = source
        self.reason = reason
        self.fix = fix


class OutputError(SessiondError):
    """An output can't be opened at all, so that the daemon refuses to start."""

    exit_code = 6


class SavedStateError(SessiondError):
    """The saved state of an earlier run is unusable; the message says why."""


class StatusError(SessiondError):
    """The daemon's status is unavailable: it does not run, refuses, or does not answer."""

    exit_code = 7


class InputError(SessiondError):
    """An event file can't be read, or contains no events of sessiond."""

    exit_code = 8


class RecordError(SessiondError):
    """An audit record can't be parsed; the pipeline counts and skips it."""
