"""A filesystem in memory: what `objstore.memory()` and most tests stand on.

It keeps the contract of `contracts.Filesystem`, errors included, but for what a power cut leaves: that is
nothing, so syncing costs nothing. It is for one process; its locks hold among those who share the object.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
import weakref
from io import RawIOBase
from types import TracebackType
from typing import Self

from objstore.contracts import Entry, FileLock, LockedError, Mutex, WritableFile
from objstore.machine.nodefiles import NodeFile
from objstore.machine.tree import Directory, File, Tree, error

_ENDLESS = 2**62


class MemoryFilesystem:
    """`contracts.Filesystem` in memory, for any number of threads.

    `capacity` is how many bytes its files may hold together, None for as many as the machine has. A write
    past it writes what fits and raises OSError with ENOSPC, as a disk does. `tree` is what it begins with.
    """

    def __init__(self, *, capacity: int | None = None, tree: Tree | None = None) -> None:
        self.capacity = capacity
        self._guard = threading.Lock()  # the tree, the room used, and the locks; nothing is locked inside
        self._tree = tree if tree is not None else Tree()
        self._used = 0
        self._locks: dict[File, _Holders] = {}
        self._mutexes: dict[str, threading.Lock] = {}
        self._shared: dict[str, memoryview] = {}
        self._outside: str | None = None
        self._shown: weakref.WeakKeyDictionary[File, str] = weakref.WeakKeyDictionary()

    # --- files ---

    def create(self, path: str) -> WritableFile:
        """Create and open a file. Raises FileExistsError where the name is taken."""
        with self._guard:
            return MemoryFile(self, self._tree.create(path), path)

    def open_existing(self, path: str) -> WritableFile:
        """Open a file to write over its content from the start. Its length stays."""
        with self._guard:
            return MemoryFile(self, self._tree.file(path), path)

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        with self._guard:
            return bytes(self._tree.file(path).data)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`: fewer only where the file ends."""
        if offset < 0 or length < 0:
            raise error(errno.EINVAL, path)
        with self._guard:
            return bytes(self._tree.file(path).data[offset : offset + length])

    def map(self, path: str) -> memoryview:
        """The content of a file, as it is now. Looking at it again costs no copy."""
        with self._guard:
            file = self._tree.file(path)
            file.data = bytes(file.data)
            return memoryview(file.data)

    def release(self, mapped: memoryview) -> None:
        """Nothing: what is mapped is in memory."""

    def open_file(self, path: str, mode: str) -> RawIOBase:
        """A file as Python has it."""
        with self._guard:
            if mode == "w" and not self._has(path):
                self._tree.create(path)
            file = self._tree.file(path)

        def write(offset: int, data: bytes) -> None:
            self._write(file, offset, data, path)

        def cut(size: int) -> None:
            with self._guard:
                if file.named:
                    self._used -= len(file.data) - size
                file.data = bytes(file.data[:size])

        if mode == "r":
            return NodeFile(file)
        if mode == "w":
            cut(0)
        return NodeFile(file, readable=mode == "r+", write=write, cut=cut)

    def copy(self, old: str, new: str) -> None:
        """Make a file with the content of another."""
        content = self.read(old)
        with self.create(new) as file:
            file.write(content)

    def take(self, outside: str, path: str) -> None:
        """Read a file of the system into memory, and remove it there."""
        with open(outside, "rb") as source, self.open_file(path, "w") as target:
            shutil.copyfileobj(source, target)
        os.unlink(outside)

    def outside(self, path: str) -> str:
        """A copy of a file in a temporary directory, which goes with this filesystem."""
        with self._guard:
            file = self._tree.file(path)
            if self._outside is None:
                self._outside = tempfile.mkdtemp(prefix="objstore-memory-")
                weakref.finalize(self, shutil.rmtree, self._outside, ignore_errors=True)
            shown = self._shown.get(file)
            if shown is None:
                descriptor, shown = tempfile.mkstemp(prefix=f"{path.rpartition('/')[2]}.", dir=self._outside)
                with open(descriptor, "wb") as target:
                    target.write(file.data)
                self._shown[file] = shown
                weakref.finalize(file, _unlink, shown)
            return shown

    def protect(self, path: str) -> None:
        """Nothing: what the system knows is a copy."""

    def _has(self, path: str) -> bool:
        try:
            self._tree.node(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, path: str) -> int:
        """The length of a file in bytes; 0 for a directory."""
        with self._guard:
            node = self._tree.node(path)
            return len(node.data) if isinstance(node, File) else 0

    def exists(self, path: str) -> bool:
        """Whether there is a file or a directory of this name."""
        with self._guard:
            return self._has(path)

    def unlink(self, path: str) -> None:
        """Remove a file. Who has it open may go on writing."""
        with self._guard:
            self._used -= len(self._tree.unlink(path).data)

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name, replacing a file of that name atomically."""
        with self._guard:
            replaced = self._tree.rename(old, new)
            if isinstance(replaced, File):
                self._used -= len(replaced.data)

    # --- directories ---

    def entries(self, path: str) -> list[Entry]:
        """What a directory holds, in no order."""
        with self._guard:
            names = self._tree.directory(path).names
            return [Entry(name, isinstance(node, Directory)) for name, node in names.items()]

    def make_directory(self, path: str) -> None:
        """Make a directory whose parent exists. Raises FileExistsError."""
        with self._guard:
            self._tree.make_directory(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        with self._guard:
            self._tree.remove_directory(path)

    def sync_directory(self, path: str) -> None:
        """Nothing, but that the directory must be there."""
        with self._guard:
            self._tree.directory(path)

    # --- room ---

    def free_bytes(self, path: str) -> int:
        """How much may still be written."""
        with self._guard:
            self._tree.node(path)
            return _ENDLESS if self.capacity is None else max(0, self.capacity - self._used)

    def allocated_bytes(self, path: str) -> int:
        """The length of a file."""
        return self.size(path)

    def _write(self, file: File, offset: int, data: bytes | memoryview, path: str) -> int:
        """Write what there is room for; how much that was."""
        with self._guard:
            growth = offset + len(data) - len(file.data) if data else 0
            if growth > 0 and file.named:
                if self.capacity is not None and growth > self.capacity - self._used:
                    room = max(0, self.capacity - self._used)
                    fitting = max(0, len(file.data) + room - offset)
                    self._grow(file, offset, data[:fitting])
                    raise error(errno.ENOSPC, path)
                self._grow(file, offset, data)
            else:
                file.write(offset, data)
        return len(data)

    def _grow(self, file: File, offset: int, data: bytes | memoryview) -> None:
        before = len(file.data)
        file.write(offset, data)
        self._used += len(file.data) - before

    # --- locks ---

    def lock(self, path: str, *, shared: bool = False) -> FileLock:
        """Lock a file, creating it for an exclusive lock. Raises LockedError at once."""
        with self._guard:
            try:
                file = self._tree.file(path)
            except FileNotFoundError:
                if shared:
                    return MemoryLock(self, None)
                file = self._tree.create(path)
            holders = self._locks.get(file)
            if holders is not None and not (shared and holders.shared):
                raise LockedError(path, None if holders.shared else holders.pid)
            if holders is None:
                holders = self._locks[file] = _Holders(shared)
            holders.count += 1
            return MemoryLock(self, file)

    def file_number(self, path: str) -> int:  # noqa: ARG002
        """1: nothing is ever copied with what processes share."""
        return 1

    def network_type(self, path: str) -> str | None:  # noqa: ARG002
        """None: it is this process's."""
        return None

    def mutex(self, path: str) -> Mutex:
        """A lock among those who ask for the same path."""
        with self._guard:
            self._tree.place(path)
            return MemoryMutex(self._mutexes.setdefault(path, threading.Lock()))

    def share(self, path: str, size: int) -> memoryview:
        """Words that those share who ask for the same path."""
        with self._guard:
            self._tree.place(path)
            words = self._shared.get(path)
            if words is None:
                directory, name = self._tree.place(path)
                directory.names.setdefault(name, File())  # so that one sees that there is one
                words = self._shared[path] = memoryview(bytearray(size)).cast("Q")
            return words

    def _unlock(self, file: File) -> None:
        with self._guard:
            holders = self._locks[file]
            holders.count -= 1
            if not holders.count:
                del self._locks[file]


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


class MemoryFile:
    """A file of a `MemoryFilesystem`, open for writing."""

    __slots__ = ("_file", "_filesystem", "_path", "_position")

    def __init__(self, filesystem: MemoryFilesystem, file: File, path: str) -> None:
        self._filesystem = filesystem
        self._file: File | None = file
        self._path = path
        self._position = 0

    def _open_file(self) -> File:
        if self._file is None:
            raise error(errno.EBADF, self._path)
        return self._file

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data` at the position. Raises OSError."""
        self._position += self._filesystem._write(self._open_file(), self._position, data, self._path)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`; the position stays. Raises OSError."""
        self._filesystem._write(self._open_file(), offset, data, self._path)

    def allocate(self, size: int) -> None:
        """Let the file be at least `size` bytes long. Raises OSError."""
        file = self._open_file()
        length = len(file.data)
        if length < size:
            self._filesystem._write(file, length, bytes(size - length), self._path)

    def sync(self) -> None:
        """Nothing, but that the file must be open."""
        self._open_file()

    def close(self) -> None:
        """Close. Closing twice is allowed."""
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryMutex:
    """One handle of a lock: closing it lets go of what it holds."""

    __slots__ = ("_held", "_lock")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._held = False

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; whether that was possible, if not `blocking`."""
        self._held = self._lock.acquire(blocking)
        return self._held

    def release(self) -> None:
        """Let go of it, if it is held."""
        if self._held:
            self._held = False
            self._lock.release()

    def close(self) -> None:
        """Let go of it."""
        self.release()


class _Holders:
    """Who holds a lock: how many for sharing, or the one who does not share."""

    __slots__ = ("count", "pid", "shared")

    def __init__(self, shared: bool) -> None:
        self.shared = shared
        self.count = 0
        self.pid = os.getpid()


class MemoryLock:
    """A lock that is held; `file` is None where there was no file to lock."""

    __slots__ = ("_file", "_filesystem")

    def __init__(self, filesystem: MemoryFilesystem, file: File | None) -> None:
        self._filesystem = filesystem
        self._file = file

    def close(self) -> None:
        """Let go of it. The file stays."""
        file, self._file = self._file, None
        if file is not None:
            self._filesystem._unlock(file)
