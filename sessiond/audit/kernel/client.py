"""The kernel's audit subsystem over netlink: control, registration and the stream of records.

The client uses two sockets. The *data* socket is registered as the audit daemon's (unicast) or
joins the kernel's multicast group; it survives a restart, so it is used only for registration and
records. All other requests use a *control* socket, whose answers can't be confused with records, or
lost because records filled the buffer.

All calls return at once or within TIMEOUT: the kernel handles a request inside sendmsg(2), and
queues its acknowledgement before that returns; only statuses and lists come slightly later, from a
kernel thread. Facts about the kernel are from kernel/audit.c and kernel/auditfilter.c.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, Self

import msgspec

from sessiond.audit.kernel.errors import TIMEOUT, AuditRequestError, owner_message, refused
from sessiond.audit.kernel.receive import BATCH, NLMSGHDR, BatchReader
from sessiond.audit.record import CONFIG_CHANGE, REPLACE, USER
from sessiond.errors import AuditUnavailableError
from sessiond.system.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_AUDIT,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    AsyncNetlinkSocket,
    nlmsg,
    nlmsgerr,
)
from sessiond.system.proc import namespaces, process_name

__all__ = [
    "BATCH",
    "AuditClient",
    "Counters",
    "KernelAuditStatus",
    "as_listed",
    "never_audit",
]

# linux/audit.h
_GET: Final = 1000
_SET: Final = 1001
_ADD_RULE: Final = 1011
_DEL_RULE: Final = 1012
_LIST_RULES: Final = 1013
_SET_FEATURE: Final = 1018
_NLGRP_READLOG: Final = 1
_STATUS_PID: Final = 0x04
_STATUS_LOST: Final = 0x40
_STATUS_BACKLOG_WAIT_TIME_ACTUAL: Final = 0x80
_FEATURE_LOGINUID_IMMUTABLE: Final = 1
# The members of struct audit_status that can be set: name -> (bit in mask, place in the struct).
SETTINGS: Final = {
    "enabled": (0x01, 1),
    "failure": (0x02, 2),
    "rate_limit": (0x08, 4),
    "backlog_limit": (0x10, 5),
    "backlog_wait_time": (0x20, 9),
}
_STATUS_WORDS: Final = 11
LOCKED: Final = 2  # `enabled` when the configuration is locked until reboot

# asm-generic/socket.h, linux/sock_diag.h
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
_MEMINFO_RMEM_ALLOC: Final = 0
_MEMINFO_DROPS: Final = 8

RECEIVE_BUFFER: Final = 64 * 1024 * 1024
_REPLY: Final = 65536

# linux/audit.h: struct audit_rule_data, up to the strings
_RULE_HEAD: Final = struct.Struct("=3I64I64I64I64II")
_FILTER_EXIT: Final = 0x04
_FILTER_PREPEND: Final = 0x10
_NEVER: Final = 0
_FIELD_PID: Final = 0
_FIELD_UID: Final = 1
_FIELD_EXE: Final = 112
_EQUAL: Final = 0x40000000


class KernelAuditStatus(msgspec.Struct, frozen=True):
    """The kernel's audit status (struct audit_status). On old kernels the last members are None."""

    enabled: int  # 0 off, 1 on, 2 on and locked until reboot
    failure: int  # when a record is lost: 0 silent, 1 printk, 2 panic
    pid: int  # of the registered process, which may have ended; 0 for none
    rate_limit: int  # records a second; 0 for no limit
    backlog_limit: int  # records
    lost: int  # records, since the boot or a reset
    backlog: int  # records waiting now
    features: int  # AUDIT_FEATURE_BITMAP_*
    backlog_wait_time: int | None = None  # in clock ticks of the kernel (CONFIG_HZ)
    backlog_wait_time_actual: int | None = None  # how long processes have waited, likewise


class Counters(msgspec.Struct):
    """Counters of the data socket in this process."""

    received: int = 0  # records returned
    congested: int = 0  # ENOBUFS errors: multicast lost records, unicast only waited
    truncated: int = 0  # records longer than audit's maximum
    forged: int = 0  # datagrams that are not from the kernel; never returned
    pings: int = 0  # another process tried to register
    config_changes: int = 0  # reads with CONFIG_CHANGE records, also of sessiond's changes


class _Message(nlmsg):  # type: ignore[misc]
    """A netlink message whose payload is bytes: audit uses C structs, never attributes."""

    fields = (("payload", "s"),)


class AuditClient:
    """A connection to the kernel's audit subsystem; create it with ``open``.

    ``multicast`` says how it reads; ``receive_buffer`` is the actual size, in bytes as the kernel
    counts them (a record takes about 1 to 2 KiB of it).
    """

    def __init__(
        self,
        data: socket.socket,
        control: socket.socket,
        *,
        multicast: bool,
        memory: mmap.mmap | None = None,
    ) -> None:
        """Take open sockets, for multicast bound to the group; see ``open``."""
        self.multicast = multicast
        self.counters = Counters()
        self._data = data
        self._control = control
        self._reader = BatchReader(data.fileno(), _NLGRP_READLOG if multicast else 0, memory)
        # Called with all records immediately after reading.
        self.on_received: Callable[[list[tuple[int, bytes]]], None] = _nothing
        self._kept: list[tuple[int, bytes]] = []
        self._sequence = 0
        self._pinged_by = 0

    @classmethod
    def open(
        cls,
        *,
        multicast: bool = False,
        adopted_fd: int | None = None,
        receive_buffer: int = RECEIVE_BUFFER,
        memory: mmap.mmap | None = None,
    ) -> Self:
        """Open the sockets, or take over ``adopted_fd``, an audit socket of an earlier process.

        Unicast receives nothing until ``register``. Multicast receives from now on.
        ``memory`` is what a BatchReader reads into.
        ``receive_buffer`` (bytes) is forced with CAP_NET_ADMIN, otherwise cut at
        net.core.rmem_max; the attribute of the same name is the size reached.
        Raises AuditUnavailableError when the kernel has no audit, when CAP_AUDIT_READ is missing
        for multicast, or when multicast could never receive in this network namespace.
        """
        data = _socket(adopted_fd)
        try:
            _grow(data, receive_buffer)
            if adopted_fd is None and multicast:
                _join(data)
            return cls(data, _socket(None), multicast=multicast, memory=memory)
        except BaseException:
            data.close()
            raise

    def fileno(self) -> int:
        """Return the data socket's descriptor, to wait on or to hand over."""
        return self._data.fileno()

    def close(self) -> None:
        """Close both sockets. A registration ends when the data socket's last holder closes it."""
        self._data.close()
        self._control.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    # The stream of records

    @property
    def receive_buffer(self) -> int:
        """The data socket's buffer in bytes, as the kernel accounts for it."""
        return self._data.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def pinged_by(self) -> str:
        """The process that last tried to register as the audit daemon, as text."""
        name = process_name(self._pinged_by) or "a process that has ended"
        return f"{name} (pid {self._pinged_by})"

    @property
    def kept(self) -> int:
        """The number of records that are read and wait for ``receive``."""
        return len(self._kept)

    @property
    def buffered(self) -> int:
        """The number of bytes of the receive buffer in use."""
        return self._memory()[_MEMINFO_RMEM_ALLOC]

    @property
    def dropped(self) -> int:
        """The number of datagrams that the socket dropped in its whole life.

        With multicast each is a lost record, which the kernel counts nowhere else. With unicast the
        kernel keeps the record and retries: real loss is ``KernelAuditStatus.lost``.
        """
        return self._memory()[_MEMINFO_DROPS]

    def receive(self) -> list[tuple[int, bytes]]:
        """Return records that have arrived, as (type, payload); never blocks; [] for none.

        A payload is b"audit(1777630272.123:8972): ...". Call it again until it returns [], or
        fewer than BATCH: then the socket was empty. Call it once after ``register`` and
        ``settle``, which keep for it what they had to read.
        """
        messages, self._kept = self._kept, []
        return messages or self._read_records()

    def gather(self) -> None:
        """Read records for a later ``receive``, during other long operations."""
        while records := self._read_records():
            self._kept += records
            if len(records) < BATCH:
                return

    def take_records(self, other: AuditClient) -> None:
        """Take the records of another client, also unread ones, for this one's ``receive``."""
        other.gather()
        self._kept += other._kept
        other._kept = []
        self.counters = other.counters
        self._reader.truncated = other._reader.truncated
        self._reader.forged = other._reader.forged

    def settle(self, timeout: float = 1.0) -> None:
        """Wait at most ``timeout`` seconds until the kernel has sent all queued records.

        They are kept for ``receive``. Call this after auditing was stopped.
        """
        deadline = time.monotonic() + timeout
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            records = self._read_records()
            self._kept += records
            quiet = 0 if records or self.status().backlog else quiet + 1
            if not records:
                time.sleep(0.001)  # lets the kernel thread kauditd send

    def _read_records(self) -> list[tuple[int, bytes]]:
        messages = self._read_messages()
        # The usual batch contains only records, and this check is cheap.
        kinds = self._reader.types
        if messages and (min(kinds) < USER or REPLACE in kinds):
            messages = [message for message in messages if self._is_record(message)]
        if CONFIG_CHANGE in kinds:
            self.counters.config_changes += 1
        self.counters.received += len(messages)
        if messages:
            self.on_received(messages)
        return messages

    def _read_messages(self) -> list[tuple[int, bytes]]:
        if self._data.fileno() < 0:
            return []  # closed by ``unregister``, which kept its records
        while True:
            try:
                messages = self._reader.read()
                break
            except OSError as error:
                # Reported once each time the buffer was full; its content is still readable.
                if error.errno != errno.ENOBUFS:
                    raise
                self.counters.congested += 1
        self.counters.truncated = self._reader.truncated
        self.counters.forged = self._reader.forged
        return messages

    def _is_record(self, message: tuple[int, bytes]) -> bool:
        kind, payload = message
        if kind == REPLACE and len(payload) >= 4:
            self.counters.pings += 1
            (self._pinged_by,) = struct.unpack_from("=I", payload)
        return kind >= USER and kind != REPLACE

    def _memory(self) -> tuple[int, ...]:
        return _MEMINFO.unpack(self._data.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))

    # Registration

    def register(self) -> Literal["registered", "adopted"]:
        """Register the data socket as the audit daemon's; ``receive`` must be called from then on.

        Returns "adopted" if an earlier process has already registered it: the kernel keeps that
        process's pid in its status, and the registration works as before. May take 100 ms if
        another socket is registered and does not read (the kernel pings it). Raises
        AuditRequestError: EEXIST names the owner, EPERM the missing permission.
        """
        for _ in range(3):
            self._pinged_by = 0
            self._sequence += 1
            request = _encode(_SET, NLM_F_REQUEST | NLM_F_ACK, self._sequence, _own_pid())
            try:
                self._data.send(request)
            except OSError as error:
                raise refused("register as the audit daemon", error.errno or 0) from error
            answer = self._registration_answer()
            if answer == 0 or (answer is None and self.status().pid == os.getpid()):
                return "registered"
            # The kernel pings the registered socket: a ping that arrives here proves it is ours.
            if answer == -errno.EEXIST and self._pinged_by == os.getpid():
                self.counters.pings -= 1  # this process caused it
                return "adopted"
            if answer not in (None, -errno.EEXIST):
                raise refused("register as the audit daemon", -answer)
            if not self._kept:
                break  # the buffer was not full: neither answer nor ping can be lost
        raise AuditRequestError(errno.EEXIST, owner_message(self.status().pid))

    def _registration_answer(self) -> int | None:
        """Drain the data socket and return the answer among the records, None if it is lost.

        The kernel queued the answer before send returned, so no waiting is needed.
        """
        answer = None
        while messages := self._read_messages():
            for kind, payload in messages:
                if kind == NLMSG_ERROR and _sequence_of(payload) == self._sequence:
                    (answer,) = struct.unpack_from("=i", payload)
            records = [message for message in messages if self._is_record(message)]
            self.counters.received += len(records)
            self.on_received(records)
            self._kept += records
        return answer

    def unregister(self) -> None:
        """Unregister; records that have arrived can still be received.

        A registration by an earlier process ends only with its socket, which is closed here.
        """
        if self.multicast:
            return
        if self.status().pid != os.getpid():
            self.settle()
            self._data.close()
        # The kernel notices a closed socket only when it sends, which this triggers.
        self._request(_SET, _status_bytes(_STATUS_PID, {3: 0}), "unregister")

    # Control

    def status(self) -> KernelAuditStatus:
        """Ask the kernel for its audit status. Raises AuditRequestError."""
        payload = self._ask(_GET, "read the audit status")
        words = struct.unpack_from(f"={min(len(payload) // 4, _STATUS_WORDS)}I", payload)
        return KernelAuditStatus(*words[1:])

    def set(self, name: str, value: int) -> None:
        """Set one of enabled, failure, rate_limit, backlog_limit, backlog_wait_time.

        The units are those of KernelAuditStatus. Raises AuditRequestError; EPERM: it is locked.
        """
        bit, place = SETTINGS[name]
        self._request(_SET, _status_bytes(bit, {place: value}), f"set {name} to {value}")

    def set_loginuid_immutable(self, *, on: bool, lock: bool) -> None:
        """Make login uids unchangeable or changeable; ``lock`` forbids undoing it until reboot."""
        bit = 1 << _FEATURE_LOGINUID_IMMUTABLE
        payload = struct.pack("=4I", 1, bit, bit if on else 0, bit if lock else 0)
        self._request(_SET_FEATURE, payload, "set loginuid_immutable")

    def reset_lost(self) -> int:
        """Reset the kernel's count of lost records and return the old value."""
        return self._request(_SET, _status_bytes(_STATUS_LOST, {}), "reset the lost counter")

    def reset_backlog_wait_time_actual(self) -> int:
        """Reset the count of processes' waiting time and return the old value."""
        return self._request(
            _SET, _status_bytes(_STATUS_BACKLOG_WAIT_TIME_ACTUAL, {}), "reset the wait counter"
        )

    def list_rules(self) -> list[bytes]:
        """Return the loaded rules, each a struct audit_rule_data, in the kernel's order."""
        return list(self._replies(_LIST_RULES, b"", "list the audit rules"))

    def add_rule(self, rule: bytes) -> None:
        """Load one rule (struct audit_rule_data). Raises AuditRequestError; EEXIST: loaded."""
        self._request(_ADD_RULE, rule, "add an audit rule")

    def delete_rule(self, rule: bytes) -> None:
        """Delete one rule (struct audit_rule_data). Raises AuditRequestError; ENOENT: not loaded.

        Takes 10 to 25 ms, because the kernel waits until no CPU uses the rule: read records between
        two calls.
        """
        self._request(_DEL_RULE, as_listed(rule), "delete an audit rule")

    def _ask(self, kind: int, what: str) -> bytes:
        """Send a request that has exactly one reply."""
        for payload in self._replies(kind, b"", what):
            return payload
        raise refused(what, errno.ENODATA)

    def _request(self, kind: int, payload: bytes, what: str) -> int:
        """Send a request and return the value of its acknowledgement: 0, or an old value."""
        sequence = self._send(kind, NLM_F_REQUEST | NLM_F_ACK, payload, what)
        for reply_kind, reply in self._answers(sequence, what):
            if reply_kind == NLMSG_ERROR:
                return _acknowledged(reply, what)
        raise refused(what, errno.ETIMEDOUT)

    def _replies(self, kind: int, payload: bytes, what: str) -> Iterator[bytes]:
        """Send a request and yield the payloads of its replies: one, or many and NLMSG_DONE."""
        sequence = self._send(kind, NLM_F_REQUEST, payload, what)
        for reply_kind, reply in self._answers(sequence, what):
            if reply_kind == NLMSG_ERROR:
                _acknowledged(reply, what)
            if reply_kind == NLMSG_DONE:
                return
            yield reply[NLMSGHDR:]
            if kind != _LIST_RULES:
                return

    def _send(self, kind: int, flags: int, payload: bytes, what: str) -> int:
        self._sequence += 1
        try:
            self._control.send(_encode(kind, flags, self._sequence, payload))
        except OSError as error:
            raise refused(what, error.errno or 0) from error
        return self._sequence

    def _answers(self, sequence: int, what: str) -> Iterator[tuple[int, bytes]]:
        """Yield (type, whole message) of the answers to one request, until TIMEOUT."""
        deadline = time.monotonic() + TIMEOUT
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                raise refused(what, errno.ETIMEDOUT)
            message, (sender, _) = self._control.recvfrom(_REPLY)
            _, kind, _, answered = struct.unpack_from("=IHHI", message)
            if sender == 0 and answered == sequence:
                yield kind, message


def never_audit(pid: int, uid: int, executable: bytes, rules: Iterable[bytes]) -> bytes | None:
    """Return the rule that excludes the system calls of a process from the exit ``rules``.

    The kernel itself excludes the registered process; this rule is for a multicast reader or an
    adopted socket, whose writes would otherwise be audited, read, and written again. It is ``-A
    never,exit -S ... -F pid=... -F uid=... -F exe=...``, only for the system calls of the exit
    rules, so that other system calls do not pay for it; child processes are not covered. After a
    crash the rule stays until the next start: another process that reuses the pid is still audited,
    unless it is the same program of the same user. None if none of ``rules`` (struct
    audit_rule_data) is an exit rule.
    """
    mask = [0] * 64
    for rule in rules:
        words = struct.unpack_from("=67I", rule)
        if words[0] & ~_FILTER_PREPEND == _FILTER_EXIT:
            mask = [ours | its for ours, its in zip(mask, words[3:], strict=True)]
    if not any(mask):
        return None
    fields = ((_FIELD_PID, pid), (_FIELD_UID, uid), (_FIELD_EXE, len(executable)))
    rest = [0] * (64 - len(fields))
    kinds, values = ([*column, *rest] for column in zip(*fields, strict=True))
    operators = [*[_EQUAL] * len(fields), *rest]
    first = _FILTER_EXIT | _FILTER_PREPEND
    head = _RULE_HEAD.pack(
        first, _NEVER, len(fields), *mask, *kinds, *values, *operators, len(executable)
    )
    return head + executable


def as_listed(rule: bytes) -> bytes:
    """Return the bytes under which the kernel lists a rule and identifies it for deletion.

    They lack the flag that puts a rule before the others (-A), which only affects adding.
    """
    (flags,) = struct.unpack_from("=I", rule)
    return struct.pack("=I", flags & ~_FILTER_PREPEND) + rule[4:]


def _nothing(_: list[tuple[int, bytes]]) -> None:
    pass


def _socket(adopted_fd: int | None) -> socket.socket:
    # pyroute2's sockets need an event loop: either their own, which can't run inside the daemon's,
    # or the daemon's, in which pyroute2 would read this descriptor into its own queue and give up
    # at the first ENOBUFS. So pyroute2 only opens the socket and encodes and decodes messages;
    # plain send and receive calls work with and without a running loop.
    try:
        opened: socket.socket = AsyncNetlinkSocket(
            family=NETLINK_AUDIT, fileno=adopted_fd
        ).setup_socket()
        if adopted_fd is None:
            opened.bind((0, 0))
    except OSError as error:
        raise refused("open an audit socket", error.errno or 0) from error
    if opened.family != socket.AF_NETLINK or opened.proto != NETLINK_AUDIT:
        opened.detach()
        raise AuditUnavailableError(f"descriptor {adopted_fd} isn't an audit socket: it is ignored")
    opened.setblocking(False)
    return opened


def _grow(data: socket.socket, size: int) -> None:
    """Ask for a receive buffer of ``size`` bytes; the kernel doubles the number."""
    try:
        data.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size // 2)
    except PermissionError:
        data.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size // 2)


def _join(data: socket.socket) -> None:
    # The kernel sends multicast records to listeners of the initial network namespace only.
    if namespaces().network is False:
        raise AuditUnavailableError(
            "audit records can't be read by multicast: this is not the host's network namespace,"
            " the only one that gets them; run sessiond there, or use socket_type unicast"
        )
    try:
        data.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, _NLGRP_READLOG)
    except OSError as error:
        raise refused("join the audit multicast group", error.errno or 0) from error


def _encode(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    message = _Message()
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message["header"]["sequence_number"] = sequence
    message["payload"] = payload
    message.encode()
    data = bytes(message.data)
    message.chain.clear()  # breaks a reference cycle
    return data


def _acknowledged(message: bytes, what: str) -> int:
    """Return the value of an acknowledgement: 0, or a positive one that AUDIT_SET gives back."""
    acknowledgement = nlmsgerr(message)
    acknowledgement.decode()
    value: int = acknowledgement["error"]
    acknowledgement.chain.clear()
    if value < 0:
        raise refused(what, -value)
    return value


def _sequence_of(acknowledgement: bytes) -> int:
    """Return the request that an NLMSG_ERROR payload answers: its header follows errno."""
    (sequence,) = struct.unpack_from("=I", acknowledgement, 12)
    return int(sequence)


def _status_bytes(mask: int, values: dict[int, int]) -> bytes:
    words = [mask, *(values.get(place, 0) for place in range(1, _STATUS_WORDS))]
    return struct.pack(f"={_STATUS_WORDS}I", *words)


def _own_pid() -> bytes:
    return _status_bytes(_STATUS_PID, {3: os.getpid()})
