"""A process's part in a store: its locks, and its blocks on the board.

Locks between processes, in the order in which they are taken, each after the lock of the process's own that
keeps its threads apart: `writer.lock` orders commits, `flush.lock` changes of the home, `pack.lock` is held by
the one pack or copy that runs, `claims.lock` while oids are reserved or blocks are claimed. The system takes them
back from a process that dies.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from threading import Lock
from weakref import WeakSet

from objstore.contracts import FileLock, Filesystem, Mutex
from objstore.errors import ClosedError
from objstore.formats.layouts import HomeDirectory
from objstore.machine.board import ALONE, PLACES, SIZE, Board
from objstore.machine.processes import is_alive, start_time

_members: WeakSet[Membership] = WeakSet()


def _after_fork() -> None:
    """In a child: what its parent has open is not the child's."""
    for member in list(_members):
        member.forked()


os.register_at_fork(after_in_child=_after_fork)


class Membership:
    """Made by `join` or, for a store that nobody else can see, by `alone`. May be used by any thread."""

    def __init__(self, board: Board, mutexes: tuple[Mutex, Mutex, Mutex, Mutex], *, is_writer: bool) -> None:
        self.board = board
        self.writer, self.flush, self.pack, self._claims = mutexes
        self._mutexes = mutexes
        self._pid = os.getpid()
        self.is_forked = False
        """Whether this is a child of the process that it was made in: nothing may be done with it."""
        self.lock: FileLock | None = None
        """What is held of `open.lock`."""
        _members.add(self)
        self._start = start_time(self._pid)
        self._is_writer = is_writer
        self._barrier = Lock()  # guards nothing: to take it is a full barrier
        self._claiming = Lock()  # guards the fields below, and keeps threads apart that claim
        self._blocks: list[int] = []
        self._free: list[int] = []  # places of snapshots
        self.block = self._claim()

    def _claim(self) -> int:
        with self.claims():
            block = self.board.claim(self._pid, self._start, self._is_writer)
            self._blocks.append(block)
            self._free += [self.board.place(block, number) for number in reversed(range(PLACES))]
            return block

    @contextlib.contextmanager
    def claims(self) -> Iterator[None]:
        """While inside, no other thread or process reserves oids or claims a block."""
        with self._claiming:
            self._claims.acquire()
            try:
                yield
            finally:
                self._claims.release()

    def own(self) -> None:
        """Say that this process has the store for itself."""
        self.board.words[ALONE] = self.block + 1

    @property
    def has_writer(self) -> bool:
        """Whether any process has the store open for writing. False where nobody can tell this one anything."""
        return self.board.is_live and self.board.has_writer()

    def owner_is_alive(self, block: int) -> bool:
        """Whether the process that a block belongs to lives; false where the block is free."""
        pid, start = self.board.owner(block)
        return bool(pid) and is_alive(pid, start)

    def place(self) -> int:
        """A place on the board for a snapshot. Raises StorageError where there is none."""
        while True:
            try:
                return self._free.pop()
            except IndexError:
                self._claim()

    def leave(self, place: int) -> None:
        """Give a place back. After `close` it is no longer this process's."""
        if self._blocks:
            self.board.words[place] = 0
            self._free.append(place)

    def hold(self, place: int, snapshot: int) -> None:
        """Write a snapshot into a place, before whatever is read next. Raises ClosedError after `close`."""
        if not self._blocks:
            raise ClosedError("the store")
        words = self.board.words
        words[place + 1] = int(time.time())
        words[place] = snapshot
        with self._barrier:  # the processor must not read ahead of the write
            pass

    def horizon(self, bound: int) -> int:
        """The oldest snapshot that any process holds, `bound` where none is older."""
        return self.board.oldest(bound)

    def forked(self) -> None:
        """Close the locks only: closing leaves to the parent what the parent holds."""
        self.is_forked = True
        self._close_locks()

    def close(self) -> None:
        """Leave the board, and close the locks."""
        if self.board.words[ALONE] == self.block + 1:
            self.board.words[ALONE] = 0
        for block in self._blocks:
            self.board.clear(block)
        self._blocks.clear()
        self._close_locks()

    def _close_locks(self) -> None:
        for mutex in self._mutexes:
            mutex.close()
        if self.lock is not None:
            self.lock.close()


class _NoMutex:
    """The lock of a store that nobody else can see."""

    def acquire(self, *, blocking: bool = True) -> bool:  # noqa: ARG002
        return True

    def release(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Counted:
    """A mutex that a process holds for as long as any of its threads is inside."""

    def __init__(self, mutex: Mutex) -> None:
        self._mutex = mutex
        self._lock = Lock()  # held while the mutex is waited for, too: the other threads would have to as well
        self._count = 0
        self._is_sound = True  # whether all who were inside came to their end
        self.entered: Callable[[], None] = lambda: None
        """Called when the process has taken the mutex, before anybody is let in."""
        self.left: Callable[[], None] = lambda: None
        """Called when the process is about to let go of it, unless somebody inside has failed."""

    def _enter(self, blocking: bool) -> bool:
        with self._lock:
            if not self._count:
                if not self._mutex.acquire(blocking=blocking):
                    return False
                try:
                    self.entered()
                except BaseException:
                    self._mutex.release()
                    raise
            self._count += 1
            return True

    def _leave(self, *, is_sound: bool) -> None:
        with self._lock:
            self._count -= 1
            self._is_sound &= is_sound
            if not self._count:
                if self._is_sound:
                    self.left()
                self._is_sound = True
                self._mutex.release()

    @contextlib.contextmanager
    def held(self, *, blocking: bool = True) -> Iterator[bool]:
        """While inside, the process holds it; whether it does, if not `blocking`."""
        if not self._enter(blocking):
            yield False
            return
        is_sound = False
        try:
            yield True
            is_sound = True
        finally:
            self._leave(is_sound=is_sound)


def shared_board(directory: HomeDirectory, filesystem: Filesystem) -> Board:
    """The board of a store. Raises OSError, also where it may not be written."""
    words = filesystem.share(directory.board, SIZE)
    return Board(words, directory.board, filesystem.file_number(directory.board))


def join(directory: HomeDirectory, filesystem: Filesystem, board: Board, *, is_writer: bool) -> Membership:
    """Become a member of a store. Raises OSError, StorageError."""
    paths = (directory.writer_lock, directory.flush_lock, directory.pack_lock, directory.claims_lock)
    mutexes = [filesystem.mutex(path) for path in paths]
    return Membership(board, (mutexes[0], mutexes[1], mutexes[2], mutexes[3]), is_writer=is_writer)


def alone(path: str) -> Membership:
    """For a reader that can tell nobody of itself, as on a filesystem that cannot be written."""
    board = Board(memoryview(bytearray(SIZE)).cast("Q"), path, 0)
    return Membership(board, (_NoMutex(), _NoMutex(), _NoMutex(), _NoMutex()), is_writer=False)
