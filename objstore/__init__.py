"""objstore: an embedded object database whose storage is a directory one can look into.

    db = objstore.open("/path/of/the/store")
    with db.transaction() as connection:
        connection.root.people = BTrees.OOBTree.OOBTree()

`open`, `memory` and `copy` wire the parts: the filesystem, the engine that writes transactions through it, packing
and copying, and the objects above. The errors are told in `objstore.errors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Unpack

from objstore import errors
from objstore.contracts import Store, StoreOptions
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
    "copy",
    "errors",
    "memory",
    "open",
]

if TYPE_CHECKING:
    from objstore.copying import copy
else:  # a type checker that saw this would take any name for one of ours
    _LATER = {"copy": "objstore.copying"}
    """Public names that few programs use, and the modules that are imported when one is first asked for."""

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_LATER[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


def open(path: str | os.PathLike[str], **options: Unpack[Options]) -> DB:  # noqa: A001  # never starred
    """Open the store at a path, or at a URL `objstore:///path?option=value`.

    A store is created where there is none, unless `create=False`; `read_only=True` changes nothing on the
    disk, but for one's own place in the table of readers that processes share. `history` ("full" or
    "minimal") and `format` are chosen when a store is created, and checked afterwards. The other options are
    the fields of `contracts.StoreOptions` and of `objects.options.DatabaseOptions`; `docs/reference/api.md`
    lists them all, with their defaults and units.

    Raises UsageError for unknown options, OpenError and its kin, CorruptionError, StorageError.
    """
    location = locate(os.fspath(path), options)
    path = os.path.abspath(location.path)

    def opened(options: StoreOptions) -> Store:
        return open_store(path, options, filesystem=PosixFilesystem(), packer=pack)

    again = partial(opened, location.store._replace(create=False))  # where there was a store, none is created
    return _database(opened(location.store), location, again)


def memory(**options: Unpack[Options]) -> DB:
    """A database in memory, for tests of applications: the same engine, without a disk.

    `history` is "full" by default; the other options are those of `open`.
    """
    location = locate("/memory", options)
    store = open_store(location.path, location.store, filesystem=MemoryFilesystem(), packer=pack)
    return _database(store, location)


def _database(store: Store, location: Location, reopen: Callable[[], Store] | None = None) -> DB:
    try:
        return DB(store, location.database, reopen=reopen)
    except BaseException:
        store.close()
        raise
