"""Controls the kernel's audit subsystem while sessiond uses it: claims, changes and releases it.

Every change is saved before it is made (``audit.json`` in the runtime directory), so that a start
after a crash knows sessiond's rules and the original settings.
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

from sessiond.audit.kernel.client import LOCKED, AuditClient, never_audit
from sessiond.audit.kernel.errors import AuditRequestError
from sessiond.audit.kernel.settings import AuditState, SavedAuditState, limits
from sessiond.audit.rules import binary
from sessiond.audit.rules.plan import plan, refused
from sessiond.audit.rules.ruleset import LoadedRule, RuleSet
from sessiond.config.schema import AuditdSettings
from sessiond.errors import AuditUnavailableError, OutputError
from sessiond.system.files import read_file, replace_file
from sessiond.system.proc import process_name

# Maximum size of the saved state in bytes: enough for thousands of rules of 1 to 10 KiB.
_MAX_STATE: Final = 64 << 20


class AuditController:
    """The claimed audit subsystem; create it with ``claim``, end it with ``release``.

    ``role`` is "unicast" (sessiond is the audit daemon) or "multicast" (it listens beside one).
    ``refused`` are rules that the kernel refused, with the reasons. ``owner`` is the registered pid
    (unicast), that of an earlier process if the socket was ``adopted``. ``expected`` are the
    settings that sessiond set. Changing many rules takes a while: ``on_progress`` is called after
    each change, to read records.
    """

    def __init__(self, client: AuditClient, state_file: Path, boot_id: str) -> None:
        """Take an open client; see ``claim``."""
        self.client: AuditClient = client
        self.refused: list[str] = []
        self.notes: list[str] = []
        self.ours: list[bytes] = []
        self._exclusion_rules: list[bytes] = []
        self.owner = 0
        self.adopted = False
        self.expected: dict[str, int] = {}
        self.on_progress: Callable[[], None] = self._gather
        self._wanted: RuleSet | None = None
        self._state_file = state_file
        self._boot_id = boot_id
        self._state = AuditState.capture(client)

    @property
    def role(self) -> Literal["unicast", "multicast", "off"]:
        """How records are read: "unicast", "multicast" or "off"."""
        return "multicast" if self.client.multicast else "unicast"

    @property
    def loaded(self) -> list[LoadedRule]:
        """Return all rules in the kernel; none without the permission to list them."""
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
        state_file: Path,
        boot_id: str,
        adopted_fd: int | None = None,
        adopted_listener: int | None = None,
        memory: mmap.mmap | None = None,
        on_received: Callable[[list[tuple[int, bytes]]], None] | None = None,
    ) -> Self:
        """Open the socket and become the audit daemon, or a listener if there is one already.

        Unicast registers first and loads rules last, so that all records have a reader.
        ``adopted_fd`` is the registered socket of an earlier process, ``adopted_listener`` its
        multicast socket. Records are read into ``memory`` and passed to ``on_received`` at once.
        Raises AuditUnavailableError.
        """
        if settings.socket_type == "multicast":
            adopted_fd = adopted_listener
        client = AuditClient.open(
            multicast=settings.socket_type == "multicast",
            adopted_fd=adopted_fd,
            receive_buffer=settings.receive_buffer,
            memory=memory,
        )
        if on_received is not None:
            client.on_received = on_received
        controller = cls(client, state_file, boot_id)
        controller._resume()
        try:
            if not client.multicast:
                controller._claim_unicast(settings, wanted)
        except AuditRequestError as error:
            client.close()
            if error.code != errno.EEXIST or settings.socket_type != "auto":
                raise
            listener = AuditClient.open(
                multicast=True,
                adopted_fd=adopted_listener,
                receive_buffer=settings.receive_buffer,
            )
            listener.on_received = client.on_received
            controller = cls(listener, state_file, boot_id)
            controller._wanted = wanted
            controller.notes.append(
                f"listening by multicast, with the rules that are there: {error}"
            )
        except BaseException:
            controller.release(keep_rules=False)
            client.close()
            raise
        return controller

    def _resume(self) -> None:
        """Take over the changes of an earlier run of this boot."""
        try:
            earlier = msgspec.json.decode(
                read_file(self._state_file, _MAX_STATE), type=SavedAuditState
            )
        except FileNotFoundError:
            return
        except (OSError, OutputError, msgspec.DecodeError) as error:
            self.notes.append(f"{self._state_file} is set aside, it can't be read: {error}")
            return
        if earlier.boot_id == self._boot_id:
            self._state = AuditState(earlier.found, earlier.ours)
            self.ours = earlier.rules
            self._exclusion_rules = earlier.exclusion_rules

    def _remember(self) -> None:
        state = SavedAuditState(
            self._boot_id, self._state.found, self._state.ours, self.ours, self._exclusion_rules
        )
        try:
            replace_file(self._state_file, msgspec.json.encode(state), mode=0o600)
        except (OSError, OutputError) as error:
            self.notes.append(f"{self._state_file}: {error}; a crash would leave our rules behind")

    def _claim_unicast(self, settings: AuditdSettings, wanted: RuleSet) -> None:
        self._wanted = wanted
        if self._state.found.enabled == LOCKED:
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
            enabled = LOCKED
        self._state.apply(self.client, enabled=min(enabled, 1))
        self._remember()
        self.expected["enabled"] = enabled
        if enabled == LOCKED:
            self.client.set("enabled", LOCKED)

    def _register(self) -> None:
        self.adopted = self.client.register() == "adopted"
        self.owner = self.client.status().pid

    def _limit(self, settings: AuditdSettings, wanted: RuleSet) -> None:
        values = limits(settings, wanted)
        # Settings that an old kernel lacks can't be set.
        if self.client.status().backlog_wait_time is None:
            del values["backlog_wait_time"]
        self._state.apply(self.client, **values)
        self._remember()
        self.expected.update(values)

    def _gather(self) -> None:
        """Read records for the next ``receive``."""
        self.client.gather()

    def reconfigure(self, settings: AuditdSettings, wanted: RuleSet) -> None:
        """Apply other limits and other rules. Raises AuditRequestError."""
        if self.client.multicast:
            return
        self._wanted = wanted
        self._limit(settings, wanted)
        self.load(wanted)

    def become_listener(self, settings: AuditdSettings) -> None:
        """Continue as a listener beside the daemon that replaced this one; the state is kept.

        Records in the old socket are kept for ``receive``. Raises AuditUnavailableError.
        """
        listener = AuditClient.open(multicast=True, receive_buffer=settings.receive_buffer)
        self._replace(listener)

    def become_daemon(self, settings: AuditdSettings) -> None:
        """Become the audit daemon after the other one has exited. Raises AuditUnavailableError."""
        wanted = self._wanted
        assert wanted is not None  # noqa: S101 -- only socket_type multicast has no rules
        # A short gap between the last read of the old socket and the registration of the new one is
        # unavoidable: with both at once every record would arrive twice.
        self._replace(AuditClient.open(receive_buffer=settings.receive_buffer))
        try:
            # A previous audit daemon restores the original settings when it exits.
            if not self._state.ours:
                self._state = AuditState.capture(self.client)
            self._claim_unicast(settings, wanted)
        except BaseException:
            self.become_listener(settings)
            raise

    def _replace(self, client: AuditClient) -> None:
        old, self.client = self.client, client
        client.on_received = old.on_received
        client.take_records(old)
        old.close()

    def _controls(self, wanted: RuleSet) -> int:
        """Apply the rule files' control lines; return the requested value of ``enabled``.

        Limits are set before the rules are loaded, see ``limits``.
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
        """Load the wanted rules: add missing ones, delete sessiond's unwanted ones.

        Rules of other programs stay. Refused rules are in ``refused``; the others are loaded.
        Raises AuditRequestError if the rules can't be listed.
        """
        # The rule that excludes sessiond is not part of the plan: as the first rule it would
        # require reloading all others.
        exclusions, self._exclusion_rules = self._exclusion_rules, []
        loaded = [data for data in self.client.list_rules() if not _among(data, exclusions)]
        ours = [data for data in self.ours if not _among(data, exclusions)]
        changes = plan(wanted, loaded, ours)
        self.refused = []
        for data in changes.remove:
            self._delete(data)
            self.on_progress()
        # Saved first: a saved rule that is not loaded does no harm, the reverse would.
        self.ours = [*changes.ours, *(rule.data for rule in changes.add), *exclusions]
        self._exclusion_rules = exclusions
        self._remember()
        for rule in changes.add:
            try:
                self.client.add_rule(rule.data)
            except AuditRequestError as error:
                self.ours.remove(rule.data)
                if error.code != errno.EEXIST:
                    self.refused.append(str(refused(rule, error.code)))
            self.on_progress()
        self._exclude_self(exclusions)
        self._remember()

    def _exclude_self(self, earlier: list[bytes]) -> None:
        """Load the rule that excludes this process if it is not the registered one.

        ``earlier`` are the exclusion rules of an earlier process, or those made for other rules;
        they are deleted.
        """
        listing = [data for data in self.client.list_rules() if not _among(data, earlier)]
        executable = os.path.realpath("/proc/self/exe").encode()
        rule = None
        if self.adopted:
            rule = never_audit(os.getpid(), os.getuid(), executable, listing)
        if rule is not None and not _among(rule, earlier):
            self.ours.append(rule)
            self._exclusion_rules = [*earlier, rule]
            self._remember()
            try:
                self.client.add_rule(rule)
            except AuditRequestError as error:
                self.ours.remove(rule)
                self.notes.append(f"our own system calls are audited, where rules match: {error}")
        for data in earlier:
            if rule is None or not _among(data, [rule]):
                self._delete(data)
                self.ours.remove(data)
                self.on_progress()
        self._exclusion_rules = [
            data for data in self.ours if rule is not None and _among(data, [rule])
        ]

    def _delete(self, data: bytes) -> None:
        try:
            self.client.delete_rule(data)
        except AuditRequestError as error:
            # Another program has already deleted it.
            if error.code != errno.ENOENT:
                raise

    def missing(self, listing: list[bytes]) -> list[bytes]:
        """Return sessiond's rules that the kernel does not list."""
        loaded = {binary.canonical(data) for data in listing}
        return [data for data in self.ours if binary.canonical(data) not in loaded]

    def add_missing(self) -> int:
        """Reload sessiond's missing rules, in order; return their number.

        Raises AuditRequestError.
        """
        missing = self.missing(self.client.list_rules())
        for data in missing:
            try:
                self.client.add_rule(data)
            except AuditRequestError as error:
                if error.code != errno.EEXIST:
                    raise
            self.on_progress()
        return len(missing)

    def release(self, *, keep_rules: bool) -> list[str]:
        """Delete sessiond's rules and restore the settings; return what could not be undone.

        Records in flight can still be received from the client afterwards.
        """
        failures: list[str] = []
        try:
            if not keep_rules and self.ours and self.client.status().enabled != LOCKED:
                for data in self.ours:
                    self._delete(data)
                    self.on_progress()
                self.ours = []
            if self.client.multicast:
                return []  # the settings are another daemon's
            failures = self._state.restore(self.client)
        except AuditRequestError as error:
            failures.append(f"the audit state could not be put back: {error}")
        else:
            with contextlib.suppress(OSError):
                self._state_file.unlink()
        return failures


def clear_away(state_file: Path, boot_id: str, adopted_fd: int | None = None) -> list[str]:
    """Undo a crashed run's changes when this run can't start; return the actions as text.

    Its rules would cause records without a reader. If the registered audit daemon is alive, nothing
    is changed, because the rules may be in use. ``adopted_fd`` is that run's audit socket, if the
    service manager kept it. Raises AuditUnavailableError.
    """
    if not state_file.exists():
        return []
    with AuditClient.open(adopted_fd=adopted_fd) as client:
        controller = AuditController(client, state_file, boot_id)
        controller._resume()
        owner = client.status().pid
        if owner and process_name(owner) is not None:
            return []
        count = len(controller.ours)
        notes = controller.release(keep_rules=False)
    if count:
        notes.insert(0, f"{count} rules of an earlier run, which crashed, were taken away")
    return [*controller.notes, *notes]


def _among(rule: bytes, rules: list[bytes]) -> bool:
    canonical = binary.canonical(rule)
    return any(canonical == binary.canonical(data) for data in rules)
