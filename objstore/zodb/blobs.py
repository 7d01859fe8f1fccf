"""Blobs in the terms of ZODB: files that it writes, and paths of those that are committed.

ZODB writes a blob into a file of `temporaryDirectory`, under a name that it makes, and gives that away by
`storeBlob`. There the file is renamed: into the store's own temporary files, and from there into the transaction.
What is committed it knows by a path, which it expects to stay while the revision is kept: so the file goes to
where it stays as soon as ZODB asks for it.
"""

from __future__ import annotations

import tempfile
from types import SimpleNamespace
from typing import IO

from ZODB.blob import BlobFile

from objstore.engine.blobs import Blobs
from objstore.errors import BlobMissingError
from objstore.ids import Oid, Tid


def temporary_directory(files: Blobs) -> str:
    """Where ZODB is to write what is not committed. A store that is open for reading has no place for it."""
    return tempfile.gettempdir() if files.read_only else files.zodb_directory()


def open_committed(files: Blobs, oid: Oid, serial: Tid, blob: object) -> IO[bytes]:
    """Open the blob of a revision: as ZODB's BlobFile for a `blob`, else as an ordinary file.

    Raises BlobMissingError.
    """
    try:
        return _opened(files.path(oid, serial), blob)
    except FileNotFoundError:  # somebody flushes what we may only read
        try:
            return _opened(files.path(oid, serial), blob)
        except FileNotFoundError as error:
            raise BlobMissingError(oid, tid=serial) from error


def _opened(path: str, blob: object) -> IO[bytes]:
    if blob is None:
        return open(path, "rb")
    file: IO[bytes] = BlobFile(path, "r", blob)
    return file


def helper(files: Blobs) -> SimpleNamespace:
    """What ZODB's functions that copy storages, and wrappers around storages, ask a storage's `fshelper`."""

    def filename(oid: bytes, tid: bytes) -> str:
        try:
            return files.path(Oid(oid), Tid(tid))
        except BlobMissingError:
            return files.outside(files.final_path(Oid(oid), Tid(tid)))

    return SimpleNamespace(temp_dir=temporary_directory(files), getBlobFilename=filename)
