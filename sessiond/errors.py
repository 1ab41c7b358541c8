"""Errors by their cause, each with its exit code; a message is one line that says what helps."""

import errno

# Resources that a host can run out of, by errno, and what helps.
SHORTAGES = {
    errno.EMFILE: "raise the limit on open files (LimitNOFILE= of the service, or ulimit -n)",
    errno.ENFILE: "raise the host's limit on open files (sysctl fs.file-max)",
    errno.ENOMEM: "give sessiond more memory (MemoryMax= of the service), or free some",
}

# The exit code after a write to a pipe without a reader: 128 + SIGPIPE.
READER_GONE = 141


class SessiondError(Exception):
    """The base of all errors that the user sees as one line, without a traceback.

    The command line ends with ``exit_code`` when the error reaches it.
    """

    exit_code = 1


class ConfigError(SessiondError):
    """The configuration is wrong: the message names the file, the setting and what is allowed."""

    exit_code = 2


class RuleError(SessiondError):
    """An audit rule is wrong: ``source`` and ``line`` say where, ``reason`` says why."""

    exit_code = 3

    def __init__(self, source: str, line: int, reason: str) -> None:
        """Take the rule file's name, the line's number (from 1) and the reason in words."""
        super().__init__(f"{source}:{line}: {reason}")
        self.source = source
        self.line = line
        self.reason = reason


class AuditUnavailableError(SessiondError):
    """The kernel's audit subsystem can't be used: not permitted, owned, locked or not built in."""

    exit_code = 4


class SourceUnavailableError(SessiondError):
    """A source of process events can't be had on this host; ``fix`` says what would help."""

    exit_code = 5

    def __init__(self, source: str, reason: str, fix: str) -> None:
        """Take the source's name, why it can't be had, and what the user can do about it."""
        super().__init__(f"{source}: {reason}; {fix}")
        self.source = source
        self.reason = reason
        self.fix = fix


class OutputError(SessiondError):
    """An output can't be opened at all, so starting with it makes no sense."""

    exit_code = 6


class SavedStateError(SessiondError):
    """The saved state of an earlier run is unusable; the message says why."""


class StatusError(SessiondError):
    """The running daemon gives no status: it doesn't run, refuses, or doesn't answer."""

    exit_code = 7


class InputError(SessiondError):
    """A file of events can't be read, or has no events of sessiond in it."""

    exit_code = 8


class RecordError(SessiondError):
    """An audit record can't be parsed: it is counted and skipped, and the pipeline continues."""
