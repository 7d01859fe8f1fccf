"""A filesystem for tests that knows what a power cut would leave, and cuts the power where it is told to.

It runs in memory, as `MemoryFilesystem` does, and records every operation that changes something. From the
record it derives, for a crash after any operation, the states that the disk may be in (`durability` has the
rules). A state starts a new filesystem, on which recovery can run, and crash in turn. It can also fail on
demand: with an error, with a disk that is full until somebody makes room, or with the end of the process.

Everything is determined by the operations and the seed of the random numbers handed in.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import RawIOBase
from random import Random
from typing import Self

from durability import (
    GROWING,
    CrashState,
    Durability,
    Entry,
    Kind,
    NameChange,
    Operation,
    Place,
    Sync,
    Write,
)

from objstore import contracts
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.nodefiles import NodeFile
from objstore.machine.tree import Directory, File, Tree

When = int | Callable[[Operation], bool]


class Crash(BaseException):
    """The process is dead: no handler of errors runs in a process whose power was cut."""


class SimulatedFilesystem:
    """A `contracts.Filesystem`, empty or as a crash has left it, all of which is durable then.

    `before_operation` is called with each operation that is about to happen, outside of all locks: it may
    read, switch threads, raise, or do operations of its own, which then come before. `before_read` is
    called likewise with the path of a file that is about to be read. `ignores_sync` chooses syncs that do
    nothing and say that they did, as a disk does that lies, or a mistake in the program.
    """

    def __init__(self, state: CrashState | None = None) -> None:
        self.before_operation: Callable[[Operation], None] | None = None
        self.before_read: Callable[[str], None] | None = None
        self.ignores_sync: Callable[[Operation], bool] | None = None
        self.stopped = False
        self._tree = state.tree() if state is not None else Tree()
        self._live = MemoryFilesystem(tree=self._tree)
        self._log: list[Entry] = []
        self._begun = Durability.of_tree(self._tree)
        self._durability: Durability | None = None
        self._guard = threading.RLock()  # the tree and the log change together
        self._stop_before: int | None = None
        self._failures: list[tuple[Callable[[Operation], bool], OSError]] = []
        self._full = False

    # --- what a test asks for ---

    @property
    def operations(self) -> int:
        """How many operations there were."""
        return len(self._log)

    @property
    def log(self) -> list[Operation]:
        """The operations, in order."""
        return [entry.operation for entry in self._log]

    def stop_before(self, index: int) -> None:
        """Raise `Crash` instead of doing the operation of this index, and for all that is asked afterwards."""
        self._stop_before = index

    def stop(self) -> None:
        """Raise `Crash` for all that is asked from here on."""
        self.stopped = True

    def restart(self) -> None:
        """Begin a new process on a filesystem whose power was never cut: all is there, and nobody locks it."""
        self.stopped = False
        self._stop_before = None
        self._live = MemoryFilesystem(tree=self._tree)

    def fail_at(self, when: When, error: OSError) -> None:
        """Raise `error`, once, instead of doing an operation: the one of an index, or that a function chooses.

        A write that fails for want of room has written its first half. What a sync that fails was to sync
        may be lost although a later sync succeeds.
        """
        chosen = when if callable(when) else lambda operation: operation.index == when
        self._failures.append((chosen, error))

    def fill_at(self, index: int) -> None:
        """Let the disk be full from this operation on: files and directories are not made, nor written to."""

        def fills(operation: Operation) -> bool:
            self._full = operation.index >= index and operation.kind in GROWING
            return self._full

        self.fail_at(fills, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def make_room(self) -> None:
        """The disk is no longer full, and nothing is to fail any more."""
        self._full = False
        self._failures.clear()

    def crash_states(self, after: int | None = None, *, rng: Random, limit: int = 50) -> Iterator[CrashState]:
        """What a crash may leave after so many operations (all, by default): up to `limit` different states.

        Nothing that was not synced, everything, each thing lost alone and kept alone come first, then random
        choices. Asking for one point after the other in their order costs least.
        """
        with self._guard:
            after = len(self._log) if after is None else after
            durability = self._durability
            if durability is None or durability.position > after:
                durability = self._durability = self._begun.again()
            for entry in self._log[durability.position : after]:
                durability.advance(entry)
            at_risk = durability.at_risk()
        return at_risk.states(rng, limit)

    # --- operations ---

    def _require_life(self) -> None:
        if self.stopped:
            raise Crash

    def _begin(self, kind: Kind, path: str, target: str = "", offset: int = 0, size: int = 0) -> OSError | None:
        """Announce an operation; the error that it is to fail with, if it is."""
        self._require_life()
        operation = Operation(len(self._log), kind, path, target, offset, size)
        if self.before_operation is not None:
            self.before_operation(operation)
            self._require_life()
            operation = replace(operation, index=len(self._log))
        if self._stop_before is not None and operation.index >= self._stop_before:
            self.stopped = True
            raise Crash
        for failure in self._failures:
            chosen, error = failure
            if chosen(operation):
                self._failures.remove(failure)
                return OSError(error.errno, error.strerror, path)
        if self._full and kind in GROWING:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return None

    def create(self, path: str) -> contracts.WritableFile:
        """Create and open a file. Raises FileExistsError where the name is taken."""
        if error := self._begin(Kind.CREATE, path):
            raise error
        with self._guard:
            handle = self._live.create(path)
            file, place = self._tree.file(path), Place(*self._tree.place(path))
            self._log.append(NameChange(Operation(len(self._log), Kind.CREATE, path), file, None, place))
        return SimulatedFile(self, handle, file, path)

    def open_existing(self, path: str) -> contracts.WritableFile:
        """Open a file to write over its content from the start."""
        self._require_life()
        with self._guard:
            return SimulatedFile(self, self._live.open_existing(path), self._tree.file(path), path)

    def make_directory(self, path: str) -> None:
        """Make a directory whose parent exists. Raises FileExistsError."""
        if error := self._begin(Kind.MAKE_DIRECTORY, path):
            raise error
        with self._guard:
            self._live.make_directory(path)
            node, place = self._tree.node(path), Place(*self._tree.place(path))
            self._log.append(NameChange(Operation(len(self._log), Kind.MAKE_DIRECTORY, path), node, None, place))

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name, replacing a file of that name atomically."""
        if error := self._begin(Kind.RENAME, old, new):
            raise error
        with self._guard:
            node, removed = self._tree.node(old), Place(*self._tree.place(old))
            self._live.rename(old, new)
            added = Place(*self._tree.place(new))
            self._log.append(NameChange(Operation(len(self._log), Kind.RENAME, old, new), node, removed, added))

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self._remove(Kind.UNLINK, path, self._live.unlink)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        self._remove(Kind.REMOVE_DIRECTORY, path, self._live.remove_directory)

    def _remove(self, kind: Kind, path: str, remove: Callable[[str], None]) -> None:
        if error := self._begin(kind, path):
            raise error
        with self._guard:
            node, place = self._tree.node(path), Place(*self._tree.place(path))
            remove(path)
            self._log.append(NameChange(Operation(len(self._log), kind, path), node, place, None))

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        self._sync(Kind.SYNC_DIRECTORY, path, lambda: self._tree.directory(path))

    def _sync(self, kind: Kind, path: str, node: Callable[[], File | Directory]) -> None:
        error = self._begin(kind, path)
        with self._guard:
            operation = Operation(len(self._log), kind, path)
            ignored = self.ignores_sync is not None and self.ignores_sync(operation)
            self._log.append(Sync(operation, node(), failed=error is not None or ignored))
        if error is not None:
            raise error

    def _write(
        self,
        write: Callable[[bytes], None],
        file: File,
        offset: int,
        data: bytes,
        path: str,
        kind: Kind = Kind.WRITE,
    ) -> None:
        if kind is Kind.WRITE and offset + len(data) <= len(file.data):
            kind = Kind.OVERWRITE  # which needs no room
        error = self._begin(kind, path, offset=offset, size=len(data))
        if error is not None:
            data = data[: len(data) // 2] if error.errno == errno.ENOSPC else b""
        with self._guard:
            write(data)
            if data or error is None:
                operation = Operation(len(self._log), kind, path, offset=offset, size=len(data))
                self._log.append(Write(operation, file, offset, data))
        if error is not None:
            raise error

    def open_file(self, path: str, mode: str) -> RawIOBase:
        """A file as Python has it, which cannot be cut."""
        if mode == "r":
            self._announce(path)
            return self._live.open_file(path, mode)
        handle = self.create(path) if mode == "w" and not self.exists(path) else self.open_existing(path)
        return NodeFile(self._tree.file(path), readable=mode == "r+", write=handle.write_at)

    def copy(self, old: str, new: str) -> None:
        """Make a file with the content of another."""
        content = self.read(old)
        with self.create(new) as file:
            file.write(content)

    def take(self, outside: str, path: str) -> None:
        """Read a file of the system, and remove it there."""
        with open(outside, "rb") as source, self.open_existing(path) as file:
            file.write(source.read())
        os.unlink(outside)

    def outside(self, path: str) -> str:
        """A copy of a file in a temporary directory."""
        self._announce(path)
        return self._live.outside(path)

    def protect(self, path: str) -> None:
        """Nothing that would last."""

    # --- reading and locking, which change nothing that lasts ---

    def _announce(self, path: str) -> None:
        self._require_life()
        if self.before_read is not None:
            self.before_read(path)
            self._require_life()

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        self._announce(path)
        return self._live.read(path)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`: fewer only where the file ends."""
        self._announce(path)
        return self._live.read_at(path, offset, length)

    def map(self, path: str) -> memoryview:
        """The content of a file, as it is now."""
        self._announce(path)
        return self._live.map(path)

    def release(self, mapped: memoryview) -> None:
        """Nothing: what is mapped is in memory."""

    def size(self, path: str) -> int:
        """The length of a file in bytes."""
        self._require_life()
        return self._live.size(path)

    def exists(self, path: str) -> bool:
        """Whether there is a file or a directory of this name."""
        self._require_life()
        return self._live.exists(path)

    def entries(self, path: str) -> list[contracts.Entry]:
        """What a directory holds, in the order of names."""
        self._require_life()
        return sorted(self._live.entries(path), key=lambda entry: entry.name)

    def free_bytes(self, path: str) -> int:
        """Much, unless the disk is full."""
        self._require_life()
        return 0 if self._full else self._live.free_bytes(path)

    def allocated_bytes(self, path: str) -> int:
        """The length of a file."""
        self._require_life()
        return self._live.allocated_bytes(path)

    def lock(self, path: str, *, shared: bool = False) -> contracts.FileLock:
        """Lock a file, creating it for an exclusive lock. Raises LockedError at once."""
        self._require_life()
        if not shared and not self._live.exists(path):
            self.create(path).close()
        return self._live.lock(path, shared=shared)

    def file_number(self, path: str) -> int:
        """What tells a file from all others."""
        self._require_life()
        return self._live.file_number(path)

    def network_type(self, path: str) -> str | None:
        """None: it is this machine's."""
        self._require_life()
        return self._live.network_type(path)

    def mutex(self, path: str) -> contracts.Mutex:
        """A lock between processes: it lasts no longer than they do."""
        self._require_life()
        return self._live.mutex(path)

    def share(self, path: str, size: int) -> memoryview:
        """Words that processes share: they mean nothing once the last one has ended."""
        self._require_life()
        return self._live.share(path, size)


class SimulatedFile:
    """A file of a `SimulatedFilesystem`, open for writing."""

    def __init__(
        self, filesystem: SimulatedFilesystem, handle: contracts.WritableFile, file: File, path: str
    ) -> None:
        self._filesystem = filesystem
        self._handle = handle
        self._file = file
        self._path = path
        self._position = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data` at the position."""
        self._filesystem._write(self._handle.write, self._file, self._position, bytes(data), self._path)
        self._position += len(data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`; the position stays."""

        def write(data: bytes) -> None:
            self._handle.write_at(offset, data)

        self._filesystem._write(write, self._file, offset, bytes(data), self._path)

    def allocate(self, size: int) -> None:
        """Let the file be at least `size` bytes long."""
        length = len(self._file.data)
        if length < size:

            def write(data: bytes) -> None:
                self._handle.write_at(length, data)

            zeros = bytes(size - length)
            self._filesystem._write(write, self._file, length, zeros, self._path, Kind.ALLOCATE)

    def sync(self) -> None:
        """Make the content, and the size, durable."""
        self._handle.sync()
        self._filesystem._sync(Kind.SYNC, self._path, lambda: self._file)

    def close(self) -> None:
        """Close without syncing. The dead may close too."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
