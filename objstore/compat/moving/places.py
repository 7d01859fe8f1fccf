"""What the names of a source and a target mean, and how each is opened.

A URL is what its scheme says. A path is a store of objstore's own where there is a directory, a FileStorage where
there is a file, or where its name ends in `.fs`. What is read from is opened for reading.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urlencode

from objstore.compat.adopted import AdoptedStore, open_adopted
from objstore.compat.adopted.opening import PREFIX, file_path
from objstore.contracts import StoreOptions
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import ObjstoreError, OpenError, UsageError
from objstore.ids import NO_TID
from objstore.machine.posix import PosixFilesystem
from objstore.objects.options import is_foreign, locate
from objstore.upkeep.pack import pack

AnyStore = DirectoryStore | AdoptedStore


@contextmanager
def opened_source(where: str, *, blobs: str | None = None) -> Iterator[AnyStore]:
    """The store to read from. `blobs` is the directory where a storage of ZODB's has them.

    Raises OpenError and its kin, UsageError.
    """
    if blobs is not None and not os.path.isdir(blobs):
        raise OpenError(blobs, "there is no such directory")
    written, where = where, _with_blobs(where, blobs)
    path = file_path(where) if is_foreign(where) else where
    if path is not None and is_file_storage(where) and not os.path.exists(path):
        raise OpenError(path, "there is no such file")
    store = _open(where, {"read_only": True, "create": False}, written)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_target(
    where: str, *, history: str | None = None, format: str | None = None, blobs: str | None = None
) -> Iterator[AnyStore]:
    """The store to write to, created where there is none: of this `history` mode and `format`, if it is ours.

    `blobs` is the directory where a storage of ZODB's is to have them. A FileStorage that was created, and into
    which nothing was moved because of an error, is removed again. Raises OpenError and its kin, UsageError.
    """
    written, where = where, _with_blobs(where, blobs)
    wanted = {name: value for name, value in (("history", history), ("format", format)) if value is not None}
    if wanted and is_file_storage(where):
        raise UsageError(f"{' and '.join(wanted)}: {where} is no store of objstore's own")
    made = _made_by_opening(where, blobs)
    store = _open(where, wanted, written)
    needless: list[str] = []
    try:
        yield store
    except BaseException:
        with suppress(ObjstoreError, OSError):
            if made and store.last_tid() == NO_TID:
                os.unlink(made[0])  # while it is open, so that nobody else begins to use it
                needless = made[1:]
        raise
    finally:
        store.close()
        _remove(needless)  # afterwards: closing writes an index


def _made_by_opening(where: str, blobs: str | None) -> list[str]:
    """The files that ZODB makes when it creates a FileStorage, its own first; none where that is there already."""
    path = file_path(where) if is_foreign(where) else where
    if path is None or not is_file_storage(where) or os.path.exists(path):
        return []
    beside = [f"{path}{suffix}" for suffix in (".index", ".tmp", ".lock")]
    if blobs is not None:
        beside.append(blobs)
    return [path, *(each for each in beside if not os.path.exists(each))]


def _remove(paths: list[str]) -> None:
    for path in paths:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _with_blobs(where: str, blobs: str | None) -> str:
    """The URL of a storage of ZODB's that has its blobs in a directory. Raises UsageError for other stores."""
    if blobs is None:
        return where
    if not is_file_storage(where):
        raise UsageError(f"{where} is a store of objstore's own, which has its blobs itself")
    url = where if is_foreign(where) else f"file://{os.path.abspath(where)}"
    name = "blobstorage_dir" if url.removeprefix(PREFIX).startswith("file:") else "blob_dir"
    return f"{url}{'&' if '?' in url else '?'}{urlencode({name: os.path.abspath(blobs)})}"


def is_file_storage(where: str) -> bool:
    """Whether this names a storage of ZODB's."""
    return is_foreign(where) or where.endswith(".fs") or os.path.isfile(where)


def _open(where: str, options: Mapping[str, object], written: str) -> AnyStore:
    if is_file_storage(where):
        url = where if is_foreign(where) else f"file://{os.path.abspath(where)}"
        read_only = bool(options.get("read_only", False))
        return open_adopted(url, StoreOptions(read_only=read_only, create=not read_only), written=written)
    location = locate(where, options)
    return open_store(os.path.abspath(location.path), location.store, filesystem=PosixFilesystem(), packer=pack)
