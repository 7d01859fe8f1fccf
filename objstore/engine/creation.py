"""Creating a store: what is made in which order, and where none may be made.

1. make HOME and `locks`, and take the lock; 2. make the other directories, the marks and the home, and sync
them; 3. write `config/settings.toml` under a temporary name, sync it, rename it, sync its directory. Only a
directory with settings is a store, so a crash before 3 leaves the beginnings of one, which the next creation
completes; and what has settings is whole.

A store is never created because one is missing: without settings, a journal, home or marks that hold
anything are somebody's data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from objstore.contracts import FileLock, Filesystem, Format, History, LockedError, StoreOptions
from objstore.engine.failures import storage_error
from objstore.engine.homes import make_home
from objstore.engine.marks import FLUSHED, OIDS, Marks
from objstore.errors import NotAStoreError, OpenError, StoreLockedError, StoreMissingError
from objstore.formats.layouts import (
    TEMPORARY,
    HomeDirectory,
    parse_blob_name,
    parse_home_name,
    parse_journal_name,
    parse_segment_name,
)
from objstore.formats.settings import Settings
from objstore.ids import NO_TID, oid_from

DEFAULT_HISTORY, DEFAULT_FORMAT = History.FULL, Format.SEGMENTED


def lock_store(directory: HomeDirectory, filesystem: Filesystem, *, shared: bool) -> FileLock:
    """Hold `open.lock`: shared as all who write do, or to be the only one. Raises StoreLockedError."""
    try:
        return filesystem.lock(directory.open_lock, shared=shared)
    except LockedError as error:
        raise StoreLockedError(directory.path, error.pid) from error


def create(directory: HomeDirectory, options: StoreOptions, filesystem: Filesystem) -> FileLock:
    """Create a store unless another process was first, and hold its lock. Raises StoreLockedError, OpenError."""
    path = directory.path
    require_no_copy(directory, filesystem)
    if options.read_only or not options.create:
        raise missing(directory, filesystem)
    parent = os.path.dirname(path)
    if not filesystem.exists(parent):
        raise OpenError(path, f"the directory {parent} does not exist; make it first")
    if filesystem.exists(path):
        require_beginnings(directory, filesystem)
    ensure_directory(filesystem, path)
    filesystem.sync_directory(parent)
    ensure_directory(filesystem, directory.locks)
    lock = lock_store(directory, filesystem, shared=False)
    with undone_on_error(path, lock.close):
        if not filesystem.exists(directory.settings):  # else another process was first
            require_no_copy(directory, filesystem)
            require_beginnings(directory, filesystem)
            _fill(directory, options, filesystem)
    return lock


@contextlib.contextmanager
def undone_on_error(path: str, undo: Callable[[], None]) -> Iterator[None]:
    """Whatever fails inside is undone first. What the system refuses is raised as StorageError."""
    try:
        yield
    except BaseException as error:
        undo()
        if isinstance(error, OSError):
            raise storage_error(path, error) from error
        raise


def ensure_directory(filesystem: Filesystem, path: str) -> None:
    """Make a directory, if it is not there. Its name is not durable yet."""
    with contextlib.suppress(FileExistsError):
        filesystem.make_directory(path)


def require_no_copy(directory: HomeDirectory, filesystem: Filesystem) -> None:
    """Raises NotAStoreError where `engine.importing` has begun a store and not finished it."""
    if filesystem.exists(directory.unfinished):
        raise NotAStoreError(
            directory.path,
            "a copy into this directory was not finished, so it is no store; make the copy again, or remove the "
            "directory",
        )


def is_foreign(directory: HomeDirectory, filesystem: Filesystem) -> bool:
    places = directory.places
    return any(f"{directory.path}/{entry.name}" not in places for entry in filesystem.entries(directory.path))


def missing(directory: HomeDirectory, filesystem: Filesystem) -> OpenError:
    """The error for a directory without settings, where none is to be created."""
    if filesystem.exists(directory.path) and is_foreign(directory, filesystem):
        return NotAStoreError(directory.path, "this is no objstore store: it has no config/settings.toml")
    return StoreMissingError(directory.path)


def require_beginnings(directory: HomeDirectory, filesystem: Filesystem) -> None:
    """Raises NotAStoreError unless a directory is empty, or what an interrupted creation or copy has left."""
    if is_foreign(directory, filesystem):
        raise NotAStoreError(
            directory.path, "the directory is not empty and is no objstore store; choose another, or empty it"
        )
    if filesystem.exists(directory.unfinished):
        return  # what there is was copied, so it is still where it came from
    data = None
    if filesystem.exists(directory.journal):
        names = [entry.name for entry in filesystem.entries(directory.journal)]
        data = next((name for name in names if parse_journal_name(name) is not None), None)
    for place in (directory.home, directory.blobs):
        if data is None and filesystem.exists(place):
            data = _first_file(filesystem, place)
    if data is not None:
        raise NotAStoreError(
            directory.path,
            f"config/settings.toml is missing, but there is data ({data}); restore it",
        )


_DATA_NAMES = (parse_home_name, parse_segment_name, parse_blob_name)


def _first_file(filesystem: Filesystem, path: str) -> str | None:
    pending = [path]
    while pending:
        place = pending.pop()
        for entry in filesystem.entries(place):
            if entry.is_directory:
                pending.append(f"{place}/{entry.name}")
            elif any(parse(entry.name) is not None for parse in _DATA_NAMES):
                return entry.name
    return None


def _fill(directory: HomeDirectory, options: StoreOptions, filesystem: Filesystem) -> None:
    settings = Settings(options.history or DEFAULT_HISTORY, options.format or DEFAULT_FORMAT, new_identity())
    for place in (directory.config, directory.journal, directory.marks, directory.home):
        ensure_directory(filesystem, place)
    marks = Marks(filesystem, directory.marks)
    marks.advance(FLUSHED, NO_TID)
    marks.advance(OIDS, oid_from(1))
    make_home(filesystem, directory.home, settings.history, settings.format, NO_TID).prepare()
    for place in (directory.journal, directory.home, directory.locks, directory.path):
        filesystem.sync_directory(place)
    write_settings(directory, settings, directory.settings, filesystem)


def new_identity() -> str:
    """A random UUID, version 4 (RFC 9562). Importing the module `uuid` takes longer than opening a small store."""
    value = bytearray(os.urandom(16))
    value[6] = 0x40 | value[6] & 0x0F  # the version
    value[8] = 0x80 | value[8] & 0x3F  # the variant
    digits = value.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def write_settings(directory: HomeDirectory, settings: Settings, path: str, filesystem: Filesystem) -> None:
    """Write settings into the file `path` of the store's `config`, whole. Durable on return."""
    temporary = directory.settings + TEMPORARY
    if filesystem.exists(temporary):
        filesystem.unlink(temporary)
    with filesystem.create(temporary) as file:
        file.write(settings.encode())
        file.sync()
    filesystem.rename(temporary, path)
    filesystem.sync_directory(directory.config)
