"""How the commands open a store, and which revision of an object they are about.

A command that only looks opens its store for reading, which changes nothing and creates nothing. No command but
`init` creates a store. All but `undo` and `shell` need the store alone, without the objects above it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from objstore.cli.parameters import upto
from objstore.contracts import Store
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import POSKeyError, UsageError
from objstore.ids import Oid, Tid
from objstore.machine.posix import PosixFilesystem
from objstore.objects import DB
from objstore.objects.options import locate
from objstore.revisions import Revision
from objstore.upkeep.pack import pack


@contextmanager
def opened(
    where: str, *, read_only: bool = True, create: bool = False, tolerant: bool = False, **options: Any
) -> Iterator[DirectoryStore]:
    """The store at a path or URL, closed at the end.

    `options` are those of `objstore.open`; `tolerant` is told at `engine.opening.open_store`. Raises
    `errors.OpenError`, `CorruptionError`, `UsageError` for a URL that makes no sense, and what closing raises.
    """
    location = locate(where, {"create": create, "read_only": read_only, **options})
    path = os.path.abspath(location.path)
    store = open_store(path, location.store, filesystem=PosixFilesystem(), packer=pack, tolerant=tolerant)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_database(where: str, *, read_only: bool = False) -> Iterator[DB]:
    """The database of a store that exists; as `opened`."""
    with opened(where, read_only=read_only) as store, DB(store, locate(where, {}).database) as database:
        yield database


def find_revision(store: Store, oid: Oid, tid: Tid | None, at: datetime | None) -> tuple[Revision, bytes]:
    """The revision that `tid` wrote or found, or that was current at a time; else the current one.

    With it its data, which is not None. Raises `errors.UsageError` where both are given, `POSKeyError` where
    there is no such revision or the object is deleted in it, `HistoryMissingError` where that past is not kept.
    """
    if tid is not None and at is not None:
        raise UsageError("--tid and --at exclude each other")
    revision = _written(store, oid, tid) if tid is not None else None
    if revision is None:
        view = store.view(upto(at) if at is not None else tid)
        try:
            _, serial = view.load(oid)
            revision = store.revision(oid, serial)
        finally:
            view.close()
    if revision.data is None:
        raise POSKeyError(oid, tid=tid)
    return revision, revision.data


def _written(store: Store, oid: Oid, tid: Tid) -> Revision | None:
    """The revision that the transaction `tid` wrote, which may be older than the time that was packed to."""
    try:
        return store.revision(oid, tid)
    except POSKeyError:
        return None
