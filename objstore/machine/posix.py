"""The filesystem of a POSIX system: the one place that calls it.

What it promises beyond `contracts.Filesystem`: no descriptor stays open after an error, none is inherited
by a child that executes another program, and a write is either whole or an error, however little of it the
system takes at a time. `os.write` takes at most 0x7ffff000 bytes on Linux, and less on a disk that fills.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable
from io import BufferedWriter, FileIO, RawIOBase
from types import TracebackType
from typing import TYPE_CHECKING, Self

import zc.lockfile

from objstore.contracts import Entry, FileLock, LockedError, Mutex, WritableFile
from objstore.later import Later

if TYPE_CHECKING:
    import shutil
else:
    shutil = Later("shutil")

Write = Callable[[int, memoryview], int]
WriteAt = Callable[[int, memoryview, int], int]

_READ = os.O_RDONLY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_WRITE_OVER = os.O_WRONLY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SURE_LENGTH = 2**20
"""Up to this many bytes are asked for unseen: `os.pread` makes a buffer of the length that it is asked for."""
_PID_LENGTH = 32
_PIECE = 2**20
"""How many bytes are copied at a time through memory."""
_AT_ONCE = 2**30
"""How many the system is asked to copy at a time."""
NETWORK_TYPES = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"}
"""Filesystems of other machines: their locks may hold on one host only, or their syncs reach nothing that
lasts.
"""


class PosixFilesystem:
    """`contracts.Filesystem` on the system's own files. It has no state, so threads may share it.

    `write` and `pwrite` stand for the functions of `os`, so that tests may hand in some that write less.
    """

    def __init__(self, *, write: Write = os.write, pwrite: WriteAt = os.pwrite) -> None:
        self._write = write
        self._pwrite = pwrite

    # --- files ---

    def create(self, path: str) -> WritableFile:
        """Create and open a file. Raises FileExistsError where the name is taken, by a dead link too."""
        return PosixFile(os.open(path, _CREATE, 0o666), path, self._write, self._pwrite)

    def open_existing(self, path: str) -> WritableFile:
        """Open a file to write over its content from the start. Its length stays."""
        return PosixFile(os.open(path, _WRITE_OVER), path, self._write, self._pwrite)

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        descriptor = os.open(path, _READ)
        try:
            return _read(descriptor, 0, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`: fewer only where the file ends.

        A length or an offset beyond reason, as damaged files give, costs nothing.
        """
        descriptor = os.open(path, _READ)
        try:
            if length > _SURE_LENGTH or offset > _SURE_LENGTH:
                length = min(length, max(0, os.fstat(descriptor).st_size - offset))
            return _read(descriptor, offset, length) if length else b""
        finally:
            os.close(descriptor)

    def map(self, path: str) -> memoryview:
        """The content of a file, through the page cache."""
        descriptor = os.open(path, _READ)
        try:
            if not os.fstat(descriptor).st_size:
                return memoryview(b"")  # nothing cannot be mapped
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(descriptor)

    def release(self, mapped: memoryview) -> None:
        """Drop the pages of a map from this process; the page cache keeps them while there is room."""
        if isinstance(mapped.obj, mmap.mmap):
            mapped.obj.madvise(mmap.MADV_DONTNEED)

    def open_file(self, path: str, mode: str) -> RawIOBase:
        """A file as Python has it."""
        return FileIO(path, f"{mode}b")

    def copy(self, old: str, new: str) -> None:
        """Make a file with the content of another; where the filesystem can, both share their blocks."""
        with FileIO(old) as source, FileIO(new, "xb") as target:
            try:
                _copy(source, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise

    def take(self, outside: str, path: str) -> None:
        """Rename a file over `path`, if it is a regular one of this user's and has no other name; else copy it."""
        facts = os.lstat(outside)
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and facts.st_uid == os.geteuid():
            try:
                directory = os.open(os.path.dirname(outside) or ".", _DIRECTORY)
                try:
                    mode = stat.S_IMODE(os.stat(path).st_mode)
                    os.rename(outside, path)
                    os.fsync(directory)  # else a power cut could give the file back to where it was
                finally:
                    os.close(directory)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES):
                    raise
            else:
                os.chmod(path, mode)
                return
        with FileIO(outside) as source, FileIO(path, "wb") as target:
            _copy(source, target)
        os.unlink(outside)

    def outside(self, path: str) -> str:
        """The path."""
        return path

    def protect(self, path: str) -> None:
        """Take away the permission to write, if the file is this user's."""
        facts = os.stat(path)
        if facts.st_mode & _WRITABLE and facts.st_uid == os.geteuid():
            os.chmod(path, stat.S_IMODE(facts.st_mode) & ~_WRITABLE)

    def size(self, path: str) -> int:
        """The length of a file in bytes."""
        return os.stat(path).st_size

    def exists(self, path: str) -> bool:
        """Whether there is a file or a directory of this name. Raises PermissionError where none can tell."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name, replacing a file of that name atomically."""
        os.rename(old, new)

    # --- directories ---

    def entries(self, path: str) -> list[Entry]:
        """What a directory holds, in no order."""
        with os.scandir(path) as found:
            return [Entry(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]

    def make_directory(self, path: str) -> None:
        """Make a directory whose parent exists. Raises FileExistsError."""
        os.mkdir(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, _DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # --- room ---

    def free_bytes(self, path: str) -> int:
        """How much this user may still write on the filesystem of `path`."""
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def allocated_bytes(self, path: str) -> int:
        """How much of the disk a file occupies."""
        return os.stat(path).st_blocks * 512

    # --- locks ---

    def lock(self, path: str, *, shared: bool = False) -> FileLock:
        """Lock a file: exclusively, writing this process's pid into it, or shared, writing nothing.

        The locks are the kernel's (flock), so none outlives its holder. A missing file cannot be locked for
        sharing, and needs not be: nobody has ever opened this store for writing. Raises LockedError.
        """
        return _shared_lock(path) if shared else _exclusive_lock(path)

    def file_number(self, path: str) -> int:
        """Device and inode, as one number of 63 bits."""
        facts = os.stat(path)
        return (facts.st_dev << 40 ^ facts.st_ino) & (2**63 - 1)

    def network_type(self, path: str) -> str | None:
        """What /proc/self/mountinfo says of the mount that holds `path`; None where there is no such file."""
        while not os.path.exists(path) and path != os.path.dirname(path):
            path = os.path.dirname(path)
        try:
            with open("/proc/self/mountinfo", "rb") as file:
                mounts = [line.split() for line in file]
        except OSError:
            return None
        device = os.stat(path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}".encode()
        types = [fields[fields.index(b"-") + 1].decode() for fields in mounts if fields[2] == number]
        return next((each for each in types if each in NETWORK_TYPES), None)

    def mutex(self, path: str) -> Mutex:
        """A flock on a file, created where it is missing; one that may only be read can be locked too."""
        try:
            return PosixMutex(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            return PosixMutex(os.open(path, _READ))

    def share(self, path: str, size: int) -> memoryview:
        """A file mapped for reading and writing, with room allocated, so that no look at it can fail."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.fstat(descriptor).st_size < size:
                os.posix_fallocate(descriptor, 0, size)
            return memoryview(mmap.mmap(descriptor, size)).cast("Q")
        finally:
            os.close(descriptor)


class PosixFile:
    """A file open for writing: a descriptor, and its path for the messages."""

    __slots__ = ("_descriptor", "_path", "_pwrite", "_write")

    def __init__(self, descriptor: int, path: str, write: Write, pwrite: WriteAt) -> None:
        self._descriptor = descriptor
        self._path = path
        self._write = write
        self._pwrite = pwrite

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data` at the position, however often the system writes less. Raises OSError."""
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                done += self._taken(self._write(self._descriptor, rest[done:]))

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`; the position stays. Raises OSError."""
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                done += self._taken(self._pwrite(self._descriptor, rest[done:], offset + done))

    def allocate(self, size: int) -> None:
        """Make sure that no write up to `size` can fail for want of room, as far as the system can promise it.

        Costs one look at the file's length where it is long enough: what it has was allocated before. Raises
        OSError.
        """
        length = os.fstat(self._descriptor).st_size
        if length < size:
            os.posix_fallocate(self._descriptor, length, size - length)

    def _taken(self, count: int) -> int:
        if count <= 0:
            raise OSError(errno.EIO, "the system took none of the bytes to be written", self._path)
        return count

    def sync(self) -> None:
        """Make the content, and the size, durable. After an error nobody knows what is on the disk."""
        if self._descriptor < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close without syncing. Closing twice is allowed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PosixMutex:
    """A descriptor to be locked by flock."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; whether that was possible, if not `blocking`."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not blocking:
                return False
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Let go of it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class ExclusiveLock:
    """A lock file that holds this process's pid."""

    __slots__ = ("_file", "_path", "_pid")

    def __init__(self, path: str, file: zc.lockfile.LockFile) -> None:
        self._path = path
        self._pid = os.getpid()
        self._file: zc.lockfile.LockFile | None = file

    def close(self) -> None:
        """Let go of it. The file stays, and names nobody, lest it accuse who no longer holds it.

        In a forked child the parent goes on holding it: the lock belongs to what both have open, so that the child
        must close its descriptor and not unlock.
        """
        file, self._file = self._file, None
        if file is not None and self._pid != os.getpid():
            file._fp.close()
        elif file is not None:
            with contextlib.suppress(OSError):  # a pid that stays is only a wrong word in a message
                _blank(self._path)
            file.close()


class SharedLock:
    """A descriptor that holds a shared flock; None where there was no file to lock."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of it. The file stays."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _copy(source: FileIO, target: FileIO) -> None:
    """Copy what is left of a file: by the system, which may share blocks, or through memory, a piece at a time."""
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), _AT_ONCE):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            raise
        target.seek(source.tell())
        with BufferedWriter(target, _PIECE) as buffered:
            shutil.copyfileobj(source, buffered, _PIECE)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) == length:
        return data
    parts = []
    while data:  # the system may give less than it was asked for, and gives nothing only at the end
        parts.append(data)
        offset += len(data)
        length -= len(data)
        data = os.pread(descriptor, length, offset) if length else b""
    return b"".join(parts)


def _exclusive_lock(path: str) -> ExclusiveLock:
    try:
        return ExclusiveLock(path, zc.lockfile.LockFile(path))
    except zc.lockfile.LockError as error:
        raise LockedError(path, _holder(path)) from error


def _shared_lock(path: str) -> SharedLock:
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return SharedLock(None)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LockedError(path, _holder(path)) from error
    except BaseException:
        os.close(descriptor)
        raise
    return SharedLock(descriptor)


def _blank(path: str) -> None:
    descriptor = os.open(path, _WRITE_OVER)
    try:  # written over rather than cut, so that the file keeps its block for when the disk is full
        os.pwrite(descriptor, b" " * _PID_LENGTH, 0)
    finally:
        os.close(descriptor)


def _holder(path: str) -> int | None:
    """The pid in a lock file, if it is that of a living process: one that was killed leaves its own."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return None
    try:
        pid = int(os.pread(descriptor, _PID_LENGTH, 0))
        if pid <= 0:
            return None
        os.kill(pid, 0)
    except PermissionError:  # it lives, and is another user's
        return pid
    except (OSError, ValueError, OverflowError):
        return None
    finally:
        os.close(descriptor)
    return pid
