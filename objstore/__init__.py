"""objstore: an embedded object database whose storage is a directory one can look into.

    db = objstore.open("/path/of/the/store")
    with db.transaction() as connection:
        connection.root.people = BTrees.OOBTree.OOBTree()

`open` and `memory` wire the parts: the filesystem, the engine that writes transactions through it, packing,
and the objects above. The errors are told in `objstore.errors`.
"""

from __future__ import annotations

import os
from typing import Unpack

from objstore import errors
from objstore.contracts import Store
from objstore.engine.opening import open_store
from objstore.errors import (
    ConflictError,
    DataError,
    ObjstoreError,
    OpenError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    StorageError,
    StoreMissingError,
    TransientStoreError,
    UndoError,
    UsageError,
)
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem
from objstore.objects import DB, Connection
from objstore.objects.options import Location, Options, locate
from objstore.upkeep.pack import pack

__all__ = [
    "DB",
    "ConflictError",
    "Connection",
    "DataError",
    "OpenError",
    "ObjstoreError",
    "POSKeyError",
    "ReadConflictError",
    "ReadOnlyError",
    "StorageError",
    "StoreMissingError",
    "TransientStoreError",
    "UndoError",
    "UsageError",
    "errors",
    "memory",
    "open",
]


def open(path: str | os.PathLike[str], **options: Unpack[Options]) -> DB:  # noqa: A001  # never starred
    """Open the store at a path, or at a URL `objstore:///path?option=value`.

    A store is created where there is none, unless `create=False`; `read_only=True` changes nothing on the
    disk. `history` ("full" or "minimal") and `format` are chosen when a store is created, and checked
    afterwards. The other options are the fields of `contracts.StoreOptions` and of
    `objects.options.DatabaseOptions`; `docs/reference/api.md` lists them all, with their defaults and units.

    Raises UsageError for unknown options, OpenError and its kin, CorruptionError, StorageError.
    """
    location = locate(os.fspath(path), options)
    store = open_store(os.path.abspath(location.path), location.store, filesystem=PosixFilesystem(), packer=pack)
    return _database(store, location)


def memory(**options: Unpack[Options]) -> DB:
    """A database in memory, for tests of applications: the same engine, without a disk.

    `history` is "full" by default; the other options are those of `open`.
    """
    location = locate("/memory", options)
    store = open_store(location.path, location.store, filesystem=MemoryFilesystem(), packer=pack)
    return _database(store, location)


def _database(store: Store, location: Location) -> DB:
    try:
        return DB(store, location.database)
    except BaseException:
        store.close()
        raise
