"""Transactions of another storage, restored in this one under the tids that they have there."""

from __future__ import annotations

from typing import Any

from ZODB.blob import is_blob_record
from ZODB.POSException import StorageError


def copy_transactions(source: Any, target: Any) -> None:
    """Restore every transaction of a storage in another. Raises ZODB's StorageError where it holds blobs."""
    transactions = source.iterator()
    try:
        for transaction in transactions:
            _copy(transaction, target)
    finally:
        if hasattr(transactions, "close"):
            transactions.close()


def _copy(transaction: Any, target: Any) -> None:
    target.tpc_begin(transaction, transaction.tid, transaction.status)
    try:
        for record in transaction:
            if is_blob_record(record.data):
                raise StorageError(
                    f"object {record.oid.hex()} is a blob, which {target.getName()} cannot hold; "
                    "nothing after the transaction before it was copied"
                )
            target.restore(record.oid, record.tid, record.data, "", record.data_txn, transaction)
        target.tpc_vote(transaction)
    except BaseException:
        target.tpc_abort(transaction)
        raise
    target.tpc_finish(transaction)
