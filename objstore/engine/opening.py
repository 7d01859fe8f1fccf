"""Opening a store: alone, beside other processes, or for reading only.

`open.lock` is held shared by every process that writes. Who gets it exclusively is the first: it recovers the
journal, begins the board, and goes on with a shared lock. Who does not get it finds the board of those who are
there, and joins them. Where neither is possible somebody is just opening or closing: then it is tried again.

Readers do not hold that lock: what recovery drops, nobody sees. Where there is a board that they may write they
stand in its table of readers; where not, as on a filesystem that cannot be written, they see what there is when
they open it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import NamedTuple

from objstore.contracts import FileLock, Filesystem, LockedError, Packer, StoreOptions
from objstore.engine.creation import create, lock_store, missing, require_no_copy
from objstore.engine.homes import make_home
from objstore.engine.journal import Journal
from objstore.engine.marks import FLUSHED, Marks
from objstore.engine.membership import Membership, alone, join, shared_board
from objstore.engine.peers import OtherProcesses
from objstore.engine.recovery import examine, recover, require_whole
from objstore.engine.standing import Standing, beginning, examined
from objstore.engine.store import DirectoryStore
from objstore.errors import (
    CorruptionError,
    NetworkFilesystemError,
    OpenError,
    StoreLockedError,
    StoreMismatchError,
)
from objstore.formats.layouts import HomeDirectory
from objstore.formats.settings import Settings, decode_settings
from objstore.ids import Tid, number

_PAUSE = 0.01
_ATTEMPTS = 1000
"""How often, and after which pause in seconds, it is tried to become the first or to join the others."""
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}


def open_store(
    path: str,
    options: StoreOptions,
    *,
    filesystem: Filesystem,
    packer: Packer,
    clock: Callable[[], float] = time.time,
    tolerant: bool = False,
) -> DirectoryStore:
    """Open the store at `path` (absolute), creating it where `options` ask for that.

    `tolerant` opens a store whose journal is damaged, as far as it is whole: read-only, for a check. Raises
    OpenError and its kin, CorruptionError, StorageError.
    """
    directory = HomeDirectory(path)
    opening = _Opening(directory, options, filesystem, packer, clock, tolerant)
    kind = None if options.force else filesystem.network_type(path)
    if kind is not None:
        raise NetworkFilesystemError(path, kind)
    try:
        return opening.for_reading() if options.read_only else opening.for_writing()
    except OSError as error:
        raise OpenError(path, error.strerror or str(error)) from error


class _Opening(NamedTuple):
    directory: HomeDirectory
    options: StoreOptions
    filesystem: Filesystem
    packer: Packer
    clock: Callable[[], float]
    tolerant: bool

    # --- to write ---

    def for_writing(self) -> DirectoryStore:
        """Open it alone or beside others, whichever is possible first."""
        last: StoreLockedError | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE)
            try:
                lock = self._locked()
            except StoreLockedError as error:
                last = self._refusal(error)
                store = self._beside_others()
            else:
                store = self._alone(lock)
            if store is not None:
                return store
        raise last or StoreLockedError(self.directory.path, None)

    def _refusal(self, error: StoreLockedError) -> StoreLockedError:
        """Raise it at once where waiting does not help: somebody has the store for himself, or we want that."""
        if not self.filesystem.exists(self.directory.board):
            return error
        board = shared_board(self.directory, self.filesystem)
        owner = board.owner_alone() if board.is_live else 0
        if owner:
            raise StoreLockedError(self.directory.path, owner) from error
        others = board.living() if board.is_live else []
        if self.options.exclusive and others:
            raise StoreLockedError(self.directory.path, *others) from error
        return error

    def _locked(self) -> FileLock:
        if self.filesystem.exists(self.directory.settings):
            return lock_store(self.directory, self.filesystem, shared=False)
        try:
            return create(self.directory, self.options, self.filesystem)
        except OpenError:
            if not self.filesystem.exists(self.directory.settings):
                raise
            return lock_store(self.directory, self.filesystem, shared=False)  # another process was first

    def _alone(self, lock: FileLock) -> DirectoryStore:
        """Be the first. The exclusive lock is given up for a shared one once everything is in order."""
        with ExitStack() as undoing:
            undoing.callback(lock.close)
            parts = self._parts()
            # The process that created the store may have been killed before it could sync the settings' name.
            self.filesystem.sync_directory(self.directory.config)
            found = recover(self.directory, parts.journal, parts.marks)
            board = shared_board(self.directory, self.filesystem)
            board.begin(number(found.last), number(Tid(parts.marks.get(FLUSHED))))
            standing = beginning(board, found)
            others = board.living() if self.options.exclusive else []
            if others:  # they only read, but they do
                raise StoreLockedError(self.directory.path, *others)
            membership = join(self.directory, self.filesystem, board, is_writer=True)
            undoing.callback(membership.close)
            if self.options.exclusive:
                membership.own()
            else:
                lock.close()
                lock = self._shared()
                undoing.callback(lock.close)
            store = self._store(parts, lock, membership, standing)
            undoing.pop_all()
            return store

    def _shared(self) -> FileLock:
        for _ in range(_ATTEMPTS):
            try:
                return self.filesystem.lock(self.directory.open_lock, shared=True)
            except LockedError:  # another process tries whether it is alone
                time.sleep(_PAUSE)
        raise StoreLockedError(self.directory.path, None)

    def _beside_others(self) -> DirectoryStore | None:
        """Join those who have it open; None where nobody has, or somebody is about to have."""
        if self.options.exclusive or not self.filesystem.exists(self.directory.settings):
            return None
        try:
            lock = self.filesystem.lock(self.directory.open_lock, shared=True)
        except LockedError:
            return None
        with ExitStack() as undoing:
            undoing.callback(lock.close)
            board = shared_board(self.directory, self.filesystem)
            if not board.is_live or not board.has_writer():
                return None
            parts = self._parts()
            membership = join(self.directory, self.filesystem, board, is_writer=True)
            undoing.callback(membership.close)
            store = self._store(parts, lock, membership, examined(board, parts.journal, parts.marks))
            undoing.pop_all()
            return store

    # --- to read ---

    def for_reading(self) -> DirectoryStore:
        """Follow those who write it, or see it as it is."""
        if not self.filesystem.exists(self.directory.settings):
            require_no_copy(self.directory, self.filesystem)
            raise missing(self.directory, self.filesystem)
        board, membership = None, None
        try:
            if self.filesystem.exists(self.directory.board):
                board = shared_board(self.directory, self.filesystem)
                owner = board.owner_alone() if board.is_live else 0
                if owner:
                    raise StoreLockedError(self.directory.path, owner)
                if board.is_own:
                    membership = join(self.directory, self.filesystem, board, is_writer=False)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
        is_followed = membership is not None
        if board is None or membership is None:
            membership = alone(self.directory.board)
            board = membership.board
        with ExitStack() as undoing:
            undoing.callback(membership.close)
            parts = self._parts()
            if is_followed and board.is_live and board.has_writer():
                standing = examined(board, parts.journal, parts.marks)
            else:
                found = examine(parts.journal, parts.marks)
                if not self.tolerant:
                    require_whole(found)
                standing = beginning(board, found)
            store = self._store(parts, _NoLock(), membership, standing, follows=is_followed)
            undoing.pop_all()
            return store

    # --- both ---

    def _parts(self) -> _Parts:
        directory, filesystem = self.directory, self.filesystem
        settings = decode_settings(filesystem.read(directory.settings), directory.settings)
        _require_match(directory.path, settings, self.options)
        if not filesystem.exists(directory.home):
            raise CorruptionError(directory.home, "the home is missing; mount it, or restore it from a backup")
        marks = Marks(filesystem, directory.marks)
        marks.read()
        prefix = os.urandom(4)
        return _Parts(settings, marks, Journal(filesystem, directory.journal, prefix), prefix)

    def _store(
        self, parts: _Parts, lock: FileLock, membership: Membership, standing: Standing, *, follows: bool = True
    ) -> DirectoryStore:
        settings, others = parts.settings, OtherProcesses(membership, is_live=follows)
        flushed = Tid(parts.marks.get(FLUSHED))
        membership.lock = lock
        return DirectoryStore(
            self.directory,
            settings,
            self.options,
            membership=membership,
            journal=parts.journal,
            marks=parts.marks,
            home=make_home(
                self.filesystem, self.directory.home, settings.history, settings.format, flushed, others
            ),
            standing=standing,
            others=others,
            packer=self.packer,
            clock=self.clock,
            new_token=_tokens(parts.prefix),
        )


class _Parts(NamedTuple):
    settings: Settings
    marks: Marks
    journal: Journal
    prefix: bytes


class _NoLock:
    """What a reader holds of `open.lock`."""

    def close(self) -> None:
        """Nothing."""


def _tokens(prefix: bytes) -> Callable[[], bytes]:
    """Tokens that no other transaction has: random in the first half, counted in the second."""
    numbers = count(1)
    return lambda: prefix + (next(numbers) & 0xFFFFFFFF).to_bytes(4, "big")


def _require_match(path: str, settings: Settings, options: StoreOptions) -> None:
    for what, there, asked in (
        ("history", settings.history, options.history),
        ("format", settings.format, options.format),
    ):
        if asked is not None and asked is not there:
            raise StoreMismatchError(
                path, f"the store was created with {what}={there.value!r}, not {asked.value!r}; leave {what} out"
            )
