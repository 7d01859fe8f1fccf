"""ZODB's adapter for storages without snapshots of their own, and who resolves conflicts.

Storages resolve conflicts by ZODB's rules, importing whatever class a record names. Ours does so by
`allowed_classes`, and says why it refused. ZODB asks the database, which it calls a storage's wrapper, to undo
what it did to a record before it resolves anything; there this one refuses while objstore stores, so that a
storage raises ConflictError and leaves the rest to us.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ZODB.interfaces import IMVCCStorage
from ZODB.mvccadapter import MVCCAdapter
from ZODB.POSException import ConflictError
from ZODB.serialize import referencesf


class Refusal(threading.local):
    """Whether this thread lets a storage resolve conflicts by itself."""

    _met: Callable[[], object] | None = None

    @contextmanager
    def during(self, met: Callable[[], object]) -> Iterator[None]:
        """While inside, a storage that this thread uses resolves no conflict: `met` is called where it would."""
        self._met = met
        try:
            yield
        finally:
            self._met = None

    def pass_on(self, data: bytes) -> bytes:
        """The record as it is, for a storage that may resolve; else ZODB's ConflictError."""
        if self._met is not None:
            self._met()
            raise ConflictError("objstore resolves this conflict")
        return data


class Adapter(MVCCAdapter):  # type: ignore[misc]
    """Gives each connection a snapshot of a storage that has none."""

    def __init__(self, storage: Any, refusal: Refusal) -> None:
        self._refusal = refusal
        super().__init__(storage)

    def untransform_record_data(self, data: bytes) -> bytes:
        return self._refusal.pass_on(data)


class Wrapper:
    """What a storage with snapshots of its own knows of its database."""

    references = staticmethod(referencesf)

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def untransform_record_data(self, data: bytes) -> bytes:
        return self._refusal.pass_on(data)

    def transform_record_data(self, data: bytes) -> bytes:
        return data

    def invalidate(self, tid: bytes, oids: Any) -> None:
        """Such a storage tells its instances by itself."""

    def invalidateCache(self) -> None:
        """Such a storage tells its instances by itself."""


def adapted(storage: Any, refusal: Refusal) -> Any:
    """The storage as one whose `new_instance` gives snapshots."""
    if not IMVCCStorage.providedBy(storage):
        return Adapter(storage, refusal)
    if hasattr(storage, "registerDB"):
        storage.registerDB(Wrapper(refusal))
    return storage
