"""Transactions of another storage, restored in this one under the tids that they have there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ZODB.blob import is_blob_record
from ZODB.interfaces import IBlobStorage
from ZODB.POSException import POSKeyError, StorageError


def copy_transactions(source: Any, target: Any) -> None:
    """Restore every transaction of a storage in another, with its blobs.

    Raises ZODB's StorageError where the source has records of blobs and not their files.
    """
    transactions = source.iterator()
    try:
        for transaction in transactions:
            _copy(transaction, source, target)
    finally:
        if hasattr(transactions, "close"):
            transactions.close()


def _copy(transaction: Any, source: Any, target: Any) -> None:
    target.tpc_begin(transaction, transaction.tid, transaction.status)
    try:
        for record in transaction:
            found = _blob(record, source) if is_blob_record(record.data) else None
            if found is None:
                target.restore(record.oid, record.tid, record.data, "", record.data_txn, transaction)
                continue
            with _copied(found, target) as path:
                target.restoreBlob(record.oid, record.tid, record.data, path, record.data_txn, transaction)
        target.tpc_vote(transaction)
    except BaseException:
        target.tpc_abort(transaction)
        raise
    target.tpc_finish(transaction)


def _blob(record: Any, source: Any) -> str | None:
    """The path of a blob; None where the source has lost it."""
    if not IBlobStorage.providedBy(source):
        raise StorageError(
            f"object {record.oid.hex()} is a blob, and {source.getName()} was opened without the files of its "
            "blobs; nothing after the transaction before it was copied"
        )
    try:
        return str(source.loadBlob(record.oid, record.tid))
    except POSKeyError:
        return None


@contextmanager
def _copied(path: str, target: Any) -> Iterator[str]:
    """A copy of a file, to be given away inside."""
    descriptor, copy = tempfile.mkstemp(dir=target.temporaryDirectory())
    os.close(descriptor)
    try:
        shutil.copyfile(path, copy)
        yield copy
    finally:
        with suppress(FileNotFoundError):  # it was taken
            os.unlink(copy)
