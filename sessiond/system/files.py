"""Opens directories and files that other users can't replace by their own.

A user who can write to a directory can put a symbolic link, a hard link or a FIFO in the place of a
daemon's file, and so redirect its writes. Therefore every directory of the path is checked and
opened by descriptor: the object that was checked is the object that is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sessiond.errors import ConfigError, OutputError

_MAXSYMLINKS = 40  # as the kernel: MAXSYMLINKS in include/linux/namei.h


def trusted_users(owner: int | None = None) -> frozenset[int]:
    """Return the uids whose files are trusted: root, this process's user and ``owner``."""
    return frozenset({0, os.geteuid()} | ({owner} if owner is not None else set()))


def may_read(path: Path, uid: int, groups: Collection[int]) -> bool:
    """Return whether the permission bits let a user read a file; False if it does not exist.

    ``groups`` are all gids of the user. Every directory of the path must be accessible.
    """
    path = path.resolve()
    try:
        return _permits(path, 4, uid, groups) and all(
            _permits(directory, 1, uid, groups) for directory in path.parents
        )
    except OSError:
        return False


def _permits(path: Path, bit: int, uid: int, groups: Collection[int]) -> bool:
    facts = path.stat()
    if facts.st_uid == uid:
        shift = 6
    elif facts.st_gid in groups:
        shift = 3
    else:
        shift = 0
    return bool(facts.st_mode >> shift & bit)


def open_directory(path: str, *, trusted: Collection[int]) -> int:
    """Open the directory at the absolute ``path`` and return its descriptor.

    The owners of every directory and symbolic link of the path must be ``trusted`` (uids). Other
    users may not have write permission for any of them; a sticky directory like /tmp is allowed
    above the last one, because users can't rename or remove files of others in it. Groups may
    write only to directories of root above the last one, as some distributions have /var/log.

    Raises OutputError if another user could replace the target of the path, OSError if it can't be
    opened.
    """
    if not path.startswith("/"):
        raise OutputError(f"{path}: the path must be absolute")
    waiting = list(reversed(PurePosixPath(path).parts[1:]))
    at, links = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), 0
    try:
        while waiting:
            _check_directory(at, path, last=False)
            name = waiting.pop()
            entry = os.stat(name, dir_fd=at, follow_symlinks=False)
            if entry.st_uid not in trusted:
                raise OutputError(
                    f"{path}: {name} belongs to uid {entry.st_uid}, who could swap it; "
                    "it must belong to root or to the user that runs this program"
                )
            if stat.S_ISLNK(entry.st_mode):
                links += 1
                if links > _MAXSYMLINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = PurePosixPath(os.readlink(name, dir_fd=at))
                waiting.extend(reversed(target.parts))
                if not target.is_absolute():
                    continue
                name = waiting.pop()  # "/"
            below = os.open(
                name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at
            )
            os.close(at)
            at = below
        _check_directory(at, path, last=True)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)


def _check_directory(directory: int, path: str, *, last: bool) -> None:
    status = os.fstat(directory)
    if status.st_mode & stat.S_ISVTX:
        return
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in {0, os.getegid()}
    if status.st_mode & stat.S_IWOTH or (by_group and (last or status.st_uid != 0)):
        where = "the directory" if last else "a directory above it"
        raise OutputError(f"{path}: others can write into {where}; chmod it to 0755 or less")


def open_file(
    name: str, flags: int, *, directory: int, path: str, mode: int, trusted: Collection[int]
) -> tuple[int, bool]:
    """Open ``name`` in ``directory`` with os.open's ``flags``; create it with ``mode`` if missing.

    ``path`` is its name in messages. Returns the descriptor and whether the file is new. Raises
    OutputError unless it is a regular file that belongs to one of ``trusted`` (uids), has a single
    name and is writable only by its owner; OSError if it can't be opened.
    """
    # O_NONBLOCK: opening a FIFO would otherwise wait for its other end.
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=directory)
    except FileExistsError:
        pass
    else:
        os.fchmod(descriptor, mode)  # the umask must not change a configured mode
        return descriptor, True
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OutputError(f"{path}: is a symbolic link, which is not followed") from None
        if error.errno in {errno.EISDIR, errno.ENXIO}:
            raise OutputError(f"{path}: is not a regular file") from None
        raise
    try:
        _check_file(os.fstat(descriptor), path, trusted)
    except OutputError:
        os.close(descriptor)
        raise
    return descriptor, False


def read_file(path: Path, limit: int) -> bytes:
    """Read at most ``limit`` bytes of a small file that this program has written.

    Raises OutputError if another user could have written it, OSError if it can't be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _check_file(status, str(path), trusted_users())
        if status.st_mode & stat.S_IWGRP:
            raise OutputError(f"{path}: its group can write to it; chmod it to 0640 or less")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(min(limit, status.st_size))  # Python allocates as much as it may read
    finally:
        os.close(descriptor)


def replace_file(path: Path, *parts: bytes, mode: int) -> None:
    """Write a file of these parts atomically, replacing whatever has its name.

    Raises OutputError if another user could replace the file, OSError if it can't be written.
    """
    directory = open_directory(str(path.parent), trusted=trusted_users())
    try:
        new = f".{path.name}.{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(new, flags, mode, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(parts)
            os.replace(new, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(new, dir_fd=directory)
            raise
    finally:
        os.close(directory)


def publish_file(path: Path, data: bytes) -> None:
    """Write a file atomically, readable by everyone.

    The caller vouches for the directory, which may belong to the user of the reading program.
    Raises OSError if the file can't be written.
    """
    with publishing(path, 0o644) as file:
        file.write(data)


@contextlib.contextmanager
def publishing(path: Path, mode: int, owner: tuple[int, int] | None = None) -> Iterator[BinaryIO]:
    """Give a new file to write, which takes the place of ``path`` at the end.

    ``mode`` are its permission bits; ``owner`` is a uid and a gid that it is given to. The caller
    vouches for the directory. After an exception there is no new file. Raises OSError.
    """
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            os.fchmod(descriptor, mode)  # independent of the umask
            if owner is not None:
                os.fchown(descriptor, *owner)
        new.replace(path)
    except BaseException:
        new.unlink()
        raise


def _check_file(status: os.stat_result, path: str, trusted: Collection[int]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"{path}: is not a regular file")
    if status.st_nlink > 1:
        raise OutputError(f"{path}: has {status.st_nlink} names (hard links); it must have one")
    if status.st_uid not in trusted:
        raise OutputError(
            f"{path}: belongs to uid {status.st_uid}; it must belong to root or to the user that "
            "runs this program"
        )
    if status.st_mode & stat.S_IWOTH:
        raise OutputError(f"{path}: others can write to it; chmod it to 0640 or less")


@contextlib.contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    """Keep the directory of a path open."""
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def through(directory: int, path: Path) -> str:
    """Return a short path to a file in an open directory: sun_path is limited to 107 bytes."""
    return f"/proc/self/fd/{directory}/{path.name}"


MAX_FILE_SIZE = 1 << 20  # bytes of a configuration, rule or pattern file


def read_trusted(path: Path) -> str:
    """Read a file that decides what is audited: UTF-8, bounded, and not writable by others.

    Its owner must be root or this process's user; a group with write permission must be root's or
    this process's. Raises ConfigError.
    """
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if not (stat.S_ISREG(facts.st_mode) or stat.S_ISFIFO(facts.st_mode)):
                raise ConfigError(f"{path}: not a file")
            _refuse_untrusted(path, facts)
            content = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: can't be read: {reason}") from None
    if len(content) > MAX_FILE_SIZE:
        raise ConfigError(f"{path}: larger than {MAX_FILE_SIZE >> 20}MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from None


def _refuse_untrusted(path: Path, facts: os.stat_result) -> None:
    if facts.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{path}: owned by uid {facts.st_uid}, who could change what is audited; "
            f"chown root {path}"
        )
    shared = facts.st_mode & stat.S_IWGRP and facts.st_gid not in (0, os.getegid())
    if facts.st_mode & stat.S_IWOTH or shared:
        mode = stat.S_IMODE(facts.st_mode)
        raise ConfigError(
            f"{path}: others can write it (mode {mode:04o}) and so change what is audited; "
            f"chmod go-w {path}"
        )
