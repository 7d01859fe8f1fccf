"""Packing as ZODB asks for it: to a time in seconds, with a function that reads references.

That function is needed only for records of which the store does not know what they refer to, because a wrapper
around the storage, or around a client of a server, had transformed them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from objstore.contracts import PackOptions
from objstore.engine.store import DirectoryStore
from objstore.errors import SerializationError
from objstore.ids import Oid, pack_oids, tid_at
from objstore.zodb.resolving import Records


def pack_storage(
    store: DirectoryStore,
    seconds: float,
    collect: bool,
    records: Records,
    referencesf: Callable[..., Any] | None,
) -> None:
    """Pack to a time. As FileStorage does it, the newest transactions are packed like all others."""

    def references(data: bytes) -> bytes:
        found = records.references(data)
        if found is None and referencesf is not None:
            try:
                found = pack_oids(map(Oid, referencesf(data)))
            except Exception as error:  # whatever a pickle that is none, or is made to, leads to
                raise SerializationError(f"its references cannot be read: {error}") from error
        if found is None:
            raise SerializationError("its references cannot be read")
        return found

    options = PackOptions(collect=collect, protect=0, references=references)
    store.pack(tid_at(datetime.fromtimestamp(seconds, UTC)), options=options)
