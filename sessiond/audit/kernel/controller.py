"""The kernel's audit subsystem while sessiond uses it: claimed, changed, and given back.

Every change is written down before it is made (``audit.json`` in the runtime directory), so
that a start after a crash knows which rules are ours and what the settings were before us.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Self

import msgspec

from sessiond.audit.kernel.client import AuditClient, never_audit
from sessiond.audit.kernel.errors import AuditRequestError
from sessiond.audit.kernel.settings import AuditState, SavedAuditState, limits
from sessiond.audit.rules import binary
from sessiond.audit.rules.plan import plan, refused
from sessiond.audit.rules.ruleset import LoadedRule, RuleSet
from sessiond.config.schema import AuditdSettings
from sessiond.errors import AuditUnavailableError, OutputError
from sessiond.system.files import read_file, replace_file
from sessiond.system.proc import process_name

_LOCKED: Final = 2
# Of the saved state, in bytes: room for thousands of rules of 1 to 10 KiB each.
_MAX_STATE: Final = 64 << 20


class AuditController:
    """The audit subsystem while it is ours; make it with ``claim``, end it with ``release``.

    ``role`` is "unicast" (we are the audit daemon) or "multicast" (we listen beside it).
    ``refused`` is what of the rules the kernel would not take, and why. ``owner`` is the pid under
    which the kernel knows us (unicast): of an earlier process where the socket was ``adopted``.
    ``expected`` is what we made of its settings. Changing many rules takes a while: ``meanwhile``
    is called between any two, to read what comes in.
    """

    def __init__(self, client: AuditClient, ledger: Path, boot_id: str) -> None:
        """Take an open client; see ``claim``."""
        self.client: AuditClient = client
        self.refused: list[str] = []
        self.notes: list[str] = []
        self.ours: list[bytes] = []
        self._about_us: list[bytes] = []
        self.owner = 0
        self.adopted = False
        self.expected: dict[str, int] = {}
        self.meanwhile: Callable[[], None] = self._gather
        self._wanted: RuleSet | None = None
        self._ledger = ledger
        self._boot_id = boot_id
        self._state = AuditState.capture(client)

    @property
    def role(self) -> Literal["unicast", "multicast", "off"]:
        """How records are read: "unicast" or "multicast"; "off" where they are not."""
        return "multicast" if self.client.multicast else "unicast"

    @property
    def loaded(self) -> list[LoadedRule]:
        """All rules in the kernel; none without the permission to list them."""
        try:
            return [LoadedRule(data) for data in self.client.list_rules()]
        except AuditRequestError:
            return []

    @classmethod
    def claim(
        cls,
        settings: AuditdSettings,
        wanted: RuleSet,
        *,
        ledger: Path,
        boot_id: str,
        adopted_fd: int | None = None,
        adopted_listener: int | None = None,
        memory: mmap.mmap | None = None,
        keep: Callable[[list[tuple[int, bytes]]], None] | None = None,
    ) -> Self:
        """Open the socket and become the audit daemon, or a listener where there is one already.

        Unicast registers first, so that the records of our own rules have a reader from the first
        on; rules come last. ``adopted_fd`` is the registered socket of an earlier process,
        ``adopted_listener`` its multicast socket. Records are read into ``memory``, and ``keep`` is
        called with them at once. Raises AuditUnavailableError.
        """
        if settings.socket_type == "multicast":
            adopted_fd = adopted_listener
        client = AuditClient.open(
            multicast=settings.socket_type == "multicast",
            adopted_fd=adopted_fd,
            receive_buffer=settings.receive_buffer,
            memory=memory,
        )
        if keep is not None:
            client.keep = keep
        session = cls(client, ledger, boot_id)
        session._resume()
        try:
            if not client.multicast:
                session._claim_unicast(settings, wanted)
        except AuditRequestError as error:
            client.close()
            if error.code != errno.EEXIST or settings.socket_type != "auto":
                raise
            listener = AuditClient.open(
                multicast=True,
                adopted_fd=adopted_listener,
                receive_buffer=settings.receive_buffer,
            )
            listener.keep = client.keep
            session = cls(listener, ledger, boot_id)
            session._wanted = wanted
            session.notes.append(f"listening by multicast, with the rules that are there: {error}")
        except BaseException:
            session.release(keep_rules=False)
            client.close()
            raise
        return session

    def _resume(self) -> None:
        """Take over what an earlier run of this boot left undone."""
        try:
            earlier = msgspec.json.decode(read_file(self._ledger, _MAX_STATE), type=SavedAuditState)
        except FileNotFoundError:
            return
        except (OSError, OutputError, msgspec.DecodeError) as error:
            self.notes.append(f"{self._ledger} is set aside, it can't be read: {error}")
            return
        if earlier.boot_id == self._boot_id:
            self._state = AuditState(earlier.found, earlier.ours)
            self.ours = earlier.rules
            self._about_us = earlier.about_us

    def _remember(self) -> None:
        ledger = SavedAuditState(
            self._boot_id, self._state.found, self._state.ours, self.ours, self._about_us
        )
        try:
            replace_file(self._ledger, msgspec.json.encode(ledger), mode=0o600)
        except (OSError, OutputError) as error:
            self.notes.append(f"{self._ledger}: {error}; a crash would leave our rules behind")

    def _claim_unicast(self, settings: AuditdSettings, wanted: RuleSet) -> None:
        self._wanted = wanted
        if self._state.found.enabled == _LOCKED:
            if not settings.immutable:
                raise AuditUnavailableError(
                    "the audit configuration is locked (enabled 2) until reboot; set "
                    "auditd.immutable: true to read with the rules that are loaded, or "
                    "auditd.socket_type: multicast to listen"
                )
            self._register()
            self.notes.append("the audit configuration is locked: rules and settings stay")
            return
        self._register()
        self._remember()
        self._limit(settings, wanted)
        self.load(wanted)
        enabled = self._controls(wanted)
        if settings.immutable:
            enabled = _LOCKED
        self._state.apply(self.client, enabled=min(enabled, 1))
        self._remember()
        self.expected["enabled"] = enabled
        if enabled == _LOCKED:
            self.client.set("enabled", _LOCKED)

    def _register(self) -> None:
        self.adopted = self.client.register() == "adopted"
        self.owner = self.client.status().pid

    def _limit(self, settings: AuditdSettings, wanted: RuleSet) -> None:
        values = limits(settings, wanted)
        # What an old kernel doesn't have can't be set.
        if self.client.status().backlog_wait_time is None:
            del values["backlog_wait_time"]
        self._state.apply(self.client, **values)
        self._remember()
        self.expected.update(values)

    def _gather(self) -> None:
        """Keep what has come in for the next ``receive``."""
        self.client.gather()

    def reconfigure(self, settings: AuditdSettings, wanted: RuleSet) -> None:
        """Apply other limits and other rules. Raises AuditRequestError."""
        if self.client.multicast:
            return
        self._wanted = wanted
        self._limit(settings, wanted)
        self.load(wanted)

    def give_way(self, settings: AuditdSettings) -> None:
        """Continue as a listener beside the daemon that replaced this one; our own state is kept.

        What the old socket still holds is kept for ``receive``. Raises AuditUnavailableError.
        """
        listener = AuditClient.open(multicast=True, receive_buffer=settings.receive_buffer)
        self._replace(listener)

    def take_over(self, settings: AuditdSettings) -> None:
        """Become the audit daemon, now that there is none. Raises AuditUnavailableError."""
        wanted = self._wanted
        assert wanted is not None  # noqa: S101 -- only socket_type multicast has no rules
        # Between the last reading of the old socket and the registration of the new one lies the
        # gap: with both at once every record would come twice.
        self._replace(AuditClient.open(receive_buffer=settings.receive_buffer))
        try:
            # A daemon that was the audit daemon before restores at the end what it found at first.
            if not self._state.ours:
                self._state = AuditState.capture(self.client)
            self._claim_unicast(settings, wanted)
        except BaseException:
            self.give_way(settings)
            raise

    def _replace(self, client: AuditClient) -> None:
        old, self.client = self.client, client
        client.keep = old.keep
        client.take_over(old)
        old.close()

    def _controls(self, wanted: RuleSet) -> int:
        """Do what the rule files' control lines ask for; return what they want ``enabled`` to be.

        The limits among them are set before the rules are loaded, see ``limits``.
        """
        enabled = 1
        for control in wanted.controls:
            match control.name:
                case "enabled":
                    enabled = int(control.value)
                case "loginuid_immutable":
                    self.client.set_loginuid_immutable(on=True, lock=True)
                    self.notes.append("the login uid is immutable now, and stays so until reboot")
                case "reset_lost":
                    self.client.reset_lost()
                case "reset_backlog_wait_time_actual":
                    self.client.reset_backlog_wait_time_actual()
                case "trim_subtrees" | "make_equivalent":
                    where = f"{control.source}:{control.line}"
                    self.notes.append(f"{where}: {control.name} is left to auditctl, nothing done")
        if not enabled:
            self.notes.append("a rule file switches auditing off (-e 0): there will be no events")
        return enabled

    def load(self, wanted: RuleSet) -> None:
        """Make the kernel's rules those wanted: add missing ones, delete our own unwanted ones.

        Rules of others stay. Rules that the kernel refuses are in ``refused``; the rest is loaded.
        Raises AuditRequestError when the rules can't even be listed.
        """
        # The rule about ourselves is not part of the plan: where it goes first, all others would
        # have to be loaded anew.
        about_us, self._about_us = self._about_us, []
        loaded = [data for data in self.client.list_rules() if not _among(data, about_us)]
        ours = [data for data in self.ours if not _among(data, about_us)]
        changes = plan(wanted, loaded, ours)
        self.refused = []
        for data in changes.remove:
            self._delete(data)
            self.meanwhile()
        # Written down first: a rule that is listed and not loaded does no harm, the reverse would.
        self.ours = [*changes.ours, *(rule.data for rule in changes.add), *about_us]
        self._about_us = about_us
        self._remember()
        for rule in changes.add:
            try:
                self.client.add_rule(rule.data)
            except AuditRequestError as error:
                self.ours.remove(rule.data)
                if error.code != errno.EEXIST:
                    self.refused.append(str(refused(rule, error.code)))
            self.meanwhile()
        self._leave_us_out(about_us)
        self._remember()

    def _leave_us_out(self, before: list[bytes]) -> None:
        """Load the rule that the kernel needs to leave out a process that did not register.

        ``before`` are those for an earlier process, or for other rules: they go.
        """
        listing = [data for data in self.client.list_rules() if not _among(data, before)]
        executable = os.path.realpath("/proc/self/exe").encode()
        about_us = os.getpid(), os.getuid(), executable
        rule = never_audit(*about_us, listing) if self.adopted else None
        if rule is not None and not _among(rule, before):
            self.ours.append(rule)
            self._about_us = [*before, rule]
            self._remember()
            try:
                self.client.add_rule(rule)
            except AuditRequestError as error:
                self.ours.remove(rule)
                self.notes.append(f"our own system calls are audited, where rules match: {error}")
        for data in before:
            if rule is None or not _among(data, [rule]):
                self._delete(data)
                self.ours.remove(data)
                self.meanwhile()
        self._about_us = [data for data in self.ours if rule is not None and _among(data, [rule])]

    def _delete(self, data: bytes) -> None:
        try:
            self.client.delete_rule(data)
        except AuditRequestError as error:
            # Another program has deleted it already.
            if error.code != errno.ENOENT:
                raise

    def missing(self, listing: list[bytes]) -> list[bytes]:
        """Our rules that are not among those the kernel lists."""
        there = {binary.canonical(data) for data in listing}
        return [data for data in self.ours if binary.canonical(data) not in there]

    def add_missing(self) -> int:
        """Load again what is missing of our rules, in their order; return how many.

        Raises AuditRequestError.
        """
        missing = self.missing(self.client.list_rules())
        for data in missing:
            try:
                self.client.add_rule(data)
            except AuditRequestError as error:
                if error.code != errno.EEXIST:
                    raise
            self.meanwhile()
        return len(missing)

    def release(self, *, keep_rules: bool) -> list[str]:
        """Delete our rules and restore the settings; return what had to stay.

        Records that were on their way can still be received from the client afterwards.
        """
        left: list[str] = []
        try:
            if not keep_rules and self.ours and self.client.status().enabled != _LOCKED:
                for data in self.ours:
                    self._delete(data)
                    self.meanwhile()
                self.ours = []
            if self.client.multicast:
                return []  # the settings are another daemon's
            left = self._state.restore(self.client)
        except AuditRequestError as error:
            left.append(f"the audit state could not be put back: {error}")
        else:
            with contextlib.suppress(OSError):
                self._ledger.unlink()
        return left


def clear_away(ledger: Path, boot_id: str, adopted_fd: int | None = None) -> list[str]:
    """Undo what a crashed run left when this one can't start; return in words what was done.

    Its rules would make records without a reader. While the audit daemon is a process that lives,
    nothing is touched: the rules may be in use. ``adopted_fd`` is that run's audit socket, if the
    service manager kept it. Raises AuditUnavailableError.
    """
    if not ledger.exists():
        return []
    with AuditClient.open(adopted_fd=adopted_fd) as client:
        session = AuditController(client, ledger, boot_id)
        session._resume()
        owner = client.status().pid
        if owner and process_name(owner) is not None:
            return []
        count = len(session.ours)
        left = session.release(keep_rules=False)
    if count:
        left.insert(0, f"{count} rules of an earlier run, which crashed, were taken away")
    return [*session.notes, *left]


def _among(rule: bytes, those: list[bytes]) -> bool:
    canonical = binary.canonical(rule)
    return any(canonical == binary.canonical(each) for each in those)
