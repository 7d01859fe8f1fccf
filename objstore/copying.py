"""`objstore.copy`, which few programs call: its code is imported when it is first asked for."""

from __future__ import annotations

import os

from objstore.contracts import Progress, Store
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import UsageError
from objstore.machine.posix import PosixFilesystem
from objstore.objects import DB
from objstore.objects.options import locate
from objstore.upkeep.copy import CopyReport
from objstore.upkeep.copy import copy as copy_store
from objstore.upkeep.pack import pack


def copy(
    source: str | os.PathLike[str] | DB,
    dest: str | os.PathLike[str],
    *,
    history: str | None = None,
    format: str | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy a store into a new one, of the same or of another `history` mode ("full" or "minimal") and `format`.

    The source is a path or URL, which is opened for reading meanwhile, or a database that is open: what is
    committed when the copy begins is copied, and others go on. `dest` is a directory that is not there yet, or
    empty, or what an interrupted copy has left. `verify` compares every record and transaction afterwards.

    Raises UsageError, OpenError and its kin for either, CorruptionError for what cannot be read, or where `verify`
    finds a difference, StorageFullError, StorageError. Then `dest` is no store, and is refused by `open`.
    """
    wanted = {name: value for name, value in (("history", history), ("format", format)) if value is not None}
    target = locate(os.fspath(dest), wanted)

    def copied(store: Store) -> CopyReport:
        if not isinstance(store, DirectoryStore):
            raise UsageError(f"{store.name} is no store of objstore's own, and cannot be copied")
        return copy_store(
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
    store = open_store(os.path.abspath(location.path), location.store, filesystem=PosixFilesystem(), packer=pack)
    try:
        return copied(store)
    finally:
        store.close()
