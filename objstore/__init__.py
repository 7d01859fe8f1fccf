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
from typing import TYPE_CHECKING, Unpack

from objstore import errors
from objstore.contracts import PackOptions, PackReport, PackTarget, Progress, Store, StoreOptions
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
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
from objstore.ids import Tid
from objstore.later import Later
from objstore.machine.posix import PosixFilesystem
from objstore.objects import DB, Connection
from objstore.objects.blobs import Blob
from objstore.objects.options import Location, Options, is_foreign, locate

if TYPE_CHECKING:
    from objstore.compat import adopted
    from objstore.machine import memory as in_memory
    from objstore.upkeep import copy as copying
    from objstore.upkeep import pack as packing
else:
    adopted, in_memory = Later("objstore.compat.adopted"), Later("objstore.machine.memory")
    copying, packing = Later("objstore.upkeep.copy"), Later("objstore.upkeep.pack")

__all__ = [
    "DB",
    "Blob",
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


def open(path: str | os.PathLike[str], **options: Unpack[Options]) -> DB:  # noqa: A001  # never starred
    """Open the store at a path, or at a URL `objstore:///path?option=value`; or a storage of ZODB's at its URL.

    A store is created where there is none, unless `create=False`; `read_only=True` changes nothing on the
    disk, but for one's own place in the table of readers that processes share. `history` ("full" or
    "minimal") and `format` are chosen when a store is created, and checked afterwards. The other options are
    the fields of `contracts.StoreOptions` and of `objects.options.DatabaseOptions`; `docs/reference/api.md`
    lists them all, with their defaults and units.

    Storages of ZODB's are `file:///path/Data.fs`, `zeo://host:port`, `postgresql://user@host:port/database`, and
    what else the installed packages teach zodburi; `zodb+` may stand before any such URL. They need the extra
    `zodb`, and take the options of the database, `create` and `read_only`.

    Raises UsageError for unknown options, OpenError and its kin, CorruptionError, StorageError.
    """
    where = os.fspath(path)
    if is_foreign(where):
        return _adopted(where, options)
    location = locate(where, options)
    path = os.path.abspath(location.path)

    def opened(options: StoreOptions) -> Store:
        return open_store(path, options, filesystem=PosixFilesystem(), packer=_pack)

    again = partial(opened, location.store._replace(create=False))  # where there was a store, none is created
    return _database(opened(location.store), location, again)


def _adopted(uri: str, options: Options) -> DB:
    """The database over a storage of ZODB's; ZODB is imported here and not before."""
    try:
        store, database = adopted.adopted_options(uri, options)
    except ModuleNotFoundError as error:
        reason = f"the package {error.name} is missing; install objstore[zodb], which opens ZODB's storages"
        raise OpenError(uri, reason) from error
    opened = partial(adopted.open_adopted, uri)
    again = partial(opened, store._replace(create=False))
    return _database(opened(store), Location(uri, store, database), again)


def memory(**options: Unpack[Options]) -> DB:
    """A database in memory, for tests of applications: the same engine, without a disk.

    `history` is "full" by default; the other options are those of `open`.
    """
    location = locate("/memory", options)
    store = open_store(location.path, location.store, filesystem=in_memory.MemoryFilesystem(), packer=_pack)
    return _database(store, location)


def copy(
    source: str | os.PathLike[str] | DB,
    dest: str | os.PathLike[str],
    *,
    history: str | None = None,
    format: str | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> copying.CopyReport:
    """Copy a store into a new one, of the same or of another `history` mode ("full" or "minimal") and `format`.

    The source is a path or URL, which is opened for reading meanwhile, or a database that is open: what is
    committed when the copy begins is copied, and others go on. `dest` is a directory that is not there yet, or
    empty, or what an interrupted copy has left. `verify` compares every record and transaction afterwards.

    Raises UsageError, OpenError and its kin for either, CorruptionError for what cannot be read, or where `verify`
    finds a difference, StorageFullError, StorageError. Then `dest` is no store, and is refused by `open`.
    """
    wanted = {name: value for name, value in (("history", history), ("format", format)) if value is not None}
    target = locate(os.fspath(dest), wanted)

    def copied(store: Store) -> copying.CopyReport:
        if not isinstance(store, DirectoryStore):
            raise UsageError(f"{store.name} is no store of objstore's own, and cannot be copied")
        return copying.copy(
            store,
            os.path.abspath(target.path),
            PosixFilesystem(),
            history=target.store.history,
            format=target.store.format,
            verify=verify,
            progress=progress,
        )

    if isinstance(source, DB):
        return copied(source.store)
    location = locate(os.fspath(source), {"read_only": True})
    store = open_store(os.path.abspath(location.path), location.store, filesystem=PosixFilesystem(), packer=_pack)
    try:
        return copied(store)
    finally:
        store.close()


def _pack(
    target: PackTarget,
    upto: Tid,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    options: PackOptions | None = None,
) -> PackReport:
    return packing.pack(target, upto, dry_run=dry_run, progress=progress, options=options)


def _database(store: Store, location: Location, reopen: Callable[[], Store] | None = None) -> DB:
    try:
        return DB(store, location.database, reopen=reopen)
    except BaseException:
        store.close()
        raise
